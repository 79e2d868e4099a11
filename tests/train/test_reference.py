"""Reference values in a file: those of a frozen copy, and refused where they do not fit."""

import json

import numpy as np
import pytest

from hedgerow.build import build_encoder, build_model, training_examples
from hedgerow.data.references import References
from hedgerow.errors import DataError, RecipeError
from hedgerow.recipe import load_recipe
from hedgerow.sequence import Budget, Row
from hedgerow.testing import tiny_recipe, write_jsonl, write_png
from hedgerow.train.objective import reference_logps
from hedgerow.train.reference import write_references
from hedgerow.train.run import run


def ranked(name, *answers):
    branches = [
        {"rank": rank, "messages": [{"role": "assistant", "content": text}]}
        for rank, text in enumerate(answers)
    ]
    seen = [{"type": "image", "path": "a.png"}, {"type": "text", "text": f"What is in {name}?"}]
    return {"id": name, "messages": [{"role": "user", "content": seen}], "branches": branches}


@pytest.fixture
def data(tmp_path):
    write_png(tmp_path / "a.png")
    lines = [ranked(f"t{n}", "a dog " * (n + 1), "no", "a cat and a dog") for n in range(7)]
    return write_jsonl(tmp_path / "train.jsonl", lines)


@pytest.fixture
def recipe(data, tmp_path):
    path = tiny_recipe(tmp_path, data)
    return lambda **changes: load_recipe(
        path, {name.replace("__", "."): json.dumps(value) for name, value in changes.items()}
    )


def test_every_tree_gets_the_values_that_the_model_gives_it_alone(recipe, tmp_path):
    made = recipe(data__train=[{"path": str(tmp_path / "train.jsonl"), "repeat": 3}])
    write_references(made, tmp_path / "r.npz")
    found = References.load(tmp_path / "r.npz")
    assert len(found) == 7
    encoder, model = build_encoder(made), build_model(made).eval()
    examples = training_examples(made, encoder)
    for number in range(7):
        plain = examples.encode(0, number)
        row = Row.join([plain], Budget(**plain.cost)).to("cpu")
        np.testing.assert_allclose(
            found.attach(plain).reference, reference_logps(model, row).numpy(), rtol=2e-4, atol=2e-4
        )


@pytest.mark.parametrize(
    "loss",
    [{"preference": {"name": "dpo"}}, {"dynamic": {"name": "top", "share": 0.4, "by": "excess"}}],
    ids=["dpo", "rho-1"],
)
def test_a_run_with_stored_values_is_that_with_a_frozen_copy(recipe, tmp_path, loss):
    changes = {"loss": loss, "steps": 3}
    file = tmp_path / "r.npz"
    write_references(recipe(**changes), file)
    losses = []
    for name, more in (
        ("copy", {"loss": loss | {"reference": "model"}}),
        ("stored", {"data__references": str(file)}),
    ):
        out = tmp_path / name
        run(recipe(**changes | more | {"out": str(out)}))
        lines = (out / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)])
    assert len(losses[0]) == 3
    assert len(set(losses[0])) > 1
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_values_of_another_text_are_not_used(recipe, tmp_path):
    write_references(recipe(), tmp_path / "r.npz")
    write_jsonl(tmp_path / "train.jsonl", [ranked("t0", "something else", "no"), ranked("new", "a", "b")])
    examples = training_examples(recipe(data__references=str(tmp_path / "r.npz")), build_encoder(recipe()))
    with pytest.raises(DataError, match=r"train\.jsonl:1: data\.references holds values of another text"):
        examples.encode(0, 0)
    with pytest.raises(DataError, match=r"train\.jsonl:2: data\.references has no values of this tree"):
        examples.encode(0, 1)


def test_two_trees_of_one_id_are_refused(recipe, tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [ranked("t0", "a", "b"), ranked("t0", "c", "d")])
    with pytest.raises(DataError, match=r"train\.jsonl:2: this tree has the id of that at .*train\.jsonl:1,"):
        write_references(recipe(), tmp_path / "r.npz")
    assert not (tmp_path / "r.npz").exists()


def test_a_loss_without_its_values_is_refused_before_anything_runs(recipe, tmp_path):
    made = recipe(loss={"preference": {"name": "dpo"}})
    with pytest.raises(RecipeError, match="hedgerow data reference"):
        run(made)
    (tmp_path / "r.npz").write_bytes(b"nothing")
    with pytest.raises(RecipeError, match=r"r\.npz: no file of reference values"):
        run(recipe(loss={"preference": {"name": "dpo"}}, data__references=str(tmp_path / "r.npz")))


def test_targets_that_change_have_no_stored_values(recipe, tmp_path):
    varied = {"data__transforms": {"shuffle_branches": True}}
    with pytest.raises(RecipeError, match="leave them out"):
        write_references(recipe(**varied), tmp_path / "r.npz")
    with pytest.raises(RecipeError, match="transforms change the targets"):
        recipe(**varied, data__references="r.npz")


def test_values_of_other_prompts_or_larger_images_are_not_used(recipe, data, tmp_path):
    """The answers are the same: what was asked and shown is not."""
    write_references(recipe(), tmp_path / "r.npz")
    made = recipe(data__references=str(tmp_path / "r.npz"))
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    asked = json.loads(json.dumps(lines[0]))
    asked["messages"][0]["content"][1]["text"] = "What is in t9?"
    write_jsonl(data, [asked, lines[1]])
    examples = training_examples(made, build_encoder(made))
    with pytest.raises(DataError, match=r"train\.jsonl:1: data\.references holds values of another text"):
        examples.encode(0, 0)
    assert examples.encode(0, 1).reference is not None
    write_png(tmp_path / "a.png", size=(20, 20))
    examples = training_examples(made, build_encoder(made))
    with pytest.raises(DataError, match=r"train\.jsonl:2: data\.references holds values of another text"):
        examples.encode(0, 1)


def test_a_file_says_which_model_made_it(recipe, tmp_path):
    found = write_references(recipe(seed=3), tmp_path / "r.npz")
    assert repr(found).endswith("targets, by fresh weights of seed 3")
    assert repr(References.load(tmp_path / "r.npz")) == repr(found)


def test_a_file_of_another_kind_is_no_reason_to_unpickle(tmp_path):
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(RecipeError, match=r"r\.json: no file of reference values \(File is not a zip file\)"):
        References.load(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ({"reference": "model"}, r"loss: reference: model, but neither a preference loss"),
        ({"preference": {"name": "dpo"}, "reference": "model"}, r"leave out one of the two"),
    ],
)
def test_a_reference_without_a_use_is_refused(recipe, loss, said):
    with pytest.raises(RecipeError, match=said):
        recipe(loss=loss, data__references="r.npz")
