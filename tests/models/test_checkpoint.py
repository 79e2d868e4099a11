import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, Molmo2ForConditionalGeneration

from hedgerow.errors import DataError, RecipeError
from hedgerow.models import folder as folders
from hedgerow.models.assemble import checkpoint, load, read_settings, save
from hedgerow.models.pretrained import load as load_any
from hedgerow.sequence import Cost, Sequence, VisionInput

SETTINGS = {"crop_size": 8, "patch_size": 2, "margins": [1, 1], "max_frames": 16, "fps": 4.0}
BASE, VISUAL = 768, 10  # rows of the shipped tokenizer

# What readers of the published layout ask of each part of config.json, with the sizes of the fixture:
# the fields of `vllm/model_executor/models/molmo2.py` and of the published configuration code.
PUBLISHED = {
    "vit_config": {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 8, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
        "image_default_input_size": [8, 8], "image_patch_size": 2, "image_num_pos": 16,
        "attention_dropout": 0.0, "residual_dropout": 0.0, "float32_attention": True,
    },
    "adapter_config": {
        "vit_layers": [1, 0], "pooling_attention_mask": True, "hidden_size": 16, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 8, "hidden_act": "silu", "intermediate_size": 48,
        "text_hidden_size": 32, "image_feature_dropout": 0.0, "float32_attention": True,
    },
    "text_config": {
        "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "vocab_size": BASE, "additional_vocab_size": VISUAL, "qkv_bias": False, "num_hidden_layers": 2,
        "intermediate_size": 48, "hidden_act": "silu", "max_position_embeddings": 36864,
        "rope_theta": 10000.0, "rope_scaling": None, "rope_scaling_layers": None, "use_qk_norm": True,
        "qk_norm_type": "qwen3", "layer_norm_eps": 1e-6, "norm_after": False,
    },
}  # fmt: skip
TOP = (
    "image_start_token_id", "low_res_image_start_token_id", "image_end_token_id", "image_low_res_id",
    "image_high_res_id", "image_patch_id", "image_col_id", "frame_start_token_id", "frame_end_token_id",
)  # fmt: skip


def patches(crops, size):
    """Pixels of each patch in [-1, 1], one patch, one line and one pixel after another."""
    count, height, width, _ = crops.shape
    found = []
    for crop in crops:
        for top in range(0, height, size):
            for left in range(0, width, size):
                lines = [crop[top + y, left + x] for y in range(size) for x in range(size)]
                found.append(np.concatenate(lines).astype(np.float32) / 255.0 * 2.0 - 1.0)
    return torch.from_numpy(np.stack(found)).reshape(count, -1, size * size * 3)


def picture(vocabulary):
    """Text, an image of 2 x 4 slots in two crops with their marks, text."""
    rng = np.random.default_rng(3)
    patch, start, end = (vocabulary[name] for name in ("<im_patch>", "<im_start>", "<im_end>"))
    shown = [start, *[patch] * 8, end]
    tokens = np.array([*rng.integers(3, 768, 4), *shown, *rng.integers(3, 768, 6)], np.int32)
    size, own = len(tokens), np.arange(len(tokens), dtype=np.int32)
    none = np.zeros(0, np.int32)
    crops = rng.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    pooling = rng.permutation(32).reshape(8, 4).astype(np.int32)
    pooling[2, 1:] = -1
    return Sequence(
        example="picture",
        tokens=tokens,
        position=own,
        order=own,
        end=np.full(size, size, np.int32),
        group=np.where((own >= 4) & (own < 14), 0, -1).astype(np.int32),
        slot=np.arange(5, 13, dtype=np.int32),
        source=none,
        target=none,
        weight=none.astype(np.float32),
        sample=none,
        samples=(),
        cost=Cost(tokens=size),
        vision=VisionInput(crops, pooling, np.array([[1, 2, 4]]), 16),
    )


def theirs(hf, sequence):
    """Logits of the whole forward of `transformers`, with its own mask."""
    visual = torch.from_numpy(sequence.group >= 0).long()[None]
    arguments = {"input_ids": torch.from_numpy(sequence.tokens).long()[None], "mm_token_type_ids": visual}
    if sequence.vision is not None:
        arguments |= {
            "pixel_values": patches(sequence.vision.crops, 2),
            "image_token_pooling": torch.from_numpy(sequence.vision.pooling).long(),
            "image_grids": torch.tensor([[2, 4, 0, 0]]),
        }
    with torch.no_grad():
        return hf.eval()(**arguments).logits[0]


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.fixture
def saved(make_model, tokenizer, tmp_path):
    """Save a model: `saved(sizes=...)` gives it and its folder."""

    def make(**options):
        model = make_model(**options)
        save(model, tmp_path / "model", tokenizer=tokenizer, settings=SETTINGS)
        return model, tmp_path / "model"

    return make


