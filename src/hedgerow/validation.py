"""Reads what a user wrote as YAML, and turns what is wrong with it into one line a user can act on.

Imports nothing heavy, so that a wrong path is told at once.
"""

import dataclasses
import re
from collections.abc import Iterable
from collections.abc import Sequence as Listing
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError

from hedgerow.errors import RecipeError

_UNKNOWN_KEY = {"extra_forbidden", "unexpected_keyword_argument"}
_MISSING = {"missing", "missing_argument", "missing_keyword_only_argument"}
_LIST = {"tuple_type", "list_type"}
_MAPPING = {"mapping_type", "dict_type"}
_SECTION = {"dataclass_type", "model_type", "model_attributes_type"}


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


def explain(error: ValidationError, names: Iterable[str], kind: Any = None) -> str:
    """Return the first problem as `where: what was given, what is allowed`.

    Args:
        error: what pydantic raised.
        names: all keys that exist.
        kind: what was read, a class; with it only keys of the section in question are proposed and listed.
    """
    problems = error.errors(include_url=False)
    # A union reports every arm that failed; the arm that came deepest is the one the user meant.
    problem = max(problems, key=lambda p: (p["type"] in _UNKNOWN_KEY, len(p["loc"])))
    steps, here, below = _walk([step for step in problem["loc"] if not _is_union_arm(str(step))], kind)
    where = ".".join(steps)
    if problem["type"] in _UNKNOWN_KEY:
        return f"{where}: unknown key '{steps[-1]}'; {_instead(steps[-1], here, set(names))}"
    given, message = problem["input"], problem["msg"].removeprefix("Value error, ")
    context = problem.get("ctx", {})
    if problem["type"] in _MISSING:
        message = "this key is missing; add it"
    elif problem["type"] == "union_tag_not_found":
        message = f"the key {context['discriminator']} is missing, which says what this is; add it"
    elif problem["type"] == "union_tag_invalid":
        message = f"'{context['tag']}' is none of the expected tags; choose {context['expected_tags']}"
    elif problem["type"] in _LIST:
        message = f"a list is needed, in brackets: {_listed(given, below)}"
    elif problem["type"] in _MAPPING:
        message = "keys and values are needed, in braces: {key: value}"
    elif problem["type"] in _SECTION and below:
        message = f"keys and values are needed, in braces; known keys: {', '.join(sorted(below))}"
    elif problem["type"] in _SECTION and steps and steps[-1] in here:  # what has it needs a name of its own
        message = f"a name is missing above it: {{name: {{{steps[-1]}: ...}}}}"
    shown = f" (given: {_short(given)})" if not isinstance(given, dict | list | tuple) else ""
    if message.startswith("Input should"):  # pydantic's words, which end before what to do
        near = get_close_matches(str(given), re.findall("'([^']*)'", context.get("expected", "")), n=1)
        shown += f"; did you mean '{near[0]}'?" if near else "; correct it"
    return f"{where}: {message}{shown}" if where else f"{message}{shown}"


def fields_of(kind: Any) -> dict[str, Any]:
    """Return the types of the keys of a section, a model or a dataclass; nothing for other types."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return {}
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _sections(kind: Any) -> list[Any]:
    """The sections that a type may hold: itself, or what is in a union, a list or a mapping."""
    return [kind] if fields_of(kind) else [found for inner in get_args(kind) for found in _sections(inner)]


def _walk(loc: Listing[str | int], kind: Any) -> tuple[list[str], set[str], set[str]]:
    """Return the steps to a place as a user writes them, the keys that may stand beside it and below it."""
    sections, steps = _sections(kind), list[str]()
    here = set[str]()
    for step in loc:
        tagged = [section for section in sections if step in _tags(section)]
        if tagged and len(sections) > 1:  # pydantic names which of several sections it took
            sections = tagged
            continue
        here = _keys(sections)
        if step in here:
            inner = [fields_of(section)[step] for section in sections if step in fields_of(section)]
            sections = [found for one in inner for found in _sections(one)]
        steps.append(str(step))
    return steps, here, _keys(sections)


def _keys(sections: Iterable[Any]) -> set[str]:
    return {name for section in sections for name in fields_of(section)}


def _tags(section: Any) -> tuple[Any, ...]:
    """By what a section is told from others in its place: the values of its `name`, `type` or `family`."""
    fields = fields_of(section)
    return tuple(tag for name in ("name", "type", "family") for tag in get_args(fields.get(name)))


def _listed(given: object, below: set[str]) -> str:
    """Show the list that was perhaps meant, of files where each has a section with its path."""
    if "path" not in below:
        return "[first, second]"
    return f"[{{path: {given if isinstance(given, str) else 'FILE'}}}]"


def _instead(key: str, here: set[str], names: set[str]) -> str:
    """Say what to write for an unknown key: the nearest one here, or all that are here."""
    listed = ", ".join(sorted(here or names))
    if key in names:
        return f"it belongs to another section; known keys here: {listed}"
    near = get_close_matches(key, here or names, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known keys: {listed}"


def _is_union_arm(step: str) -> bool:
    return any(mark in step for mark in "[(")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
