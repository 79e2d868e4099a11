"""Columns of foreign rows, checked as they are taken."""

from typing import Any

from hedgerow.data.adapters.piece import Values
from hedgerow.errors import DataError


def texts(values: Values, column: str) -> list[str]:
    """Return a column of paths as a list: none, one, or several.

    Raises:
        DataError: it holds something else.
    """
    value = values.get(column)
    found = value if isinstance(value, list) else [] if value is None else [value]
    plain = [item.get("path") if isinstance(item, dict) else item for item in found]
    paths = [item for item in plain if isinstance(item, str) and item]
    if len(paths) < len(plain):
        raise DataError(f"{column}: {_short(value)} is no path; give a string or a list of strings")
    return paths


def turn_list(values: Values, column: str, keys: tuple[str, str]) -> list[dict[str, Any]]:
    """Return a column of turns, each an object with these keys.

    Raises:
        DataError: it is no list, or a turn lacks a key.
    """
    turns = values.get(column)
    if not isinstance(turns, list):
        raise DataError(f"{column}: {_short(turns)} is no list; give a list of turns")
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict) or any(turn.get(key) is None for key in keys):
            needed = " and ".join(f"'{key}'" for key in keys)
            raise DataError(f"{column}: turn {number} is {_short(turn)}; a turn has {needed}")
    return turns


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
