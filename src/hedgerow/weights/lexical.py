"""Weighers that look at words: stop words, keywords and phrases, repeated phrases, rarity.

Words, not tokens: see `hedgerow.weights.answer` for what a word is and how factors come to tokens. Numbers
of points and tracks are no words, their labels are.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from hedgerow.content import STRICT
from hedgerow.errors import DataError, RecipeError
from hedgerow.weights.answer import Answer, Array, Region, Weigher, Word, brief, over_tokens, words_of
from hedgerow.weights.idf import Idf
from hedgerow.weights.weigher import Factor, Limited

Case = Literal["ignore", "exact"]
_LISTS = Path(__file__).with_name("stop_words")
_LOG = logging.getLogger("hedgerow")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class StopWords(Limited):
    """Words that say little.

    Attributes:
        factor: of each of them.
        language: whose list is taken. Words that deny (not, no, never) stand in none: they decide answers.
        words: stand instead of a list.
    """

    factor: Factor = 0.3
    language: Literal["de", "en", "es", "fr"] = "en"
    words: tuple[str, ...] = ()

    def factors(self, answer: Answer) -> Array:
        """Return `factor` for tokens of stop words."""
        listed = _folded(self.words) if self.words else stop_words(self.language)
        found = [word for words in answer.words() for word in words if word.text.casefold() in listed]
        return _marked(answer, found, self.factor)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Keywords(Limited):
    """Words and phrases that matter. Whole words: `cat` is not found in `category`.

    Of phrases that overlap the one that begins first counts, of those the longest. Between the words of a
    phrase any white space may stand.

    Attributes:
        words: words and phrases.
        file: more of them, one a line, in UTF-8; a line that begins with `#` is a remark.
        factor: of each.
        case: whether capitals must be as in the list.
    """

    words: tuple[str, ...] = ()
    file: Path | None = None
    factor: Factor = 2.0
    case: Case = "ignore"

    @model_validator(mode="after")
    def _some_words(self) -> "Keywords":
        if not self.words and self.file is None:
            raise ValueError("no keywords; give words, or a file with one a line")
        blank = [word for word in self.words if not word.strip()]
        if blank:
            raise ValueError(f"the keyword {blank[0]!r} has no character; leave it out")
        return self

    def factors(self, answer: Answer) -> Array:
        """Return `factor` for tokens of keywords; a keyword that no token covers is named once in the log."""
        phrases = _phrases(self.words, self.file, self.case)
        found = [match for region in answer.spoken() for match in _found(answer.text, region, phrases)]
        start, end = answer.offsets.T
        for match in found:
            if not ((start < match.end) & (end > match.start)).any():
                _name_uncovered(match.text, brief(answer.text))
        return _marked(answer, found, self.factor)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Repeats(Limited):
    """Phrases that stood in the same answer before.

    Attributes:
        length: n, how many words make a phrase.
        factor: of words that belong to a repeated phrase, from its second time on.
    """

    length: Annotated[int, Field(ge=1)] = 3
    factor: Factor = 0.5

    def factors(self, answer: Answer) -> Array:
        """Return `factor` for tokens of repeated phrases."""
        seen: set[tuple[str, ...]] = set()
        found = []
        for words in answer.words():
            folded = [word.text.casefold() for word in words]
            for place in range(len(words) - self.length + 1):
                phrase = tuple(folded[place : place + self.length])
                if phrase in seen:
                    found.append(Word(words[place].start, words[place + self.length - 1].end, ""))
                seen.add(phrase)
        return _marked(answer, found, self.factor)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Rarity(Limited):
    """How rare words are: idf(v) = log((1 + N) / (1 + df(v))) + 1; what is no word has 1.

    Attributes:
        table: a file that `Idf.save` wrote.
        cap: the most a factor may be; words that are not in the table have the largest.
    """

    table: Path
    cap: Annotated[float, Field(ge=1.0)] | None = None

    def factors(self, answer: Answer) -> Array:
        """Return the idf of each token's word."""
        idf = _table(self.table)
        characters = np.ones(len(answer.text))
        for words in answer.words():
            for word in words:
                factor = idf(word.text)
                characters[word.start : word.end] = factor if self.cap is None else min(factor, self.cap)
        return over_tokens(answer, characters)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Lexical:
    """The weighers of words that are used; none by default.

    Attributes:
        stop_words: see `StopWords`.
        keywords: by domain, see `Keywords`. Lists of several domains multiply where they agree.
        repeats: see `Repeats`.
        rarity: see `Rarity`.
    """

    stop_words: StopWords | None = None
    keywords: Mapping[str, Keywords] = Field(default_factory=dict)
    repeats: Repeats | None = None
    rarity: Rarity | None = None

    def weighers(self) -> tuple[Weigher, ...]:
        """Return them."""
        single = (self.stop_words, self.repeats, self.rarity)
        return (*(one for one in single if one is not None), *self.keywords.values())


