"""Weighers that look at parts of an answer: its opening, its conclusion, coordinates, parts of speech."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field, PlainSerializer, model_validator
from pydantic.dataclasses import dataclass

from hedgerow.content import STRICT
from hedgerow.errors import DataError, RecipeError
from hedgerow.weights.answer import Answer, Array, Weigher, brief, over_tokens
from hedgerow.weights.weigher import Factor, Limited

Tagger = Callable[[str], list[tuple[int, int, str]]]
"""From a text to (first character, one past the last, tag) of what it can tell; none is shipped."""

OPENINGS = (
    r"(?:sure(?: thing)?|certainly|absolutely|of course|okay|ok|great|happy to help|no problem)\s*[!.,:]+",
    r"here(?:['\u2019]s| is| are)\b[^.!?:\n]{0,60}:",
    r"(?:that['\u2019]s|what) an? (?:good|great|interesting) question\s*[!.,:]+",
)


def _pattern(text: str) -> str:
    try:
        pattern = re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"{text!r} is no pattern ({error}); give a regular expression of Python") from None
    if pattern.match(""):
        raise ValueError(f"the pattern {text!r} matches nothing at all; let it need a character")
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Opening(Limited):
    """How an answer begins before it says anything, such as "Sure!".

    Attributes:
        factor: of the opening.
        patterns: regular expressions, whatever the case. As many as match one after the other from the first
            character on are the opening.
    """

    factor: Factor = 0.0
    patterns: tuple[Pattern, ...] = OPENINGS

    def factors(self, answer: Answer) -> Array:
        """Return `factor` for the tokens of the opening."""
        first = next(answer.of_kind("text"), None)
        if first is None or answer.text[: first.start].strip():
            return np.ones(len(answer.offsets))
        patterns = [re.compile(rf"\s*(?:{text})", re.IGNORECASE) for text in self.patterns]
        end = first.start
        while match := next(filter(None, (one.match(answer.text, end, first.end) for one in patterns)), None):
            end = match.end()
        return _marked(answer, [(first.start, end)], self.factor)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class AnswerSpan(Limited):
    """What an answer comes to, among the words that lead there.

    It is what the data name as `answer`; else what the pattern matches; else what follows the last of the
    markers. Where none of them is found nothing changes.

    Attributes:
        factor: of the span.
        after: markers, whatever the case; the span goes on to the end of the answer.
        pattern: a regular expression, whatever the case. Its group `answer` is the span if it has one.
    """

    factor: Factor = 4.0
    after: tuple[Annotated[str, Field(min_length=1)], ...] = ("Answer:",)
    pattern: Pattern | None = None

    def factors(self, answer: Answer) -> Array:
        """Return `factor` for the tokens of the span."""
        named = [(region.start, region.end) for region in answer.of_kind("answer")]
        return _marked(answer, named or self._matched(answer) or self._marked_out(answer), self.factor)

    def _matched(self, answer: Answer) -> list[tuple[int, int]]:
        if self.pattern is None:
            return []
        pattern = re.compile(self.pattern, re.IGNORECASE)
        group = "answer" if "answer" in pattern.groupindex else 0
        found = [match.span(group) for match in pattern.finditer(answer.text)]
        return [span for span in found if span[0] < span[1]]

    def _marked_out(self, answer: Answer) -> list[tuple[int, int]]:
        ends = [
            match.end()
            for marker in self.after
            for match in re.finditer(re.escape(marker), answer.text, re.IGNORECASE)
        ]
        return [(max(ends), len(answer.text))] if ends else []


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Grounded(Limited):
    """Points and tracks: where things are against what they are.

    Attributes:
        coordinates: factor of times, image numbers, ids, x and y.
        label: factor of the label.
    """

    coordinates: Factor = 1.0
    label: Factor = 1.0

    def factors(self, answer: Answer) -> Array:
        """Return the factors of the tokens of points and tracks; quotes and brackets have 1."""
        characters = np.ones(len(answer.text))
        for region in answer.of_kind("coordinates", "label"):
            characters[region.start : region.end] = getattr(self, region.kind)
        return over_tokens(answer, characters)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Named(Limited):
    """Spans that the data name, by their names.

    Attributes:
        names: factor of each name; spans that overlap multiply.
    """

    names: Mapping[str, Factor]

    def factors(self, answer: Answer) -> Array:
        """Return the factors of the tokens of named spans."""
        characters = np.ones(len(answer.text))
        for name, factor in self.names.items():
            for region in answer.of_kind(name):
                characters[region.start : region.end] *= factor
        return over_tokens(answer, characters)


def _dotted(tagger: Tagger | str) -> str:
    if isinstance(tagger, str):
        return tagger
    return f"{tagger.__module__}:{getattr(tagger, '__qualname__', type(tagger).__qualname__)}"


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Speech(Limited):
    """Parts of speech, as a tagger of yours tells them.

    Attributes:
        tagger: a `Tagger`, or where it is found as `package.module:name`.
        tags: factor of each tag, such as {NOUN: 2.0, ADJ: 1.5}; other tags have 1.
    """

    tagger: Annotated[str | Tagger, PlainSerializer(_dotted, when_used="json")]
    tags: Mapping[str, Factor]

    @model_validator(mode="after")
    def _full_name(self) -> "Speech":
        if isinstance(self.tagger, str) and not all(self.tagger.partition(":")):
            raise ValueError(f"the tagger '{self.tagger}' is not found so; write package.module:name")
        return self

    def factors(self, answer: Answer) -> Array:
        """Return the factors of the tokens of tagged text; what several tags cover is multiplied."""
        tagger = _tagger(self.tagger) if isinstance(self.tagger, str) else self.tagger
        characters = np.ones(len(answer.text))
        for region in answer.of_kind("text"):
            text = answer.text[region.start : region.end]
            for start, end, tag in _tagged(tagger, text, name=_dotted(self.tagger)):
                characters[region.start + start : region.start + end] *= self.tags.get(tag, 1.0)
        return over_tokens(answer, characters)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Spans:
    """The weighers of parts of answers that are used; none by default.

    Attributes:
        opening: see `Opening`.
        answer: see `AnswerSpan`.
        grounded: see `Grounded`.
        named: see `Named`.
        speech: see `Speech`.
    """

    opening: Opening | None = None
    answer: AnswerSpan | None = None
    grounded: Grounded | None = None
    named: Named | None = None
    speech: Speech | None = None

    def weighers(self) -> tuple[Weigher, ...]:
        """Return them."""
        found = (self.opening, self.answer, self.grounded, self.named, self.speech)
        return tuple(one for one in found if one is not None)


def _marked(answer: Answer, spans: Iterable[tuple[int, int]], factor: float) -> Array:
    characters = np.ones(len(answer.text))
    for start, end in spans:
        characters[start:end] = factor
    return over_tokens(answer, characters)


def _tagged(tagger: Tagger, text: str, *, name: str) -> list[tuple[int, int, str]]:
    """Ask a tagger, which may be anybody's code.

    Raises:
        DataError: it fails on this text, or what it says is no list of places and tags of the text.
    """
    told = f"the tagger {name}, given {brief(text)},"
    try:
        found = tagger(text)
    except Exception as error:
        raise DataError(f"{told} raises {type(error).__name__}: {error}; mend it") from error
    try:
        places = [(int(start), int(end), str(tag)) for start, end, tag in found]
    except (TypeError, ValueError):
        raise DataError(
            f"{told} returns {found!r:.60}; return a list of (first character, one past the last, tag)"
        ) from None
    for start, end, tag in places:
        if not 0 <= start < end <= len(text):
            raise DataError(
                f"{told} says that characters {start} to {end} are {tag}, in a text of {len(text)}; it must "
                "stay within the text it was given"
            )
    return places


@cache
def _tagger(name: str) -> Tagger:
    module, _, function = name.partition(":")
    try:
        found: Any = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise RecipeError(
            f"no tagger at {name} ({error}); write package.module:name of a function that Python can import "
            "here: installed, or in a folder of PYTHONPATH"
        ) from None
    if not callable(found):
        raise RecipeError(f"the tagger {name} is {found!r:.60}, no function; name a function")
    return found  # type: ignore[no-any-return]