@pytest.mark.parametrize("attention", ["dense", "segmented"])
@pytest.mark.parametrize("media", [True, False])
def test_a_saved_model_gives_the_same_logits_in_plain_transformers(
    saved, vocabulary, as_row, attention, media
):
    model, folder = saved(attention=attention)
    plain = Molmo2ForConditionalGeneration.from_pretrained(folder)
    sequence = picture(vocabulary)
    if not media:
        sequence = dataclasses.replace(
            sequence, vision=None, slot=sequence.slot[:0], group=np.full(len(sequence), -1, np.int32)
        )
    with torch.no_grad():
        ours = model.head(model(as_row(sequence)))
    assert distance(ours, theirs(plain, sequence)) < 1e-5


def test_a_model_that_plain_transformers_saved_gives_the_same_logits_here(
    saved, vocabulary, as_row, tmp_path
):
    plain = Molmo2ForConditionalGeneration.from_pretrained(saved()[1])
    expected = theirs(plain, picture(vocabulary))
    plain.save_pretrained(tmp_path / "plain")
    model = load(tmp_path / "plain", attention="dense")
    with torch.no_grad():
        assert distance(model.head(model(as_row(picture(vocabulary)))), expected) < 1e-5


def test_a_published_config_with_more_layers_than_weights_is_trimmed(saved, vocabulary, as_row):
    model, folder = saved(attention="dense")
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    fields["vit_config"]["num_hidden_layers"] = 4
    fields["adapter_config"]["vit_layers"] = [-3, -4]
    path.write_text(json.dumps(fields))
    again = load(folder, attention="dense")
    assert len(again.hf.model.vision_tower.layers) == 2
    assert again.hf.config.adapter_config.vision_feature_layer == [1, 0]
    row = as_row(picture(vocabulary))
    with torch.no_grad():
        assert torch.equal(again(row), model(row))


def test_visual_features_are_added_to_the_embedding_of_their_token(make_model, vocabulary, as_row):
    model, sequence = make_model(), picture(vocabulary)
    row = as_row(sequence)
    hf = model.hf
    with torch.no_grad():
        seen = hf.model.vision_tower(
            patches(sequence.vision.crops, 2), output_hidden_states=True
        ).hidden_states
        chosen = torch.cat([seen[2], seen[1]], dim=-1)  # layers 1 and 0; the first state is before layer 0
        features = hf.model.multi_modal_projector(chosen, torch.from_numpy(sequence.vision.pooling))
        token = hf.get_input_embeddings().weight[vocabulary["<im_patch>"]].clone()
        embedded = model.embed(row)
    slots = torch.from_numpy(sequence.slot).long()
    assert float(token.norm()) > 0.1
    assert distance(embedded[slots], features.last_hidden_state + token) < 1e-6


