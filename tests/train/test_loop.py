import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from hedgerow.errors import RecipeError
from hedgerow.packing.loader import Dropped
from hedgerow.train import checkpoint
from hedgerow.train.log import Callback
from hedgerow.train.loop import train


def losses(folder):
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"], line["grad_norm"], line["tasks"]) for line in map(json.loads, lines)]


def assert_alike(found, expected):
    """Equal relative to the norm of all gradients: fp32, law 6."""
    assert found.keys() == expected.keys()
    size = torch.stack([value.norm() for value in expected.values()]).norm()
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-5 * size, name


def one_step(toy, tmp_path, split, **changes):
    watch = toy.Watch()
    rows = toy.rows(toy.sequences(8), split)
    optimizer = {"clip": None, "language": {"lr": 0.01, "warmup": 0}}
    changes = {"steps": 1, "rows_per_step": len(rows), "optimizer": optimizer} | changes
    train(toy.recipe(tmp_path, **changes), toy.Toy(), toy.Given(rows), callbacks=[watch], fresh=True)
    return watch.gradients[0], watch.steps[0]


@pytest.mark.parametrize("normalize", ["weights", "samples", "tokens"])
def test_rows_and_accumulation_change_no_gradient(toy, tmp_path, normalize):
    """Law 6: one row of 8 trees, 4 rows of 2, 3 uneven ones, 8 of 1."""
    loss = {"normalize": normalize, "z_loss": 1e-3, "chunk": 11}
    gradients, step = one_step(toy, tmp_path, 8, loss=loss)
    for split in (2, 3, 1):
        other, same = one_step(toy, tmp_path, split, loss=loss)
        assert_alike(other, gradients)
        assert same.loss == pytest.approx(step.loss, rel=1e-5)
        assert same.grad_norm == pytest.approx(step.grad_norm, rel=1e-5)


@pytest.mark.parametrize("normalize", ["weights", "samples", "tokens"])
def test_the_gradient_is_that_of_the_global_mean(toy, tmp_path, normalize):
    """The same from the formula, all trees in one row: sum of w ce over the divisor of section 6."""
    found, step = one_step(toy, tmp_path, 3, loss={"normalize": normalize})
    model, row = toy.Toy(), toy.rows(toy.sequences(8), 8)[0]
    ce = F.cross_entropy(model.head(model(row)[row.source]), row.target, reduction="none")
    divisor = {
        "weights": row.weight.sum(),
        "samples": len(row.samples),
        "tokens": (row.weight > 0).sum(),
    }[normalize]
    loss = (row.weight * ce).sum() / divisor
    loss.backward()
    assert_alike(found, {name: parameter.grad for name, parameter in model.named_parameters()})
    assert step.loss == pytest.approx(float(loss.detach()), rel=1e-5)


def test_two_ranks_train_as_one(toy, tmp_path):
    """Law 6 on 1 and 2 processes: 5 rows an epoch, so one rank is once without a row; with dropout."""
    together = tmp_path / "together"
    together.mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, str(Path(__file__).with_name("toy.py")), "1", "2", str(together)]
    with subprocess.Popen(script, env=environment) as other:
        seen = toy.train_as(0, 2, together)
        assert other.wait(timeout=60) == 0
    watch, source = toy.Watch(), toy.loader(toy.sequences())
    train(toy.recipe(tmp_path), toy.Toy(dropout=0.1), source, callbacks=[watch])
    assert len(source.plan(0).rows) == 5
    assert [step.loss for step in seen.steps] == pytest.approx([step.loss for step in watch.steps], rel=1e-5)
    for found, expected in zip(seen.gradients, watch.gradients, strict=True):
        assert_alike(found, expected)
    assert_alike(seen.weights[-1], watch.weights[-1])
    for found, expected in zip(seen.steps, watch.steps, strict=True):
        assert (found.cost, found.budget, found.epoch) == (expected.cost, expected.budget, expected.epoch)
    assert [line[:1] for line in losses(together)] == [line[:1] for line in losses(tmp_path)]


@pytest.mark.parametrize(
    "options", [{"save_every": 1}, {"save_every": 2}, {"optimizer": {"name": "muon"}, "save_every": 1}]
)
def test_a_run_stopped_at_any_step_and_resumed_is_the_uninterrupted_run_bit_for_bit(toy, tmp_path, options):
    """Law 7, over the end of an epoch (5 rows, so 3 steps of which one is short), with dropout."""
    examples = toy.sequences()
    whole = toy.Toy(dropout=0.2)
    (tmp_path / "whole").mkdir()
    train(toy.recipe(tmp_path / "whole", **options), whole, toy.loader(examples))
    expected = losses(tmp_path / "whole")
    assert len(expected) == 6
    for stop in range(1, 7):
        folder = tmp_path / f"stop-{stop}"
        folder.mkdir()
        recipe = toy.recipe(folder, **options)
        with pytest.raises(toy.Stop):
            train(recipe, toy.Toy(dropout=0.2), toy.loader(examples), callbacks=[toy.StopAt(stop)])
        torch.manual_seed(stop)  # the state of the process that resumes does not matter
        begun = checkpoint.newest(recipe.out) is not None
        model, watch = toy.Toy(dropout=0.2, seed=5 if begun else 0), toy.Watch()
        train(recipe, model, toy.loader(examples), callbacks=[watch])
        assert watch.steps[0].number == (stop - 1) // options["save_every"] * options["save_every"] + 1
        assert losses(folder) == expected
        for name, value in whole.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), (stop, name)


