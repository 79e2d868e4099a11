"""The native format: in JSON lines as it is, in Parquet with a column for each key of the tree."""

import json
from typing import Any

from hedgerow.data.adapters.piece import Adapter, Options, Piece, Values
from hedgerow.data.adapters.records import Record
from hedgerow.errors import DataError
from hedgerow.tree import MessageTree

_SHOWN = ("image", "video", "image_url")
_KEYS = {"id", "source", "messages", "branches", "task", "weight"}


def _misfit(values: Values) -> str:
    missing = [key for key in ("id", "messages") if values.get(key) is None]
    if missing:
        return f"there is no '{missing[0]}'"
    odd = [key for key, value in values.items() if key not in _KEYS and value is not None]
    if odd:
        return f"'{odd[0]}' is no key of a tree"
    return "its images have neither path nor data" if _shows_elsewhere(values["messages"]) else ""


def _shows_elsewhere(messages: Any) -> bool:
    """Whether images or videos are named as other formats name them."""
    turns = messages if isinstance(messages, list) else []
    contents = [turn.get("content") for turn in turns if isinstance(turn, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    shown = [part for part in parts if isinstance(part, dict) and part.get("type") in _SHOWN]
    return any(part.get("path") is None and part.get("data") is None for part in shown)


def _piece(record: Record, values: Values, _: Options) -> Piece:
    given = {key: _decoded(key, value) for key, value in values.items() if value is not None}
    return Piece(MessageTree.from_dict(_without_gaps(given), where=str(record)))


def _decoded(key: str, value: Any) -> Any:
    """Parse messages and branches that a table holds as JSON, since they may be of any depth."""
    if key not in ("messages", "branches") or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{key}: not JSON ({error}); give a list, or a list written as JSON") from None


def _without_gaps(value: Any) -> Any:
    """Leave out keys without a value: a table has all keys of a struct in every row."""
    if isinstance(value, dict):
        return {key: _without_gaps(item) for key, item in value.items() if item is not None}
    return [_without_gaps(item) for item in value] if isinstance(value, list) else value


NATIVE = Adapter("hedgerow", _misfit, _piece, columns=2, known=("id", "messages", "branches"))
