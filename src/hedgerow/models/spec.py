"""Sizes of a Molmo2 with fresh weights; neither torch nor transformers, so that a recipe is read at once."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from hedgerow.content import STRICT


@dataclass(frozen=True, slots=True, config=STRICT)
class ModelSpec:
    """Sizes of a Molmo2 with fresh weights; the defaults make about 1.5 million parameters.

    `hidden` to `mlp` are the language model's (`head_dim` channels a head), the rest but the last two the
    vision tower's. The connector has the heads of the vision tower and the MLP width of the language model.
    `crop_size` and `patch_size` are pixels. The features of `feature_layers` (negative: from the last) are
    joined. Embeddings and head are not tied, for the Molmo2 of `transformers` has no tie.

    `query` is what the connector asks each window with: the mean of its patches, or one learned vector, which
    plain `transformers` cannot run. The window itself is the processor's (`image_pooling`, `video_pooling`);
    no weight depends on it.

    `initializer_range` is the standard deviation of all fresh weights. The connector's output grows with
    about its eighth power, so look at `Molmo2.scale_report` when changing it: 0.08 suits widths of 64, 0.07
    of 128, 0.06 of 256. With `initialization: fan_in` every layer has its own, see
    `hedgerow.models.initialize`.
    """

    hidden: int = Field(default=128, ge=1)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    kv_heads: int = Field(default=2, ge=1)
    head_dim: int = Field(default=32, ge=2, multiple_of=2)
    mlp: int = Field(default=384, ge=1)
    vision_hidden: int = Field(default=128, ge=1)
    vision_layers: int = Field(default=2, ge=1)
    vision_heads: int = Field(default=4, ge=1)
    vision_mlp: int = Field(default=384, ge=1)
    crop_size: int = Field(default=84, ge=1)
    patch_size: int = Field(default=7, ge=1)
    feature_layers: tuple[int, ...] = Field(default=(-1, 0), min_length=1)
    query: Literal["mean", "learned"] = "mean"
    initialization: Literal["normal", "fan_in"] = "normal"
    initializer_range: float = Field(default=0.07, gt=0.0)
    rope_theta: float = Field(default=10_000.0, gt=0.0)

    def __post_init__(self) -> None:
        """Refuse sizes that do not divide each other and layers that do not exist."""
        for many, few in (
            ("heads", "kv_heads"),
            ("vision_hidden", "vision_heads"),
            ("crop_size", "patch_size"),
        ):
            if getattr(self, many) % getattr(self, few):
                raise ValueError(f"{many} {getattr(self, many)} is no multiple of {few} {getattr(self, few)}")
        wrong = [n for n in self.feature_layers if not -self.vision_layers <= n < self.vision_layers]
        if wrong:
            raise ValueError(
                f"feature_layers {wrong}: the vision tower has layers 0 to {self.vision_layers - 1}"
            )
        if self.initialization == "fan_in" and self.vision_hidden % 4:
            raise ValueError(f"vision_hidden {self.vision_hidden} is no multiple of 4, as fan_in needs")
