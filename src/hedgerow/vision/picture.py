"""Image files as a viewer shows them: opened under a limit of size, turned upright, flattened to RGB."""

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from PIL.TiffImagePlugin import TiffImageFile

from hedgerow.content import Image
from hedgerow.errors import MediaError
from hedgerow.sequence import Array
from hedgerow.vision.mistaken import HEAD, mistaken
from hedgerow.vision.resize import Resize, Rows, area, bilinear

MAX_PIXELS = 200_000_000
"""The most pixels an image may have: what the largest phone cameras take. Decoded, each takes 4 bytes."""

_TIFF_BITS, _ORIENTATION = 0x0102, 0x0112
# By EXIF orientation: whether the stored picture is transposed, then turned upside down, then mirrored.
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_KINDS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", *_DEEP)
_AT_ONCE = 2**20  # pixels made RGB at once


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image. NumPy makes an array of it: uint8 [H, W, 3], RGB, upright.

    Rows become RGB when they are asked for, so that Pillow's own copy is the only one of the whole.
    """

    stored: PIL.Image.Image
    turn: tuple[bool, bool, bool]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3), seen upright."""
        width, height = self.stored.size
        return (width, height, 3) if self.turn[0] else (height, width, 3)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:  # noqa: FBT001
        width, height = self.stored.size
        pixels, lines = np.empty((height, width, 3), np.uint8), max(1, _AT_ONCE // width)
        for top in range(0, height, lines):
            bottom = min(top + lines, height)
            pixels[top:bottom] = _rgb(self.stored.crop((0, top, width, bottom)))
        return np.array(self._upright(pixels), dtype, copy=copy)

    def resized(self, size: tuple[int, int], *, resize: Resize) -> Array:
        """Return the array in another (height, width); see `hedgerow.vision.image.resized`."""
        make = area if resize == "area" else bilinear
        rows = Rows(self.stored.height, self.stored.width, self._mirrored_rows)
        return make(rows, size[::-1]).transpose(1, 0, 2) if self.turn[0] else make(rows, size)

    def _upright(self, pixels: Array) -> Array:
        transposed, upside_down, mirrored = self.turn
        pixels = pixels.transpose(1, 0, 2) if transposed else pixels
        return pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1]

    def _mirrored_rows(self, numbers: Array) -> Array:
        """Read rows of the picture turned in all but that it is not transposed."""
        transposed, *mirror = self.turn
        from_below, from_right = mirror[::-1] if transposed else mirror
        if from_below:
            numbers = self.stored.height - 1 - numbers[::-1]
        pixels = self._rows(numbers).reshape(len(numbers), -1, 3)
        pixels = pixels[:: -1 if from_below else 1, :: -1 if from_right else 1]
        return pixels.reshape(len(numbers), -1)

    def _rows(self, numbers: Array) -> Array:
        """Read some rows as they are stored; those that follow each other come in one go."""
        ends = [0, *(np.flatnonzero(np.diff(numbers) > 1) + 1).tolist(), len(numbers)]
        runs = [(int(numbers[start]), int(numbers[stop - 1]) + 1) for start, stop in pairwise(ends)]
        strips = [self.stored.crop((0, top, self.stored.width, bottom)) for top, bottom in runs]
        if self.stored.mode == "RGB" and not self.stored.has_transparency_data:
            return np.frombuffer(b"".join(strip.tobytes() for strip in strips), np.uint8)
        return np.concatenate([_rgb(strip) for strip in strips])


@contextmanager
def opened(image: Image) -> Iterator[PIL.Image.Image]:
    """Open an image with Pillow; only its header is read. Whatever Pillow raises within is said of the image.

    Raises:
        MediaError: the file is missing, no image, damaged, or has more than `MAX_PIXELS` pixels.
    """
    if image.path is not None and not Path(image.path).is_file():
        raise MediaError(f"{image.name}: no such file; correct the path or put the image there")
    try:
        with _LIMIT, PIL.Image.open(image.path or io.BytesIO(image.data or b"")) as picture:
            _check(picture, image.name)
            yield picture
    except MediaError:
        raise
    except PIL.UnidentifiedImageError:
        raise _no_image(image) from None
    except Exception as error:  # of a damaged file Pillow's decoders raise nearly anything
        why = " ".join(f"{error}".split()) or type(error).__name__
        raise MediaError(
            f"{image.name}: the image cannot be read ({why}); copy or download it again"
        ) from error


