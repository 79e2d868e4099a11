"""Dry runs: the true mixture in small, two steps of a twin, and figures of the real run."""

import json
from pathlib import Path

import pytest

from hedgerow.models.assemble import build, save
from hedgerow.models.spec import ModelSpec
from hedgerow.recipe import load_recipe
from hedgerow.testing import TINY_MODEL, TINY_VISION, tiny_recipe, write_jsonl
from hedgerow.text import load_tokenizer
from hedgerow.train.dryrun import dry_run

RECIPES = Path(__file__).parents[2] / "recipes"
SAID = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day, and well met."}]


@pytest.fixture
def own(tmp_path):
    """A recipe with a small model of its own, one set that is there and one that is not."""
    trees = write_jsonl(tmp_path / "trees.jsonl", [{"id": str(n), "messages": SAID} for n in range(5)])
    recipe = json.loads(tiny_recipe(tmp_path, trees).read_text(encoding="utf-8"))
    recipe["data"]["train"].append({"path": "gone.jsonl", "like": "text"})
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path


def test_the_first_stage_runs_dry_with_nothing_there(hedgerow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("--packing.budget.tokens", 1300, "--vision.max_crops", 1)
    command = ("train", RECIPES / "molmo2_pretrain.yaml", "--dry-run", "--size", "4B", *small)
    code, out, err = hedgerow(*command, "--gpus", 64, "--json")
    assert code == 0, err
    found = json.loads(out)
    trial, real = found["trial"], found["forecast"]
    assert [one["stand_in"] for one in trial["sets"]] == [
        "pixmo-cap", "pixmo-points", "pixmo-count", "image-points", "text",
    ]  # fmt: skip
    assert not trial["dropped"]
    assert len(trial["losses"]) == len(trial["rows"]) == 2
    assert all(loss > 0 for loss in trial["losses"])
    for row in trial["rows"]:
        assert 0 < row["tokens"] <= 1300
        assert 0 < row["crops"] <= 16
        assert 0 < row["targets"] < row["tokens"]
    assert real["parameters"]["total"] == pytest.approx(4.85e9, rel=1e-3)
    assert real["cluster"]["gpus"] == 64
    assert real["tokens_of_the_run"] == pytest.approx(real["walk"]["row"]["tokens"] * 128 * 32_000)
    assert real["memory"]["states"] == 16 * real["parameters"]["total"]
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_a_set_that_is_there_is_read_and_the_model_is_the_recipes_own(own):
    recipe = load_recipe(own)
    found = dry_run(recipe)
    assert [(one.trees, one.like) for one in found.trial.sets] == [(5, None), (2, "text")]
    assert "own       trees.jsonl" in str(found)
    assert "stand-ins text x1" in str(found)
    model = build(recipe.model.spec, tokenizer=load_tokenizer("tiny"), seed=0)
    assert found.forecast.parameters.total == sum(p.numel() for p in model.parameters())
    assert found.forecast.name == "the model"
    assert not recipe.out.exists()


def test_sizes_are_read_from_a_checkpoint(own, tmp_path):
    spec, tokenizer = ModelSpec(**TINY_MODEL | {"layers": 3}), load_tokenizer("tiny")
    model = build(spec, tokenizer=tokenizer, seed=0)
    save(model, tmp_path / "model", tokenizer=tokenizer, settings=dict(TINY_VISION))
    origin = {"model.spec": "null", "model.checkpoint": str(tmp_path / "model")}
    found = dry_run(load_recipe(own, origin)).forecast
    assert found.parameters.total == sum(p.numel() for p in model.parameters())
    assert found.name == str(tmp_path / "model")


def test_conversations_are_written_as_the_recipe_says(own, tmp_path):
    load_tokenizer("tiny").save(str(tmp_path / "tokenizer.json"))
    said = "<|im_start|>{{ m.role }} says\n{{ m.content }}<|im_end|>\n"
    template = "{% for m in messages %}" + said + "{% endfor %}"
    settings = {
        "chat_template": template + "{% if add_generation_prompt %}<|im_start|>assistant says\n{% endif %}"
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    usual = {"model.tokenizer": str(tmp_path)}
    ways = [usual, usual | {"model.bos": "<|endoftext|>"}, usual | {"model.template": "tokenizer"}]
    walks = [dry_run(load_recipe(own, way)).forecast.walk for way in ways]
    tokens = [walk.row["tokens"] * walk.rows for walk in walks]
    assert tokens[1] == tokens[0] + walks[0].examples
    assert tokens[2] > tokens[0] + 2 * walks[0].examples
    model = build(ModelSpec(**TINY_MODEL), tokenizer=load_tokenizer("tiny"), seed=0)
    save(model, tmp_path / "model", tokenizer=load_tokenizer("tiny"), settings=dict(TINY_VISION))
    gone = {"model.tokenizer": str(tmp_path / "gone"), "model.template": "tokenizer"}
    origin = {"model.spec": "null", "model.checkpoint": str(tmp_path / "model")}
    found = dry_run(load_recipe(own, gone | origin))
    assert (found.trial.tokenizer, found.forecast.walk.row) == ("tiny", walks[0].row)


def test_without_a_model_or_a_size_there_is_one_clear_line(hedgerow):
    code, _, err = hedgerow("train", RECIPES / "molmo2_sft.yaml", "--dry-run")
    assert code == 2
    assert err.count("\n") == 1
    assert "runs/molmo2_pretrain/model: there is no model yet" in err
    assert "give --size, one of 4B, 8B, O-7B, or" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dry-run", "--size", "7B"), "size '7B' is unknown"),
        (("--dry-run", "--size", "4B", "--gpus", "48"), "gpus 48: rows_per_step is 128"),
        (("--size", "4B"), "--size is for a dry run; add --dry-run"),
        (("--dry-run", "--size", "4B", "--vision", "{family: text}"), "vision.family is text"),
        (("--dry-run", "--size", "4B", "--data.train.0.like", "cats"), "pixmo-cap.jsonl: there is no such"),
    ],
)
def test_what_cannot_be_tried_is_refused(hedgerow, words, said):
    code, _, err = hedgerow("train", RECIPES / "molmo2_pretrain.yaml", *words)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "size"), [("pretrain", "8B"), ("sft", "4B"), ("sft", "O-7B"), ("long", "8B"), ("long", "O-7B")]
)
def test_each_stage_runs_dry_at_its_true_budget(stage, size):
    recipe = load_recipe(RECIPES / f"molmo2_{stage}.yaml")
    found = dry_run(recipe, size=size)
    assert len(found.trial.sets) == len(recipe.data.train)
    assert all(one.trees for one in found.trial.sets)
    assert not found.trial.dropped
    assert all(row["tokens"] > 0.5 * recipe.packing.budget.tokens for row in found.trial.rows)
    assert max(row["crops"] for row in found.trial.rows) > 0.5 * recipe.packing.budget.crops
