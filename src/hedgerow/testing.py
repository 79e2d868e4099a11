"""Random inputs and tiny files for tests."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import PIL.Image
from tokenizers import AddedToken, Tokenizer

from hedgerow.encode import Encoder
from hedgerow.linearize import linearize
from hedgerow.sequence import Array, Budget, Cost, Row
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.vision.processor import Molmo2Processor, VisionProcessor
from hedgerow.vision.qwen3_vl import Qwen3VLProcessor


@dataclasses.dataclass(frozen=True, slots=True)
class Forest:
    """Random packed trees, reduced to the integers that decide visibility. N tokens in physical order.

    `parents` holds for each node of all trees its parent, -1 for roots; `owner` int32 [N] the node of each
    token; `text` bool [N] marks tokens outside vision blocks, which may be answers. The rest is as in `Row`.
    """

    parents: tuple[int, ...]
    owner: Array
    order: Array
    end: Array
    group: Array
    position: Array
    text: Array

    def __len__(self) -> int:
        return len(self.order)

    def path(self, node: int) -> list[int]:
        """Return the node and its ancestors, the root first."""
        found = [node]
        while self.parents[found[0]] >= 0:
            found.insert(0, self.parents[found[0]])
        return found

    def row(self) -> Row:
        """Return a row of this layout as tensors on the CPU: token 0 everywhere, no target, no media."""
        none, amount = np.zeros(0, np.int32), len(self)
        row = Row(
            examples=("forest",), lengths=(amount,), tokens=np.zeros(amount, np.int32),
            position=self.position, order=self.order, end=self.end, group=self.group,
            slot=none, source=none, target=none, weight=np.zeros(0, np.float32), sample=none, samples=(),
            cost=Cost(tokens=amount), budget=Budget(tokens=amount),
        )  # fmt: skip
        return row.to("cpu")

    def take(self, where: Array) -> "Forest":
        """Return the forest with its tokens in another physical order."""
        return dataclasses.replace(self, **{name: getattr(self, name)[where] for name in _ARRAYS})


_ARRAYS = ("owner", "order", "end", "group", "position", "text")


def random_forest(
    rng: np.random.Generator, *, trees: int = 2, nodes: int = 5, messages: int = 2, vision: int = 6
) -> Forest:
    """Draw packed trees of any depth in logical order; `take(rng.permutation(len(forest)))` shuffles them.

    Args:
        rng: source of all choices.
        trees: number of trees.
        nodes: most nodes of a tree.
        messages: most messages of a node; each is a vision block or none, then text.
        vision: most tokens of a vision block, causal ones in between included; 0 for no groups.
    """
    drawn = [_random_tree(rng, nodes=nodes, messages=messages, vision=vision) for _ in range(trees)]
    tokens = np.cumsum([0, *(len(tree) for tree in drawn[:-1])])
    owners = np.cumsum([0, *(len(tree.parents) for tree in drawn[:-1])])
    groups = owners * messages
    moved = [
        dataclasses.replace(
            tree,
            parents=tuple(parent + int(owner) if parent >= 0 else -1 for parent in tree.parents),
            owner=tree.owner + owner,
            order=tree.order + token,
            end=tree.end + token,
            group=np.where(tree.group < 0, -1, tree.group + group),
        )
        for tree, token, owner, group in zip(drawn, tokens, owners, groups, strict=True)
    ]
    joined = {name: np.concatenate([getattr(tree, name) for tree in moved]) for name in _ARRAYS}
    integers = {name: joined[name].astype(np.int32) for name in _ARRAYS if name != "text"}
    return Forest(tuple(parent for tree in moved for parent in tree.parents), text=joined["text"], **integers)


def _random_tree(rng: np.random.Generator, *, nodes: int, messages: int, vision: int) -> Forest:
    parents = _random_parents(rng, int(rng.integers(1, nodes + 1)))
    content = [_random_node(rng, messages, vision) for _ in parents]
    lengths = [len(is_text) for _, is_text in content]
    order, position, end, _ = linearize(parents, lengths)
    group = [np.where(local < 0, -1, local + messages * node) for node, (local, _) in enumerate(content)]
    return Forest(
        parents=tuple(parents),
        owner=np.repeat(np.arange(len(parents)), lengths),
        order=order,
        end=end,
        group=np.concatenate(group),
        position=position,
        text=np.concatenate([is_text for _, is_text in content]),
    )


def _random_parents(rng: np.random.Generator, count: int) -> list[int]:
    parents, path = [-1], [0]
    for node in range(1, count):
        path = path[: int(rng.integers(1, len(path) + 1))]
        parents.append(path[-1])
        path.append(node)
    return parents


def _random_node(rng: np.random.Generator, messages: int, vision: int) -> tuple[Array, Array]:
    """Return the group of each token, counted from 0 in the node, and whether it is text."""
    group: list[int] = []
    is_text: list[bool] = []
    for message in range(int(rng.integers(1, messages + 1))):
        shown, said = int(rng.integers(0, vision + 1)), int(rng.integers(1, 5))
        group += [message if rng.random() < 0.8 else -1 for _ in range(shown)] + [-1] * said
        is_text += [False] * shown + [True] * said
    return np.array(group), np.array(is_text)


TINY_MODEL: Mapping[str, Any] = {
    "hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp": 48,
    "vision_hidden": 16, "vision_layers": 2, "vision_heads": 2, "vision_mlp": 24,
    "crop_size": 28, "patch_size": 7, "initializer_range": 0.17,
}  # fmt: skip
TINY_VISION: Mapping[str, Any] = {
    "crop_size": 28, "patch_size": 7, "margins": (1, 1), "max_crops": 2, "max_frames": 4,
}  # fmt: skip


TINY_QWEN3_VL: Mapping[str, Any] = {
    "patch_size": 4, "min_pixels": 64, "max_pixels": 1024, "video_min_pixels": 64, "video_max_pixels": 3072,
    "max_frames": 5,
}  # fmt: skip
_LANGUAGE: Mapping[str, Any] = {
    "vocab_size": 800, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "initializer_range": 0.15,
    "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
_TOWER: Mapping[str, Any] = {
    "depth": 3, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
    "out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1],
    "initializer_range": 0.15,
}  # fmt: skip
_QWEN_TOKENS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}


def tiny_encoder(processor: VisionProcessor | None = None, **options: Any) -> Encoder:
    """Return an encoder with the shipped tokenizer; `options` are those of `Encoder`.

    Args:
        processor: of any family; None is Molmo2's with 28-pixel crops.
        options: of `Encoder`.
    """
    if processor is None:
        return Encoder(ChatFormat(load_tokenizer("tiny")), Molmo2Processor(**TINY_VISION), **options)
    return Encoder(ChatFormat(tiny_tokenizer()), processor, **options)


def tiny_tokenizer() -> Tokenizer:
    """Return the shipped tokenizer with the visual tokens of Qwen3-VL behind its own."""
    longer = Tokenizer.from_str(load_tokenizer("tiny").to_str())
    longer.add_special_tokens([AddedToken(name, normalized=False) for name in _QWEN_TOKENS.values()])
    return longer


def public_qwen3_vl(ours: Qwen3VLProcessor, *, chat_template: str | None = None) -> Any:
    """Return the `Qwen3VLProcessor` of `transformers` with the settings of ours and the tiny tokenizer.

    Images and text run without torchvision; of videos all but resizing does.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers import Qwen3VLProcessor as Public
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    class Unchecked(Public):  # type: ignore[misc]
        """Without a look at the class of the video processor, which asks for torchvision."""

        def check_argument_for_proper_class(self, _: str, argument: Any) -> Any:
            return type(argument)

    def settings(least: int, most: int) -> dict[str, Any]:
        size = {"shortest_edge": least, "longest_edge": most}
        return {"size": size, "patch_size": ours.patch_size, "merge_size": ours.merge_size}

    half = [0.5, 0.5, 0.5]
    images = settings(ours.min_pixels, ours.max_pixels)
    videos = settings(ours.video_min_pixels, ours.video_max_pixels)
    return Unchecked(
        image_processor=Qwen2VLImageProcessorPil(**images, image_mean=half, image_std=half),
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer()),
        video_processor=Qwen3VLVideoProcessor(
            **videos, min_frames=ours.min_frames, max_frames=ours.max_frames
        ),
        chat_template=chat_template,
    )


