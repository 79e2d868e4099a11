"""Turns a pydantic error into one line a user can act on."""

from collections.abc import Iterable
from difflib import get_close_matches

from pydantic import ValidationError

_UNKNOWN_KEY = {"extra_forbidden", "unexpected_keyword_argument"}


def explain(error: ValidationError, names: Iterable[str]) -> str:
    """Return the first problem as `where: what was given, what is allowed`.

    Args:
        error: what pydantic raised.
        names: all keys that exist, from which the nearest to an unknown one is proposed.
    """
    problems = error.errors(include_url=False)
    # A union reports every arm that failed; the arm that came deepest is the one the user meant.
    problem = max(problems, key=lambda p: (p["type"] in _UNKNOWN_KEY, len(p["loc"])))
    where = ".".join(str(step) for step in problem["loc"] if not _is_union_arm(str(step)))
    if problem["type"] in _UNKNOWN_KEY:
        key = str(problem["loc"][-1])
        if key in names:
            return f"{where}: unknown key '{key}'; it belongs to another section"
        near = get_close_matches(key, list(names), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(sorted(names))}"
        return f"{where}: unknown key '{key}'; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem["input"]
    shown = f" (given: {_short(given)})" if not isinstance(given, dict | list | tuple) else ""
    return f"{where}: {message}{shown}" if where else f"{message}{shown}"


def _is_union_arm(step: str) -> bool:
    return any(mark in step for mark in "[(")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
