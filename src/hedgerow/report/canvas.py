"""Pictures put together again from what a model receives: crops, and the patches that make each slot."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hedgerow.sequence import Array, VisionInput


@dataclass(frozen=True, slots=True)
class Region:
    """The part of a canvas that comes from one crop, in fractions of its width and height."""

    crop: int
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Canvas:
    """One view of an image, or one frame, as the pooling windows of its slots lie on it.

    Attributes:
        patches: int32 [h, w], the place of each patch among those of all crops; -1 where a window has none.
        window: side of a pooling window in patches; h and w are multiples.
        crop: patches of a crop.
    """

    patches: Array
    window: int
    crop: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of pooling windows."""
        height, width = self.patches.shape
        return height // self.window, width // self.window

    @property
    def inside(self) -> tuple[slice, slice]:
        """The lines and columns of patches that hold the picture; around them windows are padded."""
        lines, columns = ((self.patches >= 0).any(axis=axis).nonzero()[0] for axis in (1, 0))
        return slice(int(lines[0]), int(lines[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)

    @property
    def padded(self) -> int:
        """How many windows hold fewer patches than they could."""
        rows, columns = self.grid
        windows = self.patches.reshape(rows, self.window, columns, self.window)
        return int((windows < 0).any(axis=(1, 3)).sum())

    def regions(self) -> list[Region]:
        """Return which crop each part of the picture comes from, in the order of the crops."""
        height, width = self.patches.shape
        owner = np.where(self.patches < 0, -1, self.patches // self.crop)
        found = []
        for crop in np.unique(owner[owner >= 0]).tolist():
            lines, columns = (np.flatnonzero((owner == crop).any(axis=axis)) for axis in (1, 0))
            across, down = (len(columns) / width, len(lines) / height)
            found.append(Region(crop, columns[0] / width, lines[0] / height, across, down))
        return found

    def pixels(self, vision: VisionInput) -> Array:
        """Return what lies on the canvas, uint8 [h * p, w * p, 3] with p pixels a patch; padding is black."""
        side = math.isqrt(self.crop)
        pixel = vision.crops.shape[1] // side
        cells = vision.crops.reshape(-1, side, pixel, side, pixel, 3)
        crop, place = np.divmod(np.maximum(self.patches, 0), self.crop)
        row, column = np.divmod(place, side)
        found = cells[crop, row, :, column]  # [h, w, p, p, 3]
        found = np.where((self.patches >= 0)[..., None, None, None], found, 0)
        height, width = self.patches.shape
        return found.transpose(0, 2, 1, 3, 4).reshape(height * pixel, width * pixel, 3)


def canvases(vision: VisionInput) -> Iterator[list[Canvas]]:
    """Yield the frames of each grid of a vision input, in slot order; a view of an image is one frame."""
    start = 0
    for frames, rows, columns in vision.grids.tolist():
        table = vision.pooling[start : start + frames * rows * columns]
        start += len(table)
        side = _window(table)
        windows = table[:, : side * side].reshape(frames, rows, columns, side, side)
        whole = windows.transpose(0, 1, 3, 2, 4).reshape(frames, rows * side, columns * side)
        yield [Canvas(frame, side, vision.patches) for frame in whole]


def _window(table: Array) -> int:
    """Side of the windows of one grid: tables that were joined are as wide as the widest."""
    return math.isqrt(int((table >= 0).any(axis=0).nonzero()[0][-1])) + 1
