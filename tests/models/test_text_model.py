"""Language models without vision: logits of `transformers`, the laws, and what they refuse."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from hedgerow.build import build_model, trained_model
from hedgerow.errors import DataError, MediaError, RecipeError, VisibilityError
from hedgerow.models.pretrained import family_of, load, save
from hedgerow.models.text import TextModel
from hedgerow.recipe import load_recipe
from hedgerow.sequence import Budget, Cost, Row
from hedgerow.testing import (
    TINY_QWEN3_VL,
    tiny_checkpoint,
    tiny_encoder,
    tiny_tokenizer,
    write_jsonl,
    write_mp4,
    write_png,
)
from hedgerow.train.run import run
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.verify import verify, verify_recipe
from hedgerow.vision.text import TextProcessor

KINDS = ("qwen3", "olmo3", "llama")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    found = {kind: tiny_checkpoint(place / kind, kind) for kind in (*KINDS, "qwen3_vl")}
    for folder in found.values():
        (folder / "preprocessor_config.json").write_text('{"patch_size": 4}')
    return found


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder(TextProcessor())


def user(text):
    return Message("user", text)


def bot(text):
    return Message("assistant", text)


TREES = (
    MessageTree(
        "t",
        (user("A root that is longer than any window."),),
        (
            Branch((user("Which?"), bot("The first of them, and no other."))),
            Branch((bot("one"), user("more")), (Branch((bot("two"),)), Branch((bot("three, four, five"),)))),
        ),
    ),
    MessageTree("u", (Message("system", "Be kind."), user("Hi"), bot("Hello you."))),
)


def row_of(*sequences):
    return Row.join(list(sequences), Budget(**sum((item.cost for item in sequences), Cost())))


def error(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_a_sample_equal_transformers(folders, encoder, kind):
    model, hf = load(folders[kind]), AutoModelForCausalLM.from_pretrained(folders[kind], dtype=torch.float32)
    sequence = encoder(TREES[1])
    ids = torch.as_tensor(sequence.tokens, dtype=torch.long)[None]
    assert error(model.head(model(row_of(sequence))), hf(input_ids=ids).logits[0]) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_packed_trees_have_the_logits_of_separate_forwards_of_transformers(folders, encoder, kind):
    model, hf = load(folders[kind]), AutoModelForCausalLM.from_pretrained(folders[kind], dtype=torch.float32)
    sequences = [encoder(tree) for tree in TREES]
    row = row_of(*sequences)
    logits = model.head(model(row)[torch.as_tensor(row.source, dtype=torch.long)])
    first = 0
    for tree, sequence in zip(TREES, sequences, strict=True):
        for number, sample in enumerate(sequence.samples):
            node = next(node for node in tree.nodes() if node.address == sample.branch)
            own = encoder(dataclasses.replace(tree, messages=node.path + node.messages, branches=()))
            mine = logits[row.sample == first + number]
            ids = torch.as_tensor(own.tokens, dtype=torch.long)[None]
            assert error(mine, hf(input_ids=ids).logits[0][own.source[-len(mine) :]]) < 1e-5
        first += len(sequence.samples)


@pytest.mark.parametrize("kind", KINDS)
def test_the_laws_hold(folders, encoder, kind):
    found = verify(load(folders[kind]), encoder, TREES)
    assert found.passed, found


def test_windows_of_olmo_3_are_shorter_than_its_trees(folders, encoder):
    """Or the laws above would say nothing of them."""
    model = load(folders["olmo3"])
    assert isinstance(model, TextModel)
    assert model.hf.config.sliding_window < min(encoder.lengths(TREES[0])[0], len(encoder(TREES[1])))
    layers = model.hf.config.layer_types
    assert set(layers) == {"sliding_attention", "full_attention"}
    assert model.hf.config.rope_parameters["full_attention"]["rope_type"] == "yarn"


def test_language_is_the_one_group(folders):
    model = load(folders["llama"])
    groups = model.parameter_groups()
    assert list(groups) == ["language"]
    assert len(groups["language"]) == len(list(model.parameters()))


# Recipes


def recipe_of(folder, kind, model, train, **overrides):
    family = "qwen3_vl" if kind == "qwen3_vl" else "text"
    vision = {"family": family, **(TINY_QWEN3_VL if family == "qwen3_vl" else {})}
    raw = {
        "data": {"train": [{"path": str(train)}]},
        "model": {"checkpoint": str(model), "tokenizer": str(model)},
        "vision": vision,
        "packing": {"budget": {"tokens": 400, "crops": 2000}},
        "optimizer": {name: {"lr": 1e-2, "warmup": 0} for name in ("vision", "connector", "language")},
        "steps": 1,
        "out": str(folder / "run"),
        "threads": 1,
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(raw | overrides), encoding="utf-8")
    return load_recipe(path)


def trees_file(folder, *, media):
    video, image = write_mp4(folder / "v.mp4"), write_png(folder / "a.png")
    ask = {"role": "user", "content": "What is it?"}
    tell = {"role": "assistant", "content": "A thing that moves."}
    shown = [{"type": "video", "path": str(video)}, {"type": "image", "path": str(image)}]
    root = [{"role": "user", "content": shown if media else "Hello."}]
    tree = {"source": "s", "messages": root, "branches": [{"messages": [ask, tell]}] * 2}
    return write_jsonl(folder / "trees.jsonl", [{"id": f"t{n}", **tree} for n in range(3)])


@pytest.mark.parametrize("kind", [*KINDS, "qwen3_vl"])
def test_a_recipe_verifies_trains_and_saves_what_transformers_reads(folders, tmp_path, kind):
    recipe = recipe_of(tmp_path, kind, folders[kind], trees_file(tmp_path, media=kind == "qwen3_vl"))
    assert verify_recipe(recipe, trees=2).passed
    before = dict(load(folders[kind]).named_parameters())
    run(recipe)
    model = trained_model(recipe)
    after = dict(model.named_parameters())
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    # Biases of vision that only shift what is normalised have no gradient, so a few may stay.
    assert len(moved) > 0.9 * len(after)
    plain = type(model.hf).from_pretrained(recipe.out / "model", dtype=torch.float32)
    assert all(torch.equal(value, after[f"hf.{name}"]) for name, value in plain.named_parameters())
    for name in ("tokenizer.json", "preprocessor_config.json"):
        assert (recipe.out / "model" / name).read_bytes() == (folders[kind] / name).read_bytes()


def test_a_model_and_a_recipe_of_different_families_are_named(folders, tmp_path):
    train = trees_file(tmp_path, media=False)
    recipe = recipe_of(tmp_path, "llama", folders["qwen3_vl"], train)
    with pytest.raises(RecipeError, match="of family qwen3_vl, the recipe encodes media for text; set"):
        build_model(recipe)


def test_a_recipe_for_text_refuses_trees_with_media(folders, tmp_path):
    recipe = recipe_of(tmp_path, "llama", folders["llama"], trees_file(tmp_path, media=True))
    with pytest.raises(MediaError, match="a media type the model cannot see"):
        run(recipe)


# Folders


def test_families_are_told_by_the_config(folders, tmp_path):
    assert [family_of(folder) for folder in folders.values()] == ["text", "text", "text", "qwen3_vl"]
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(DataError, match="is a siglip; give a molmo2, a qwen3_vl, another model"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gemma3", "vision_config": {}}')
    assert family_of(tmp_path) == "processor"  # a language model with a vision tower
    (tmp_path / "config.json").write_text('{"model_type": "llama"')
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"has no config\.json"):
        load(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda tensors: tensors.pop("model.norm.weight"),
            r"tensors missing model\.norm\.weight \(1 in all\)",
        ),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "tensors surplus more"),
        (lambda tensors: tensors.update({"model.norm.weight": torch.zeros(7)}), "misshapen"),
    ],
)
def test_tensors_that_do_not_belong_to_the_config_are_named(tmp_path, change, said):
    folder = tiny_checkpoint(tmp_path / "llama", "llama")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=said):
        load(folder)


SIZES = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}


@pytest.mark.parametrize("kind", ["linear", "own"])
def test_models_whose_attention_cannot_take_the_mask_are_refused(tmp_path, kind):
    if kind == "linear":
        sizes = SIZES | {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "num_experts": 0}
        layers = {"layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 2}
        config = Qwen3NextConfig(**sizes, **layers, linear_num_key_heads=1)
        Qwen3NextForCausalLM(config).save_pretrained(tmp_path)
        said = "Qwen3NextModel has layers of kind linear_attention, which cannot hide the branches"
    else:
        BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=16, n_layer=1, n_head=2)).save_pretrained(
            tmp_path
        )
        said = "BloomModel does not attend through the AttentionInterface"
    with pytest.raises(VisibilityError, match=said) as told:
        load(tmp_path)
    assert "\n" not in str(told.value)


def test_a_save_keeps_what_else_the_checkpoint_held_and_the_earlier_model_if_it_fails(folders, tmp_path):
    origin = tiny_checkpoint(tmp_path / "origin", "llama")
    (origin / "preprocessor_config.json").write_text('{"patch_size": 4}')
    (origin / "chat_template.jinja").write_text("template")
    model = load(origin)
    save(model, tmp_path / "new", tokenizer=tiny_tokenizer(), settings={"family": "text"}, origin=origin)
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert {"preprocessor_config.json", "chat_template.jinja", "tokenizer.json", "hedgerow.json"} <= names
    written = (tmp_path / "new" / "model.safetensors").read_bytes()
    with pytest.raises(AttributeError):
        save(model, tmp_path / "new", tokenizer=None, settings={})
    assert (tmp_path / "new" / "model.safetensors").read_bytes() == written
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(RecipeError, match="is not empty and holds no model"):
        save(model, tmp_path / "other", tokenizer=tiny_tokenizer(), settings={})
