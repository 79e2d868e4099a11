"""Free names in a recipe that no example has: such a name would change nothing, and nobody would know."""

import functools
import logging
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Listing
from difflib import get_close_matches

import numpy as np

from hedgerow.data.index import Examples
from hedgerow.data.lines import Line, Lines
from hedgerow.errors import RecipeError
from hedgerow.weights.rules import TASKS

_LOG = logging.getLogger("hedgerow")


def check_tasks(given: Mapping[str, Listing[str]], examples: Examples) -> None:
    """Find names of tasks that no example has; any name is a task, so that only these can be wrong.

    One that is neither known nor used but looks like one that is, is misspelt. Others are named in the log.

    Args:
        given: names of tasks by the field of the recipe that they stand in.
        examples: those that are trained on.

    Raises:
        RecipeError: a name is misspelt; the message says which was meant.
    """
    used = [name for name, count in examples.surveys.tasks.total().items() if count]
    for field, names in given.items():
        for name in [name for name in names if name not in used]:
            told = f"{field}.{name}: no example has the task '{name}'; they have {', '.join(sorted(used))}"
            near = get_close_matches(name, {*used, *TASKS}.difference(names), n=1)
            if near and name not in TASKS:
                raise RecipeError(f"{told}: did you mean '{near[0]}'?")
            _name_unused(told)


def check_sources(field: str, names: Listing[str], examples: Examples) -> None:
    """Name data sets in the log that no example is of: perhaps these data are but a part of what they name.

    Reads lines until every name was found, the first ones of each file first.

    Args:
        field: of the recipe.
        names: of data sets.
        examples: those that are trained on.
    """
    missing, seen = dict.fromkeys(names), dict[str, None]()
    for line in _from_each_file(examples.lines) if missing else ():
        source = line.read().source
        seen[source] = missing.pop(source, None)
        if not missing:
            return
    for name in missing:
        near = get_close_matches(name, [one for one in seen if one not in names], n=1)
        hint = f": did you mean '{near[0]}'?" if near else ""
        _name_unused(f"{field}.{name}: no example has the source '{name}'; they have {_some(seen)}{hint}")


def _from_each_file(lines: Lines) -> Iterator[Line]:
    """Yield the first line of each file, then the second of each, and so on."""
    starts = np.searchsorted(lines.files, lines.files)  # the files stand one after another
    return (lines[int(place)] for place in np.argsort(np.arange(len(lines)) - starts, kind="stable"))


def _some(names: Mapping[str, None], most: int = 8) -> str:
    shown = sorted(names)[:most]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


@functools.cache
def _name_unused(told: str) -> None:
    _LOG.warning("%s", told)
