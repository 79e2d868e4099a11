"""A place in a text, and what was wrong before it: what the readers of all point formats share."""

import math
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from hedgerow.content import Frame, Points, Tracks
from hedgerow.grounding.points import UNITS

Kind = Literal["malformed", "cut_off", "unpadded", "out_of_range", "duplicate_id", "bad_order", "no_frame"]

LISTED = 1000  # problems of a text; a megabyte could hold a third of a million, which nobody reads
# Bounded, for a number too long to convert would raise.
NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
WORD = re.compile(r"\s*+(\S++)")
_ID = r"[1-9][0-9]{0,8}"
_CLOSE = re.compile(r"</(?P<tag>points?|tracks)>|(?=<(?:points?|tracks)[\s/>])")
_UNCLOSED_LABEL = re.compile(r"[^<]*")


class Problem(NamedTuple):
    """Something in a text that its format does not allow.

    At character `at`, from 0, stands `found` (empty at the end of the text) where `expected` is due.
    """

    kind: Kind
    at: int
    expected: str
    found: str

    def __str__(self) -> str:
        found = repr(self.found) if self.found else "the end"
        return f"character {self.at}: expected {self.expected}, found {found}"


class Found(NamedTuple):
    """A part, the (start, end) of each piece of text that says it, and where each of its points begins."""

    part: Points | Tracks
    spans: tuple[tuple[int, int], ...]
    places: tuple[int, ...]


class Reader:
    """A place in a text, and what was wrong before it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.problems: list[Problem] = []

    def take(self, token: re.Pattern[str]) -> re.Match[str] | None:
        """Step over the token if it comes next."""
        found = token.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found

    def note(self, at: int, expected: str, kind: Kind = "malformed", *, end: int | None = None) -> None:
        """Note that something else than the expected stands there, up to `end`.

        What is malformed because the text ends is cut off. After `LISTED` problems no more are listed.
        """
        if len(self.problems) >= LISTED:
            return
        if kind == "malformed" and (at if end is None else end) >= len(self.text):
            kind = "cut_off"
        self.problems.append(Problem(kind, at, expected, self.text[at : at + 16]))

    def label(self, tag: str) -> str:
        """Read what stands between a tag and its closing tag, or the next `<` without one."""
        start = self.at
        close = _CLOSE.search(self.text, start)
        if close is None or not close[0]:
            label = self.take(_UNCLOSED_LABEL)
            begun = self.text[self.at : self.at + len(tag) + 2]
            self.note(
                self.at, f"</{tag}>", end=self.at + len(begun) if f"</{tag}".startswith(begun) else None
            )
            return label[0] if label else ""
        if close["tag"] != tag:
            self.note(close.start(), f"</{tag}>")
        self.at = close.end()
        return self.text[start : close.start()]

    def place(self, at: int, x: float, y: float, frame: Frame) -> tuple[float, float] | None:
        """Return x and y in fractions (pixels stay pixels), or None where they leave their frame."""
        most = UNITS.get(frame, math.inf)
        if 0 <= x <= most and 0 <= y <= most:
            return (x, y) if most == math.inf else (x / most, y / most)
        self.note(at, "x and y from 0" + ("" if most == math.inf else f" to {most:g}"), "out_of_range")
        return None

    def triples(
        self,
        start: int,
        end: int,
        point: re.Pattern[str],
        expected: str,
        *,
        loose: re.Pattern[str] | None = None,
    ) -> Iterator[re.Match[str]]:
        """Yield each point of a row of words; what is none is noted and stepped over.

        A `loose` point counts where one is due, unless its last number may go on after the end of the text.
        Patterns are those of `triple`.
        """
        at, bad = start, -1
        while True:
            found = point.match(self.text, at, end)
            if found is None and loose is not None and bad < 0:
                found = loose.match(self.text, at, end)
                found = found if found and found.end() < len(self.text) else None
            word = WORD.match(self.text, at, end) if found is None else None
            if word is not None:
                bad = word.start(1) if bad < 0 else bad
                at = word.end()
                continue
            if bad >= 0:
                self.note(bad, expected, end=at)
            if found is None:
                return
            yield found
            at, bad = found.end(), -1


def triple(coordinate: str, *, unless: str = "") -> re.Pattern[str]:
    """Return the pattern of an id and two coordinates, parted by white space: groups 1 to 3.

    There is none where a point with coordinates like `unless` begins at one of the two.
    """
    better = rf"(?!{_ID}\s++{unless}\s++{unless}(?!\S))" if unless else ""
    return re.compile(rf"\s*+({_ID})\s++{better}({coordinate})\s++{better}({coordinate})(?!\S)")


def storable(text: str) -> str:
    """Return a text without lone surrogates: they are no characters, and could not be stored."""
    return text.encode("utf-8", "replace").decode("utf-8")
