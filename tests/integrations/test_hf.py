"""A step of a Trainer on rows is a step of our loop."""

import re
from pathlib import Path

import pytest
import torch

from hedgerow.build import build_chat
from hedgerow.errors import RecipeError
from hedgerow.integrations.hf import HedgerowTrainer, RowForTraining
from hedgerow.models.chat import read_chat
from hedgerow.models.pretrained import load
from hedgerow.recipe import Loss, load_recipe
from hedgerow.testing import TINY_QWEN3_VL, tiny_checkpoint, tiny_recipe, write_jsonl
from hedgerow.text import load_tokenizer
from hedgerow.train.loss import weighted_loss
from hedgerow.vision.qwen3_vl import Qwen3VLProcessor
from hedgerow.vision.text import TextProcessor
from hedgerow.weights.dynamic import Focal

PAGE = Path(__file__).parents[2] / "docs" / "trainers.md"


@pytest.mark.parametrize(
    ("normalize", "accumulated"),
    [
        ("samples", 3),
        pytest.param("weights", 1, marks=pytest.mark.slow),
        pytest.param("weights", 3, marks=pytest.mark.slow),
        pytest.param("tokens", 3, marks=pytest.mark.slow),
    ],
)
def test_losses_gradients_and_weights_are_those_of_our_loop(runs, data, tmp_path, normalize, accumulated):
    loss = {"normalize": normalize, "z_loss": 1e-2, "chunk": 7}
    watch, steps = runs.Watch(), 3
    made = runs.trainer(
        tmp_path, data, callbacks=[watch], options={"loss": Loss(**loss)},
        max_steps=steps, gradient_accumulation_steps=accumulated,
    )  # fmt: skip
    start = runs.weights(made.model.model)
    assert len(made.rows.plan(0).rows) % 3  # so the last step of an epoch has fewer rows
    made.train()
    expected, gradients, weights = runs.ours(data, loss, size=accumulated, steps=steps)
    assert runs.losses(made) == pytest.approx(expected, rel=1e-6)  # a Trainer adds them up in fp32
    assert len(watch.gradients) == steps
    for one, other in zip(watch.gradients, gradients, strict=True):
        assert runs.apart(one, other) < 1e-5
    assert runs.strayed(runs.weights(made.model.model), weights, start) < 1e-5


def test_a_mean_of_means_would_be_found(runs, data):
    """The rows of a step are so unequal that each over its own divisor gives another loss."""
    model = RowForTraining(runs.fresh())
    rows = [loaded.row for loaded in data.loader()][:3]
    with torch.no_grad():
        means = [float(model(row)["loss"]) for row in rows]
        whole = sum(float(model(row, model.divisor(rows))["loss"]) for row in rows)
    assert abs(sum(means) / 3 - whole) > 1e-3 * whole


@pytest.mark.parametrize("normalize", ["weights", "samples", "tokens"])
def test_the_loss_of_a_row_alone_is_over_its_own_divisor(runs, data, normalize):
    model = RowForTraining(runs.fresh(), Loss(normalize=normalize))
    row = next(iter(data.loader())).row.to("cpu")
    expected = weighted_loss(model.model(row), row, model.model.head).numerator / model.divisor([row])
    torch.testing.assert_close(model(row)["loss"], expected)


@pytest.mark.parametrize("family", ["qwen3_vl", pytest.param("olmo3", marks=pytest.mark.slow)])
def test_other_families_train_alike(runs, tmp_path, family):
    folder = tiny_checkpoint(tmp_path / "model", family)
    processor = Qwen3VLProcessor(**TINY_QWEN3_VL) if family == "qwen3_vl" else TextProcessor()
    data = runs.Noted(tmp_path, processor, images=family == "qwen3_vl")
    watch = runs.Watch()
    made = runs.trainer(
        tmp_path, data, load(folder), callbacks=[watch], max_steps=2,
        gradient_accumulation_steps=2,
    )  # fmt: skip
    start = runs.weights(made.model.model)
    made.train()
    expected, gradients, weights = runs.ours(data, {}, load(folder), size=2, steps=2)
    assert runs.losses(made) == pytest.approx(expected, rel=1e-6)
    for one, other in zip(watch.gradients, gradients, strict=True):
        assert runs.apart(one, other) < 1e-5
    assert runs.strayed(runs.weights(made.model.model), weights, start) < 1e-5


def test_bf16_computes_as_our_loop_does_and_its_loss_falls(runs, data, tmp_path):
    watch = runs.Watch()
    made = runs.trainer(
        tmp_path,
        data,
        callbacks=[watch],
        bf16=True,
        max_steps=8,
        gradient_accumulation_steps=2,
        learning_rate=3e-3,
    )
    made.train()
    expected, gradients, _ = runs.ours(data, {}, size=2, steps=1, precision="bf16")
    (exact,), _, _ = runs.ours(data, {}, size=2, steps=1)
    found = runs.losses(made)
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found[0] != pytest.approx(exact, rel=1e-5)  # so it computed in bf16
    # Divided before the backward here, behind it there: other roundings of bf16.
    assert runs.apart(watch.gradients[0], gradients[0]) < 0.05
    assert found[-1] < found[0] - 0.5
    assert {p.dtype for p in made.model.parameters()} == {torch.float32}


