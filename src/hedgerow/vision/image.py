"""Images: read upright, resized, cut into overlapping crops as in Molmo2's public code (arXiv 2601.10611)."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import PIL.Image

from hedgerow.content import Image
from hedgerow.errors import MediaError
from hedgerow.sequence import Array
from hedgerow.vision.pooling import stitch

Resize = Literal["bilinear", "area"]

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, PIL.Image.DecompressionBombError)


def image_size(image: Image) -> tuple[int, int]:
    """Return (width, height) of an image seen upright, from its header alone.

    Raises:
        MediaError: the file is missing or no image.
    """
    with _opened(image) as picture:
        width, height = picture.size
        return (height, width) if _orientation(picture) >= 5 else (width, height)


def load_image(image: Image) -> Array:
    """Return an image as uint8 [H, W, 3], upright (EXIF orientation applied), alpha dropped.

    Raises:
        MediaError: the file is missing, no image, damaged, or has more than 8 bits a channel.
    """
    with _opened(image) as picture:
        if picture.mode.startswith(("I", "F")):
            raise MediaError(
                f"{image.name}: pixels of kind {picture.mode}, only 8 bits a channel are read; "
                "save it as such"
            )
        turn = _UPRIGHT.get(_orientation(picture))
        upright = picture if turn is None else picture.transpose(turn)
        return np.asarray(upright.convert("RGB"))


def resized(pixels: Array, size: tuple[int, int], *, resize: Resize) -> Array:
    """Resize an image; the aspect ratio is not kept.

    Args:
        pixels: uint8 [H, W, 3].
        size: (height, width) wanted.
        resize: "bilinear" mixes the four pixels nearest to each sample point and looks at no others, as
            Molmo2 was trained: of a picture made much smaller it skips pixels, and a small thing may vanish.
            "area" is the mean of all pixels under each new pixel: nothing vanishes; enlarging repeats pixels.

    Returns:
        uint8 [height, width, 3].
    """
    if pixels.shape[:2] == tuple(size):
        return pixels
    if resize == "area":
        image = PIL.Image.fromarray(pixels)
        return np.asarray(image.resize((size[1], size[0]), PIL.Image.Resampling.BOX))
    top, bottom, down = _samples(pixels.shape[0], size[0])
    left, right, across = _samples(pixels.shape[1], size[1])
    down, across = down[:, None, None], across[None, :, None]
    upper, lower = pixels[top], pixels[bottom]
    upper = upper[:, left] * (1 - across) + upper[:, right] * across
    lower = lower[:, left] * (1 - across) + lower[:, right] * across
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Tiler:
    """How a large image becomes crops: a grid of windows, each seen with a margin of its neighbours.

    Attributes:
        crop: side of a crop in pixels.
        patch: side of a patch in pixels.
        margins: patches (left and top, right and bottom) of a crop that its neighbours also see.
        max_crops: the most windows.
    """

    crop: int
    patch: int
    margins: tuple[int, int]
    max_crops: int

    @property
    def _window(self) -> int:
        return self.crop - sum(self.margins) * self.patch

    def tiling(self, size: tuple[int, int]) -> tuple[int, int]:
        """Choose (rows, columns) of windows for an image of (height, width) pixels.

        The grid that enlarges the image least; if every grid shrinks it, the one that shrinks it least; then
        the one with fewer windows, which comes first here. Sizes are compared without the margins. An image
        narrower or lower than the margins gets one window, whatever its other side, as in the public code.
        """
        sides = range(1, self.max_crops + 1)
        grids = [(rows, columns) for rows in sides for columns in sides if rows * columns <= self.max_crops]
        inner = np.array(size, np.float32) - (self.crop - self._window)
        with np.errstate(divide="ignore"):
            scale = (np.array(grids, np.float32) * self._window / inner).min(axis=1)
        if (scale < 1).all():
            return grids[int(scale.argmax())]
        return grids[int(np.where(scale < 1, np.inf, scale).argmin())]

    def crops(self, pixels: Array, *, resize: Resize) -> Array:
        """Cut an image into its windows with margins.

        Args:
            pixels: uint8 [H, W, 3].
            resize: see `resized`.

        Returns:
            uint8 [rows * columns, crop, crop, 3], row by row.
        """
        rows, columns = self.tiling(pixels.shape[:2])
        margin = self.crop - self._window
        canvas = resized(
            pixels, (rows * self._window + margin, columns * self._window + margin), resize=resize
        )
        corners = [
            (row * self._window, column * self._window) for row in range(rows) for column in range(columns)
        ]
        return np.stack([canvas[y : y + self.crop, x : x + self.crop] for y, x in corners])

    def patch_grid(self, size: tuple[int, int]) -> Array:
        """Return the stitched patch indices int32 [h, w] of an image of (height, width) pixels."""
        return stitch(self.tiling(size), side=self.crop // self.patch, margins=self.margins)


@lru_cache(maxsize=64)
def _samples(old: int, new: int) -> tuple[Array, Array, Array]:
    """Pixel before and after each sample point, and how far it is between them; centres at half pixels."""
    place = np.maximum((np.arange(new, dtype=np.float32) + 0.5) * np.float32(old / new) - 0.5, 0)
    before = np.minimum(place.astype(np.int64), old - 1)
    after = np.minimum(before + 1, old - 1)
    return before, after, (place - before).astype(np.float32)


@contextmanager
def _opened(image: Image) -> Iterator[PIL.Image.Image]:
    if image.path is not None and not Path(image.path).is_file():
        raise MediaError(f"{image.name}: no such file; correct the path or put the image there")
    try:
        with PIL.Image.open(image.path or io.BytesIO(image.data or b"")) as picture:
            yield picture
    except PIL.UnidentifiedImageError:
        raise MediaError(
            f"{image.name}: not an image; give a JPEG, PNG, WebP or another format that Pillow reads"
        ) from None
    except _UNREADABLE as error:
        raise MediaError(
            f"{image.name}: the image cannot be read ({error}); copy or download it again"
        ) from None


def _orientation(image: PIL.Image.Image) -> int:
    if image.format == "TIFF":
        return 1  # Pillow turns these itself
    # The method of the base class: that of PNG decodes all pixels to look for EXIF data behind them.
    found = PIL.Image.Image.getexif(image).get(_ORIENTATION, 1)
    return found if found in _UPRIGHT else 1
