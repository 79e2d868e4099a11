"""What a recipe says of LoRA; neither torch nor peft, so that a recipe is read at once."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from hedgerow.content import STRICT


@dataclass(frozen=True, slots=True, config=STRICT)
class LoraSpec:
    """Small matrices that are trained in place of parts of a model (LoRA, arXiv 2106.09685).

    Beside the weight W [out, in] of a linear layer stand A [rank, in] and B [out, rank], and the layer
    multiplies by W + alpha / rank * B A; W is not trained. `dropout` drops what A reads, in training alone.

    `targets` are names of linear layers, such as `q_proj` or `mlp.up_proj`, in any of the `parts`; without
    them every linear layer of the parts is one, but the head.
    """

    parts: tuple[Literal["vision", "connector", "language"], ...] = Field(min_length=1)
    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    targets: tuple[str, ...] | None = Field(default=None, min_length=1)

    def __str__(self) -> str:
        layers = "all linear layers" if self.targets is None else ", ".join(self.targets)
        return f"{', '.join(self.parts)}: rank {self.rank}, alpha {self.alpha}, {layers}"
