"""Multiple choice: recognises options and their answer in text, and puts them in another order.

A question is recognised when exactly one run of lines in it begins with A, B, C and so on, two options at
least, each letter written as `A.`, `A)`, `A:` or `(A)`, and no option speaks of others ("all of the above",
"both A and B"). An answer is recognised when it is nothing but a letter of an option, a letter and the words
of its option, or the words of an option.
"""

import re
from collections.abc import Callable

_OPTION = re.compile(r"(?P<mark>\s*\(?)(?P<letter>[A-Z])(?P<close>[.):]\s+)(?P<words>.*\S)\s*")
_REPLY = re.compile(
    r"(?P<open>\s*\(?)(?P<letter>[A-Z])(?P<rest>(?:[.):](?:\s+(?P<words>.*\S))?)?\s*)", re.DOTALL
)
_OTHERS = re.compile(
    r"\b(all|none|any|both|neither|either|each|some|two) (of )?(the )?(above|below|these|those|them|other)\b"
    r"|\b[A-Z] (and|or|nor|&) [A-Z]\b"
    r"|\b(options?|answers?|choices?) [A-Z]\b",
    re.IGNORECASE,
)

Order = Callable[[list[int]], list[int]]


def reorder(question: str, answers: list[str], shuffled: Order) -> tuple[str, list[str]] | None:
    """Put the options of a question in another order, and the letters of its answers with them.

    Args:
        question: text with one option a line.
        answers: each names one option.
        shuffled: returns the places of options in their new order; called once, if all is recognised.

    Returns:
        Question and answers as they are then; None where one of them is not recognised.
    """
    lines = question.split("\n")
    start, options = _options(lines)
    if not options or any(_OTHERS.search(option["words"]) for option in options):
        return None
    words = [option["words"] for option in options]
    read = [_read(answer, words) for answer in answers]
    named = [place for place in read if place is not None]
    if len(named) < len(answers):
        return None
    order = shuffled(list(range(len(options))))
    for place, option in enumerate(options):
        lines[start + place] = option["mark"] + option["letter"] + option["close"] + words[order[place]]
    moved = [_relettered(a, place, order.index(place)) for a, place in zip(answers, named, strict=True)]
    return "\n".join(lines), moved


def _options(lines: list[str]) -> tuple[int, list[re.Match[str]]]:
    """Return the first line and the options of the only run of options, or none."""
    runs: list[tuple[int, list[re.Match[str]]]] = []
    for number, line in enumerate(lines):
        found = _OPTION.fullmatch(line)
        if found is None:
            continue
        start, run = runs[-1] if runs else (-1, [])
        if run and start + len(run) == number and found["letter"] == _letter(len(run)):
            run.append(found)
        elif found["letter"] == "A":
            runs.append((number, [found]))
        else:
            return -1, []  # a letter out of turn: no list that can be trusted
    return runs[0] if len(runs) == 1 and len(runs[0][1]) > 1 else (-1, [])


def _read(answer: str, words: list[str]) -> int | None:
    """Return which option an answer names; None for none, or where letter and words could mean two."""
    found = {place for place, option in enumerate(words) if option == answer.strip()}
    reply = _REPLY.fullmatch(answer)
    if reply is not None:
        place = ord(reply["letter"]) - ord("A")
        if place < len(words) and reply["words"] in (None, words[place]):
            found.add(place)
    return found.pop() if len(found) == 1 else None


def _relettered(answer: str, old: int, new: int) -> str:
    """Return an answer with the letter of another place; one that names its option by words stays."""
    reply = _REPLY.fullmatch(answer)
    if reply is None or reply["letter"] != _letter(old):
        return answer
    return reply["open"] + _letter(new) + reply["rest"]


def _letter(place: int) -> str:
    return chr(ord("A") + place)
