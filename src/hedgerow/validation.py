"""Reads what a user wrote as YAML, and turns what is wrong with it into one line a user can act on.

Imports nothing heavy, so that a wrong path is told at once.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hedgerow.errors import RecipeError

_UNKNOWN_KEY = {"extra_forbidden", "unexpected_keyword_argument"}
_LIST = {"tuple_type", "list_type"}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the keys and values of a recipe's file.

    Raises:
        RecipeError: there is no such file, or it does not hold keys and values in YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); give a recipe in YAML") from None
    raw = parse_yaml(text, where=str(path))
    if not isinstance(raw, dict):
        raise RecipeError(
            f"{path}: holds no recipe; write 'key: value' lines, at least data, model and steps"
        )
    return raw


def parse_yaml(text: str, *, where: str) -> Any:
    """Read a value from YAML.

    Raises:
        RecipeError: it is not YAML; `where` and the line are named.
    """
    yaml = yaml_package()
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or error
        raise RecipeError(f"{where}{line}: not YAML ({problem}); mend this line") from None


def yaml_package() -> Any:
    """Import pyyaml.

    Raises:
        RecipeError: it is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise RecipeError("recipes need the package pyyaml; run: pip install 'hedgerow[cli]'") from None
    return yaml


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
    if problem["type"] in _LIST:
        message = "a list is needed, in brackets: [first, second]"
    shown = f" (given: {_short(given)})" if not isinstance(given, dict | list | tuple) else ""
    return f"{where}: {message}{shown}" if where else f"{message}{shown}"


def _is_union_arm(step: str) -> bool:
    return any(mark in step for mark in "[(")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
