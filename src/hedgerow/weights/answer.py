"""One answer as weighers see it: its text, where its tokens stand, and what its characters are.

A weigher gives every token of an answer a factor. Most look at characters; `over_tokens` brings that to
tokens, so that any tokenizer with character offsets will do.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hedgerow.content import Points, Text, Tracks
from hedgerow.errors import RecipeError

Array = Any
Part = Text | Points | Tracks
Weigher = Callable[["Answer"], Array]
"""From an answer of n tokens to their factors, float [n]."""

_LOG = logging.getLogger("hedgerow")
_SPACES = np.array([code for code in range(0x3001) if chr(code).isspace()], np.uint32)
# Scripts written without spaces count character by character; marks belong to the letters they stand on.
_ALONE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_LETTER = rf"(?:[^\W{_ALONE}]|[\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0900-\u0963\u0966-\u0dff])"
_WORD = re.compile(rf"[{_ALONE}]|{_LETTER}+(?:(?:['\u2019]|(?<=[0-9])[.,](?=[0-9])){_LETTER}+)*")


class Region(NamedTuple):
    """Characters `start` to `end` (one past the last) of an answer that are of one kind.

    Kinds are `text`, `points`, `tracks`; within the last two `coordinates` and `label`; and the names that
    data give to spans.
    """

    start: int
    end: int
    kind: str


class Word(NamedTuple):
    """A word of an answer: characters `start` to `end`, and the same as text."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One message of the assistant.

    Attributes:
        text: all of it, without the end of the turn.
        offsets: integers [n, 2], the first character of each token and the one after its last.
        task: of its sample.
        source: its data set.
        regions: what its characters are.

    Raises:
        RecipeError: the offsets do not fit the text, or there are none.
    """

    text: str
    offsets: Array
    task: str
    source: str
    regions: tuple[Region, ...]

    def __post_init__(self) -> None:
        """Refuse offsets that say nothing about the text."""
        offsets = self.offsets
        if offsets.ndim != 2 or offsets.shape[1:] != (2,) or offsets.dtype.kind != "i":
            raise RecipeError(
                f"offsets {offsets.dtype} {list(offsets.shape)}: weighers need each token's first "
                "character and the one after its last, integers [n, 2]; take a tokenizer that tells"
            )
        if not len(offsets):
            return
        start, end = offsets.T
        if start.min() < 0 or end.max() > len(self.text) or (start > end).any():
            raise RecipeError(
                f"offsets from {start.min()} to {end.max()} in a text of {len(self.text)} characters; "
                "give those of its tokens"
            )
        if self.text and (start == end).all():
            raise RecipeError(
                f"no token of {brief(self.text)} has a character; take a tokenizer with character offsets"
            )

    @classmethod
    def of(
        cls,
        said: Iterable[tuple[Part, str]],
        offsets: Listing[tuple[int, int]] | Array,
        *,
        task: str = "qa",
        source: str = "data",
    ) -> "Answer":
        """Make the answer of its parts.

        Args:
            said: the parts in order, each with its text as `hedgerow.grounding` writes it.
            offsets: of the tokens of all texts together.
            task: of the sample.
            source: the data set.

        Raises:
            RecipeError: the offsets do not fit.
        """
        texts: list[str] = []
        regions: list[Region] = []
        begin = 0
        for part, text in said:
            for start, end, kind in _regions(part, text):
                _append(regions, Region(begin + start, begin + end, kind))
            texts.append(text)
            begin += len(text)
        array = np.asarray(offsets) if len(offsets) else np.zeros((0, 2), np.int32)
        return cls("".join(texts), array, task, source, tuple(regions))

    def of_kind(self, *kinds: str) -> Iterator[Region]:
        """Yield the regions of some kinds, in order."""
        return (region for region in self.regions if region.kind in kinds)

    def spoken(self) -> Iterator[Region]:
        """Yield the regions that have words: texts and labels."""
        return self.of_kind("text", "label")

    def words(self) -> list[list[Word]]:
        """Return the words of each text and of each label; numbers of points and tracks are none."""
        return [words_of(self.text, region.start, region.end) for region in self.spoken()]


def words_of(text: str, start: int = 0, end: int | None = None) -> list[Word]:
    """Return the words between two characters: runs of letters and digits, with the apostrophes inside them.

    Numbers keep their points and commas. In scripts without spaces every character is a word.
    """
    found = _WORD.finditer(text, start, len(text) if end is None else end)
    return [Word(match.start(), match.end(), match[0]) for match in found]


def over_tokens(answer: Answer, characters: Array) -> Array:
    """Return factors of tokens from factors of characters, float64 [n].

    A token's factor is the mean over its characters, to the last bit where they agree. White space counts
    only in a token that has nothing else: it clings to the word after it in some tokenizers and to the one
    before it in others. A token without characters takes the factor of the character that follows.

    Args:
        answer: of n tokens and C characters.
        characters: float [C].
    """
    start, end = answer.offsets.T
    codes = np.frombuffer(answer.text.encode("utf-32-le", "surrogatepass"), np.uint32)
    solid = ~np.isin(codes, _SPACES)
    before = np.concatenate([[0], np.cumsum(solid)])
    first, last = before[start], before[end]
    means: Array = np.where(
        last > first, _means(characters[solid], first, last), _means(characters, start, end)
    )
    return means


def stated(answer: Answer, said: Iterable[tuple[Part, str]]) -> Array:
    """Return what the data say of the weights of tokens, of parts and of spans in them, float64 [n].

    Args:
        answer: made of `said`.
        said: its parts in order, each with its text.
    """
    characters = np.ones(len(answer.text))
    begin = 0
    for part, text in said:
        own = characters[begin : begin + len(text)]  # a view
        own *= 1.0 if part.weight is None else part.weight
        for span in part.spans if isinstance(part, Text) else ():
            own[span.start : span.end] *= 1.0 if span.weight is None else span.weight
        begin += len(text)
    return over_tokens(answer, characters)


def _means(values: Array, start: Array, end: Array) -> Array:
    """Means of `values[start:end]`, and `values[start]` where that is empty."""
    values = np.append(values.astype(np.float64), 1.0)  # after the last character stands a plain one
    if not len(start):
        return np.zeros(0)
    places = np.stack([start, end], 1).ravel()
    least, most, total = (one.reduceat(values, places)[::2] for one in (np.minimum, np.maximum, np.add))
    return np.where(least == most, least, total / np.maximum(end - start, 1))


def brief(text: str) -> str:
    """Return the beginning of a text, quoted."""
    return repr(text) if len(text) <= 40 else repr(text[:37]) + "..."


def _append(regions: list[Region], region: Region) -> None:
    """Texts side by side are one, so that a phrase may begin in one part and end in the next."""
    last = next((place for place in reversed(range(len(regions))) if regions[place].kind == "text"), None)
    if region.kind == "text" and last is not None and regions[last].end == region.start:
        regions[last] = Region(regions[last].start, region.end, "text")
    else:
        regions.append(region)


def _regions(part: Part, text: str) -> Iterator[Region]:
    if isinstance(part, Text):
        yield Region(0, len(text), "text")
        for span in part.spans:
            if span.name is not None:
                yield Region(span.start, span.end, span.name)
        return
    yield Region(0, len(text), part.type)
    opening, closing = f'<{part.type} coords="', f"</{part.type}>"
    if text.startswith(opening):  # otherwise a sentence says that there are none
        quote = text.index('"', len(opening))
        yield Region(len(opening), quote, "coordinates")
        yield Region(quote + len('">'), len(text) - len(closing), "label")
