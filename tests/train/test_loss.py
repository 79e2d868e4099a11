import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.sequence import Budget, Row
from hedgerow.train.loss import Sums, by_task, cross_entropy, weighted_loss


def reference(hidden, row, matrix, *, z_loss):
    """Target by target, in float64 numpy."""
    total = 0.0
    for source, target, weight in zip(row.source, row.target, row.weight, strict=True):
        logits = matrix.double().numpy() @ hidden[source].double().numpy()
        lse = np.log(np.exp(logits - logits.max()).sum()) + logits.max()
        total += float(weight) * (lse - logits[target] + z_loss * lse**2)
    return total


@pytest.fixture
def case(toy):
    model = toy.Toy(dtype=torch.float64)
    row = toy.rows(toy.sequences(6), 6)[0]
    return model, row


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999), chunk=st.integers(1, 40), z_loss=st.sampled_from([0.0, 1e-3]))
def test_the_loss_is_the_plain_sum_over_targets_for_any_chunk(toy, seed, chunk, z_loss):
    model = toy.Toy(dtype=torch.float64, seed=seed)
    row = toy.rows(toy.sequences(3, seed=seed), 3)[0]
    hidden = model(row)
    found = weighted_loss(hidden, row, model.head, z_loss=z_loss, chunk=chunk)
    expected = reference(hidden.detach(), row, model.head.weight.detach(), z_loss=z_loss)
    assert float(found.numerator.detach()) == pytest.approx(expected, rel=1e-12)


def test_chunks_change_no_gradient_and_never_make_all_logits(case):
    model, row = case
    seen = []

    def head(hidden):
        seen.append(len(hidden))
        return model.head(hidden)

    def gradients(chunk):
        model.zero_grad()
        weighted_loss(model(row), row, head, z_loss=1e-3, chunk=chunk).numerator.backward()
        return [parameter.grad for parameter in model.parameters()]

    whole, chunked = gradients(10_000), gradients(7)
    for one, other in zip(whole, chunked, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert max(seen[1:]) == 7


def test_the_gradient_is_that_of_a_plain_formula(case):
    model, row = case
    weighted_loss(model(row), row, model.head, chunk=5).numerator.backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    logp = model.head(model(row)[row.source]).log_softmax(-1)
    (-row.weight.double() * logp[torch.arange(len(row.target)), row.target]).sum().backward()
    for one, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("factor", [0.5, 0.1, 3.0])
def test_half_the_weight_of_a_target_is_half_its_gradient(case, factor):
    """Law 11: no weight is cut, rounded or made 0 or 1 on its way from the row to the gradient."""
    model, row = case

    def gradient(weight):
        hidden = model(row).detach().requires_grad_()
        weighted_loss(
            hidden, dataclasses.replace(row, weight=weight), model.head, chunk=4
        ).numerator.backward()
        return hidden.grad

    for target in range(0, len(row.target), 5):
        one = torch.zeros(len(row.target), dtype=torch.float64)
        one[target] = 1.0
        torch.testing.assert_close(gradient(factor * one), factor * gradient(one), rtol=1e-10, atol=0.0)


def test_half_the_weight_in_fp32_is_exactly_half_the_gradient(toy):
    """Halving is exact in binary, so 0.5 must stay 0.5 to the bit."""
    model, row = toy.Toy(), toy.rows(toy.sequences(2), 2)[0]

    def gradient(factor):
        hidden = model(row).detach().requires_grad_()
        weighted_loss(
            hidden, dataclasses.replace(row, weight=factor * row.weight), model.head
        ).numerator.backward()
        return hidden.grad

    assert torch.equal(gradient(0.5), 0.5 * gradient(1.0))


def test_bf16_logits_are_reduced_in_fp32(toy):
    model, row = toy.Toy(), toy.rows(toy.sequences(2), 2)[0]
    ce, lse = cross_entropy(model(row).bfloat16(), row, model.head.bfloat16())
    assert ce.dtype == lse.dtype == torch.float32


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
    ce = cross_entropy(model(row), row, model.head)[0].detach()
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
