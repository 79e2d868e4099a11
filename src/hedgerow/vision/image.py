"""Images: read upright, resized, cut into overlapping crops as in Molmo2's public code (arXiv 2601.10611)."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from hedgerow.content import Image
from hedgerow.errors import MediaError
from hedgerow.sequence import Array
from hedgerow.vision.picture import Picture, decoded, opened, orientation
from hedgerow.vision.pooling import stitch
from hedgerow.vision.resize import Resize, Rows, area, bilinear

__all__ = ["Resize", "Tiler", "as_image", "image_size", "load_image", "resized"]


def as_image(source: str | Path | bytes | PIL.Image.Image | Array) -> Image:
    """Make an image of a tree from what is at hand.

    Args:
        source: the path of a file; the bytes of one; an array uint8 [H, W] (grey), [H, W, 3] (RGB) or
            [H, W, 4] (RGBA); or a Pillow image. Of the last two a PNG file is kept, which loses nothing of
            an array; a Pillow image is kept as `load_image` would show it.

    Raises:
        MediaError: an array or a Pillow image of another kind.
        TypeError: anything else.
    """
    if isinstance(source, str | Path):
        return Image(path=str(source))
    if isinstance(source, bytes):
        return Image(data=source)
    if isinstance(source, PIL.Image.Image):
        source = np.asarray(decoded(source, "the Pillow image"))
    elif not isinstance(source, np.ndarray):
        kind = type(source).__name__
        raise TypeError(f"an image from {kind}; give a path, bytes, a NumPy array or a Pillow image")
    if source.dtype != np.uint8 or source.ndim not in (2, 3) or source.shape[2:] not in ((), (3,), (4,)):
        raise MediaError(
            f"an image from an array {source.dtype} {list(source.shape)}; "
            "give uint8 [H, W], [H, W, 3] or [H, W, 4]"
        )
    if not source.size:
        raise MediaError(f"an image from an array {list(source.shape)} without a pixel; leave it out")
    file = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(source)).save(file, "PNG", compress_level=1)
    return Image(data=file.getvalue())


def image_size(image: Image) -> tuple[int, int]:
    """Return (width, height) of an image seen upright, from its header alone.

    Raises:
        MediaError: the file is missing, no image, or has more than `picture.MAX_PIXELS` pixels.
    """
    with opened(image) as picture:
        width, height = picture.size
        return (height, width) if orientation(picture) >= 5 else (width, height)


def load_image(image: Image) -> Picture:
    """Decode an image as a person sees it, who described it or pointed at things in it.

    It is upright (EXIF orientation applied). What is transparent lies on white, as in most viewers: behind
    it a file may hide colours that nobody has seen. Molmo2's public code drops the transparency instead and
    shows them. Of 16 bits of grey the upper 8 are kept, as Pillow does with 16 bits of colour. Of several
    frames or pages the first is taken. Colour profiles are not applied.

    Raises:
        MediaError: the file is missing, no image, damaged, has more than `picture.MAX_PIXELS` pixels, or
            pixels of 32 bits or floating point.
    """
    with opened(image) as picture:
        return decoded(picture, image.name)


def resized(pixels: Array | Picture, size: tuple[int, int], *, resize: Resize) -> Array:
    """Resize an image; the aspect ratio is not kept.

    Args:
        pixels: uint8 [H, W, 3], or what `load_image` returns, of which no array of full size is made.
        size: (height, width) wanted.
        resize: "bilinear" mixes the four pixels nearest to each sample point and looks at no others, as
            Molmo2 was trained: of a picture made much smaller it skips pixels, and a small thing may vanish.
            "area" is the mean of all pixels under each new pixel: nothing vanishes; enlarging repeats pixels.

    Returns:
        uint8 [height, width, 3].
    """
    if pixels.shape[:2] == tuple(size):
        return np.asarray(pixels)
    if isinstance(pixels, Picture):
        return pixels.resized(size, resize=resize)
    rows = Rows.of(pixels)
    return area(rows, size) if resize == "area" else bilinear(rows, size)


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
