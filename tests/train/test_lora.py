"""Runs with LoRA and frozen parts: exact resume, what is kept in memory and on disk, what they leave."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hedgerow.build import build_model, trained_model
from hedgerow.errors import RecipeError
from hedgerow.models.lora import merge
from hedgerow.models.pretrained import load, save
from hedgerow.recipe import load_recipe
from hedgerow.testing import TINY_VISION, tiny_recipe, write_jsonl, write_png
from hedgerow.text import load_tokenizer
from hedgerow.train import checkpoint
from hedgerow.train.optim import Optimizers
from hedgerow.train.run import run

RATE = "{lr: 1e-2, warmup: 1}"
RATES = {f"optimizer.{part}": RATE for part in ("vision", "connector", "language")}
FROZEN = {"optimizer.vision.lr": "0"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a recipe of four steps for a tiny checkpoint."""
    folder = tmp_path_factory.mktemp("lora")
    write_png(folder / "a.png")

    def row(number):
        shown = [{"type": "image", "path": "a.png"}, {"type": "text", "text": "What? " * (1 + number)}]
        said = [{"role": "user", "content": shown}, {"role": "assistant", "content": "A" * number + " gate."}]
        return {"id": str(number), "messages": said}

    path = tiny_recipe(folder, write_jsonl(folder / "d.jsonl", map(row, range(8))), steps=4)
    settings = {name: list(v) if isinstance(v, tuple) else v for name, v in TINY_VISION.items()}
    model = build_model(load_recipe(path))
    save(model, folder / "base", tokenizer=load_tokenizer("tiny"), settings=settings)
    fields = json.loads(path.read_text())
    fields["model"] = {"checkpoint": "base"}
    path.write_text(json.dumps(fields | {"save_every": 2, "rows_per_step": 2}))
    return folder


def recipe_of(place, out, lora="{parts: [language], rank: 3}", **overrides):
    given = {"out": str(out), **RATES, **({} if lora is None else {"lora": lora}), **overrides}
    return load_recipe(place / "recipe.yaml", given)


