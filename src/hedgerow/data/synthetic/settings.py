"""The knobs of synthetic scenes."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hedgerow.errors import RecipeError

STAMPS = Path("/usr/share/tuxpaint/stamps")  # where Debian's tuxpaint-stamps-default puts its pictures
MOST_OBJECTS = 100
MOST_KINDS = 20
GROWTH = 0.2  # the most by which an object grows and shrinks on its way
LEAST_PIXELS = 8  # across the smallest object

Look = Literal["auto", "shapes", "cutouts"]


@dataclass(frozen=True, slots=True)
class Scenes:
    """What synthetic scenes are like.

    Args:
        objects: least and most objects that questions are about.
        kinds: least and most kinds these are of.
        distractors: objects of other kinds, which no question is about; drawn shapes share colour or shape
            with what is asked for.
        occlusion: hidden share that is aimed at: the part of an object's pixels inside the frame that
            nearer objects hide, averaged over objects and the frames they are in. What a scene has is in its
            truth; few objects can hide little, many in a small picture cannot keep apart.
        speed: frame widths a second, on average.
        leaving: share of the objects that are out of the picture for a while; most of them return.
        extent: least and most longer side of an object, in frame heights.
        seconds: time from the first frame to the last.
        rate: frames a second.
        sample: annotated times a second, at 0, 1/sample, 2/sample, ...
        size: (width, height) in pixels, both even.
        look: "shapes" are drawn; "cutouts" are pictures from a folder; "auto" takes cut-outs where there
            are any.
        cutouts: folder of PNG files with an alpha matte, each with a .txt whose first line is its caption;
            None: Debian's stamps (package tuxpaint-stamps-default).
        backgrounds: folder of photos to put behind the objects; None: drawn textures.
        name: what ids and files begin with.

    Raises:
        RecipeError: a knob is out of its range, or a folder is missing.
    """

    objects: tuple[int, int] = (3, 6)
    kinds: tuple[int, int] = (1, 3)
    distractors: int = 2
    occlusion: float = 0.1
    speed: float = 0.15
    leaving: float = 0.3
    extent: tuple[float, float] = (0.16, 0.3)
    seconds: float = 6.0
    rate: int = 12
    sample: int = 2
    size: tuple[int, int] = (320, 240)
    look: Look = "auto"
    cutouts: Path | None = None
    backgrounds: Path | None = None
    name: str = "scene"

    def __post_init__(self) -> None:
        """Refuse what no scene can be."""
        _check_range("objects", self.objects, 1, MOST_OBJECTS)
        _check_range("kinds", self.kinds, 1, MOST_KINDS)
        _check_range("extent", self.extent, 0.02, 1.0)
        _check("distractors", self.distractors, 0, MOST_OBJECTS)
        _check("occlusion", self.occlusion, 0.0, 0.3)
        _check("speed", self.speed, 0.0, 4.0)
        _check("leaving", self.leaving, 0.0, 1.0)
        _check("rate", self.rate, 1, 120)
        if len(self.size) != 2:
            raise RecipeError(f"size={self.size}: give (width, height) in pixels")
        for side in self.size:
            _check("size", side, 32, 1000)
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise RecipeError(f"name='{self.name}': files are called so; take letters, digits, _ and -")
        self._check_times()
        self._check_pixels()
        if self.look not in ("auto", "shapes", "cutouts"):
            raise RecipeError(f"look='{self.look}'; choose auto, shapes or cutouts")
        for name, folder in (("cutouts", self.cutouts), ("backgrounds", self.backgrounds)):
            if folder is not None and not folder.is_dir():
                raise RecipeError(f"{name}={folder}: no such folder; correct the path or leave it out")

    @property
    def frames(self) -> int:
        """Frames of a scene."""
        return round(self.seconds * self.rate) + 1

    @property
    def folder(self) -> Path | None:
        """The folder of cut-outs; None where shapes are drawn.

        Raises:
            RecipeError: cut-outs are asked for and there are none.
        """
        folder = self.cutouts or (STAMPS if STAMPS.is_dir() else None)
        if self.look == "cutouts" and folder is None:
            raise RecipeError(
                "look='cutouts', but no folder is given and Debian's stamps are not installed; "
                "run apt-get install tuxpaint-stamps-default, give cutouts=FOLDER or take look='shapes'"
            )
        return None if self.look == "shapes" else folder

    def _check_times(self) -> None:
        if self.sample not in (1, 2, 5, 10):
            raise RecipeError(f"sample={self.sample}; times are printed in tenths: choose 1, 2, 5 or 10")
        if self.rate % self.sample:
            raise RecipeError(f"rate={self.rate} is no multiple of sample={self.sample}; give one that is")
        if not (math.isfinite(self.seconds) and self.seconds > 0 and _is_whole(self.seconds * self.sample)):
            raise RecipeError(
                f"seconds={self.seconds} is not a positive multiple of 1/sample = {1 / self.sample}; "
                "then the last frame is annotated, too"
            )

    def _check_pixels(self) -> None:
        width, height = self.size
        if width % 2 or height % 2:
            raise RecipeError(f"size={self.size}: video needs even sides; give even ones")
        smallest = self.extent[0] * height * (1 - GROWTH)
        if smallest < LEAST_PIXELS:
            raise RecipeError(
                f"extent={self.extent} of a height of {height} makes objects of {smallest:.1f} pixels, "
                f"at least {LEAST_PIXELS} are needed; give a larger extent or size"
            )


def _is_whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-9  # products of decimals


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most or (isinstance(least, int) and not isinstance(value, int)):
        kind = "a whole number" if isinstance(least, int) else "a number"
        raise RecipeError(f"{name}={value}: it may be {kind} from {least} to {most}")


def _check_range(name: str, values: Sequence[float], least: float, most: float) -> None:
    if len(values) != 2 or values[0] > values[1]:
        raise RecipeError(f"{name}={values}: give two numbers, the least and the most")
    for value in values:
        _check(name, value, least, most)
