"""Resizing pixels that are read a few rows at a time: a picture much larger than its crops is never whole."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import PIL.Image

from hedgerow.sequence import Array

Resize = Literal["bilinear", "area"]

_LINES, _PIXELS = 24, 2**17  # new rows made at once, and old pixels read for them: what a cache holds


@dataclass(frozen=True, slots=True)
class Rows:
    """Pixels behind a function that reads some rows of them.

    Attributes:
        height: in pixels.
        width: in pixels.
        read: takes rising row numbers int64 [n] and returns uint8 [n, width * 3].
    """

    height: int
    width: int
    read: Callable[[Array], Array]

    @classmethod
    def of(cls, pixels: Array) -> "Rows":
        """Return the rows of uint8 [H, W, 3]."""

        def read(numbers: Array) -> Array:
            first, last = int(numbers[0]), int(numbers[-1])
            in_a_run = last - first + 1 == len(numbers)  # then nothing need be copied
            return (pixels[first : last + 1] if in_a_run else pixels[numbers]).reshape(len(numbers), -1)

        return cls(pixels.shape[0], pixels.shape[1], read)


@dataclass(frozen=True, slots=True)
class Samples:
    """Where new pixels lie between old ones, along one side; their centres are at half pixels.

    Attributes:
        before: int64 [new], the old pixel before each.
        after: int64 [new], the one after it, or the same at the end.
        share: float32 [new], how far it lies between them.
    """

    before: Array
    after: Array
    share: Array

    @classmethod
    def of(cls, old: int, new: int) -> "Samples":
        """Lay `new` pixels over `old` ones, in float32 as the public code does: in a photo it shows."""
        place = np.maximum((np.arange(new, dtype=np.float32) + 0.5) * np.float32(old / new) - 0.5, 0)
        before = np.minimum(place.astype(np.int64), old - 1)
        return cls(before, np.minimum(before + 1, old - 1), (place - before).astype(np.float32))


def bilinear(rows: Rows, size: tuple[int, int]) -> Array:
    """Mix the four pixels nearest to each sample point; see `hedgerow.vision.image.resized`.

    Args:
        rows: of the picture.
        size: (height, width) wanted.

    Returns:
        uint8 [height, width, 3].
    """
    down = _samples(rows.height, size[0])
    left, right, near, far = _channels(rows.width, size[1])
    found = np.empty((size[0], size[1] * 3), np.uint8)
    step = _lines(rows.width * min(rows.height / size[0], 2))
    for start in range(0, size[0], step):
        lines = slice(start, start + step)
        before, after = down.before[lines], down.after[lines]
        share = down.share[lines, None]
        numbers = np.unique(np.concatenate([before, after]))
        old = rows.read(numbers)
        mixed = np.multiply(old.take(left, axis=1), near)
        mixed += np.multiply(old.take(right, axis=1), far)
        upper = mixed.take(np.searchsorted(numbers, before), axis=0)
        upper *= 1 - share
        lower = mixed.take(np.searchsorted(numbers, after), axis=0)
        lower *= share
        upper += lower
        found[lines] = np.rint(upper, out=upper)
    return found.reshape(*size, 3)


def area(rows: Rows, size: tuple[int, int]) -> Array:
    """Take the mean of all pixels under each new one; see `hedgerow.vision.image.resized`.

    Args:
        rows: of the picture.
        size: (height, width) wanted.

    Returns:
        uint8 [height, width, 3].
    """
    found = np.empty((*size, 3), np.uint8)
    scale = rows.height / size[0]
    step = _lines(rows.width * scale)
    for start in range(0, size[0], step):
        stop = min(start + step, size[0])
        top, bottom = start * scale, min(stop * scale, rows.height)
        numbers = np.arange(int(top), min(int(np.ceil(bottom)), rows.height))
        band = PIL.Image.fromarray(rows.read(numbers).reshape(len(numbers), rows.width, 3))
        box = (0, top - numbers[0], rows.width, min(bottom - numbers[0], len(numbers)))
        found[start:stop] = np.asarray(band.resize((size[1], stop - start), PIL.Image.Resampling.BOX, box))
    return found


def _lines(pixels: float) -> int:
    """How many new rows are made at once when each is made of so many pixels."""
    return max(1, min(_LINES, int(_PIXELS / pixels)))


@lru_cache(maxsize=64)
def _samples(old: int, new: int) -> Samples:
    return Samples.of(old, new)


@lru_cache(maxsize=64)
def _channels(old: int, new: int) -> tuple[Array, Array, Array, Array]:
    """Of each byte of a new row: the bytes of the old row that make it, and the weight of each."""
    samples = _samples(old, new)
    channel = np.arange(3)
    left, right = ((3 * side[:, None] + channel).ravel() for side in (samples.before, samples.after))
    far = np.repeat(samples.share, 3)
    return left, right, 1 - far, far
