import dataclasses
import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Molmo2ForConditionalGeneration

from hedgerow.errors import DataError, RecipeError
from hedgerow.models.assemble import ModelSpec, build, load, read_settings, save
from hedgerow.sequence import Cost, Sequence, VisionInput
from hedgerow.text import load_tokenizer

SETTINGS = {"vision": {"pool": [2, 2]}}


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


@pytest.mark.parametrize("attention", ["dense", "segmented"])
@pytest.mark.parametrize("media", [True, False])
def test_a_saved_model_gives_the_same_logits_in_plain_transformers(
    make_model, tokenizer, vocabulary, as_row, tmp_path, attention, media
):
    model = make_model(attention=attention)
    save(model, tmp_path / "model", tokenizer=tokenizer, settings=SETTINGS)
    plain = Molmo2ForConditionalGeneration.from_pretrained(tmp_path / "model")
    sequence = picture(vocabulary)
    if not media:
        sequence = dataclasses.replace(
            sequence, vision=None, slot=sequence.slot[:0], group=np.full(len(sequence), -1, np.int32)
        )
    with torch.no_grad():
        ours = model.head(model(as_row(sequence)))
    expected = theirs(plain, sequence)
    assert float((ours - expected).norm() / expected.norm()) < 1e-5


def test_a_loaded_model_is_the_saved_one(make_model, tokenizer, tmp_path):
    model = make_model()
    save(model, tmp_path / "model", tokenizer=tokenizer, settings=SETTINGS)
    again = load(tmp_path / "model", attention="dense")
    assert again.attention == "dense"
    names = dict(model.named_parameters())
    assert names.keys() == dict(again.named_parameters()).keys()
    assert all(torch.equal(names[name], p) for name, p in again.named_parameters())


def test_loaded_weights_own_their_memory(make_model, tokenizer, tmp_path):
    save(make_model(), tmp_path / "model", tokenizer=tokenizer, settings=SETTINGS)
    parameters = list(load(tmp_path / "model").parameters())
    assert len({p.untyped_storage().data_ptr() for p in parameters}) == len(parameters)


def test_the_folder_names_no_attention_of_ours(make_model, tokenizer, tmp_path):
    save(make_model(), tmp_path / "model", tokenizer=tokenizer, settings=SETTINGS)
    assert "hedgerow" not in (tmp_path / "model" / "config.json").read_text()
    assert "hedgerow" not in (tmp_path / "model" / "generation_config.json").read_text()


def test_tokenizer_and_settings_travel_with_the_model(make_model, tokenizer, tmp_path):
    save(make_model(), tmp_path / "model", tokenizer=tokenizer, settings=SETTINGS)
    text = "<|im_start|>user\nWhere is it?<im_patch><|im_end|>"
    expected = tokenizer.encode(text, add_special_tokens=False).ids
    plain = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert plain(text, add_special_tokens=False)["input_ids"] == expected
    ours = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    assert ours.encode(text, add_special_tokens=False).ids == expected
    assert read_settings(tmp_path / "model") == SETTINGS


def test_saving_replaces_an_earlier_model_and_leaves_nothing_else(make_model, tokenizer, tmp_path):
    for number in range(2):
        save(make_model(), tmp_path / "model", tokenizer=tokenizer, settings={"number": number})
    assert read_settings(tmp_path / "model") == {"number": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_saving_over_something_else_is_refused(make_model, tokenizer, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="holds no model"):
        save(make_model(), tmp_path, tokenizer=tokenizer, settings=SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_save_that_fails_leaves_the_earlier_model(make_model, tokenizer, tmp_path):
    save(make_model(), tmp_path / "model", tokenizer=tokenizer, settings={"number": 0})
    with pytest.raises(TypeError):
        save(make_model(), tmp_path / "model", tokenizer=tokenizer, settings={"number": object()})
    assert read_settings(tmp_path / "model") == {"number": 0}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


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
def test_tensors_that_do_not_fit_are_an_error(make_model, tokenizer, tmp_path, edit, message):
    save(make_model(), tmp_path / "model", tokenizer=tokenizer, settings=SETTINGS)
    change(tmp_path / "model", edit)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "model")


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"no config\.json"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"hedgerow\.json does not exist"):
        read_settings(tmp_path)


def test_a_folder_without_weights_is_an_error(make_model, tokenizer, tmp_path):
    save(make_model(), tmp_path / "model", tokenizer=tokenizer, settings=SETTINGS)
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(DataError, match="no model that can be read"):
        load(tmp_path / "model")


def test_the_seed_decides_the_weights_and_nothing_else_moves(make_model):
    one = make_model()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        state = torch.random.get_rng_state()
        other = make_model()
        assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_special_ids_come_from_the_tokenizer(make_model, vocabulary):
    config = make_model().hf.config
    assert config.image_patch_id == vocabulary["<im_patch>"]
    assert config.frame_end_token_id == vocabulary["<frame_end>"]
    assert config.text_config.vocab_size == vocabulary["<im_start>"]
    assert config.text_config.vocab_size + config.text_config.additional_vocab_size == len(vocabulary)


def test_a_tokenizer_with_a_token_behind_the_visual_ones_is_refused(tokenizer):
    longer = Tokenizer.from_str(tokenizer.to_str())
    longer.add_tokens(["<late>"])
    with pytest.raises(RecipeError, match="<late> behind"):
        build(ModelSpec(), tokenizer=longer, seed=0)


def test_a_tokenizer_without_visual_tokens_is_refused(tokenizer):
    fields = json.loads(tokenizer.to_str())
    fields["added_tokens"] = [token for token in fields["added_tokens"] if token["content"] != "<im_low>"]
    with pytest.raises(RecipeError, match="lacks <im_low>"):
        build(ModelSpec(), tokenizer=Tokenizer.from_str(json.dumps(fields)), seed=0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"heads": 3, "kv_heads": 2}, "heads 3 is no multiple of kv_heads 2"),
        ({"crop_size": 85}, "crop_size 85 is no multiple of patch_size 7"),
        ({"feature_layers": (2,)}, "layers 0 to 1"),
        ({"depth": 2}, "depth"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValidationError, match=message):
        ModelSpec(**sizes)


def test_plain_transformers_knows_where_an_answer_ends(tmp_path):
    tokenizer = load_tokenizer()
    save(
        build(ModelSpec(), tokenizer=tokenizer, seed=0), tmp_path / "model", tokenizer=tokenizer, settings={}
    )
    loaded = Molmo2ForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert loaded.generation_config.eos_token_id == tokenizer.token_to_id("<|im_end|>")
