"""Questions about images in a table: `image`, `question`, `answer`."""

from collections import Counter
from typing import Any

from hedgerow.content import Text
from hedgerow.data.adapters.columns import texts
from hedgerow.data.adapters.conversation import Shelf, content, planted, untagged
from hedgerow.data.adapters.piece import Adapter, Options, Piece, Values
from hedgerow.data.adapters.records import Record
from hedgerow.errors import DataError
from hedgerow.tree import Message

_IMAGES, _ANSWERS = ("image", "image_path"), ("answer", "answers")
_OTHERS = (
    "conversations",
    "messages",
    "prompt",
    "choices",
    "options",
)  # which give the answer another meaning


def _misfit(values: Values) -> str:
    for names in (_IMAGES, ("question",), _ANSWERS):
        if not any(name in values for name in names):
            return f"there is no '{names[0]}'"
    odd = next((name for name in _OTHERS if values.get(name) is not None), None)
    return "" if odd is None else f"it has '{odd}', so that its answer may mean something else"


def _piece(record: Record, values: Values, options: Options) -> Piece:
    shelf = Shelf(path for column in _IMAGES for path in texts(values, column))
    question, answer = values.get("question"), _answer(values)
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"question: {question!r} is no question; give a text, or leave the row out")
    tagged, text = untagged(question.strip(), shelf)
    shown = (*tagged, *shelf.rest())
    if not shown:
        raise DataError("image: there is none; give its path, or its bytes")
    messages = [Message("user", content([*shown, Text(text)])), Message("assistant", answer)]
    return planted(str(values.get("id") or record.id), record.source, messages, turns=options.turns)


def _answer(values: Values) -> str:
    """The answer, or of several that people gave the most frequent, of these the first."""
    given = next((values[name] for name in _ANSWERS if values.get(name) is not None), None)
    several = given if isinstance(given, list) else [given]
    said = [_text(one.get("answer") if isinstance(one, dict) else one) for one in several]
    if not said or not all(said):
        raise DataError(f"answer: {given!r} is no answer; give a text or a list of texts")
    return Counter(said).most_common(1)[0][0]


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, str | int | float) else ""


VQA = Adapter("vqa", _misfit, _piece, known=(*_IMAGES, "question", *_ANSWERS))
