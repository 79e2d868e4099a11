"""What a row takes to compute, from its costs alone: tokens, visible pairs and crops."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hedgerow.sequence import Costs

Array = Any
_FRAME_POOLING = 3  # patches of a side of a pooling window, for frames of videos


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """Widths and depths of a Molmo2, of which follows what it computes and holds.

    `hidden` to `vocabulary` are the language model's (`vocabulary` the rows of its head, `extra` those that
    its embedding table has beyond), the rest the vision tower's: it cuts a crop into `side` x `side` patches
    of `patch` values, and features of `joined` layers go to the connector.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    extra: int = 128
    vision_hidden: int = 1152
    vision_layers: int = 25
    vision_mlp: int = 4304
    vision_heads: int = 16
    side: int = 27
    patch: int = 14 * 14 * 3
    joined: int = 2

    @property
    def patches(self) -> int:
        """Patches of a crop."""
        return self.side**2

    @property
    def slots(self) -> int:
        """Visual tokens of a video frame, each pooled from 3 x 3 patches."""
        return (-(-self.side // _FRAME_POOLING)) ** 2

    @property
    def queries(self) -> int:
        """Channels of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Channels of all key heads."""
        return self.kv_heads * self.head_dim

    @property
    def decoder(self) -> int:
        """Parameters in the matrices of the language model's layers."""
        return self.layers * self.hidden * (2 * self.queries + 2 * self.keys + 3 * self.mlp)

    @property
    def tower(self) -> int:
        """Parameters in the matrices of the vision tower's layers."""
        return self.vision_layers * (4 * self.vision_hidden**2 + 2 * self.vision_hidden * self.vision_mlp)


# arXiv 2601.10611, table 12, and the public configurations: Qwen3-4B-Instruct-2507, Qwen3-8B and
# Olmo-3-7B-Instruct, each with SigLIP 2 So400m/14 at 378 pixels, of which 25 layers are run.
PUBLISHED: Mapping[str, Sizes] = {
    "4B": Sizes(2560, layers=36, heads=32, kv_heads=8, head_dim=128, mlp=9728, vocabulary=151936),
    "8B": Sizes(4096, layers=36, heads=32, kv_heads=8, head_dim=128, mlp=12288, vocabulary=151936),
    "O-7B": Sizes(4096, layers=32, heads=32, kv_heads=32, head_dim=128, mlp=11008, vocabulary=100278),
}


@dataclasses.dataclass(frozen=True, slots=True)
class FlopModel:
    """FLOPs of one model, forward and backward, linear in what an example costs.

    A matrix of P parameters takes 6 P a token (2 forward, 4 backward), attention 14 x head size x heads x
    layers a visible pair (4 forward, 10 backward, which computes the scores again).

    | field | meaning |
    |---|---|
    | name | of the model |
    | token | FLOPs of a token in the language model, attention left out |
    | pair | FLOPs of a visible (query, key) pair in all its layers |
    | crop | FLOPs of a crop in the vision tower and the connector |
    | target | FLOPs of a supervised target in the head |
    """

    name: str
    token: float
    pair: float
    crop: float
    target: float = 0.0

    @classmethod
    def of(cls, name: str, sizes: Sizes, *, recompute: bool = False) -> "FlopModel":
        """Count the FLOPs of a Molmo2.

        A crop is counted as a video frame, whose patches each meet one pooling window; an image has more
        visual tokens a crop, and the connector, a few percent of the tower, takes so much more.

        Args:
            name: of the model.
            sizes: of it.
            recompute: whether the layers are run forward twice, as gradient checkpointing does.
        """
        matrix, attention = (8, 18) if recompute else (6, 14)
        width, patches = sizes.vision_hidden, sizes.patches
        read = 2 * sizes.joined * width**2 * patches  # keys and values of all patches
        asked = (sizes.joined * width**2 + width**2) * sizes.slots  # query and output of each window
        projector = (2 * width * sizes.mlp + sizes.mlp * sizes.hidden) * sizes.slots
        embedding = 4 * sizes.patch * width * patches  # pixels get no gradient
        tower = matrix * sizes.tower * patches + attention * width * sizes.vision_layers * patches**2
        return cls(
            name=name,
            token=float(matrix * sizes.decoder),
            pair=float(attention * sizes.queries * sizes.layers),
            crop=float(tower + embedding + 6 * (read + asked + projector) + 14 * width * patches),
            target=6.0 * sizes.hidden * sizes.vocabulary,
        )

    def __call__(self, costs: Costs | Iterable[Mapping[str, int]]) -> Array:
        """Return the FLOPs of each example, float64 [n].

        An example whose cost names no `pairs` is taken to be one causal conversation, n (n + 1) / 2 of them;
        one that names no `targets`, which packing does not count, to have none.
        """
        table = costs if isinstance(costs, Costs) else Costs.of(costs)
        tokens, crops, targets = table.amounts("tokens", "crops", "targets").astype(np.float64).T
        pairs = table.amounts("pairs")[:, 0] if "pairs" in table.names else tokens * (tokens + 1) / 2
        return self.token * tokens + self.pair * pairs + self.crop * crops + self.target * targets


MOLMO2_8B = FlopModel.of("Molmo2-8B", PUBLISHED["8B"])
