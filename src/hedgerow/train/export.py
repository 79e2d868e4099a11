"""The model of a run, finished or not, in a folder of its own."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors import safe_open

from hedgerow.build import build_model
from hedgerow.errors import RecipeError
from hedgerow.models.assemble import read_settings
from hedgerow.models.chat import read_chat
from hedgerow.models.folder import ADAPTER_MARK, MODEL_MARK, check_replaceable
from hedgerow.models.pretrained import Family, family_of, load, save
from hedgerow.recipe import Recipe, load_recipe
from hedgerow.train import checkpoint
from hedgerow.train.optim import freeze
from hedgerow.train.result import save_adapters, save_model
from hedgerow.train.run import Trained
from hedgerow.validation import explain
from hedgerow.vision.hf import HFProcessor

Dtype = Literal["fp32", "bf16"]
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: `gigabytes` (10^9 bytes) of `tensors` tensors, of the weights after `step` steps."""

    folder: Path
    family: Family
    step: int
    tensors: int
    gigabytes: float
    dtype: Dtype
    adapter: bool

    def __str__(self) -> str:
        what = "adapters" if self.adapter else "model"
        return (
            f"{self.folder}: {what} of family {self.family} after step {self.step}, {self.tensors} tensors, "
            f"{self.gigabytes:.3g} GB in {self.dtype}"
        )


def export(
    run: Path, to: Path, *, dtype: Dtype = "fp32", step: int | None = None, adapter: bool = False
) -> Exported:
    """Write the model of a run as the run itself does at its end, with adapters merged.

    Beyond the model as it is read, one file of tensors lies in memory.

    Args:
        run: its recipe, or its folder.
        to: a new folder, or an earlier export, which is replaced whole or not at all.
        dtype: of the weights that are written.
        step: of a checkpoint; None takes the finished model, or the newest checkpoint.
        adapter: write the adapters alone, in the layout of `peft`.

    Raises:
        DataError: the model that training began with is not where it was.
        RecipeError: there is no such run or checkpoint, it has no adapters, or `to` holds something else.
    """
    check_replaceable(to, mark=ADAPTER_MARK if adapter else MODEL_MARK)
    recipe = load_recipe(run) if run.is_file() else None
    out = run if recipe is None else recipe.out
    ended = Trained.read(out)
    if ended is not None and ended.model.is_dir() and step is None and not adapter:
        _copy(ended.model, to, dtype)
        return _written(to, family_of(to), ended.steps, dtype, adapter=False)
    folder = checkpoint.newest(out) if step is None else checkpoint.at(out, step)
    if folder is None:
        raise RecipeError(
            f"{run}: no run with a checkpoint{'' if adapter else ' or a trained model'}; give a recipe or "
            "its 'out', after `hedgerow train`"
        )
    family = _rebuild(_recipe_then(folder, out, recipe), folder, to, dtype, adapter=adapter)
    return _written(to, family, int(folder.name.rpartition("-")[2]), dtype, adapter=adapter)


def _copy(model: Path, to: Path, dtype: Dtype) -> None:
    """Write a trained model anew."""
    save(
        load(model, dtype=_TYPES[dtype]),
        to,
        tokenizer=read_chat(model, family=family_of(model)),
        settings=read_settings(model),
        origin=model,
    )


def _rebuild(recipe: Recipe, folder: Path, to: Path, dtype: Dtype, *, adapter: bool) -> Family:
    """Write the model of a checkpoint, or its adapters."""
    if adapter and recipe.lora is None:
        raise RecipeError(f"{folder}: the recipe has no lora, so there are no adapters; leave out --adapter")
    model = build_model(recipe)
    freeze(model, recipe.optimizer)
    checkpoint.load_weights(folder, model)
    if adapter:
        save_adapters(model.to(_TYPES[dtype]), recipe, to)
    else:
        save_model(model, recipe, to, dtype=_TYPES[dtype])
    return recipe.vision.family


def _recipe_then(folder: Path, out: Path, now: Recipe | None) -> Recipe:
    """The recipe of a checkpoint; the model it began with, and its tokenizer, may have moved."""
    fields = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    try:
        then = Recipe.model_validate(fields | {"out": out})
    except ValidationError as error:
        raise RecipeError(
            f"{folder / 'recipe.json'}: {explain(error, ())}; use the version of hedgerow that trained it"
        ) from None
    if now is None:
        return then
    place: dict[str, Any] = {"checkpoint": now.model.checkpoint}
    if not Path(then.model.tokenizer).exists() and then.model.tokenizer != "tiny":
        place["tokenizer"] = now.model.tokenizer
    moved: dict[str, Any] = {"init": now.init, "model": then.model.model_copy(update=place)}
    if isinstance(then.vision, HFProcessor) and isinstance(now.vision, HFProcessor):
        moved["vision"] = dataclasses.replace(then.vision, folder=now.vision.folder)
    return then.model_copy(update=moved)


def _written(to: Path, family: Family, step: int, dtype: Dtype, *, adapter: bool) -> Exported:
    files = list(to.glob("*.safetensors"))
    return Exported(
        folder=to,
        family=family,
        step=step,
        tensors=sum(map(_count, files)),
        gigabytes=sum(path.stat().st_size for path in files) / 1e9,
        dtype=dtype,
        adapter=adapter,
    )


def _count(file: Path) -> int:
    with safe_open(file, framework="pt") as stored:
        return len(stored.keys())
