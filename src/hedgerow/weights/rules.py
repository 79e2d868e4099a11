"""The weight of a sample's tokens from its task and its length."""

import functools
import logging
import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Literal

from hedgerow.errors import DataError, RecipeError

TASKS = (
    "video_caption",
    "image_caption",
    "pointing",
    "tracking",
    "counting",
    "multiple_choice",
    "qa",
    "text",
)
PRESETS = ("molmo2", "molmo2_code", "uniform")
Otherwise = Literal["otherwise"]
_FLAT = {"video_caption": 0.1, "pointing": 0.2, "tracking": 0.2}
_C = {"molmo2": 4.0, "molmo2_code": 2.0}
_LOG = logging.getLogger("hedgerow")


def sample_weight(
    task: str,
    tokens: int,
    *,
    branches: int = 1,
    preset: str = "molmo2",
    c: float | None = None,
    tasks: Mapping[str, float | Otherwise] | None = None,
) -> float:
    """Return the loss weight of each answer token of a sample.

    | preset | video captions | pointing, tracking | otherwise |
    |---|---|---|---|
    | `molmo2` (arXiv 2601.10611, section 3.2) | 0.1 | 0.2 | c / sqrt(n), c = 4 |
    | `molmo2_code` (as its public code trains) | 0.1 | 0.2 | c / sqrt(n) x 1 / sqrt(branches), c = 2 |
    | `uniform` | 1 | 1 | 1 |

    At 4 / sqrt(n), a sample weighs 4 sqrt(n) in all: more than a shorter one, but not as many times as it
    is longer.

    Args:
        task: one of `TASKS`; any other is weighted as "otherwise" and named once in the log.
        tokens: n, the answer tokens of the sample, end-of-turn tokens not counted.
        branches: how many branches the tree has.
        preset: which rule.
        c: the c of the table; None: the preset's.
        tasks: by task, a weight that stands instead of the table's, or "otherwise" for its last column.

    Raises:
        DataError: the sample has no answer tokens.
        RecipeError: the preset is unknown.
    """
    if preset not in PRESETS:
        raise RecipeError(f"unknown weight preset '{preset}'; choose one of {', '.join(PRESETS)}")
    if tokens < 1:
        raise DataError(f"a {task} sample has {tokens} answer tokens, so nothing to train; give it an answer")
    if branches < 1:
        raise ValueError(f"branches={branches}: a sample stands in a tree of at least one")
    given = (tasks or {}).get(task)
    if given is None and task not in TASKS:
        _name_once(task)
    if isinstance(given, int | float):
        return float(given)
    if preset == "uniform":
        return 1.0
    if given is None and task in _FLAT:
        return _FLAT[task]
    length = tokens * branches if preset == "molmo2_code" else tokens
    return (_C[preset] if c is None else c) / math.sqrt(length)


def meant(task: str) -> str:
    """Return the known task that an unknown name looks like, as a question; without one all known tasks."""
    near = get_close_matches(task, TASKS, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known tasks: {', '.join(TASKS)}"


@functools.cache
def _name_once(task: str) -> None:
    _LOG.warning("task '%s' is unknown and weighted as otherwise; %s", task, meant(task))
