"""Cut-outs: PNG files with an alpha matte, each with a caption beside it."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from hedgerow.data.synthetic.draws import Draws
from hedgerow.data.synthetic.kinds import Cast, Kind
from hedgerow.errors import RecipeError
from hedgerow.sequence import Array

# "A red apple." names a kind; a sentence, a quantity or a name does not.
_NOUN = re.compile(r"(?:An?|The) ((?:[a-z-]+ ){0,2}[a-z-]+)\.?")
_NOT_ONE_THING = {"of", "with", "at", "and", "in", "on", "very", "pair", "baby"}
# Drawings, signs, and folders in which the same things stand under other names.
_SKIPPED = {"cartoon", "symbols", "seasonal", "military", "roadsigns", "body_parts"}
_OPAQUE = 200
_LEAST_OPAQUE = 0.15  # of the box around the matte; less is thin as a thread
_IRREGULAR = {"mouse": "mice", "tooth": "teeth", "goose": "geese", "louse": "lice", "foot": "feet"}
_SAME = ("sheep", "deer", "fish", "bison", "shrimp", "trout")


@dataclass(frozen=True, slots=True)
class Cutout:
    """A picture of a kind; kinds of one `group` may be hard to tell apart by name (a hen is a bird)."""

    path: Path
    kind: Kind
    group: str


@dataclass(frozen=True, slots=True)
class Cutouts:
    """Pictures of a folder, in the order of their paths."""

    folder: Path
    pictures: tuple[Cutout, ...]

    def cast(self, draws: Draws, *, asked: int, others: int) -> Cast:
        """Draw kinds of which no two are of one group or share a word.

        Raises:
            RecipeError: the folder has too few such kinds.
        """
        chosen: list[Cutout] = []
        for cutout in draws.shuffled(self.pictures):
            if not any(_alike(cutout, other) for other in chosen):
                chosen.append(cutout)
        kinds = [cutout.kind for cutout in chosen]
        spare = kinds[asked:]
        if len(spare) < 2:
            raise RecipeError(
                f"{self.folder} has {len(kinds)} kinds that can be told apart, {asked + 2} are needed; "
                "give a folder with more, ask for fewer kinds, or take look='shapes'"
            )
        absent = spare[: min(2, len(spare) - 1)]
        drawn = tuple(draws.pick(spare[len(absent) :]) for _ in range(others))
        return Cast(tuple(kinds[:asked]), drawn, tuple(absent))

    def picture(self, kind: Kind, draws: Draws, *, side: int) -> Array:
        """Return one of the kind's pictures, cut to its matte."""
        cutout = draws.pick([cutout for cutout in self.pictures if cutout.kind == kind])
        with Image.open(cutout.path) as file:
            picture = file.convert("RGBA")
        picture = picture.crop(_extent(picture)).convert("RGBa")
        scale = side / max(picture.size)
        size = [max(1, round(scale * length)) for length in picture.size]
        # A filter that overshoots would make a colour stronger than its alpha allows.
        pixels = np.asarray(picture.resize((size[0], size[1]), Image.Resampling.BILINEAR))
        return np.minimum(pixels, pixels[:, :, 3:])


@functools.lru_cache(maxsize=8)
def read_cutouts(folder: Path) -> Cutouts:
    """Read which cut-outs a folder and those below it have.

    Taken are PNG files with a real matte whose caption is a noun with its article, such as "A red apple."

    Raises:
        RecipeError: there are none.
    """
    found = []
    for path in sorted(folder.rglob("*.png"), key=lambda path: path.relative_to(folder).as_posix()):
        place = PurePosixPath(path.relative_to(folder).as_posix())
        kind = None if _SKIPPED.intersection(place.parts) else _captioned(path.with_suffix(".txt"))
        if kind is not None and _has_matte(path):
            found.append(Cutout(path, kind, "/".join(place.parts[:-1][:2])))
    if not found:
        raise RecipeError(
            f"{folder} has no cut-out: PNG files with transparency are needed, and beside each a .txt that "
            "says what it is (\"A red apple.\"); give another folder or look='shapes'"
        )
    return Cutouts(folder, tuple(found))


def plural(noun: str) -> str:
    """Return the English plural of a noun; the last word carries it."""
    *first, last = re.split(r"(?<=[ -])", noun)
    return "".join([*first, _plural(last)])


def _plural(word: str) -> str:
    for end, many in _IRREGULAR.items():
        if word.endswith(end) and (word == end or end == "louse"):
            return word.removesuffix(end) + many
    if word.endswith(_SAME):
        return word
    if word.endswith("man"):
        return word.removesuffix("an") + "en"
    if re.search(r"[^aeiou]y$", word):
        return word.removesuffix("y") + "ies"
    if word.endswith(("s", "x", "z", "ch", "sh")) or word in ("potato", "tomato", "mango"):
        return word + "es"
    return word + "s"


def _captioned(path: Path) -> Kind | None:
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    noun = _NOUN.fullmatch(lines[0].strip()) if lines else None
    if noun is None or _NOT_ONE_THING.intersection(noun[1].split()):
        return None
    return Kind(noun[1], plural(noun[1]))


def _has_matte(path: Path) -> bool:
    with Image.open(path) as file:
        if "A" not in file.getbands() and "transparency" not in file.info:
            return False
        picture = file.convert("RGBA")
    extent = _extent(picture)
    if extent is None:
        return False
    alpha = np.asarray(picture.crop(extent))[:, :, 3]
    opaque = (alpha >= _OPAQUE).mean()
    return bool(opaque >= _LEAST_OPAQUE and (alpha == 0).any())


def _extent(picture: Image.Image) -> tuple[int, int, int, int] | None:
    """The box around what is not transparent."""
    return picture.getchannel("A").point(lambda alpha: 255 * (alpha >= _OPAQUE)).getbbox()


def _alike(one: Cutout, other: Cutout) -> bool:
    return one.group == other.group or bool(set(one.kind.name.split()) & set(other.kind.name.split()))
