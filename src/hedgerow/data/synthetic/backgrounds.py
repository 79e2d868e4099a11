"""What stands behind the objects: drawn textures, or photos of a folder."""

from pathlib import Path

import numpy as np
import PIL.Image

from hedgerow.content import Image
from hedgerow.data.synthetic.draws import Draws
from hedgerow.errors import RecipeError
from hedgerow.sequence import Array
from hedgerow.vision.image import load_image

_PHOTOS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_GREY = (80.0, 180.0)  # plain colours of objects stand out from it
_TINT, _CLOUDS, _GRAIN = 22.0, 30.0, 3.0  # of 255


def texture(size: tuple[int, int], draws: Draws) -> Array:
    """Draw a dull texture, uint8 [H, W, 3]: a gradient of two greyish colours with clouds and grain.

    Args:
        size: (width, height) in pixels.
        draws: source of all choices.
    """
    width, height = size
    ends = [draws.uniform(*_GREY) + _TINT * (2 * draws.uniforms(3) - 1) for _ in range(2)]
    clouds = _stretched(2 * draws.uniforms(8 * 6).reshape(6, 8) - 1, size)
    ramp = _stretched(draws.uniforms(4).reshape(2, 2), size)[:, :, None]
    grain = 2 * draws.uniforms(width * height).reshape(height, width) - 1
    pixels = ends[0] * (1 - ramp) + ends[1] * ramp + (_CLOUDS * clouds + _GRAIN * grain)[:, :, None]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def photo(folder: Path, size: tuple[int, int], draws: Draws) -> Array:
    """Return one of the images of a folder, cut to the shape of the frame, uint8 [H, W, 3].

    Args:
        folder: images in it and below are taken.
        size: (width, height) in pixels.
        draws: source of all choices.

    Raises:
        RecipeError: the folder has no image.
        MediaError: the image cannot be read.
    """
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in _PHOTOS]
    if not paths:
        raise RecipeError(f"backgrounds={folder} has no image ({', '.join(sorted(_PHOTOS))}); add some")
    paths.sort(key=lambda path: path.relative_to(folder).as_posix())
    picture = PIL.Image.fromarray(np.asarray(load_image(Image(str(draws.pick(paths))))))
    scale = min(picture.width / size[0], picture.height / size[1])
    across, down = size[0] * scale, size[1] * scale
    left, top = (picture.width - across) / 2, (picture.height - down) / 2
    box = (left, top, left + across, top + down)
    return np.asarray(picture.resize(size, PIL.Image.Resampling.LANCZOS, box=box))


def _stretched(values: Array, size: tuple[int, int]) -> Array:
    picture = PIL.Image.fromarray(values.astype(np.float32))
    return np.asarray(picture.resize(size, PIL.Image.Resampling.BICUBIC), np.float64)
