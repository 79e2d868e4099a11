"""Writes drawn frames as an animation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from hedgerow.errors import DataError, RecipeError
from hedgerow.grounding.draw import COLOURS
from hedgerow.vision.write import write_video

_FASTEST = 50  # pictures a second of a GIF: viewers slow down what is faster


def write_animation(path: Path | str, pictures: Sequence[Image.Image], *, rate: int = 2) -> None:
    """Write pictures that follow one another as an animated GIF, which starts again at its end, or as an MP4.

    A GIF has 256 colours a picture, and counts time in hundredths of a second. An MP4 has even sides: what is
    odd loses its last row or column.

    Args:
        path: `NAME.gif` or `NAME.mp4`; its folder is made.
        pictures: of one size, one at least, such as `hedgerow.grounding.draw.draw_frames` gives.
        rate: pictures a second; that at which frames were sampled plays as fast as the video does.

    Raises:
        RecipeError: the name has another ending, or the rate is below 1 or (GIF) above 50.
        DataError: there is no picture, or one is of another size than the first.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".gif", ".mp4"):
        raise RecipeError(
            f"{path}: an animation is written as GIF or MP4; give a name that ends in .gif or .mp4"
        )
    if rate < 1 or (kind == ".gif" and rate > _FASTEST):
        most = f"1 to {_FASTEST}" if kind == ".gif" else "1 or more"
        raise RecipeError(f"{path}: {rate} pictures a second; give {most}")
    _check_alike(path, pictures)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".mp4":
        width, height = (side // 2 * 2 for side in pictures[0].size)
        frames = (np.asarray(picture.convert("RGB"))[:height, :width] for picture in pictures)
        write_video(path, frames, rate=rate)
        return
    first, *rest = map(_with_palette, pictures)
    first.save(path, save_all=True, append_images=rest, duration=1000 / rate, loop=0)


def _with_palette(picture: Image.Image) -> Image.Image:
    """Return a picture of 256 colours, those of ids among them: an id has one colour throughout."""
    picture = picture.convert("RGB")
    kept = [band for ink in (*COLOURS, "#000000", "#ffffff") for band in ImageColor.getrgb(ink)]
    own = picture.quantize(256 - len(kept) // 3).getpalette() or []
    holder = Image.new("P", (1, 1))
    holder.putpalette(kept + own)
    return picture.quantize(palette=holder, dither=Image.Dither.NONE)  # else stray dots of these colours


def _check_alike(path: Path, pictures: Sequence[Image.Image]) -> None:
    if not pictures:
        raise DataError(f"{path}: no picture to write; an animation needs at least one")
    for number, picture in enumerate(pictures):
        if picture.size != pictures[0].size:
            raise DataError(
                f"{path}: picture {number} has {'{} x {}'.format(*picture.size)} pixels, the first "
                f"{'{} x {}'.format(*pictures[0].size)}; give pictures of one size"
            )
