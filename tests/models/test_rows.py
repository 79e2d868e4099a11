"""The general row model, by the family that `docs/adapters.md` writes."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken
from transformers import LlavaConfig, LlavaForConditionalGeneration

from hedgerow.content import Image, Text, Video
from hedgerow.encode import Encoder
from hedgerow.errors import MediaError, RecipeError, VisibilityError
from hedgerow.models.generate import generate
from hedgerow.models.rows import RowModel
from hedgerow.recipe import load_recipe
from hedgerow.sequence import Budget, Cost, Row
from hedgerow.testing import tiny_tokenizer, write_png
from hedgerow.text import ChatFormat
from hedgerow.tree import Branch, Message, MessageTree

GUIDE = Path(__file__).parents[2] / "docs" / "adapters.md"
TEXT = {
    "model_type": "llama", "vocab_size": 800, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.15,
}  # fmt: skip
TOWER = {
    "model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 2, "image_size": 28, "patch_size": 7, "initializer_range": 0.15,
}  # fmt: skip


@pytest.fixture(scope="module")
def guide():
    """The names that the code of the guide defines, run as it stands there."""
    names = {"__name__": "guide"}
    for code in re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(code, GUIDE.name, "exec"), names)
    return names


@pytest.fixture(scope="module")
def tokenizer():
    found = tiny_tokenizer()
    found.add_special_tokens([AddedToken("<image>", normalized=False)])
    return found


@pytest.fixture(scope="module")
def build(tokenizer):
    """Make the same model again."""

    def make():
        torch.manual_seed(0)
        image = tokenizer.token_to_id("<image>")
        return LlavaForConditionalGeneration(
            LlavaConfig(text_config=TEXT, vision_config=TOWER, image_token_index=image)
        )

    return make


@pytest.fixture(scope="module")
def hf(build):
    return build()


@pytest.fixture(scope="module")
def processor(guide):
    return guide["LlavaProcessor"](size=28, patch_size=7)


@pytest.fixture(scope="module")
def encoder(processor, tokenizer):
    return Encoder(ChatFormat(tokenizer), processor)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    place = tmp_path_factory.mktemp("media")
    wide = Image(str(write_png(place / "a.png")))
    tall = Image(str(write_png(place / "b.png", size=(20, 80), seed=1)))

    def said(question, answer):
        return Branch((Message("user", question), Message("assistant", answer)))

    return (
        MessageTree(
            "a", (Message("user", (wide,)),), (said("What?", "Noise."), said("Which?", "The first."))
        ),
        MessageTree("b", (Message("user", (tall, Text("And?"), wide)), Message("assistant", "More."))),
    )


def row_of(*sequences):
    return Row.join(list(sequences), Budget(**sum((item.cost for item in sequences), Cost())))


def test_the_laws_hold_for_the_family_of_the_guide(guide, hf, tokenizer, trees, processor):
    found = guide["prove"](hf, tokenizer, trees, processor)
    assert found.passed, found


@torch.no_grad()
def test_its_logits_of_a_sample_equal_transformers(guide, hf, build, encoder, trees):
    sequence = encoder(trees[1])
    model = guide["Llava"](hf)
    ours = model.head(model(row_of(sequence)))
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = (torch.as_tensor(sequence.vision.crops) / 255 - mean) / std
    ids = torch.as_tensor(sequence.tokens, dtype=torch.long)[None]
    theirs = build()(input_ids=ids, pixel_values=pixels.permute(0, 3, 1, 2).contiguous()).logits[0]
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


def test_its_answers_can_be_generated(guide, hf, encoder, trees):
    prompts = encoder.prompts(trees[0], trees[0].nodes()[1:])
    found = generate(guide["Llava"](hf), prompts, encoder.chat)
    assert len(found.answers) == 2


def test_its_parts_have_each_parameter_once(guide, hf):
    model = guide["Llava"](hf)
    groups = model.parameter_groups()
    assert list(groups) == ["vision", "connector", "language"]
    counted = [id(p) for group in groups.values() for p in group]
    assert sorted(counted) == sorted(id(p) for p in model.parameters())
    assert model.width == 32


def test_a_video_is_refused_by_name(encoder):
    with pytest.raises(MediaError, match=r"v\.mp4 is a video, which LLaVA cannot see"):
        encoder.measure(MessageTree("v", (Message("user", (Video("v.mp4"),)), Message("assistant", "x"))))


def test_an_unknown_backend_is_refused_before_the_model_is_changed(guide, hf):
    before = hf.config
    with pytest.raises(RecipeError, match="attention backend 'quick' does not exist"):
        guide["Llava"](hf, attention="quick")
    assert hf.config is before


def test_what_is_no_model_of_transformers_is_refused(guide):
    with pytest.raises(VisibilityError, match="no language model of transformers"):
        guide["Llava"](torch.nn.Linear(2, 2))


def test_a_family_must_say_how_pixels_become_features_and_enter():
    assert RowModel.__abstractmethods__ == {"features", "place", "parts"}


def test_positions_with_another_number_of_axes_are_refused(guide, hf, encoder, trees):
    row = row_of(encoder(trees[1]))
    with pytest.raises(ValueError, match="numbers tokens along 1 axis"):
        guide["Llava"](hf)(dataclasses.replace(row, position=row.position[None].repeat(3, 0)))


def test_recipes_of_the_guide_can_be_read(tmp_path):
    found = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(found) == 3
    for number, text in enumerate(found):
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"data: {{train: [{{path: a.jsonl}}]}}\nsteps: 1\n{text}")
        assert load_recipe(path).vision.family == ("qwen3_vl", "text", "processor")[number]