def tensors(folder):
    return load_file(folder / "model.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    "settings",
    [
        {
            "lora": "{parts: [language, vision], rank: 3, dropout: 0.2}",
            "model.gradient_checkpointing": "true",
        },
        pytest.param({"precision": "bf16"}, marks=pytest.mark.slow),
        pytest.param({"optimizer.name": "muon", **FROZEN}, marks=pytest.mark.slow),
    ],
    ids=["dropout", "bf16", "muon"],
)
def test_a_run_that_was_cut_off_ends_with_the_weights_of_one_that_was_not(toy, place, tmp_path, settings):
    whole, cut = (
        recipe_of(place, tmp_path / "whole", **settings),
        recipe_of(place, tmp_path / "cut", **settings),
    )
    run(whole)
    with pytest.raises(toy.Stop):
        run(cut, callbacks=[toy.StopAt(3)])
    assert checkpoint.newest(cut.out).name == "step-00000002"
    run(cut)
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (whole.out / name).read_bytes() == (cut.out / name).read_bytes()
    losses = [
        [json.loads(line)["loss"] for line in (one.out / "metrics.jsonl").read_text().splitlines()]
        for one in (whole, cut)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4


def test_a_run_leaves_the_merged_model_and_moves_nothing_but_what_it_trains(place, tmp_path):
    recipe = recipe_of(place, tmp_path / "run", **FROZEN)
    before, after = tensors(place / "base"), tensors(run(recipe).model)
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    blocks = ("self_attn.att_proj", "self_attn.attn_out", "mlp.ff_proj", "mlp.ff_out")
    adapted = {name for name in before if "transformer.blocks" in name and any(one in name for one in blocks)}
    connector = {name for name in before if "image_pooling_2d" in name or "image_projector" in name}
    assert moved == adapted | connector
    assert trained_model(recipe).hf.config.model_type == "molmo2"  # no adapter is left in it


def test_a_checkpoint_holds_what_is_trained_and_nothing_else(place, tmp_path):
    recipe = recipe_of(place, tmp_path / "run", **FROZEN, steps="2")
    run(recipe)
    held = tensors(checkpoint.newest(recipe.out))
    assert all(".lora_" in name or "multi_modal_projector" in name for name in held)
    model = build_model(recipe)
    Optimizers(model, recipe)
    checkpoint.load_weights(checkpoint.newest(recipe.out), model)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert held.keys() == names
    merge(model)
    assert same(model.hf.state_dict(), load(recipe.out / "model").hf.state_dict())


def test_frozen_weights_take_no_memory_for_gradients_or_states(place, tmp_path):
    """Bytes of gradients are those of what is trained, of states twice as many (and AdamW's step counts)."""

    def bytes_of(lora, **overrides):
        recipe = recipe_of(place, tmp_path / "none", lora, **overrides)
        model = build_model(recipe)
        optimizers = Optimizers(model, recipe)
        optimizers.zero_grad()
        optimizers.step(1)
        states = optimizers.state_dict()["adamw"]["state"].values()
        moments = [one[name] for one in states for name in ("exp_avg", "exp_avg_sq")]
        parameters = list(model.parameters())
        return [
            sum(tensor.numel() * tensor.element_size() for tensor in found)
            for found in (
                [p for p in parameters if p.requires_grad],
                [p.grad for p in parameters if p.grad is not None],
                moments,
            )
        ]

    model = build_model(recipe_of(place, tmp_path / "none", None))
    groups = {name: 4 * sum(p.numel() for p in group) for name, group in model.parameter_groups().items()}
    layers, rank = model.hf.model.language_model.layers, 3
    linears = [one for one in layers.modules() if isinstance(one, torch.nn.Linear)]
    small = 4 * rank * sum(one.in_features + one.out_features for one in linears)
    for (lora, overrides), trained in {
        (None, ()): sum(groups.values()),
        (None, ("vision",)): groups["connector"] + groups["language"],
        ("{parts: [language], rank: 3}", ()): groups["vision"] + groups["connector"] + small,
        ("{parts: [language], rank: 3}", ("vision", "connector")): small,
    }.items():
        rates = {f"optimizer.{part}.lr": "0" for part in overrides}
        assert bytes_of(lora, **rates) == [trained, trained, 2 * trained]


def test_a_run_whose_model_has_changed_underneath_is_refused(place, tmp_path):
    """The place of the checkpoint may change, its content may not."""
    shutil.copytree(place / "base", tmp_path / "base")
    lora = {"model.checkpoint": str(tmp_path / "base"), "steps": "2"}
    recipe = recipe_of(place, tmp_path / "run", **lora)
    run(recipe)
    (recipe.out / "trained.json").unlink()
    run(recipe_of(place, tmp_path / "run", steps="2"))  # the same model, elsewhere
    (recipe.out / "trained.json").unlink()
    held = tensors(tmp_path / "base")
    held["model.transformer.ln_f.weight"][0] += 1e-6
    save_file(held, tmp_path / "base/model.safetensors", {"format": "pt"})
    with pytest.raises(
        RecipeError, match=r"not trained are not those of the run \(content \w{16} then, \w{16}"
    ):
        run(recipe)


def test_checkpoints_from_when_they_held_all_weights_are_read(place, tmp_path):
    recipe = recipe_of(place, tmp_path / "run", None, **FROZEN, steps="2")
    whole = tensors(run(recipe).model)
    folder = checkpoint.newest(recipe.out)
    model = build_model(recipe)
    checkpoint.load_weights(folder, _frozen(model, recipe))
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["frozen"]
    manifest["sizes"]["model.safetensors"] = (folder / "model.safetensors").stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (recipe.out / "trained.json").unlink()
    assert same(tensors(run(recipe).model), whole)


def _frozen(model, recipe):
    Optimizers(model, recipe)
    return model


def test_adapters_of_an_earlier_run_do_not_stay_beside_the_model_of_another(place, tmp_path):
    run(recipe_of(place, tmp_path / "run", steps="1"))
    assert (tmp_path / "run/adapter").is_dir()
    run(recipe_of(place, tmp_path / "run", None, steps="1"), fresh=True)
    assert not (tmp_path / "run/adapter").exists()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"optimizer.language.lr": "0"}, r"lora\.parts names language, and optimizer\.language\.lr is 0"),
        ({"lora.dropout": "0.1", "context": "2"}, r"lora\.dropout 0\.1 with context 2"),
        ({"lora.parts": "[speech]"}, r"lora\.parts.*'vision', 'connector' or 'language'"),
        ({"lora.rank": "0"}, r"lora\.rank"),
        ({"lora.ranks": "8"}, r"unknown key 'ranks'.*did you mean 'rank'"),
    ],
)
def test_recipes_that_cannot_be_are_told(place, tmp_path, overrides, told):
    with pytest.raises(RecipeError, match=told):
        recipe_of(place, tmp_path / "run", **overrides)


@pytest.mark.parametrize("change", ["{parts: [language], rank: 3, alpha: 8}", None])
def test_a_run_goes_on_with_the_adapters_it_began_with(place, tmp_path, change):
    run(recipe_of(place, tmp_path / "run", steps="2"))
    with pytest.raises(RecipeError, match=r"of another run: lora"):
        run(recipe_of(place, tmp_path / "run", change, steps="2"))


def test_the_recipe_of_the_page_is_a_recipe(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "lora.md"
    recipes = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert recipes
    for text in recipes:
        (tmp_path / "recipe.yaml").write_text(text)
        recipe = load_recipe(tmp_path / "recipe.yaml")
        assert recipe.lora is not None
        assert str(recipe.lora) in repr(recipe)


def test_a_file_says_what_it_holds(place, tmp_path):
    recipe = recipe_of(place, tmp_path / "run", steps="1")
    run(recipe)
    with safe_open(recipe.out / "adapter/adapter_model.safetensors", framework="pt") as stored:
        assert stored.metadata() == {"format": "pt"}
    fields = json.loads((recipe.out / "adapter/adapter_config.json").read_text())
    assert (fields["r"], fields["lora_alpha"], fields["peft_type"]) == (3, 32, "LORA")
    assert fields["base_model_name_or_path"] == str(place / "base")
