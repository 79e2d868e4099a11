import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, currently_in_test_context, given, settings
from hypothesis import strategies as st
from torch import nn

from hedgerow.errors import DataError, RecipeError
from hedgerow.sequence import Budget, Row
from hedgerow.train.chunks import predict
from hedgerow.train.loss import Sums, by_task, weighted_loss
from hedgerow.weights.dynamic import Confidence, Entropy, Focal, Top


def plain(model, row, *, dynamic=None, z_loss=0.0):
    """The loss as one would write it down: all logits at once, weights detached; and the weights."""
    logits = model.head(model(row)[row.source])
    logp = logits.log_softmax(-1)
    ce = -logp.gather(-1, row.target[:, None])[:, 0]
    p = (-ce.detach()).exp()
    entropy = -(logp.exp() * logp).sum(-1).detach()
    factor = 1.0
    if isinstance(dynamic, Focal):
        factor = (1 - p) ** dynamic.gamma
    elif isinstance(dynamic, Confidence):
        factor = p
    elif isinstance(dynamic, Entropy):
        factor = (entropy / dynamic.ceiling).clamp(max=1.0) ** dynamic.alpha
    elif isinstance(dynamic, Top):
        excess = ce.detach() if row.reference is None else ce.detach() + row.reference
        score = {"ce": ce.detach(), "entropy": entropy, "excess": excess}[dynamic.by]
        factor = torch.zeros_like(ce)
        for sample in range(len(row.samples)):
            mine = torch.nonzero((row.sample == sample) & (row.weight > 0))[:, 0]
            order = score[mine].argsort(descending=True, stable=True)  # of equal ones the first
            most = int(np.ceil(dynamic.share * len(mine) - 1e-9))
            ranked = score[mine][order]
            if currently_in_test_context() and 0 < most < len(mine):
                assume(ranked[most - 1] - ranked[most] > 1e-9)  # otherwise rounding decides
            kept = mine[order][:most]
            factor[kept] = 1.0
    weight = row.weight * factor
    return (weight * (ce + z_loss * logits.logsumexp(-1).square())).sum(), weight


DYNAMIC = [
    None,
    Focal(gamma=2.0),
    Confidence(),
    Entropy(),
    Top(share=0.4),
    Top(0.5, "entropy"),
    Top(0.3, "excess"),
]


@pytest.fixture
def case(toy):
    model = toy.Toy(dtype=torch.float64)
    row = toy.rows(toy.sequences(6), 6)[0]
    return model, row


def gradients(model):
    return [parameter.grad for parameter in model.parameters()]


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 999),
    chunk=st.integers(1, 40),
    z_loss=st.sampled_from([0.0, 1e-2]),
    dynamic=st.sampled_from(DYNAMIC),
    bias=st.booleans(),
)
def test_loss_and_gradients_are_those_of_the_plain_formula_for_any_chunk(
    toy, seed, chunk, z_loss, dynamic, bias
):
    model = toy.Toy(dtype=torch.float64, seed=seed)
    model.head = nn.Linear(toy.WIDTH, toy.WORDS, bias=bias, dtype=torch.float64)
    row = toy.rows(toy.sequences(3, seed=seed), 3)[0]
    row = dataclasses.replace(row, reference=torch.randn(len(row.target)))
    expected, weight = plain(model, row, dynamic=dynamic, z_loss=z_loss)
    (3.0 * expected).backward()
    wanted = gradients(model)
    model.zero_grad()
    found = weighted_loss(model(row), row, model.head, dynamic=dynamic, z_loss=z_loss, chunk=chunk)
    (3.0 * found.numerator).backward()
    assert float(found.numerator.detach()) == pytest.approx(float(expected.detach()), rel=1e-12, abs=1e-12)
    for one, other in zip(gradients(model), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert found.sums[2].sum() == pytest.approx(float(weight.sum()), rel=1e-6)
    assert found.sums[3].sum() == pytest.approx(float(weight.square().sum()), rel=1e-6)


def test_no_more_logits_than_a_chunk_are_ever_made(case, monkeypatch):
    model, row = case
    made, linear = [], F.linear

    def watched(states, *rest):
        made.append(len(states))
        return linear(states, *rest)

    hidden = model(row)
    monkeypatch.setattr(F, "linear", watched)
    weighted_loss(hidden, row, model.head, chunk=7).numerator.backward()
    assert max(made) == 7
    assert sum(made) == len(row.target)  # and none twice


def test_a_frozen_head_or_trunk_gets_no_gradient(case):
    model, row = case
    model.head.requires_grad_(requires_grad=False)
    weighted_loss(model(row), row, model.head, chunk=5).numerator.backward()
    assert model.head.weight.grad is None
    assert model.embed.weight.grad.any()
    model.head.requires_grad_()
    weighted_loss(model(row).detach(), row, model.head, chunk=5).numerator.backward()
    assert model.head.weight.grad.any()


def test_without_gradients_nothing_is_kept(case):
    model, row = case
    with torch.no_grad():
        found = weighted_loss(model(row), row, model.head)
    assert not found.numerator.requires_grad
    assert float(found.numerator) == pytest.approx(float(plain(model, row)[0].detach()), rel=1e-12)


def test_the_gradient_can_be_taken_once(case):
    model, row = case
    loss = weighted_loss(model(row), row, model.head).numerator
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="taken and is gone; compute the loss again"):
        loss.backward()


