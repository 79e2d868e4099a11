"""What objects are: kinds, and how their pictures are made, drawn as shapes or cut out of pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from hedgerow.data.synthetic.draws import Draws
from hedgerow.sequence import Array

COLOURS = {
    "red": (214, 40, 40), "orange": (250, 140, 20), "yellow": (250, 222, 50), "green": (40, 160, 70),
    "blue": (40, 80, 214), "purple": (140, 50, 180), "white": (248, 248, 248), "black": (16, 16, 16),
}  # fmt: skip
_FINE = 4  # pixels drawn across one pixel of a shape
_RIM, _DARKER = 0.03, 0.6  # of the side; of the colour


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object: what one and what many are called; colour and shape where it is drawn."""

    name: str
    many: str
    colour: str | None = None
    shape: str | None = None

    def number(self, count: int) -> str:
        """Return a count with its noun: `3 red stars`."""
        return f"{count} {self.name if count == 1 else self.many}"


@dataclass(frozen=True, slots=True)
class Cast:
    """Kinds of one scene: `asked` of questions, `others` of each distractor, `absent` that are not there."""

    asked: tuple[Kind, ...]
    others: tuple[Kind, ...]
    absent: tuple[Kind, ...]


class Library(Protocol):
    """Where objects come from."""

    def cast(self, draws: Draws, *, asked: int, others: int) -> Cast:
        """Draw the kinds of a scene."""

    def picture(self, kind: Kind, draws: Draws, *, side: int) -> Array:
        """Return uint8 [h, w, 4], the longer side `side` pixels, colours multiplied by alpha."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """Plain shapes in plain colours, such as a red star."""

    def cast(self, draws: Draws, *, asked: int, others: int) -> Cast:
        """Draw kinds; distractors and what is absent share colour or shape with an asked kind."""
        every = draws.shuffled([Kind(f"{c} {s}", f"{c} {_plural(s)}", c, s) for c in COLOURS for s in _DRAWN])
        wanted, rest = every[:asked], every[asked:]
        alike = [kind for kind in rest if any(_similar(kind, one) for one in wanted)]
        drawn = tuple(draws.pick(alike[2:]) for _ in range(others))
        return Cast(tuple(wanted), drawn, tuple(alike[:2]))

    def picture(self, kind: Kind, draws: Draws, *, side: int) -> Array:
        """Draw the shape with a rim, a little lighter to one side than to the other."""
        matte = Image.new("L", (side * _FINE, side * _FINE))
        _DRAWN[kind.shape or ""](ImageDraw.Draw(matte), side * _FINE / 2)
        core = _shrunk(matte, max(_FINE, round(_RIM * side * _FINE)))
        alpha, filled = (
            np.asarray(part.reduce(_FINE), np.float64)[:, :, None] / 255 for part in (matte, core)
        )
        plain = np.array(COLOURS[kind.colour or ""], np.float64)
        light = 1.0 + draws.uniform(-0.15, 0.15) * np.linspace(-1, 1, side)[None, :, None]
        # Where two objects of one colour overlap, rims still tell which is in front.
        rim = np.full(3, 120.0) if plain.max() < 60 else _DARKER * plain
        pixels = np.concatenate(
            [np.clip(plain * light, 0, 255) * filled + rim * (alpha - filled), 255 * alpha], 2
        )
        return np.rint(pixels).astype(np.uint8)


def _shrunk(matte: Image.Image, pixels: int) -> Image.Image:
    core = np.pad(np.asarray(matte), pixels)
    for _ in range(pixels):
        core = np.minimum(np.minimum(core[:-2], core[1:-1]), core[2:])
        core = np.minimum(np.minimum(core[:, :-2], core[:, 1:-1]), core[:, 2:])
    return Image.fromarray(core)


def _similar(one: Kind, other: Kind) -> bool:
    return one.colour == other.colour or one.shape == other.shape


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("s") else "s")


def _corners(places: Sequence[tuple[float, float]], half: float) -> list[tuple[float, float]]:
    """Places in units of half the side from the middle, as pixels."""
    return [(half * (1 + x), half * (1 + y)) for x, y in places]


def _around(radii: Sequence[float]) -> list[tuple[float, float]]:
    """Places at equal angles from the top on."""
    turns = [2 * math.pi * place / len(radii) for place in range(len(radii))]
    return [
        (radius * math.sin(turn), -radius * math.cos(turn)) for radius, turn in zip(radii, turns, strict=True)
    ]


def _disc(pen: ImageDraw.ImageDraw, half: float, *, x: float, radius: float, fill: int) -> None:
    pen.ellipse(_corners([(x - radius, -radius), (x + radius, radius)], half), fill=fill)


def _circle(pen: ImageDraw.ImageDraw, half: float) -> None:
    _disc(pen, half, x=0, radius=0.98, fill=255)


def _ring(pen: ImageDraw.ImageDraw, half: float) -> None:
    _circle(pen, half)
    _disc(pen, half, x=0, radius=0.55, fill=0)


def _crescent(pen: ImageDraw.ImageDraw, half: float) -> None:
    _circle(pen, half)
    _disc(pen, half, x=0.5, radius=0.8, fill=0)


def _square(pen: ImageDraw.ImageDraw, half: float) -> None:
    pen.rectangle(_corners([(-0.9, -0.9), (0.9, 0.9)], half), fill=255)


def _triangle(pen: ImageDraw.ImageDraw, half: float) -> None:
    pen.polygon(_corners([(0, -0.95), (0.98, 0.85), (-0.98, 0.85)], half), fill=255)


def _star(pen: ImageDraw.ImageDraw, half: float) -> None:
    pen.polygon(_corners(_around([0.98, 0.45] * 5), half), fill=255)


def _cross(pen: ImageDraw.ImageDraw, half: float) -> None:
    pen.rectangle(_corners([(-0.95, -0.32), (0.95, 0.32)], half), fill=255)
    pen.rectangle(_corners([(-0.32, -0.95), (0.32, 0.95)], half), fill=255)


def _arrow(pen: ImageDraw.ImageDraw, half: float) -> None:
    pen.rectangle(_corners([(-0.95, -0.3), (0.1, 0.3)], half), fill=255)
    pen.polygon(_corners([(0.05, -0.9), (0.95, 0), (0.05, 0.9)], half), fill=255)


_DRAWN = {
    "circle": _circle, "ring": _ring, "crescent": _crescent, "square": _square,
    "triangle": _triangle, "star": _star, "cross": _cross, "arrow": _arrow,
}  # fmt: skip
