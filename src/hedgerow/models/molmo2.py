"""Molmo2 on packed rows.

Letters for shapes as in `hedgerow.sequence`; D is the width of the language model.
"""

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor

from hedgerow.errors import RecipeError
from hedgerow.models.rows import RowModel
from hedgerow.sequence import Array, Row, VisionInput

QUIET, LOUD = 0.05, 100.0  # features outside this share of the embeddings' scale are reported
ALIKE = 0.01  # and so are features of which less than this share tells crops apart


@dataclasses.dataclass(frozen=True, slots=True)
class ScaleReport:
    """How loud vision is beside text, as standard deviations over all channels and slots of a row.

    `features` is the connector's output, `embeddings` the token embeddings it is added to. `between` is the
    part of the features that differs between crops that are not the same: what is left after taking away, for
    each place in a crop, its mean over these crops; None where no place occurs in two of them.
    """

    features: float
    embeddings: float
    between: float | None

    @property
    def ratio(self) -> float:
        """Features over embeddings; about 1 is healthy."""
        return self.features / max(self.embeddings, torch.finfo(torch.float32).tiny)

    @property
    def problem(self) -> str:
        """One line for the user, or an empty string."""
        if not QUIET <= self.ratio <= LOUD:
            given = f"{self.features:.1e} beside {self.embeddings:.1e} of the token embeddings"
        elif self.between is not None and self.between < ALIKE * self.embeddings:
            given = f"{self.between:.1e} between crops beside {self.embeddings:.1e} of the token embeddings"
        else:
            return ""
        return (
            f"visual features have scale {given} (allowed: {QUIET} to {LOUD} times, {ALIKE} between crops), "
            "so the model will hardly learn to see; set initialization: fan_in, or another initializer_range"
        )


class Molmo2(RowModel):
    """The Molmo2 of `transformers`.

    Args:
        hf: a model from `hedgerow.models.assemble`, or from `from_pretrained`.
        attention: as for `RowModel`.
        vision_attention: of the vision tower and the connector. "eager" trains faster in bf16 on a CPU.
        gradient_checkpointing: as for `RowModel`.

    Raises:
        RecipeError: there is no such backend.
    """

    def __init__(
        self,
        hf: Any,
        *,
        attention: str | None = None,
        vision_attention: Literal["sdpa", "eager"] = "sdpa",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(hf, attention=attention, gradient_checkpointing=gradient_checkpointing)
        hf.set_attn_implementation({"vision_config": vision_attention, "adapter_config": vision_attention})

    def features(self, vision: VisionInput) -> Tensor:
        """Return a feature per slot, [V, D]: layers of the vision tower, pooled and projected."""
        config = self.hf.config
        pixels = _patches(vision.crops, config.vision_config)
        seen = self.hf.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        chosen = [seen[n + 1 if n >= 0 else n] for n in config.adapter_config.vision_feature_layer]
        pooled = self.hf.model.multi_modal_projector(torch.cat(chosen, dim=-1), vision.pooling)
        return pooled.last_hidden_state  # type: ignore[no-any-return]

    def place(self, embeddings: Tensor, slot: Tensor, features: Tensor) -> Tensor:
        """Add the features to the embeddings of their slots."""
        return embeddings.index_add(0, slot, features)

    def parts(self) -> dict[str, Any]:
        """Return vision, connector and language.

        The rows of the visual tokens are part of the one embedding table, so they train with the language
        model; in arXiv 2601.10611 they have the connector's rate. The head has none: they are never written.
        """
        model = self.hf.model
        return {"vision": model.vision_tower, "connector": model.multi_modal_projector, "language": self.hf}

    @torch.no_grad()
    def scale_report(self, row: Row) -> ScaleReport:
        """Measure how loud vision is beside text, on a row with media; worth a look before training starts.

        With the usual initializer_range of 0.02 a model of width 128 starts with features of 6e-7 beside
        embeddings of 0.02: nothing fails, it only never sees.

        Raises:
            ValueError: the row has no media.
        """
        if row.vision is None:
            raise ValueError("the row has no media; give one with an image or a video")
        row = row.to(self.device)
        features = self.features(row.vision).float()  # type: ignore[arg-type]
        embeddings = self.hf.get_input_embeddings()(row.tokens[row.slot]).float()
        crop = row.vision.pooling.amax(dim=1) // row.vision.patches  # type: ignore[union-attr]
        first = _first_alike(row.vision.crops)[crop] == crop  # type: ignore[union-attr]
        return ScaleReport(
            features=float(features.std(correction=0)),
            embeddings=float(embeddings.std(correction=0)),
            between=_between(features[first], crop[first]),
        )


def _patches(crops: Array, config: Any) -> Tensor:
    """Turn uint8 [C, H, W, 3] into float32 [C, patches, P * P * 3] in [-1, 1]; all orders are row by row."""
    count, height, width, channels = crops.shape
    size = config.patch_size
    if [height, width] != list(config.image_size):
        raise RecipeError(
            f"crops of {height}x{width} pixels, but the vision tower takes "
            f"{'x'.join(map(str, config.image_size))}; encode with the processor of this model"
        )
    pixels = crops.reshape(count, height // size, size, width // size, size, channels).transpose(2, 3)
    flat: Tensor = pixels.reshape(count, -1, size * size * channels)
    return flat.float() / 127.5 - 1.0


def _first_alike(crops: Array) -> Tensor:
    """For each crop the first that holds the same pixels: a small image is its own overview."""
    seen: dict[bytes, int] = {}
    found = [seen.setdefault(crop.tobytes(), number) for number, crop in enumerate(crops.cpu().numpy())]
    return torch.tensor(found, device=crops.device)


def _between(features: Tensor, crop: Tensor) -> float | None:
    by_crop = torch.argsort(crop, stable=True)
    counts = torch.bincount(crop)
    place = torch.empty_like(crop)
    place[by_crop] = torch.arange(len(crop), device=crop.device) - (counts.cumsum(0) - counts)[crop[by_crop]]
    times = torch.bincount(place)
    sums = features.new_zeros(len(times), features.shape[1]).index_add(0, place, features)
    left = (features - sums[place] / times[place, None])[times[place] > 1]
    return float(left.square().mean().sqrt()) if len(left) else None
