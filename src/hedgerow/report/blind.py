"""A processor that reads no pixel, for trees that are shown without pictures."""

import copy
from dataclasses import dataclass

import numpy as np

from hedgerow.content import Media
from hedgerow.encode import Encoder
from hedgerow.sequence import VisionInput
from hedgerow.vision.facts import Facts
from hedgerow.vision.processor import Groups, MediaLayout, Placement, VisionProcessor


@dataclass(frozen=True, slots=True)
class Blind:
    """Lays media out as another processor does, and gives crops of one black pixel in place of its own."""

    processor: VisionProcessor

    @property
    def groups(self) -> Groups:
        """Those of the processor."""
        return self.processor.groups

    @property
    def axes(self) -> int:
        """Those of the processor."""
        return self.processor.axes

    @property
    def placement(self) -> Placement:
        """That of the processor."""
        return self.processor.placement

    def filled(self, media: Media, *, several: bool = False) -> Media:
        """Return the media with the processor's settings where it has none of its own."""
        return self.processor.filled(media, several=several)

    def layout(self, media: Media, facts: Facts, *, label: str | None) -> MediaLayout:
        """Write down the tokens of one image or video; see `VisionProcessor`."""
        return self.processor.layout(media, facts, label=label)

    def visual(self, media: Media, layout: MediaLayout) -> VisionInput:  # noqa: ARG002  # of the protocol
        """Return crops and windows of the right number that show nothing."""
        return VisionInput(
            crops=np.zeros((layout.crops, 1, 1, 3), np.uint8),
            pooling=np.full((layout.slots, 1), -1, np.int32),
            grids=np.array(layout.grids, np.int32),
            patches=1,
        )


def blind(encoder: Encoder) -> Encoder:
    """Return an encoder that writes the same tokens, weights and places, and opens no file for its pixels."""
    other = copy.copy(encoder)
    other.processor = Blind(encoder.processor)
    return other