def test_a_finished_run_is_only_loaded(toy, tmp_path):
    recipe, examples = toy.recipe(tmp_path), toy.sequences()
    trained, loaded, watch = toy.Toy(), toy.Toy(seed=3), toy.Watch()
    folder = train(recipe, trained, toy.loader(examples))
    assert train(recipe, loaded, toy.loader(examples), callbacks=[watch]) == folder
    assert watch.steps == []
    assert torch.equal(trained.head.weight, loaded.head.weight)
    assert len(losses(tmp_path)) == 6


def test_fresh_starts_over(toy, tmp_path):
    recipe, examples = toy.recipe(tmp_path), toy.sequences()
    train(recipe, toy.Toy(), toy.loader(examples))
    watch = toy.Watch()
    train(recipe, toy.Toy(), toy.loader(examples), callbacks=[watch], fresh=True)
    assert [step.number for step in watch.steps] == [1, 2, 3, 4, 5, 6]
    assert [line[0] for line in losses(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_training_learns(toy, tmp_path):
    rate = {"lr": 0.05, "warmup": 0}
    rates = {"vision": rate, "connector": rate, "language": rate}
    watch = toy.Watch()
    recipe = toy.recipe(tmp_path, steps=30, optimizer=rates, precision="bf16")
    train(recipe, toy.Toy(), toy.loader(toy.sequences()), callbacks=[watch])
    assert watch.steps[-1].loss < 0.6 * watch.steps[0].loss
    assert all(
        value.dtype == torch.float32 for value in (*watch.gradients[0].values(), *watch.weights[0].values())
    )


def test_a_loss_that_is_not_finite_names_step_and_examples_and_spares_the_weights(toy, tmp_path):
    rows = toy.rows(toy.sequences(4), 2)
    weight = rows[1].weight.clone()
    weight[0] = float("nan")
    rows[1] = dataclasses.replace(rows[1], weight=weight)
    model, watch = toy.Toy(), toy.Watch()
    with pytest.raises(RecipeError, match=r"step 1: .* not finite on the row of tree-2, tree-3; lower"):
        train(toy.recipe(tmp_path), model, toy.Given(rows), callbacks=[watch])
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), toy.Toy().parameters(), strict=True))


def test_clipping_comes_after_normalising(toy, tmp_path):
    free, step = one_step(toy, tmp_path, 4)
    rate = {"lr": 0.01, "warmup": 0}
    clipped, same = one_step(toy, tmp_path, 4, optimizer={"clip": step.grad_norm / 2, "language": rate})
    assert same.grad_norm == step.grad_norm
    assert_alike(clipped, {name: value / 2 for name, value in free.items()})


def test_a_step_ends_with_the_epoch(toy, tmp_path):
    watch = toy.Watch()
    rows = toy.rows(toy.sequences(5), 1)
    train(toy.recipe(tmp_path, steps=4, rows_per_step=3), toy.Toy(), toy.Given(rows), callbacks=[watch])
    assert [step.cost["tokens"] for step in watch.steps] == [
        sum(len(row) for row in rows[part]) for part in (slice(3), slice(3, 5), slice(3), slice(3, 5))
    ]


def test_a_row_of_which_nothing_is_left_counts_as_a_row_and_names_what_was_dropped(toy, tmp_path):
    loader = toy.Given([None, toy.rows(toy.sequences(1), 1)[0]], dropped=[Dropped(7, "tree-7: broken")])
    watch = toy.Watch()
    train(toy.recipe(tmp_path, steps=1), toy.Toy(), loader, callbacks=[watch])
    assert watch.steps[0].dropped == ("tree-7: broken", "tree-7: broken")
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text())["dropped"] == list(watch.steps[0].dropped)


def test_a_step_without_any_row_changes_no_gradient_and_does_not_fail(toy, tmp_path):
    watch = toy.Watch()
    train(toy.recipe(tmp_path, steps=1), toy.Toy(), toy.Given([None, None]), callbacks=[watch])
    assert watch.steps[0].loss == 0.0
    assert not any(value.any() for value in watch.gradients[0].values())


def test_settings_of_the_process_are_put_back(toy, tmp_path):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    recipe = toy.recipe(tmp_path, threads=2)
    with pytest.raises(toy.Stop):
        train(recipe, toy.Toy(), toy.loader(toy.sequences()), callbacks=[toy.StopAt(1)])
    assert before == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())


def test_callbacks_are_told_of_everything_in_order(toy, tmp_path):
    told = []

    class Note(Callback):
        def on_start(self, run):
            told.append(("start", run.step, run.recipe.steps))

        def on_step(self, step):
            told.append(step.number)

        def on_save(self, folder):
            told.append(folder.name)

        def on_end(self):
            told.append("end")

    recipe = toy.recipe(tmp_path, steps=3, save_every=2)
    folder = train(recipe, toy.Toy(), toy.loader(toy.sequences()), callbacks=[Note()])
    assert told == [("start", 0, 3), 1, 2, "step-00000002", 3, "step-00000003", "end"]
    assert checkpoint.newest(recipe.out) == folder


def test_a_step_of_which_all_targets_weigh_0_is_named_once(toy, tmp_path, caplog):
    (row,) = toy.rows(toy.sequences(2), 2)
    silent = dataclasses.replace(row, weight=torch.zeros_like(row.weight))
    recipe = toy.recipe(tmp_path, steps=3, rows_per_step=1, loss={"normalize": "tokens"})
    watch = toy.Watch()
    train(recipe, toy.Toy(), toy.Given([row, silent, silent]), callbacks=[watch])
    assert [bool(step.loss) for step in watch.steps] == [True, False, False]
    (record,) = caplog.records
    assert record.getMessage().startswith("all targets of a step weigh 0, so with loss.normalize: tokens")
