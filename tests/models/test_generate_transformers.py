"""The answer to one question is that of `transformers`' own `generate`, token by token."""

import pytest
import torch
from transformers import Molmo2Config, Molmo2ForConditionalGeneration

from hedgerow.content import Image, Text, Video
from hedgerow.models.assemble import ModelSpec, build
from hedgerow.models.generate import generate
from hedgerow.models.sampling import Sampling
from hedgerow.testing import TINY_MODEL, tiny_encoder, write_mp4, write_png
from hedgerow.text import load_tokenizer
from hedgerow.tree import Branch, Message, MessageTree

NEW = 24
SIZES = ((60, 40), (30, 80))
KINDS = ("text", "image", "images", "video")
ASKED = ("What is it?", "Point to the square.", "Why? Say it in a few words.")


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    images = [Image(str(write_png(folder / f"{n}.png", size=size, seed=n))) for n, size in enumerate(SIZES)]
    return {
        "text": [Text("A fence.")],
        "image": images[:1],
        "images": images,
        "video": [Video(str(write_mp4(folder / "clip.mp4", frames=9)))],
    }


@pytest.fixture(scope="module")
def model():
    spec = ModelSpec(**{**TINY_MODEL, "initializer_range": 0.3})
    return build(spec, tokenizer=load_tokenizer("tiny"), seed=4).eval()


@pytest.fixture(scope="module")
def plain(model):
    """The same weights in a model that we did not touch."""
    hf = Molmo2ForConditionalGeneration(Molmo2Config.from_dict(model.hf.config.to_dict()))
    hf.load_state_dict(model.hf.state_dict())
    return hf.eval()


@pytest.fixture(scope="module")
def prompts(encoder, media):
    found = {}
    for kind, parts in media.items():
        branches = [Branch([Message("user", text)]) for text in ASKED]
        tree = MessageTree(kind, [Message("user", parts)], branches)
        found[kind] = encoder.prompts(tree, tree.nodes()[1:])
    return found


def inputs(prompt, patch_size):
    """What `transformers` wants for a prompt; pixels of images and of videos go the same way."""
    tokens = torch.from_numpy(prompt.tokens).long()[None]
    visual = torch.from_numpy(prompt.group >= 0).long()[None]
    given = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "mm_token_type_ids": visual}
    if prompt.vision is None:
        return given
    crops = torch.from_numpy(prompt.vision.crops)
    _, height, width, _ = crops.shape
    rows, columns = height // patch_size, width // patch_size
    patches = [
        crops[:, r * patch_size : (r + 1) * patch_size, c * patch_size : (c + 1) * patch_size].flatten(1)
        for r in range(rows)
        for c in range(columns)
    ]
    return given | {
        "pixel_values": torch.stack(patches, dim=1).float() / 127.5 - 1.0,
        "image_token_pooling": torch.from_numpy(prompt.vision.pooling).long(),
        "image_grids": torch.tensor([[len(prompt.slot), 1, 0, 0]]),
    }


def theirs(plain, prompt, stop, **more):
    given = inputs(prompt, plain.config.vision_config.patch_size) | more
    options = {"do_sample": False, "eos_token_id": stop, "pad_token_id": stop}
    found = plain.generate(**given, max_new_tokens=NEW, **options)[0, len(prompt) :].tolist()
    return found[: found.index(stop)] if stop in found else found


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_that_of_transformers(model, plain, prompts, encoder, kind):
    expected = [theirs(plain, prompt, encoder.chat.stop) for prompt in prompts[kind]]
    sampling = Sampling(max_new_tokens=NEW)
    alone = [generate(model, [prompt], encoder.chat, sampling).answers[0] for prompt in prompts[kind]]
    assert [list(answer.tokens) for answer in alone] == expected
    together = generate(model, prompts[kind], encoder.chat, sampling)
    assert [list(answer.tokens) for answer in together.answers] == expected
    assert max(map(len, expected)) == NEW


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("changed", ["pixel_values", "mm_token_type_ids"])
def test_what_is_compared_depends_on_pixels_and_on_vision_that_sees_both_ways(
    plain, prompts, encoder, kind, changed
):
    size, stop = plain.config.vision_config.patch_size, encoder.chat.stop
    for prompt in prompts[kind]:
        other = {changed: torch.zeros_like(inputs(prompt, size)[changed])}
        if theirs(plain, prompt, stop, **other) != theirs(plain, prompt, stop):
            return
    pytest.fail(f"{changed} moves no answer")
