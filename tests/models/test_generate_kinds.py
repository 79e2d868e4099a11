"""Answers of the other kinds of model are those of `transformers`' own `generate`, token by token."""

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import AddedToken

from hedgerow.content import Image, Video
from hedgerow.encode import Encoder
from hedgerow.models.generate import generate
from hedgerow.models.qwen3_vl import Qwen3VL
from hedgerow.models.sampling import Sampling
from hedgerow.models.text import TextModel
from hedgerow.sequence import Cost, Sequence
from hedgerow.testing import write_mp4, write_png
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.vision.qwen3_vl import END, IMAGE_PATCH, START, VIDEO_PATCH, Qwen3VLProcessor

NEW = 24
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "vocab_size": 768, "initializer_range": 0.3,
}  # fmt: skip
TEXT = {
    "qwen3": (hf.Qwen3ForCausalLM, hf.Qwen3Config, {"head_dim": 8}),
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig, {}),
    "olmo3": (
        hf.Olmo3ForCausalLM,
        hf.Olmo3Config,
        {"sliding_window": 6, "pad_token_id": 0, "eos_token_id": 1},
    ),
}


def twins(kind, config, options):
    """Two models with the same weights and configs of their own."""
    torch.manual_seed(0)
    one, other = kind(config(**options)).eval(), kind(config(**options)).eval()
    other.load_state_dict(one.state_dict())
    return one, other


def theirs(plain, prompt, stop, **more):
    tokens = torch.from_numpy(prompt.tokens).long()[None]
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": stop, "pad_token_id": stop}
    found = plain.generate(tokens, attention_mask=torch.ones_like(tokens), **more, **options)
    answer = found[0, len(prompt) :].tolist()
    return answer[: answer.index(stop)] if stop in answer else answer


def ours(model, prompts, chat):
    found = generate(model, prompts, chat, Sampling(max_new_tokens=NEW))
    return [list(answer.tokens) for answer in found.answers]


def prompt(tokens):
    none, own = np.zeros(0, np.int32), np.arange(len(tokens), dtype=np.int32)
    end, group = np.full(len(own), len(own), np.int32), np.full(len(own), -1, np.int32)
    return Sequence(
        "text", tokens=tokens.astype(np.int32), position=own, order=own, end=end, group=group, slot=none,
        source=none, target=none, weight=none.astype(np.float32), sample=none, samples=(),
        cost=Cost(tokens=len(own)),
    )  # fmt: skip


@pytest.mark.parametrize("name", TEXT)
def test_language_models_answer_as_in_transformers(name):
    """With the sliding windows of OLMo 3, which are shorter than what the prompts share."""
    kind, config, more = TEXT[name]
    model, plain = twins(kind, config, SIZES | more)
    chat, rng = ChatFormat(load_tokenizer("tiny")), np.random.default_rng(0)
    root = rng.integers(3, 760, 20)
    prompts = [prompt(np.r_[root, rng.integers(3, 760, count)]) for count in (0, 3, 7, 2)]
    expected = [theirs(plain, one, chat.stop) for one in prompts]
    assert ours(TextModel(model), prompts, chat) == expected
    assert min(len(set(answer)) for answer in expected) > 10


@pytest.fixture(scope="module")
def qwen():
    """A chat format with the visual tokens, a model and its twin."""
    tokenizer = load_tokenizer("tiny")
    names = (START, END, IMAGE_PATCH, VIDEO_PATCH)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    ids = [tokenizer.token_to_id(name) for name in names]
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
    words = tokenizer.get_vocab_size(with_added_tokens=True)
    options = {
        "text_config": SIZES | {"head_dim": 8, "vocab_size": words, "rope_parameters": rope},
        "vision_config": {
            "depth": 3, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 8,
            "out_hidden_size": 32, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1],
            "initializer_range": 0.3,
        },
        "vision_start_token_id": ids[0], "vision_end_token_id": ids[1],
        "image_token_id": ids[2], "video_token_id": ids[3],
    }  # fmt: skip
    return ChatFormat(tokenizer), *twins(hf.Qwen3VLForConditionalGeneration, hf.Qwen3VLConfig, options)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_qwen3_vl_answers_as_in_transformers(qwen, tmp_path, kind):
    """Three axes of position, and features that enter deeper layers, in prompts that share them."""
    chat, model, plain = qwen
    sizes = {"min_pixels": 256, "max_pixels": 4096, "video_min_pixels": 256, "video_max_pixels": 8192}
    encoder = Encoder(chat, Qwen3VLProcessor(patch_size=8, **sizes))
    made = {
        "image": Image(str(write_png(tmp_path / "a.png"))),
        "video": Video(str(write_mp4(tmp_path / "a.mp4"))),
    }
    branches = [Branch([Message("user", text)]) for text in ("What?", "Why is it so?", "Who is there?")]
    tree = MessageTree("shown", [Message("user", [made[kind]])], branches)
    prompts = encoder.prompts(tree, tree.nodes()[1:])
    suffix = "" if kind == "image" else "_videos"
    expected = []
    for one in prompts:
        tokens = torch.from_numpy(one.tokens)[None]
        config = plain.config
        visual = (tokens == config.image_token_id) + 2 * (tokens == config.video_token_id)
        given = {
            "mm_token_type_ids": visual.int(),
            f"pixel_values{suffix}": torch.from_numpy(one.vision.crops) / 127.5 - 1.0,
            f"{kind}_grid_thw": torch.from_numpy(one.vision.grids).long() * torch.tensor([1, 2, 2]),
        }
        expected.append(theirs(plain, one, chat.stop, **given))
    assert ours(Qwen3VL(model), prompts, chat) == expected
    assert min(len(set(answer)) for answer in expected) > 10