@cache
def stop_words(language: str) -> frozenset[str]:
    """Return the shipped function words of a language.

    Raises:
        RecipeError: there is no list of it.
    """
    path = _LISTS / f"{language}.txt"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in _LISTS.glob("*.txt")))
        raise RecipeError(f"no stop words of '{language}'; choose one of {known}, or give words")
    return frozenset(path.read_text(encoding="utf-8").split())


class _Phrases(NamedTuple):
    """Keywords ready to be looked up.

    `listed` are phrases that begin and end with words, `lengths` by first word how many words they have, the
    longest first; `others`, such as C++, are found by a pattern.
    """

    listed: frozenset[str]
    lengths: Mapping[str, tuple[int, ...]]
    others: re.Pattern[str] | None
    fold: bool

    def key(self, text: str) -> str:
        """Return a text as it is looked up."""
        text = " ".join(text.split())
        return text.casefold() if self.fold else text


@cache
def _phrases(words: tuple[str, ...], file: Path | None, case: Case) -> _Phrases:
    fold = case == "ignore"
    listed: set[str] = set()
    lengths: dict[str, set[int]] = {}
    others = []
    empty = _Phrases(frozenset(), {}, None, fold)
    for phrase in (*words, *(_lines(file) if file is not None else ())):
        own = words_of(phrase.strip())
        if own and own[0].start == 0 and own[-1].end == len(phrase.strip()):
            listed.add(empty.key(phrase))
            lengths.setdefault(empty.key(own[0].text), set()).add(len(own))
        else:
            others.append(phrase)
    patterns = [_pattern(phrase) for phrase in sorted(others, key=len, reverse=True)]
    other = re.compile("|".join(patterns), re.IGNORECASE if fold else 0) if patterns else None
    ordered = {word: tuple(sorted(found, reverse=True)) for word, found in lengths.items()}
    return empty._replace(listed=frozenset(listed), lengths=ordered, others=other)


def _pattern(phrase: str) -> str:
    inner = r"\s+".join(map(re.escape, phrase.split()))
    before = r"(?<!\w)" if phrase.strip()[0].isalnum() else ""
    return before + inner + (r"(?!\w)" if phrase.strip()[-1].isalnum() else "")


def _found(text: str, region: Region, phrases: _Phrases) -> Iterator[Word]:
    """Yield where keywords stand."""
    if phrases.others is not None:
        for match in phrases.others.finditer(text, region.start, region.end):
            yield Word(match.start(), match.end(), match[0])
    words = words_of(text, region.start, region.end)
    place = 0
    while place < len(words):
        step = 1
        for length in phrases.lengths.get(phrases.key(words[place].text), ()):
            run = words[place : place + length]
            said = text[run[0].start : run[-1].end]
            if len(run) == length and phrases.key(said) in phrases.listed:
                yield Word(run[0].start, run[-1].end, said)
                step = length
                break
        place += step


def _marked(answer: Answer, found: Iterable[Word], factor: float) -> Array:
    """Bring a factor on stretches of text to tokens; where stretches overlap it counts once."""
    characters = np.ones(len(answer.text))
    for word in found:
        characters[word.start : word.end] = factor
    return over_tokens(answer, characters)


def _folded(words: Iterable[str]) -> frozenset[str]:
    return frozenset(word.casefold() for word in words)


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: no list of keywords ({error}); give a file with one a line") from None
    found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not found:
        raise RecipeError(f"{file}: no keyword in it; write one a line")
    return found


@cache
def _table(path: Path) -> Idf:
    try:
        idf = Idf.load(path)
    except DataError as error:
        raise RecipeError(str(error)) from None  # no example is to blame
    if not idf.documents:
        raise RecipeError(f"{path}: the table was fitted on no text, so no word is rarer than another")
    return idf


@cache
def _name_uncovered(keyword: str, text: str) -> None:
    _LOG.warning("no token covers the keyword '%s' in %s, so its weight is lost", keyword, text)
