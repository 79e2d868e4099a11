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
        """Return what lies on the canvas, uint8 [h * p, w * p, 3] with p pixels a patch; padding is black.

        Of a patch of several frames the first is shown.
        """
        side = math.isqrt(self.crop)
        whole = vision.crops if vision.crops.ndim == 4 else _unfolded(vision.crops)
        pixel = whole.shape[1] // side
        cells = whole.reshape(-1, side, pixel, side, pixel, 3)
        crop, place = np.divmod(np.maximum(self.patches, 0), self.crop)
        row, column = np.divmod(place, side)
        found = cells[crop, row, :, column]  # [h, w, p, p, 3]
        found = np.where((self.patches >= 0)[..., None, None, None], found, 0)
        height, width = self.patches.shape
        return found.transpose(0, 2, 1, 3, 4).reshape(height * pixel, width * pixel, 3)


def whole_views(vision: VisionInput) -> Iterator[Canvas | None]:
    """Yield, for each of the images a vision input tells of, the crop that shows all of it, or None."""
    first = 0
    for crops, _, _, _, whole in vision.images.tolist():  # type: ignore[union-attr]
        yield Canvas(np.array([[first + whole]], np.int32), 1, 1) if whole >= 0 else None
        first += crops


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


def _frames_of_a_patch(width: int) -> int:
    """How many frames a flat patch of `width` values holds: patches are square, of three channels."""
    return next(n for n in range(1, width + 1) if width % (3 * n) == 0 and _is_square(width // (3 * n)))


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def _unfolded(patches: Array) -> Array:
    """The first frames of flat patches [P, 3 * T * S * S], as [P, S, S, 3]."""
    frames = _frames_of_a_patch(patches.shape[1])
    side = math.isqrt(patches.shape[1] // (3 * frames))
    return patches.reshape(-1, 3, frames, side, side)[:, :, 0].transpose(0, 2, 3, 1)


def _window(table: Array) -> int:
    """Side of the windows of one grid: tables that were joined are as wide as the widest."""
    return math.isqrt(int((table >= 0).any(axis=0).nonzero()[0][-1])) + 1
