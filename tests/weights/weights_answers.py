"""Answers for the tests of weighers, with one token a character, a word, or as the shipped tokenizer cuts."""

import re

from hedgerow.content import Text
from hedgerow.encode import written
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.weights.answer import Answer

CHAT = ChatFormat(load_tokenizer())


def said(*parts):
    """Parts, given as such or as strings, each with its text."""
    parts = [Text(part) if isinstance(part, str) else part for part in parts]
    return [(part, written(part)) for part in parts]


def by_character(*parts, **of):
    text = "".join(text for _, text in said(*parts))
    return Answer.of(said(*parts), [(n, n + 1) for n in range(len(text))], **of)


def by_word(*parts, **of):
    """Each token is what stands between white space, or one mark."""
    text = "".join(text for _, text in said(*parts))
    return Answer.of(said(*parts), [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)], **of)


def by_tokenizer(*parts, **of):
    text = "".join(text for _, text in said(*parts))
    return Answer.of(said(*parts), CHAT.encode(text).offsets, **of)


def shown(answer, factors):
    """The text of each token whose factor is not 1, with it."""
    pieces = [answer.text[start:end].strip() for start, end in answer.offsets]
    return [(text, round(float(f), 4)) for text, f in zip(pieces, factors, strict=True) if f != 1]
