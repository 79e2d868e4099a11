"""Tokens of one node as stretches of readable text, each with its weight."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby

from hedgerow.report.page import Token
from hedgerow.sequence import Sequence
from hedgerow.text import ChatFormat


def target_weights(sequence: Sequence) -> dict[int, float]:
    """Return the loss weight by the place of the target token, of a sequence in logical order.

    A place that is targeted from several sources keeps the last.
    """
    return {
        int(place) + 1: float(weight) for place, weight in zip(sequence.source, sequence.weight, strict=True)
    }


def stretches(sequence: Sequence, chat: ChatFormat, places: range, weights: dict[int, float]) -> list[Token]:
    """Return tokens as text: neighbours of one weight together, special tokens told apart.

    Args:
        sequence: in logical order.
        chat: what wrote the tokens.
        places: of the tokens.
        weights: by place; what has none is no target.
    """
    ids = sequence.tokens[places.start : places.stop].tolist()
    pairs = list(zip(places, ids, strict=True))
    patches = set(sequence.tokens[sequence.slot].tolist())

    found = []
    for weight, run in groupby(pairs, key=lambda pair: weights.get(pair[0])):
        own = [token for _, token in run]
        parts = []
        for special, part in groupby(own, key=lambda token: _special(chat, token)):
            same = list(part)
            parts.append(("".join(_marks(chat, same, patches)) if special else chat.decode(same), special))
        found.append(Token(parts, weight, len(own)))
    return found


def _marks(chat: ChatFormat, tokens: list[int], patches: set[int]) -> Iterator[str]:
    """Yield special tokens as text: runs of patches counted, and so are lines of patches that are alike."""
    runs = [(token, len(list(run))) for token, run in groupby(tokens)]
    place = 0
    while place < len(runs):
        line = runs[place : place + 2]
        many = 1
        if len(line) == 2 and line[0][0] in patches:
            while runs[place + 2 * many : place + 2 * many + 2] == line:
                many += 1
        if many > 1:
            yield f"({''.join(_counted(chat, *run, patches) for run in line)})x{many}"
            place += 2 * many
        else:
            yield _counted(chat, *runs[place], patches)
            place += 1


def _counted(chat: ChatFormat, token: int, count: int, patches: set[int]) -> str:
    shown = chat.show(token)
    return f"{shown}x{count}" if token in patches and count > 1 else shown * count


@lru_cache(maxsize=65_536)
def _special(chat: ChatFormat, token: int) -> bool:
    return not chat.decode([token]) and bool(chat.show(token))
