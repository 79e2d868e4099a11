"""Photos with captions out of Debian's tuxpaint-stamps-default: cut-outs, each on several grounds."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hedgerow.data.synthetic.backgrounds import texture
from hedgerow.data.synthetic.draws import Draws
from hedgerow.errors import DataError

# Signs, letters and drawings; what is left are photos for the most part.
_SKIPPED = {"symbols", "cartoon", "roadsigns", "flags", "seasonal", "military", "body_parts", "toys", "space"}
_QUOTES = "\u201c\u201d\u2019'"
_WORD = rf"[\w{_QUOTES}-]+"
_PLAIN = re.compile(rf"(?:An?|The|Two|Some) (?:{_WORD} ){{0,4}}{_WORD}\.")  # no story, no shout
_SIDE = 224
_SIZE = (0.7, 0.98)  # longer side of a cut-out, of the picture's
_OPAQUE = 200


@dataclass(frozen=True, slots=True)
class Stamp:
    """A cut-out; `name` is its path without ending."""

    path: Path
    name: str
    caption: str


def read_stamps(folder: Path) -> list[Stamp]:
    """Return the captioned cut-outs of a folder, in the order of their paths.

    Raises:
        DataError: there are none.
    """
    found = list(_captioned(folder))
    if not found:
        raise DataError(
            f"{folder} has no captioned cut-outs; apt-get install tuxpaint-stamps-default, or give photos of "
            "your own with --data"
        )
    return found


def _captioned(folder: Path) -> Iterator[Stamp]:
    for path in sorted(folder.rglob("*.png")):
        place, beside = path.relative_to(folder), path.with_suffix(".txt")
        if _SKIPPED.intersection(place.parts) or not beside.is_file():
            continue
        caption = (beside.read_text(encoding="utf-8").splitlines() or [""])[0].strip()
        if _PLAIN.fullmatch(caption) and _cut(path) is not None:
            yield Stamp(path, place.with_suffix("").as_posix(), caption)


def _cut(path: Path) -> Image.Image | None:
    """Return a picture cut to its matte; None without one."""
    with Image.open(path) as file:
        if "A" not in file.getbands() and "transparency" not in file.info:
            return None
        picture = file.convert("RGBA")
    matte = picture.getchannel("A")
    box = matte.point(lambda alpha: 255 * (alpha >= _OPAQUE)).getbbox()
    return None if box is None or matte.getextrema()[0] else picture.crop(box)


def write_photos(folder: Path, stamps: list[Stamp], *, each: int, seed: int) -> Path:
    """Put each cut-out on several grounds, and return the table of photos: image, caption, thing.

    Args:
        folder: where to.
        stamps: the cut-outs.
        each: photos of each.
        seed: of sizes, places and grounds.
    """
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    table = folder / "photos.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "caption", "thing"))
        for number, stamp in enumerate(stamps):
            picture = _cut(stamp.path)
            assert picture is not None
            for turn in range(each):
                name = f"photos/{number:04d}-{turn}.jpg"
                composed(picture, Draws(seed, number, turn)).save(folder / name, quality=92)
                rows.writerow((name, stamp.caption, stamp.name))
    return table


def composed(picture: Image.Image, draws: Draws) -> Image.Image:
    """Return a cut-out somewhere on a ground, in one of two mirror images, 224 x 224."""
    scale = draws.uniform(*_SIZE) * _SIDE / max(picture.size)
    size = tuple(max(1, round(scale * length)) for length in picture.size)
    small = picture.resize(size, Image.Resampling.LANCZOS)
    if draws.chance(0.5):
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    ground = Image.fromarray(np.asarray(texture((_SIDE, _SIDE), draws)))
    place = tuple(draws.between(0, _SIDE - length) for length in size)
    ground.paste(small, place, small)
    return ground