def test_a_head_without_a_matrix_is_refused(case):
    model, row = case
    with pytest.raises(RecipeError, match=r"the head is Sequential, .*make `model.head` an nn.Linear"):
        weighted_loss(model(row), row, nn.Sequential(model.head))


def test_a_dynamic_weight_without_reference_values_is_refused(toy):
    examples = toy.sequences(3)
    known = np.zeros(len(examples[1].target), np.float32)
    row = toy.rows([examples[0], dataclasses.replace(examples[1], reference=known), examples[2]], 3)[0]
    model = toy.Toy()
    with pytest.raises(
        DataError, match=r"^tree-0, tree-2: no reference .* 'top' needs; .*loss.reference: model"
    ):
        weighted_loss(model(row), row, model.head, dynamic=Top(0.5, "excess"))
    row = toy.rows(examples, 3)[0]
    with pytest.raises(DataError, match=r"^tree-0, tree-1, tree-2: no reference"):
        weighted_loss(model(row), row, model.head, dynamic=Top(0.5, "excess"))


def test_autocast_computes_in_bf16_and_adds_up_in_fp32(toy):
    model, row = toy.Toy(), toy.rows(toy.sequences(6), 6)[0]
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model(row).float().detach().requires_grad_()
        found = weighted_loss(hidden, row, model.head, chunk=3)
        found.numerator.backward()
        logits = model.head(hidden.detach()[row.source]).detach()
    assert logits.dtype == torch.bfloat16
    ce = F.cross_entropy(logits.float(), row.target, reduction="none")
    assert float(found.numerator.detach()) == pytest.approx(float((row.weight * ce).sum()), rel=1e-5)
    assert model.head.weight.grad.dtype == hidden.grad.dtype == torch.float32
    rough, head = model.head.weight.grad.clone(), model.head
    head.zero_grad()
    weighted_loss(hidden.detach(), row, head).numerator.backward()
    assert 0 < (rough - head.weight.grad).norm() < 0.02 * head.weight.grad.norm()


def test_memory_is_that_of_one_chunk_of_logits_whatever_the_number_of_targets():
    """3 chunks of 256 x 151,936 logits, 156 MB each; a second gradient of the head would take 78 MB."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("no /proc, so no peak of a stretch of a process")
    script = Path(__file__).parents[2] / "benchmarks" / "loss.py"
    run = [sys.executable, str(script), "--memory", "768", "--width", "128"]
    found = subprocess.run(run, capture_output=True, text=True, timeout=300, check=True)
    assert 140 < float(found.stdout) < 200


def test_bf16_logits_are_reduced_in_fp32(toy):
    model, row = toy.Toy().bfloat16(), toy.rows(toy.sequences(2), 2)[0]
    hidden = model(row)
    assert predict(hidden[row.source], row.target, model.head).ce.dtype == torch.float32
    weighted_loss(hidden, row, model.head).numerator.backward()
    assert model.head.weight.grad.dtype == torch.bfloat16


def test_a_row_without_targets_has_loss_zero_and_zero_gradients(toy):
    sequence = toy.sequences(1)[0]
    none = np.zeros(0, np.int32)
    empty = dataclasses.replace(
        sequence, source=none, target=none, sample=none, weight=np.zeros(0, np.float32), samples=()
    )
    row, model = Row.join([empty], Budget(tokens=100)).to("cpu"), toy.Toy()
    found = weighted_loss(model(row), row, model.head, z_loss=1e-4)
    found.numerator.backward()
    assert float(found.numerator.detach()) == 0.0
    assert by_task(found, row.samples) == {}
    assert not any(parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


def test_sums_are_by_task_and_data_set_and_make_every_divisor(case):
    model, row = case
    found = by_task(weighted_loss(model(row), row, model.head, z_loss=0.1), row.samples)
    ce = predict(model(row)[row.source], row.target, model.head).ce
    for (task, source), sums in found.items():
        mine = [n for n, sample in enumerate(row.samples) if (sample.task, sample.source) == (task, source)]
        here = torch.isin(row.sample, torch.tensor(mine))
        weight = row.weight[here].double()
        assert sums.weighted == pytest.approx(float((weight * ce[here]).sum()))
        assert sums.nll == pytest.approx(float(ce[here].sum()))
        assert (sums.targets, sums.tokens) == (int(here.sum()), int((weight > 0).sum()))
        assert sums.samples == len(mine)
    total = Sums.total(found.values())
    assert total.divisor("weights") == pytest.approx(float(row.weight.double().sum()))
    assert total.divisor("samples") == len(row.samples)
    assert total.divisor("tokens") == int((row.weight > 0).sum())


def test_a_sample_without_targets_is_not_counted(case):
    model, row = case
    more = dataclasses.replace(row, samples=(*row.samples, row.samples[0]))
    found = by_task(weighted_loss(model(more), more, model.head), more.samples)
    assert Sums.total(found.values()).samples == len(row.samples)
