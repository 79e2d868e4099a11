"""All formats, and which of them a row is of."""

import functools
from pathlib import Path

from hedgerow.data.adapters.llava import LLAVA
from hedgerow.data.adapters.mapped import adapter
from hedgerow.data.adapters.native import NATIVE
from hedgerow.data.adapters.piece import Adapter, Values
from hedgerow.data.adapters.swift import SWIFT
from hedgerow.data.adapters.typed import TYPED
from hedgerow.errors import DataError, RecipeError

MAPPINGS = Path(__file__).parents[1] / "mappings"
_CODED = (NATIVE, LLAVA, SWIFT, TYPED)


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
        why: dict[str, list[str]] = {}
        for one in every:
            why.setdefault(one.misfit(values), []).append(one.name)
        reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in why.items())
        columns = ", ".join(map(str, values))
        raise DataError(
            f"{where}: no format has the columns {columns}. {reasons}. Give --format, or a mapping"
        )
    alike = [one.name for one in fitting if one.columns == fitting[0].columns]
    if len(alike) > 1:
        raise DataError(f"{where}: the formats {' and '.join(alike)} fit alike; say which by --format")
    return fitting[0]


@functools.cache
def _shipped() -> dict[str, Adapter]:
    return {path.stem: adapter(path) for path in sorted(MAPPINGS.glob("*.yaml"))}
