"""A family of models in one file (docs/adapters.md): EfficientNet-lite0 sees, a Llama speaks.

Only the connector between them is trained; both halves stay as they are.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from efficientnet import CELLS, SIDE, WIDTH, EfficientNetLite0
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from hedgerow.content import Image, Media, Video
from hedgerow.errors import MediaError
from hedgerow.models.rows import RowModel
from hedgerow.sequence import VisionInput
from hedgerow.vision.facts import Facts
from hedgerow.vision.image import load_image, resized
from hedgerow.vision.pooling import windows
from hedgerow.vision.processor import Marks, MediaLayout

SLOT = "<|endoftext|>"  # features replace its embedding, so any special token would do


@dataclass(frozen=True, slots=True)
class SightProcessor:
    """One square crop an image, its sides squeezed; `pool` x `pool` cells of 7 x 7 make a slot."""

    pool: int = 2
    groups: str = "none"
    axes: int = 1
    placement: str = "inside"

    def filled(self, media: Media, *, several: bool = False) -> Media:  # noqa: ARG002  # of the protocol
        """Return an image as it is, and refuse a video."""
        if isinstance(media, Video):
            raise MediaError(f"{media.name} is a video, which this model cannot see; give images")
        return media

    def layout(self, media: Media, facts: Facts, *, label: str | None) -> MediaLayout:  # noqa: ARG002
        """Write down the tokens of an image: a slot a window."""
        side = -(-CELLS // self.pool)
        before = () if label is None else (f"{label}: ",)
        return MediaLayout(
            pieces=(*before, Marks((SLOT,) * side**2, patch=SLOT), "\n"),
            crops=1,
            times=(),
            step=0.0,
            grids=((1, side, side),),
            size=(facts.width, facts.height),
        )

    def visual(self, media: Image, layout: MediaLayout) -> VisionInput:
        """Read the pixels."""
        cells = np.arange(CELLS**2, dtype=np.int32).reshape(CELLS, CELLS)
        return VisionInput(
            crops=np.asarray(resized(load_image(media), (SIDE, SIDE), resize="area"))[None],
            pooling=windows(cells, pool=self.pool)[0],
            grids=np.array(layout.grids, np.int32),
            patches=CELLS**2,
        )


class Connector(nn.Module):
    """From a window of features to a slot: their mean, two layers, and the loudness of token embeddings.

    Args:
        embeddings: of the language model, [W, D].
        hidden: channels between the layers.
        dropout: share of the channels of features that is left out in training.
    """

    def __init__(self, embeddings: Tensor, *, hidden: int, dropout: float) -> None:
        super().__init__()
        width = embeddings.shape[1]
        self.layers = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Dropout(dropout), nn.Linear(WIDTH, hidden), nn.GELU(),
            nn.Linear(hidden, width), nn.LayerNorm(width),
        )  # fmt: skip
        nn.init.constant_(self.layers[-1].weight, float(embeddings.square().mean().sqrt()))

    def forward(self, windowed: Tensor, there: Tensor) -> Tensor:
        """Return slots [V, D] of features [V, K, 1280], of which `there`, bool [V, K], says which exist."""
        share = there.to(windowed.dtype) / there.sum(1, keepdim=True)
        return self.layers((windowed * share[:, :, None]).sum(1))


class Sight(RowModel):
    """The three parts on rows.

    Args:
        hf: a causal language model of `transformers`.
        eyes: the image encoder.
        hidden: as for `Connector`.
        dropout: likewise.
    """

    def __init__(self, hf: Any, eyes: EfficientNetLite0, *, hidden: int = 576, dropout: float = 0.1) -> None:
        super().__init__(hf)
        self.eyes = eyes.eval()
        self.connector = Connector(hf.get_input_embeddings().weight.detach(), hidden=hidden, dropout=dropout)
        for part in (self.hf, self.eyes):
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> "Sight":  # noqa: FBT001  # as torch has it
        """Leave the eyes as they are: in training their norms would forget what they have seen."""
        super().train(mode)
        self.eyes.eval()
        return self

    def features(self, vision: VisionInput) -> Tensor:
        """Return a feature per slot; what the eyes see needs no gradient."""
        with torch.no_grad():
            cells = self.eyes.features(vision.crops).flatten(0, 1)
        return self.connector(cells[vision.pooling.clamp_min(0)], vision.pooling >= 0)

    def place(self, embeddings: Tensor, slot: Tensor, features: Tensor) -> Tensor:
        """Put features in place of the embeddings at slots."""
        return embeddings.index_copy(0, slot, features)

    def parts(self) -> dict[str, Any]:
        """Return the three parts; only the connector has anything to train."""
        return {"vision": self.eyes, "connector": self.connector, "language": self.hf}

    def save(self, path: Path) -> None:
        """Write what was trained, which is the connector alone, as safetensors."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_model(self.connector, str(path))

    def load(self, path: Path) -> None:
        """Read what `save` wrote."""
        load_model(self.connector, path)
