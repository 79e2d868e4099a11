"""A processor that reads no pixel, for trees that are shown without pictures."""

import copy

import numpy as np

from hedgerow.content import Media
from hedgerow.encode import Encoder
from hedgerow.sequence import VisionInput
from hedgerow.vision.processor import MediaLayout
from hedgerow.vision.wrapped import Wrapped


class Blind(Wrapped):
    """Lays media out as another processor does, and gives crops of one black pixel in place of its own."""

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
