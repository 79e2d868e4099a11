"""All formats, and which of them a row is of."""

import functools
from collections.abc import Sequence as Listing
from pathlib import Path

from hedgerow.data.adapters.llava import LLAVA
from hedgerow.data.adapters.mapped import adapter
from hedgerow.data.adapters.native import NATIVE
from hedgerow.data.adapters.piece import Adapter, Values
from hedgerow.data.adapters.swift import SWIFT
from hedgerow.data.adapters.typed import TYPED
from hedgerow.data.adapters.vqa import VQA
from hedgerow.errors import DataError, RecipeError

MAPPINGS = Path(__file__).parents[1] / "mappings"
_CODED = (NATIVE, LLAVA, SWIFT, TYPED, VQA)
_NEAREST = 3  # formats that an error names


def formats() -> tuple[str, ...]:
    """Return the names of all formats: those with code, then the shipped mappings."""
    return (*(one.name for one in _CODED), *sorted(path.stem for path in MAPPINGS.glob("*.yaml")))


def named(name: str) -> Adapter:
    """Return a format by its name, or that of a mapping in a file.

    Raises:
        RecipeError: there is no such format, or the mapping is wrong.
    """
    if name.endswith((".yaml", ".yml")):
        return adapter(Path(name))
    coded = {one.name: one for one in _CODED}
    if name in coded:
        return coded[name]
    if name not in formats():
        raise RecipeError(
            f"format '{name}' is unknown; give a mapping in YAML, or one of {', '.join(formats())}"
        )
    return _shipped()[name]


def recognised(values: Values, where: str) -> Adapter:
    """Return the format of a row by its columns: of several that fit, the one known by most.

    Raises:
        DataError: none fits, or two fit alike.
    """
    every = (*_CODED, *_shipped().values())
    fitting = sorted((one for one in every if not one.misfit(values)), key=lambda one: -one.columns)
    if not fitting:
        columns = ", ".join(map(str, values))
        raise DataError(
            f"{where}: no format has the columns {columns}. {_nearest(values, every)} "
            "Leave the file out of the folder, give --format, or write a mapping: docs/sources.md, "
            "'A format of your own'"
        )
    alike = [one.name for one in fitting if one.columns == fitting[0].columns]
    if len(alike) > 1:
        raise DataError(f"{where}: the formats {' and '.join(alike)} fit alike; say which by --format")
    return fitting[0]


def check_needs(adapter: Adapter, values: Values, where: str) -> None:
    """Refuse a file that lacks columns which its mapping says it has.

    Raises:
        DataError: its first row lacks one.
    """
    missing = [column for column in adapter.needs if column not in values]
    if missing:
        raise DataError(
            f"{where}: there is no column '{missing[0]}', which {adapter.name} names in 'columns'; the "
            f"row has {', '.join(map(str, values))}; correct 'columns', or give the file of this mapping"
        )


def _nearest(values: Values, every: Listing[Adapter]) -> str:
    """Say of the formats that share most columns why they do not fit."""
    shared = {one.name: sum(column in values for column in one.known) for one in every}
    near = sorted(
        (one for one in every if shared[one.name]), key=lambda one: (-shared[one.name], len(one.known))
    )[:_NEAREST]
    if not near:
        return f"None of {', '.join(one.name for one in _CODED)} and the mappings shares one."
    return f"Nearest: {'; '.join(f'{one.name}: {one.misfit(values)}' for one in near)}."


@functools.cache
def _shipped() -> dict[str, Adapter]:
    return {path.stem: adapter(path) for path in sorted(MAPPINGS.glob("*.yaml"))}