def tensors_of(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("sizes", [{}, {"kv_heads": 4}, {"kv_heads": 1, "layers": 3, "vision_layers": 3}])
def test_tensors_have_the_published_names_and_the_table_its_two_parts(saved, tmp_path, sizes):
    model, folder = saved(sizes=sizes)
    model.hf.save_pretrained(tmp_path / "theirs")
    found, expected = tensors_of(folder), tensors_of(tmp_path / "theirs")
    table = "model.transformer.wte."
    halves = {name: expected.pop(f"{table}{name}") for name in ("embedding", "new_embedding")}
    assert sum(shape[0] for shape in halves.values()) == BASE + VISUAL
    assert found.pop(f"{table}embedding") == [BASE, 32]
    assert found.pop(f"{table}new_embedding") == [VISUAL, 32]
    assert found == expected


def test_the_config_has_the_published_fields_and_reads_back_the_same(saved, vocabulary):
    model, folder = saved()
    fields = json.loads((folder / "config.json").read_text())
    for part, expected in PUBLISHED.items():
        assert {name: fields[part][name] for name in expected} == expected
    assert fields["model_type"] == "molmo2"
    assert fields["architectures"] == ["Molmo2ForConditionalGeneration"]
    assert {fields[name] for name in TOP} == {
        vocabulary[name]
        for name in (
            "<im_start>", "<low_res_im_start>", "<im_end>", "<im_low>", "<im_patch>", "<im_col>",
            "<frame_start>", "<frame_end>",
        )
    }  # fmt: skip
    read, held = AutoConfig.from_pretrained(folder), model.hf.config
    for part in ("vision_config", "adapter_config", "text_config"):
        mine = getattr(held, part).to_dict()
        told = getattr(read, part).to_dict()
        assert {name: told[name] for name in mine} == mine


def test_the_folder_names_no_attention_of_ours(saved):
    _, folder = saved()
    for name in ("config.json", "generation_config.json"):
        assert "hedgerow" not in (folder / name).read_text()


def test_a_loaded_model_is_the_saved_one(saved):
    model, folder = saved()
    again = load(folder, attention="dense")
    assert again.attention == "dense"
    names = dict(model.named_parameters())
    assert names.keys() == dict(again.named_parameters()).keys()
    assert all(torch.equal(names[name], p) for name, p in again.named_parameters())


def test_loaded_weights_own_their_memory(saved):
    parameters = list(load(saved()[1]).parameters())
    assert len({p.untyped_storage().data_ptr() for p in parameters}) == len(parameters)


def test_a_large_model_is_several_files(saved, monkeypatch):
    monkeypatch.setattr(checkpoint, "SHARD", 40_000)
    model, folder = saved()
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 3
    larger = [path for path in files if path.stat().st_size > 45_000]
    assert len(larger) == 2  # with the base table and the head, one tensor each
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {path.name for path in files}
    for again in (Molmo2ForConditionalGeneration.from_pretrained(folder), load(folder).hf):
        pairs = zip(model.hf.parameters(), again.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_tokenizer_and_settings_travel_with_the_model(saved, tokenizer):
    _, folder = saved()
    text = "<|im_start|>user\nWhere is it?<im_patch><|im_end|>"
    expected = tokenizer.encode(text, add_special_tokens=False).ids
    plain = AutoTokenizer.from_pretrained(folder)
    assert plain(text)["input_ids"] == expected
    assert (plain.eos_token, plain.pad_token) == ("<|im_end|>", "<|endoftext|>")
    ours = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert ours.encode(text, add_special_tokens=False).ids == expected
    assert read_settings(folder) == SETTINGS
    assert GenerationConfig.from_pretrained(folder).eos_token_id == tokenizer.token_to_id("<|im_end|>")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_size": 378}, "crop_size 378, the model 8"),
        ({"margins": [1, 1], "pool": 2}, "pool"),
        ({"margins": [2, 2]}, "margins"),
    ],
)
def test_settings_that_do_not_fit_are_refused(make_model, tokenizer, tmp_path, settings, message):
    with pytest.raises(RecipeError, match=message):
        save(make_model(), tmp_path / "model", tokenizer=tokenizer, settings=settings)
    assert not list(tmp_path.iterdir())


def test_saving_replaces_an_earlier_model_and_leaves_nothing_else(make_model, tokenizer, tmp_path):
    for frames in (3, 4):
        settings = SETTINGS | {"max_frames": frames}
        save(make_model(), tmp_path / "model", tokenizer=tokenizer, settings=settings)
    assert read_settings(tmp_path / "model")["max_frames"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_saving_over_something_else_is_refused(make_model, tokenizer, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="holds no model"):
        save(make_model(), tmp_path, tokenizer=tokenizer, settings=SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_save_that_fails_leaves_the_earlier_model(saved, make_model, tmp_path):
    saved()
    with pytest.raises(RecipeError, match="lacks"):
        save(make_model(), tmp_path / "model", tokenizer=Tokenizer.from_str(EMPTY), settings=SETTINGS)
    assert read_settings(tmp_path / "model") == SETTINGS
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


EMPTY = '{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}'


class Killed(BaseException):
    """Ends the process at once: nothing is cleaned up behind it."""


def steps_of_a_save(monkeypatch, *, die_at):
    """Count what a save writes, renames and removes; die before one of them."""
    seen = []

    def watched(owner, name):
        own = getattr(owner, name)

        def step(*arguments, **named):
            seen.append(name)
            if len(seen) == die_at:
                raise Killed
            return own(*arguments, **named)

        monkeypatch.setattr(owner, name, step)

    for owner, name in (
        (checkpoint, "save_file"),
        (folders, "remove"),
        (Path, "write_text"),
        (Path, "replace"),
    ):
        watched(owner, name)
    return seen


def test_a_save_killed_at_any_step_leaves_a_whole_model(saved, make_model, tokenizer, tmp_path, monkeypatch):
    old, folder = saved()
    new = make_model()
    with torch.no_grad():
        new.head.weight.add_(1.0)
    found, killed = [], True
    while killed:
        killed = False
        with monkeypatch.context() as patch:
            seen = steps_of_a_save(patch, die_at=len(found) + 1)
            try:
                save(new, folder, tokenizer=tokenizer, settings=SETTINGS)
            except Killed:
                killed = True
        held = load(folder).head.weight
        found.append(
            next(name for name, one in (("old", old), ("new", new)) if torch.equal(held, one.head.weight))
        )
        assert read_settings(folder) == SETTINGS
        save(old, folder, tokenizer=tokenizer, settings=SETTINGS)  # goes on from whatever was left
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert {"save_file", "write_text", "replace"} <= set(seen)
    assert len(found) == len(seen) + 1
    # The old one, and once the old one is set aside the new one.
    aside = seen.index("replace") + 1
    assert found == ["old"] * aside + ["new"] * (len(found) - aside)


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop("lm_head.weight"), "missing lm_head.weight"),
        (lambda tensors: tensors.update(other=torch.zeros(2)), "surplus other"),
        (
            lambda tensors: tensors.update({"lm_head.weight": torch.zeros(2, 2)}),
            "misshapen .*lm_head",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_an_error(saved, edit, message):
    _, folder = saved()
    change(folder, edit)
    with pytest.raises(DataError, match=message) as found:
        load(folder)
    assert "\n" not in str(found.value)


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"no config\.json"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"hedgerow\.json does not exist"):
        read_settings(tmp_path)


def test_a_folder_without_weights_is_an_error(saved):
    _, folder = saved()
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"has no model\.safetensors; save the model with transformers 5"):
        load(folder)


