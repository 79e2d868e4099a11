"""What a row takes to compute, from its costs alone: tokens, visible pairs and crops."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hedgerow.sequence import Costs

Array = Any


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
    """

    name: str
    token: float
    pair: float
    crop: float

    def __call__(self, costs: Costs | Iterable[Mapping[str, int]]) -> Array:
        """Return the FLOPs of each example, float64 [n].

        An example whose cost names no `pairs` is taken to be one causal conversation, n (n + 1) / 2 of them.
        """
        table = costs if isinstance(costs, Costs) else Costs.of(costs)
        tokens, crops = table.amounts("tokens", "crops").astype(np.float64).T
        pairs = table.amounts("pairs")[:, 0] if "pairs" in table.names else tokens * (tokens + 1) / 2
        return self.token * tokens + self.pair * pairs + self.crop * crops


def _molmo2_8b() -> FlopModel:
    # arXiv 2601.10611, table 12 and the public configuration: Qwen3-8B without embeddings; SigLIP 2 So400m/14
    # at 378 pixels, 25 layers are run; the connector's projector on 81 slots a frame.
    patches, width, mlp, layers = 27 * 27, 1152, 4304, 25
    tower = layers * (4 * width**2 + 2 * width * mlp)
    projector = 2 * width * 12288 + 12288 * 4096
    return FlopModel(
        name="Molmo2-8B",
        token=6 * 6.95e9,
        pair=14 * 128 * 32 * 36,
        crop=6.0 * tower * patches + 14.0 * width * layers * patches**2 + 6.0 * projector * 81,
    )


MOLMO2_8B = _molmo2_8b()
