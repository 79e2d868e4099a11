"""Reads recipes from YAML.

Relative paths of inputs (`data`, `model`, `vision`, `init`) are taken relative to the recipe's folder when
they stand in the file, and to the working directory when they come as an override; `out` is always relative
to the working directory.
"""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from hedgerow.data.oversize import Oversize
from hedgerow.errors import RecipeError
from hedgerow.recipe.recipe import Recipe
from hedgerow.validation import explain, fields_of, parse_yaml, read_yaml


def load_recipe(path: str | Path, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file; without `out` the run goes to `runs/NAME OF THE FILE`.
        overrides: values by dotted name, such as `{"optimizer.language.lr": "1e-3", "data.train.0.path":
            "a.jsonl"}`; each is read as YAML.

    Raises:
        RecipeError: the file or a value is wrong; one line that names file, key, and what is allowed.
    """
    path = Path(path)
    raw = _anchored(read_yaml(path), path.parent)
    return _made(raw, overrides or {}, where=str(path), out=Path("runs") / path.stem)


def data_recipe(
    files: Iterable[Path], overrides: Mapping[str, str] | None = None, *, oversize: Oversize = "raise"
) -> Recipe:
    """Make the recipe by which data are looked at where there is none: Molmo2's vision settings, no model.

    Args:
        files: trees in the native format, one or more; bad ones are left out.
        overrides: as for `load_recipe`.
        oversize: what becomes of trees that hold more than a row.

    Raises:
        RecipeError: a value is wrong.
    """
    raw = {
        "data": {"train": [{"path": str(file)} for file in files], "on_bad": "skip"},
        "model": {"tokenizer": "tiny"},
        "init": "none",  # no model is read: vision settings and tokenizer need not be those of one
        "packing": {"oversize": oversize},
        "steps": 1,
    }
    return _made(raw, overrides or {}, where="without a recipe", out=Path("runs/plan"))


def _made(raw: dict[str, Any], overrides: Mapping[str, str], *, where: str, out: Path) -> Recipe:
    for name, text in overrides.items():
        _put(raw, name, parse_yaml(text, where=f"--{name}"))
    raw.setdefault("out", str(out))
    try:
        return Recipe.model_validate(_anchored(raw, Path()))
    except ValidationError as error:
        raise RecipeError(f"{where}: {explain(error, _names(Recipe), Recipe)}") from None
    except RecipeError as error:
        raise RecipeError(f"{where}: vision: {error}") from None


def _put(raw: dict[str, Any], name: str, value: Any) -> None:
    """Set a value by its dotted name; sections that are not there yet are made."""
    *above, last = name.split(".")
    place: Any = raw
    for key in above:
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
        place = place[_key(place, key, name)]
    place[_key(place, last, name)] = value


def _key(place: Any, key: str, name: str) -> str | int:
    if isinstance(place, dict):
        return key
    if not isinstance(place, list):
        raise RecipeError(
            f"--{name}: '{key}' stands below the value {place!r}, which has no keys; shorten the name"
        )
    if not key.isdecimal() or int(key) >= len(place):
        raise RecipeError(
            f"--{name}: '{key}' is no place in a list of {len(place)}; give 0 to {len(place) - 1}"
        )
    return int(key)


def _anchored(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a copy in which relative paths of inputs are joined to a folder and absolute."""
    raw = copy.deepcopy(raw)
    data, model = raw.get("data"), raw.get("model")
    if isinstance(data, dict):
        sources = data.get("train")
        for source in sources if isinstance(sources, list) else []:
            _anchor(source, "path", folder)
        _anchor(data, "evaluate", folder)
        _anchor(data, "references", folder)
        _anchor(data.get("frames"), "folder", folder)
    if isinstance(model, dict):
        _anchor(model, "checkpoint", folder)
        if model.get("tokenizer") != "tiny":
            _anchor(model, "tokenizer", folder)
    _anchor(raw.get("vision"), "folder", folder)
    weights = raw.get("weights")
    lexical = weights.get("lexical") if isinstance(weights, dict) else None
    if isinstance(lexical, dict):
        lists = lexical.get("keywords")
        for words in lists.values() if isinstance(lists, dict) else []:
            _anchor(words, "file", folder)
        _anchor(lexical.get("rarity"), "table", folder)
    _anchor(raw, "init", folder)
    return raw


def _anchor(place: Any, key: str, folder: Path) -> None:
    value = place.get(key) if isinstance(place, dict) else None
    if isinstance(value, str):
        place[key] = str((folder / value).absolute())
    elif isinstance(value, list):
        place[key] = [str((folder / item).absolute()) if isinstance(item, str) else item for item in value]


def _names(kind: Any) -> set[str]:
    """Every key a recipe may have, at any depth: those of a section, a dataclass, or what a generic holds."""
    kinds = fields_of(kind)
    if not kinds:
        return {name for inner in get_args(kind) for name in _names(inner)}
    return {*kinds, *(name for inner in kinds.values() for name in _names(inner))}