def test_activation_checkpointing_changes_no_gradient(runs, data, tmp_path):
    ran = list[int]()
    plain, other = runs.Watch(), runs.Watch()
    runs.trainer(tmp_path, data, callbacks=[plain], max_steps=1).train()
    model = runs.fresh()
    model.hf.get_decoder().layers[0].mlp.register_forward_pre_hook(lambda *_: ran.append(1))
    made = runs.trainer(tmp_path, data, model, callbacks=[other], max_steps=1, activation_checkpointing=True)
    made.train()
    assert len(ran) == 2  # forward, and again backward
    for one, expected in zip(other.gradients, plain.gradients, strict=True):
        assert runs.apart(one, expected) < 1e-6


def test_the_log_says_what_was_trained_on(runs, data, tmp_path):
    made = runs.trainer(tmp_path, data, max_steps=3, logging_steps=3, learning_rate=0.0)
    made.train()
    rows = [loaded.row.to("cpu") for loaded in data.loader()][:3]
    entry = made.state.log_history[0]
    assert entry["tokens"] == sum(len(row) for row in rows)
    assert entry["fill/tokens"] == pytest.approx(entry["tokens"] / (3 * runs.BUDGET["tokens"]))
    assert entry["epoch"] == pytest.approx(3 / len(made.rows.plan(0).rows))
    model = made.model.model
    for task in ("qa", "counting"):
        total = torch.zeros(6, dtype=torch.float64)
        for row in rows:
            own = torch.tensor([sample.task == task for sample in row.samples])
            with torch.no_grad():
                total += weighted_loss(model(row), row, model.head).sums[:, own].sum(1)
        assert entry[f"loss/{task}"] == pytest.approx(float(total[0] / total[2]), rel=1e-5)


def test_a_loss_that_is_not_finite_names_the_row(runs, data, tmp_path):
    model = runs.fresh()
    with torch.no_grad():
        model.head.weight[:] = float("nan")
    with pytest.raises(RecipeError, match=r"not finite on the row of t\d+, t\d"):
        runs.trainer(tmp_path, data, model).train()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_device_train_batch_size": 4}, "per_device_train_batch_size=4: a batch is one row"),
        ({"max_steps": -1}, "max_steps=-1: epochs have no fixed length"),
        ({"dataloader_num_workers": 2}, "rows have workers of their own"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor: the loss is hedgerow's"),
        ({"eval_strategy": "steps", "eval_steps": 1}, "a Trainer cannot score trees"),
        ({"fp16": True}, "fp16=True: it overflows"),
    ],
)
def test_arguments_without_a_meaning_are_refused(runs, data, tmp_path, changes, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        runs.trainer(tmp_path, data, **changes)


def test_losses_that_are_divided_after_predicting_are_refused(runs):
    for loss in (Loss(dynamic=Focal()), Loss.model_validate({"preference": {"name": "dpo"}})):
        with pytest.raises(RecipeError, match="asks for the divisor before it predicts"):
            RowForTraining(runs.fresh(), loss)


def test_a_bare_model_of_transformers_is_refused(runs, data, tmp_path):
    with pytest.raises(RecipeError, match=r"got Molmo2ForConditionalGeneration; give a RowModel"):
        runs.trainer(tmp_path, data, runs.fresh().hf)


def test_processes_with_the_same_rows_are_refused(runs, data, tmp_path, monkeypatch):
    made = runs.trainer(tmp_path, data)
    monkeypatch.setattr("hedgerow.integrations.hf.parallel.gather", lambda value: [value, value])
    with pytest.raises(RecipeError, match="2 processes were given the same row"):
        made.train()


def test_a_recipe_gives_model_rows_and_loss(runs, tmp_path):
    answer = {"role": "assistant", "content": "That."}
    asked = [
        {"id": str(n), "messages": [{"role": "user", "content": "What? " * (1 + n)}, answer]}
        for n in range(6)
    ]
    path = tiny_recipe(tmp_path, write_jsonl(tmp_path / "d.jsonl", asked))
    chosen = {"model.bos": "<|endoftext|>", "loss.normalize": "samples", "rows_per_step": "2"}
    recipe = load_recipe(path, chosen)
    args = runs.arguments(tmp_path / "run", max_steps=1, gradient_accumulation_steps=2)
    made = HedgerowTrainer.from_recipe(recipe, args)
    made.train()
    assert made.model.loss.normalize == "samples"
    made.save_model()
    saved = read_chat(tmp_path / "run" / "model", family="molmo2")
    (loaded, *_) = made.rows
    assert saved.template == build_chat(recipe).template
    assert saved.template.bos == "<|endoftext|>"
    assert loaded.row.tokens[0] == load_tokenizer("tiny").token_to_id("<|endoftext|>")
    with pytest.raises(RecipeError, match="rows_per_step is 1, but gradient_accumulation_steps times 1 proc"):
        HedgerowTrainer.from_recipe(recipe.model_copy(update={"rows_per_step": 1}), args)
    with pytest.raises(RecipeError, match=r"leave out context and weights\.schedule"):
        HedgerowTrainer.from_recipe(recipe.model_copy(update={"context": 2}), args)


def test_a_place_without_a_row_adds_nothing(runs, data):
    model = RowForTraining(runs.fresh())
    loss = model(None, 3.0)["loss"]
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_the_page_needs_ten_lines_at_most():
    block = re.search(
        r"^```python\n(.*?)^```", PAGE.read_text("utf-8").split("## In ten lines")[1], re.S | re.M
    )
    assert block is not None
    lines = [line for line in block[1].splitlines() if line.strip()]
    assert len(lines) <= 10
    assert any("HedgerowTrainer(" in line for line in lines)
