"""What verbs share: options, recipes with their overrides, and how results are told."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from hedgerow.errors import DataError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hedgerow.data.oversize import Oversize
    from hedgerow.recipe import Recipe

# What a recipe says of data, beside how to train on them.
_OF_DATA = ("vision.", "packing.", "weights.", "loss.", "data.", "model.tokenizer")

Overrides = Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]
AsJson = Annotated[
    bool, Parameter(name="--json", negative="", help="Print one JSON object and nothing else.")
]


def settings_of(
    recipe: Path | None, words: tuple[str, ...], files: "Sequence[Path]", *, oversize: "Oversize" = "raise"
) -> "Recipe | None":
    """Load a recipe that need not be given, with its overrides; without it they change what stands in for it.

    Args:
        recipe: the file, if any.
        words: overrides.
        files: the data that are looked at.
        oversize: what becomes of trees that are too large where there is no recipe.

    Raises:
        RecipeError: the recipe, or an override, is wrong; or one has nothing to do with data, or no file.
    """
    if recipe is not None:
        return load(recipe, words)
    changed = _overrides(words)
    if not changed:
        return None
    for name in changed:
        if not files or not name.startswith(_OF_DATA):
            raise RecipeError(f"--{name} changes a recipe, and none is given; add --recipe FILE")
    for file in files:
        check_readable(file)
    from hedgerow.recipe import data_recipe

    return data_recipe(files, changed, oversize=oversize)


def load(path: Path, words: tuple[str, ...]) -> "Recipe":
    """Load a recipe with its overrides; what is no YAML is told before anything heavy is imported."""
    from hedgerow.validation import read_yaml

    changed = _overrides(words)
    read_yaml(path)
    from hedgerow.recipe import load_recipe

    return load_recipe(path, changed)


def check_readable(file: Path) -> None:
    """Refuse a file that cannot be opened, before anything heavy is imported.

    Raises:
        DataError: it cannot.
    """
    try:
        file.open("rb").close()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); give a JSONL file in UTF-8") from None


def fields(result: Any) -> str:
    """Return the fields of a result as one JSON object."""
    return json.dumps(dataclasses.asdict(result), default=str)


def tell(result: Any, sections: Any, *, as_json: bool) -> None:
    """Print a result as one JSON object, or as text with the path of its page."""
    from hedgerow.report.terminal import print_sections

    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        print_sections(sections)
        print(f"\nreport: {result.report}")


def aside(line: str) -> None:
    """Tell how far something is, beside the result."""
    print(line, file=sys.stderr, flush=True)


def at_once(line: str) -> None:
    """Print a line that must not wait for the next one."""
    print(line, flush=True)


def quiet(*_: object) -> None:
    """Say nothing."""
    return None


def _overrides(words: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise RecipeError(
                f"unexpected '{word}'; write fields of the recipe as --name value or --name=value"
            )
        name, sign, value = word[2:].partition("=")
        if not sign:
            if not rest:
                raise RecipeError(f"--{name} has no value; write --{name} VALUE")
            value = rest.pop(0)
        found[name] = value
    return found
