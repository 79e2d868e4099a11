"""`hedgerow export`: a run's model in a folder of its own."""

import dataclasses
import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Molmo2ForConditionalGeneration

from hedgerow.build import build_model
from hedgerow.cli import main
from hedgerow.errors import RecipeError
from hedgerow.models.lora import merge
from hedgerow.models.pretrained import load
from hedgerow.recipe import load_recipe
from hedgerow.testing import tiny_checkpoint, tiny_recipe, write_jsonl
from hedgerow.train.export import export
from hedgerow.train.log import Callback
from hedgerow.train.run import run


class Snapshot(Callback):
    """The weights of trained parameters after a step."""

    def __init__(self, step):
        self.step, self.weights = step, {}

    def on_start(self, started):
        self.model = started.model

    def on_step(self, step):
        if step.number == self.step:
            state = self.model.state_dict()
            self.weights = {name: tensor.clone() for name, tensor in state.items()}


def recipe_of(folder, **overrides):
    said = [
        [{"role": "user", "content": "What? " * (1 + n)}, {"role": "assistant", "content": "That."}]
        for n in range(6)
    ]
    rows = [{"id": str(n), "messages": messages} for n, messages in enumerate(said)]
    path = tiny_recipe(folder, write_jsonl(folder / "d.jsonl", rows), steps=4)
    fields = json.loads(path.read_text()) | {"save_every": 2, "lora": {"parts": ["language"], "rank": 3}}
    fields["optimizer"] = {part: {"lr": 0.01, "warmup": 0} for part in ("vision", "connector", "language")}
    path.write_text(json.dumps(fields))
    return load_recipe(path, overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run of four steps, its recipe, and the weights after two."""
    folder, snapshot = tmp_path_factory.mktemp("export"), Snapshot(2)
    run(recipe_of(folder), callbacks=[snapshot])
    return folder, snapshot


def tensors(folder):
    return load_file(folder / "model.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.parametrize("step", [None, 4], ids=["the model", "the last checkpoint"])
@pytest.mark.parametrize("given", ["recipe.yaml", "run"])
def test_what_is_exported_is_what_the_run_left(finished, tmp_path, given, step):
    folder, _ = finished
    found = export(folder / given, tmp_path / "to", step=step)
    left = folder / "run/model"
    assert {path.name for path in found.folder.iterdir()} == {path.name for path in left.iterdir()}
    for path in left.iterdir():
        assert (found.folder / path.name).read_bytes() == path.read_bytes(), path.name
    size = (left / "model.safetensors").stat().st_size
    assert found == dataclasses.replace(
        found, family="molmo2", step=4, tensors=len(tensors(left)), gigabytes=size / 1e9, dtype="fp32"
    )


@pytest.mark.parametrize("step", [None, 4])
def test_bf16_is_the_rounded_model_that_plain_transformers_reads(finished, tmp_path, step):
    folder, _ = finished
    export(folder / "run", tmp_path / "to", dtype="bf16", step=step)
    whole = {name: tensor.bfloat16() for name, tensor in tensors(folder / "run/model").items()}
    assert same(tensors(tmp_path / "to"), whole)
    plain = Molmo2ForConditionalGeneration.from_pretrained(tmp_path / "to", dtype="auto")
    assert plain.dtype == torch.bfloat16
    ours = load(tmp_path / "to", dtype=torch.bfloat16).hf
    assert same(plain.state_dict(), ours.state_dict())


def test_a_checkpoint_of_a_run_that_goes_on_is_exported_by_its_step(finished, tmp_path):
    folder, snapshot = finished
    export(folder / "run", tmp_path / "to", step=2)
    snapshot.model.load_state_dict(_with_adapters(snapshot, load_recipe(folder / "recipe.yaml")))
    state = snapshot.model.hf.state_dict()
    assert same(load(tmp_path / "to").hf.state_dict(), state)
    assert not same(tensors(tmp_path / "to"), tensors(folder / "run/model"))


def _with_adapters(snapshot, recipe):
    """The weights of then, merged: the model of the run is a plain one by now."""
    model = build_model(recipe)
    model.load_state_dict(snapshot.weights)
    merge(model)
    return model.state_dict()


def test_a_run_that_was_cut_off_gives_its_newest_checkpoint(toy, tmp_path):
    recipe = recipe_of(tmp_path, **{"optimizer.vision.lr": "0"})  # a checkpoint does not hold what is frozen
    with pytest.raises(toy.Stop):
        run(recipe, callbacks=[toy.StopAt(3)])
    found = export(recipe.out, tmp_path / "to")
    assert found.step == 2
    assert str(found).startswith(f"{tmp_path / 'to'}: model of family molmo2 after step 2, ")


def test_a_checkpoint_of_a_version_with_other_settings_is_named(finished, tmp_path):
    folder = shutil.copytree(finished[0] / "run", tmp_path / "run")
    rewrite(folder / "checkpoints/step-00000002", sparkle=1)
    with pytest.raises(RecipeError, match=r"recipe\.json: sparkle: unknown key .*use the version of"):
        export(folder, tmp_path / "to", step=2)


def rewrite(folder, **changes):
    """Change the recipe of a checkpoint."""
    file, manifest = folder / "recipe.json", folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    told = json.loads(manifest.read_text())
    told["sizes"]["recipe.json"] = file.stat().st_size
    manifest.write_text(json.dumps(told))


def test_a_tokenizer_that_moved_is_where_the_recipe_says(finished, tmp_path):
    folder = shutil.copytree(finished[0] / "run", tmp_path / "run")
    recipe = json.loads((finished[0] / "recipe.yaml").read_text()) | {"out": str(folder)}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    model = json.loads((folder / "checkpoints/step-00000002/recipe.json").read_text())["model"]
    rewrite(folder / "checkpoints/step-00000002", model=model | {"tokenizer": str(tmp_path / "gone")})
    assert export(tmp_path / "recipe.yaml", tmp_path / "to", step=2).step == 2


def test_adapters_alone_are_those_the_run_left(finished, tmp_path):
    folder, _ = finished
    export(folder / "run", tmp_path / "to", adapter=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "to" / name).read_bytes() == (folder / "run/adapter" / name).read_bytes()


def test_an_export_is_replaced_and_anything_else_is_left_alone(finished, tmp_path, monkeypatch):
    folder, _ = finished
    for step in (2, 4):
        export(folder / "run", tmp_path / "to", step=step)
    assert same(tensors(tmp_path / "to"), tensors(folder / "run/model"))
    assert [path.name for path in tmp_path.iterdir()] == ["to"]
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/one.txt").write_text("dear")

    def read(*_, **__):
        raise AssertionError("a model was read")

    for maker in ("load", "build_model"):
        monkeypatch.setattr(f"hedgerow.train.export.{maker}", read)
    for adapter, what in ((False, "model"), (True, "adapters")):
        with pytest.raises(RecipeError, match=f"letters is not empty and holds no {what}; give a new"):
            export(folder / "run", tmp_path / "letters", adapter=adapter)
    with pytest.raises(RecipeError, match="to is not empty"):
        export(folder / "run", tmp_path / "to", adapter=True)


def test_what_is_not_there_is_told(finished, tmp_path):
    folder, _ = finished
    with pytest.raises(RecipeError, match="nowhere: no run with a checkpoint or a trained model; give"):
        export(tmp_path / "nowhere", tmp_path / "to")
    with pytest.raises(RecipeError, match="has no checkpoint of step 3; there are 2, 4"):
        export(folder / "run", tmp_path / "to", step=3)
    assert not (tmp_path / "to").exists()


def test_a_run_without_lora_has_no_adapters(tmp_path):
    recipe = recipe_of(tmp_path, lora="null", steps="1")
    run(recipe)
    with pytest.raises(
        RecipeError, match="recipe has no lora, so there are no adapters; leave out --adapter"
    ):
        export(recipe.out, tmp_path / "to", adapter=True)


def test_a_language_model_is_exported_as_plain_transformers_reads_it(tmp_path):
    tiny_checkpoint(tmp_path / "qwen3", "qwen3")
    model = f"{{checkpoint: {tmp_path / 'qwen3'}, tokenizer: {tmp_path / 'qwen3'}}}"
    recipe = recipe_of(tmp_path, model=model, vision="{family: text}")
    run(recipe)
    found = export(recipe.out, tmp_path / "to", step=2)
    assert (found.family, found.tensors) == ("text", len(tensors(tmp_path / "to")))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "to", dtype=torch.float32)
    assert same(plain.state_dict(), load(tmp_path / "to").hf.state_dict())
    assert not same(plain.state_dict(), load(tmp_path / "qwen3").hf.state_dict())


def test_the_verb_prints_what_it_wrote(finished, tmp_path, monkeypatch, capsys):
    folder, _ = finished
    given = ["export", str(folder / "run"), "--to", str(tmp_path / "to"), "--step", "2", "--json"]
    monkeypatch.setattr(sys, "argv", ["hedgerow", *given])
    with pytest.raises(SystemExit, match=r"^0$"):
        main()
    figures = json.loads(capsys.readouterr().out)
    assert (figures["step"], figures["family"], figures["folder"]) == (2, "molmo2", str(tmp_path / "to"))
    assert figures["tensors"] == len(tensors(tmp_path / "to"))
