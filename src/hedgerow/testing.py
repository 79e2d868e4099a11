"""Random inputs and tiny files for tests."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image

from hedgerow.encode import Encoder
from hedgerow.linearize import linearize
from hedgerow.sequence import Array, Budget, Cost, Row
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.vision.processor import Molmo2Processor


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


def tiny_encoder(**options: Any) -> Encoder:
    """Return an encoder with the shipped tokenizer and 28-pixel crops; `options` are those of `Encoder`."""
    return Encoder(ChatFormat(load_tokenizer("tiny")), Molmo2Processor(**TINY_VISION), **options)


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
