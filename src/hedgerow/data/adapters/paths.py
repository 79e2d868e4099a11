"""The two small notations of mappings: paths into a row, and templates with paths in braces.

A path is a column, and steps below it: `point.0` is item 0 of the list `point`, `points[].x` the `x` of every
item of `points`, `points[][].x` of every item of the lists in it. Paths that are expanded together go through
their lists side by side: with `points[][].x` and `times[]`, all points of a list share one time.
"""

import functools
import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator

from hedgerow.errors import DataError

Scope = Mapping[str, Any]
EACH = "[]"
HERE = "{}"  # in a template: where the points stand
_PATH = re.compile(r"[^\s.\[\]{}:]+(?:\[\])*(?:\.[^\s.\[\]{}:]+(?:\[\])*)*")
_FIELD = re.compile(r"\{([^{}]*)\}")
_STEP = re.compile(r"[^.\[\]]+|\[\]")
_FILTERS = {
    "sha256": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "stem": lambda text: PurePosixPath(text).stem,
}


def _is_path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ValueError(f"'{text}' is no path; write a column, and steps below it: points[].x")
    return text


def _is_template(text: str) -> str:
    for field in _FIELD.findall(text):
        path, _, name = field.partition(":")
        if not field:
            continue
        if EACH in _is_path(path):
            raise ValueError(f"'{field}' stands for many values, a text needs one; use 'each'")
        if name and name not in _FILTERS:
            raise ValueError(f"'{field}': no filter '{name}'; known: {', '.join(_FILTERS)}")
    if text.count("{") != len(_FIELD.findall(text)) or text.count("}") != text.count("{"):
        raise ValueError(f"'{text}' has a brace without its partner; write {{column}}")
    return text


PathText = Annotated[str, AfterValidator(_is_path)]
Template = Annotated[str, AfterValidator(_is_template)]


def value_at(path: str, scope: Scope) -> Any:
    """Return what stands at a path without `[]`; None where a step below its column finds nothing.

    Raises:
        DataError: there is no such column.
    """
    return _walk(scope, _steps(path), scope)[0]


def filled(template: str, scope: Scope) -> str:
    """Return a template with the values of its paths; space around a value goes.

    Raises:
        DataError: there is no such column, or no value.
    """
    return _FIELD.sub(lambda field: field[0] if field[0] == HERE else _shown(field[1], scope), template)


def number_of(value: Any) -> float | None:
    """Return a number, also one that is written as text, as tables of text have it; None for other values."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def columns(template: str) -> list[str]:
    """Return the columns that a template names."""
    return [_steps(field)[0] for field in _FIELD.findall(template) if field]


def items(value: Any, path: str) -> list[Any]:
    """Return the items of a list; a table stored by columns, an object of lists, becomes a list of objects.

    Raises:
        DataError: it is no list, or its columns differ in length.
    """
    if value is None:
        return []
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        if len({len(column) for column in value.values()}) > 1:
            raise DataError(f"{path}: its columns differ in length; give each the same number of items")
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    if not isinstance(value, list):
        raise DataError(f"{path}: {type(value).__name__} is no list; correct the path or the row")
    return value


def expanded(paths: Mapping[str, str], scope: Scope) -> list[dict[str, Any]]:
    """Return the values of several paths side by side, one result for each item of their lists.

    Args:
        paths: by the name of each value in the results.
        scope: what columns are looked up in.

    Raises:
        DataError: a column is missing, or lists that go together differ in length.
    """
    start = {name: (scope, _steps(path)) for name, path in paths.items()}
    return _expanded(paths, start, scope)


def _expanded(
    paths: Mapping[str, str], state: Mapping[str, tuple[Any, tuple[str, ...]]], scope: Scope
) -> list[dict[str, Any]]:
    walked = {name: _walk(value, steps, scope) for name, (value, steps) in state.items()}
    lists = {name: items(value, paths[name]) for name, (value, rest) in walked.items() if rest}
    if not lists:
        return [{name: value for name, (value, _) in walked.items()}]
    lengths = {paths[name]: len(found) for name, found in lists.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{path} {length}" for path, length in lengths.items())
        raise DataError(f"lists that go together differ in length ({told}); correct the row")
    results = []
    for place in range(len(next(iter(lists.values())))):
        inner = {
            name: (lists[name][place], rest[1:]) if rest else (value, ())
            for name, (value, rest) in walked.items()
        }
        results += _expanded(paths, inner, scope)
    return results


def _walk(value: Any, steps: tuple[str, ...], scope: Scope) -> tuple[Any, tuple[str, ...]]:
    """Go on until the path ends or meets `[]`; return what stands there and the steps that are left."""
    for number, step in enumerate(steps):
        if step == EACH:
            return value, steps[number:]
        if value is scope and step not in scope:
            raise DataError(f"there is no column '{step}'; the row has {', '.join(map(str, scope))}")
        if isinstance(value, list) and step.isdecimal():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            value = value.get(step) if isinstance(value, Mapping) else None
    return value, ()


@functools.cache
def _steps(path: str) -> tuple[str, ...]:
    return tuple(_STEP.findall(path.partition(":")[0]))


def _shown(field: str, scope: Scope) -> str:
    path, _, name = field.partition(":")
    value = value_at(path, scope)
    if value is None or isinstance(value, list | dict):
        given = "nothing" if value is None else type(value).__name__
        raise DataError(
            f"{path}: holds {given}, a text needs one value; correct the row, or leave it out by 'when'"
        )
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    return _FILTERS[name](text) if name else text