def shards(folder):
    """Part the tensors of a folder into two files and an index."""
    tensors = load_file(folder / "model.safetensors")
    names = {name: f"model-{number % 2 + 1:05d}-of-00002.safetensors" for number, name in enumerate(tensors)}
    for file in set(names.values()):
        own = {name: tensor for name, tensor in tensors.items() if names[name] == file}
        save_file(own, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names, "metadata": {}}))
    (folder / "model.safetensors").unlink()


def without_a_shard(folder):
    shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def cut_off(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_an_index(folder):
    shards(folder)
    (folder / "model.safetensors.index.json").write_text("[]")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_a_shard, "lacks model-00002-of-00002.safetensors, which its index names; copy the whole"),
        (cut_off, "model.safetensors: damaged or cut off .*; copy it again"),
        (pickled, "has no model.safetensors, only pytorch_model.bin; save the model with transformers 5"),
        (without_an_index, "is no index of tensors .*; copy it again"),
    ],
)
def test_weights_that_are_not_whole_are_one_line(saved, damage, message):
    _, folder = saved()
    damage(folder)
    for read in (load, load_any):
        with pytest.raises(DataError, match=message) as found:
            read(folder)
        assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model_type": "qwen3"}', "is a qwen3, not a molmo2"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"model_type": "molmo2", "text_config": {"qk_norm_type": "none"}}', "no config of a Molmo2.*none"),
    ],
)
def test_a_config_of_something_else_is_an_error(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DataError, match=message) as found:
        load(tmp_path)
    assert "\n" not in str(found.value)


MEASURED = """
import gc, sys, resource
import torch
from hedgerow.models.assemble import ModelSpec, build, load, save
from hedgerow.text import load_tokenizer

def peak():
    text = open("/proc/self/status").read()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024

def fresh_peak():
    open("/proc/self/clear_refs", "w").write("5")

spec = ModelSpec(hidden=2048, layers=18, heads=16, kv_heads=8, head_dim=128, mlp=8192)
folder, action = sys.argv[1:]
if action == "save":
    model = build(spec, tokenizer=load_tokenizer(), seed=0)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    gc.collect()
    fresh_peak()
    base = peak()
    save(model, folder, tokenizer=load_tokenizer(), settings={})
else:
    base = peak()
    model = load(folder)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    base += size
print(size, peak() - base)
"""


@pytest.mark.slow
def test_saving_and_loading_need_at_most_one_copy_beyond_the_model(tmp_path):
    for action in ("save", "load"):
        told = subprocess.run(
            [sys.executable, "-c", MEASURED, str(tmp_path / "model"), action],
            capture_output=True, text=True, check=True, timeout=600,
        )  # fmt: skip
        size, more = map(int, told.stdout.split()[-2:])
        print(f"{action}: {size / 1e9:.2f} GB of weights, {more / 1e9:.2f} GB beyond")
        assert size > 3.9e9
        assert more < (0.5 if action == "save" else 1.1) * size
