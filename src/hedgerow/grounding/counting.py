"""Answers that count: the sentences around points, and the number that a reply states."""

import re
from typing import Literal

from hedgerow.content import Points, Text, Tracks
from hedgerow.grounding.codec import NO_POINTS, parse
from hedgerow.grounding.points import canonical

Style = Literal["point_then_count", "count_then_point", "count"]

_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_VALUES = {word: value for value, word in enumerate(_SMALL)} | {"none": 0}
# Not a piece of a longer number, of a decimal, or of a word such as "3-year-old"; bounded, for int() is.
_AMOUNT = rf"(?<![\w.,-])([0-9]{{1,9}}|{'|'.join(_VALUES)})(?![\w-]|[.,][0-9])"
_NUMBER = re.compile(_AMOUNT)
_TOTAL = re.compile(rf"\btotal of {_AMOUNT}")
_THERE_ARE = re.compile(rf"\bthere (?:are|is) {_AMOUNT}")
_THERE_ARE_NO = re.compile(r"\bthere (?:are|is) no\b")


def counted(part: Points, style: Style) -> tuple[Text | Points, ...]:
    """Return the content of an answer that counts points, as Molmo2 words it (arXiv 2601.10611, appendix A).

    `point_then_count` points and then names the total, `count_then_point` the other way round, `count`
    is the bare number. Without points each is the sentence that there are none.

    Args:
        part: the points, in any frame; each instance once.
        style: what the answer says, and in which order.

    Raises:
        DataError: the points are fractions, and one lies outside the frame or an id stands twice.
    """
    if part.frame == "fraction":
        canonical(part)
    number = len(part.points)
    if number == 0:
        return (Text(NO_POINTS),)
    if style == "point_then_count":
        return (Text("Counting the "), part, Text(f" shows a total of {number}."))
    if style == "count_then_point":
        return (Text(f"There are {number} "), part, Text("."))
    return (Text(str(number)),)


def count_of(text: str) -> int | None:
    """Return the number a reply states, otherwise how many instances it points at or tracks; None if neither.

    "A total of 3" comes before "there are 3", and that before a number that is the only one. Numbers are
    digits or words up to twenty; "none" and "there are no" count as 0.
    """
    parsed = parse(text, frame="pixels")  # whatever the unit: places are not asked for
    said = parsed.rest.lower()
    for pattern in (_TOTAL, _THERE_ARE):
        if found := pattern.search(said):
            return _number(found[1])
    if _THERE_ARE_NO.search(said):
        return 0
    stated = {_number(found[1]) for found in _NUMBER.finditer(said)}
    if len(stated) == 1:
        return stated.pop()
    if stated or not parsed.parts:
        return None
    return sum(_instances(part) for part in parsed.parts)


def _number(word: str) -> int:
    return _VALUES[word] if word in _VALUES else int(word)


def _instances(part: Points | Tracks) -> int:
    return len(part.points) if isinstance(part, Points) else len({point.id for point in part.points})
