"""Law 6: a global batch gives the same gradients however it is spread over rows, micro-batches and ranks."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from hedgerow.train.loop import Trainer
from hedgerow.train.optim import Optimizers
from hedgerow.weights.dynamic import Prediction

PATH = Path(__file__).with_name("splits.py")
SPEC = importlib.util.spec_from_file_location("train_splits", PATH)
splits = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = splits
SPEC.loader.exec_module(splits)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 5e-6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("law-6")


@pytest.fixture(scope="module")
def on_two_ranks(toy, folder):
    """Every case on two processes, in one spawn."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, str(PATH), str(folder)], env=environment) as other:
        found = splits.together(toy, folder, 0)
        assert other.wait(timeout=60) == 0
    return found


def unpacked(toy, case):
    """Tree by tree, target by target, over the divisor of the whole batch: gradients, loss and divisor."""
    model, numerator = toy.Toy(dtype=case.dtype), 0.0
    divisor = {"weights": 0.0, "samples": 0, "tokens": 0}
    for tree in splits.trees():
        row = splits.row([tree])
        logits = model.head(model(row)[row.source])
        ce = F.cross_entropy(logits, row.target, reduction="none")
        weight = row.weight.to(ce.dtype) * factors(case, logits.detach(), ce.detach(), row)
        numerator = numerator + (weight * (ce + 1e-2 * logits.logsumexp(-1) ** 2)).sum()
        divisor["weights"] += float(weight.sum())
        divisor["samples"] += len(row.samples)
        divisor["tokens"] += int((weight > 0).sum())
    loss = numerator / divisor[case.normalize]
    loss.backward()
    return {name: value.grad for name, value in model.named_parameters()}, float(loss.detach())


def factors(case, logits, ce, row):
    dynamic = splits.DYNAMIC[case.kind]
    if dynamic is None:
        return 1.0
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    return dynamic(Prediction(ce, entropy, row.reference, row.weight, row.sample))


def unpacked_preferences(toy, case):
    """Pair by pair, over the number of pairs of the whole batch; DPO only."""
    model, losses = toy.Toy(dtype=case.dtype), []
    for tree in splits.trees():
        row = splits.row([tree])
        logp = model.head(model(row)[row.source]).log_softmax(-1).gather(-1, row.target[:, None])[:, 0]
        own = [torch.nonzero(row.sample == number)[:, 0] for number in range(len(row.samples))]
        weight = [
            row.weight[at] / torch.tensor(s.weight).float() for at, s in zip(own, row.samples, strict=True)
        ]
        score = [(w * (logp[at] - row.reference[at])).sum() for at, w in zip(own, weight, strict=True)]
        rank = [sample.rank for sample in row.samples]
        pairs = [(i, j) for i in range(len(rank)) for j in range(len(rank)) if rank[i] < rank[j]]
        losses += [-F.logsigmoid(0.5 * (score[i] - score[j])) for i, j in pairs]
    loss = torch.stack(losses).mean()
    loss.backward()
    return {name: value.grad for name, value in model.named_parameters()}, float(loss.detach())


@pytest.mark.parametrize("case", splits.CASES, ids=str)
def test_rows_micro_batches_and_ranks_change_no_gradient(toy, folder, on_two_ranks, case):
    found = {split: splits.step(toy, folder, case, split) for split in splits.ALONE}
    found |= {split: on_two_ranks[case, split] for split in splits.TOGETHER}
    if case.kind == "otpo":
        gradients, loss = found[1, 8, 1].gradients, found[1, 8, 1].loss
    else:
        alone = unpacked_preferences if case.kind == "dpo" else unpacked
        gradients, loss = alone(toy, case)
    tolerance = TOLERANCE[case.dtype]
    assert gradients.keys() == {"embed.weight", "vision.weight", "vision.bias", "connector.weight",
                                "connector.bias", "head.weight"}  # fmt: skip
    for split, run in found.items():
        assert run.loss == pytest.approx(loss, rel=10 * tolerance), split
        for name, expected in gradients.items():
            assert (run.gradients[name] - expected).norm() <= tolerance * expected.norm(), (split, name)
            assert expected.norm() > 0


def test_the_cases_tell_divisors_weights_and_objectives_apart(toy, folder):
    """No two of them have the same gradient, or the law would hold of less than it says."""
    cases = [case for case in splits.CASES if case.dtype == torch.float64]
    heads = [splits.step(toy, folder, case, (8, 1, 1)).gradients["head.weight"] for case in cases]
    for number, one in enumerate(heads):
        for other in heads[:number]:
            assert (one - other).norm() > 1e-3 * one.norm()


def test_a_divisor_per_row_would_be_found(toy, folder):
    """The batch is no average one: the mean of the rows' means is another gradient."""
    case = next(case for case in splits.CASES if case.dtype == torch.float64)
    whole = splits.step(toy, folder, case, (8, 1, 1)).gradients["head.weight"]
    model, total = toy.Toy(dtype=case.dtype), 0.0
    for tree in splits.trees():
        row = splits.row([tree])
        total = total + case.objective(model, row).numerator / row.weight.sum() / 8
    total.backward()
    assert (model.head.weight.grad - whole).norm() > 1e-2 * whole.norm()


def test_half_of_every_weight_changes_only_the_loss_that_is_a_sum(toy, folder):
    """Law 11 through the whole step: 0.5 stays 0.5, and divides out where the weights are the divisor."""
    half = dataclasses.replace(splits.CASES[0], kind="fractional", normalize="samples", dtype=torch.float64)
    row = splits.row(splits.trees())
    smaller = dataclasses.replace(row, weight=0.5 * row.weight)
    model = toy.Toy(dtype=torch.float64)
    one, other = half.objective(model, row), half.objective(model, smaller)
    assert float(other.numerator.detach()) == 0.5 * float(one.numerator.detach())
    assert torch.equal(other.sums[[0, 2]], 0.5 * one.sums[[0, 2]])
    assert torch.equal(other.sums[[1, 4, 5]], one.sums[[1, 4, 5]])


def test_a_schedule_scales_the_weights_of_a_task_by_the_step(toy, tmp_path):
    """Law 11: 0.25 at step 1 is a quarter of the gradient, and later steps have their own factor."""

    def gradient(**weights):
        rows = [splits.row(splits.trees())]
        recipe = toy.recipe(
            tmp_path,
            rows_per_step=1,
            weights=weights,
            loss={"normalize": "samples"},
            optimizer={"clip": None},
        )
        model = toy.Toy(dtype=torch.float64)
        trainer = Trainer(recipe, model, Optimizers(model, recipe), splits.Given(rows), objective=None)
        found = []
        for number in (1, 2):
            trainer.step(number)
            found.append(model.head.weight.grad.clone())
            model.load_state_dict(toy.Toy(dtype=torch.float64).state_dict())
        return found

    plain, scheduled = gradient(), gradient(schedule={"qa": [[1, 0.25], [3, 0.75]]})
    torch.testing.assert_close(scheduled[0], 0.25 * plain[0], rtol=1e-12, atol=0.0)
    torch.testing.assert_close(scheduled[1], 0.5 * plain[1], rtol=1e-12, atol=0.0)
