"""Free names in a recipe that no example has: such a name would change nothing, and nobody would know."""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Listing
from difflib import get_close_matches

import numpy as np

from hedgerow.content import Text
from hedgerow.data.index import Examples
from hedgerow.data.lines import Line, Lines
from hedgerow.errors import RecipeError
from hedgerow.tree import MessageTree
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


def check_sources(given: Mapping[str, Listing[str]], examples: Examples) -> None:
    """Name data sets in the log that no example is of: perhaps these data are but a part of what they name.

    Reads lines until every name was found, the first ones of each file first.

    Args:
        given: names of data sets by the field of the recipe that they stand in.
        examples: those that are trained on.
    """
    held = _held({name for names in given.values() for name in names}, examples, lambda tree: {tree.source})
    for field, names in given.items():
        for name in [name for name in names if name not in held]:
            near = get_close_matches(name, [one for one in held if one not in names], n=1)
            hint = f": did you mean '{near[0]}'?" if near else ""
            _name_unused(f"{field}.{name}: no example has the source '{name}'; they have {_some(held)}{hint}")


def check_spans(field: str, names: Listing[str], examples: Examples) -> None:
    """Name spans in the log that no answer has; reads lines as `check_sources` does.

    Args:
        field: of the recipe.
        names: of spans.
        examples: those that are trained on.
    """
    held = _held(set(names), examples, _span_names)
    for name in [name for name in names if name not in held]:
        told = f"they have {_some(held)}" if held else "they have none with a name"
        _name_unused(f"{field}.{name}: no answer has a span '{name}'; {told}")


def _held(wanted: set[str], examples: Examples, names: Callable[[MessageTree], set[str]]) -> dict[str, None]:
    """Return the names that trees hold, as many as were met until all that are wanted were found."""
    held = dict[str, None]()
    for line in _from_each_file(examples.lines) if wanted else ():
        held |= dict.fromkeys(names(line.read()))
        if wanted <= held.keys():
            break
    return held


def _span_names(tree: MessageTree) -> set[str]:
    answers = [message for node in tree.nodes() for message in node.messages if message.role == "assistant"]
    texts = [part for message in answers for part in message.parts if isinstance(part, Text)]
    return {span.name for text in texts for span in text.spans if span.name is not None}


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
