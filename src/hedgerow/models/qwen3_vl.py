"""Qwen3-VL on packed rows.

Letters for shapes as in `hedgerow.sequence`; D is the width of the language model, E = D * (1 + K) where
features enter K deeper layers too (DeepStack, arXiv 2406.04334).
"""

import dataclasses
import itertools
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hedgerow.errors import RecipeError
from hedgerow.models.rows import RowModel
from hedgerow.sequence import VisionInput


class Qwen3VL(RowModel):
    """The Qwen3-VL of `transformers`.

    What the deeper layers add to a token travels as further channels of what the language model reads, so
    that all that is true of embeddings (no leak, one stretch for each process) is true of it.

    Args:
        hf: a `Qwen3VLForConditionalGeneration`.
        attention: as for `RowModel`.
        vision_attention: of the vision tower, in which each frame sees itself alone.
        gradient_checkpointing: as for `RowModel`.

    Raises:
        RecipeError: there is no such backend.
    """

    axes = 3

    def __init__(
        self,
        hf: Any,
        *,
        attention: str | None = None,
        vision_attention: Literal["sdpa", "eager"] = "sdpa",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(hf, attention=attention, gradient_checkpointing=gradient_checkpointing)
        hf.set_attn_implementation({"vision_config": vision_attention})

    @property
    def width(self) -> int:
        """E: the embeddings, and what is added in each of the K layers."""
        return super().width * (1 + len(self.hf.model.visual.deepstack_merger_list))

    def features(self, vision: VisionInput) -> Tensor:
        """Return a feature per slot, [V, E]: merged patches, then those of the K layers of the tower."""
        visual, merge = self.hf.model.visual, self.hf.config.vision_config.spatial_merge_size
        _check(vision, visual.config)
        grids = vision.grids * vision.grids.new_tensor([1, merge, merge])
        found = visual(vision.crops.float() / 127.5 - 1.0, grid_thw=grids)
        merged = torch.cat([found.pooler_output, *found.deepstack_features], dim=-1)
        return merged[vision.pooling[:, 0] // merge**2]

    def place(self, embeddings: Tensor, slot: Tensor, features: Tensor) -> Tensor:
        """Put features in place of the embeddings of their slots; other tokens get nothing further on."""
        own, deep = features[:, : embeddings.shape[1]], features[:, embeddings.shape[1] :]
        further = embeddings.new_zeros(len(embeddings), deep.shape[1])
        return torch.cat([embeddings.index_copy(0, slot, own), further.index_copy(0, slot, deep)], dim=1)

    def read(self, embeddings: Tensor) -> dict[str, Any]:
        """Return the arguments of the language model: every token may get something in the first layers."""
        own, *deep = torch.split(embeddings, super().width, dim=-1)
        if not deep:
            return {"inputs_embeds": own}
        return {
            "inputs_embeds": own,
            "visual_pos_masks": torch.ones(own.shape[:2], dtype=torch.bool, device=own.device),
            "deepstack_visual_embeds": [one.flatten(0, 1) for one in deep],
        }

    def parts(self) -> dict[str, Any]:
        """Return the connector (what merges patches, and turns them into features), vision and language."""
        visual = self.hf.model.visual
        connector = nn.ModuleList([visual.merger, visual.deepstack_merger_list])
        return {"connector": connector, "vision": visual, "language": self.hf}

    def _shared_features(self, vision: VisionInput) -> Tensor:
        """A feature per slot; the processes of a context share images and videos, which stay in one piece."""
        if self.context is None:
            return self.features(vision)
        slots = [0, *np.cumsum(vision.grids.prod(dim=1).cpu().numpy()).tolist()]
        cuts = _cuts(slots, self.context.size)
        first, last = cuts[self.context.rank], cuts[self.context.rank + 1]
        weight = self.head.weight  # of the dtype that all agree on
        found = weight.new_zeros(0, self.width)
        if first < last:
            found = self.features(_taken(vision, slice(first, last), slots))
        counts = [slots[b] - slots[a] for a, b in itertools.pairwise(cuts)]
        return self.context.gather(found.to(weight.dtype), counts)


def _check(vision: VisionInput, config: Any) -> None:
    channels = config.in_channels * config.temporal_patch_size * config.patch_size**2
    window = config.spatial_merge_size**2
    if vision.crops.shape[1:] != (channels,) or vision.pooling.shape[1] != window:
        raise RecipeError(
            f"patches {list(vision.crops.shape[1:])} merged by {vision.pooling.shape[1]}, but the vision "
            f"tower takes [{channels}] merged by {window}; encode with the processor of this model"
        )


def _cuts(slots: list[int], parts: int) -> list[int]:
    """Where stretches of images and videos begin and end, such that each has about as many slots."""
    wanted = np.arange(parts + 1) * slots[-1] / parts
    return [int(np.abs(np.array(slots) - place).argmin()) for place in wanted]


def _taken(vision: VisionInput, own: slice, slots: list[int]) -> VisionInput:
    """Some of the images and videos."""
    start, stop = slots[own.start], slots[own.stop]
    window = vision.pooling.shape[1]
    return dataclasses.replace(
        vision,
        crops=vision.crops[start * window : stop * window],
        pooling=vision.pooling[start:stop] - start * window,
        grids=vision.grids[own],
    )