def _no_image(image: Image) -> MediaError:
    """Return the error for what Pillow cannot read: by its first bytes it may be known what it is."""
    if image.path is None:
        head = (image.data or b"")[:HEAD]
    else:
        with Path(image.path).open("rb") as file:
            head = file.read(HEAD)
    if not head:
        return MediaError(f"{image.name}: the file is empty; copy or download it again")
    found = mistaken(head)
    if found is not None:
        return MediaError(f"{image.name}: {found.what}, not an image; {found.remedy}")
    return MediaError(
        f"{image.name}: not an image; give a JPEG, PNG, WebP or another format that Pillow reads"
    )


def decoded(picture: PIL.Image.Image, name: str) -> Picture:
    """Decode what Pillow has opened.

    Raises:
        MediaError: its pixels are of a kind that can be shown in many ways, such as floating point.
    """
    if picture.mode not in _KINDS or (picture.mode == "I" and picture.format != "PPM"):
        raise MediaError(
            f"{name}: pixels of kind {picture.mode}, 8 or 16 bits a channel are read; save it so"
        )
    turn = _TURNS[orientation(picture)]
    picture.load()
    if (
        picture.mode in _DEEP
        and isinstance(picture, TiffImageFile)
        and picture.tag_v2.get(_TIFF_BITS) == (12,)
    ):
        picture = picture.point(lambda value: value * 16)
    if picture.mode == "LAB":
        picture = picture.convert("RGB")  # at once: the tables for it take long to make
    return Picture(picture, turn)


def orientation(picture: PIL.Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, from the header alone."""
    if picture.format == "TIFF":
        return 1  # Pillow turns these itself
    # The method of the base class: that of PNG decodes all pixels to look for EXIF data behind them.
    found = PIL.Image.Image.getexif(picture).get(_ORIENTATION, 1)
    return found if found in _TURNS else 1


def _check(picture: PIL.Image.Image, name: str) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{name}: {width} x {height} pixels, {MAX_PIXELS:,} in all are allowed; make the image smaller"
        )
    if picture.format == "EPS":
        raise MediaError(f"{name}: EPS is a program, which is not run; save the image as PNG")


def _rgb(strip: PIL.Image.Image) -> Array:
    """Return rows as uint8 [h, w, 3]: over white where they are transparent, the upper 8 bits of 16."""
    if strip.mode in _DEEP:
        values = np.asarray(strip)
        grey = (values >> 8).astype(np.uint8)
        grey[values == strip.info.get("transparency", -1)] = 255
        return np.repeat(grey[..., None], 3, axis=2)
    if not strip.has_transparency_data:
        return np.asarray(strip.convert("RGB"))
    layers = np.asarray(strip.convert("RGBA")).astype(np.uint16)
    colour, alpha = layers[..., :3], layers[..., 3:]
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


class _Limit:
    """Switches Pillow's own limit of size off while an image is open here: it warns far below ours.

    The limit is a variable of Pillow's module. It has its value again when no thread has an image open.
    """

    def __init__(self) -> None:
        self._theirs: int | None = None
        self._open = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if self._open == 0:
                self._theirs, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
            self._open += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open -= 1
            if self._open == 0:
                PIL.Image.MAX_IMAGE_PIXELS = self._theirs

    def start_anew(self) -> None:
        """Forget the threads of the parent process, which a forked one lacks."""
        if self._open:
            PIL.Image.MAX_IMAGE_PIXELS = self._theirs
        self._open, self._lock = 0, threading.Lock()


_LIMIT = _Limit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_LIMIT.start_anew)