def tiny_checkpoint(folder: Path, kind: Literal["qwen3_vl", "qwen3", "olmo3", "llama"]) -> Path:
    """Let `transformers` save a tiny model with random weights, and the tokenizer beside it.

    Args:
        folder: where to.
        kind: its `model_type`. The OLMo 3 has a sliding window of 6 and YaRN on its layers without one.
    """
    import torch
    from transformers import AutoModelForCausalLM, Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "qwen3_vl":
            hf = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**_qwen3_vl_sizes(tokenizer)))
        else:
            hf = AutoModelForCausalLM.from_config(_text_config(kind))
    hf.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _qwen3_vl_sizes(tokenizer: Tokenizer) -> dict[str, Any]:
    rotary = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2]}
    return {
        "text_config": {**_LANGUAGE, "rope_parameters": rotary},
        "vision_config": dict(_TOWER),
        **{name: tokenizer.token_to_id(token) for name, token in _QWEN_TOKENS.items()},
    }


def _text_config(kind: str) -> Any:
    from transformers import AutoConfig

    if kind != "olmo3":
        return AutoConfig.for_model(kind, **_LANGUAGE)
    yarn = {
        "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "attention_factor": 1.2,
        "original_max_position_embeddings": 128, "beta_fast": 32.0, "beta_slow": 1.0,
    }  # fmt: skip
    layers = {"sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0}, "full_attention": yarn}
    return AutoConfig.for_model(
        kind,
        **_LANGUAGE,
        sliding_window=6,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        rope_parameters=layers,
    )


def tiny_recipe(folder: Path, train: Path, *, evaluate: Path | None = None, steps: int = 2) -> Path:
    """Write `recipe.yaml` for a tiny model into a folder, to run in `run` below it, and return its path.

    Args:
        folder: where to.
        train: JSONL file.
        evaluate: JSONL file, if any.
        steps: optimiser steps.
    """
    recipe = {
        "data": {"train": [{"path": str(train)}]} | ({} if evaluate is None else {"evaluate": str(evaluate)}),
        "model": {"spec": dict(TINY_MODEL)},
        "vision": {name: list(v) if isinstance(v, tuple) else v for name, v in TINY_VISION.items()},
        "packing": {"budget": {"tokens": 400, "crops": 16}},
        "steps": steps,
        "out": str(folder / "run"),
        "threads": 1,
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe, indent=1), encoding="utf-8")  # JSON is YAML
    return path


def write_jsonl(path: Path, lines: Iterable[Mapping[str, Any]]) -> Path:
    """Write objects one a line and return the path."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write_png(path: Path, *, size: tuple[int, int] = (60, 40), seed: int = 0) -> Path:
    """Write a picture of noise, (width, height) pixels, and return its path."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    return path


def write_mp4(path: Path, *, frames: int = 7, fps: int = 4, size: tuple[int, int] = (64, 48)) -> Path:
    """Write a video in which a bright square moves 8 pixels to the right a frame, and return its path."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, fps)
        container.start_encoding()  # without a frame, too, there is a file
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), 40, np.uint8)
            pixels[20:28, 8 * number : 8 * number + 8] = 240
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
