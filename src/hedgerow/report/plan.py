"""`hedgerow data plan`: what data hold, which budgets and pool suit them, and what packing saves."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.build import budget_of, build_encoder, training_examples
from hedgerow.data.index import Examples
from hedgerow.data.lines import Dropped
from hedgerow.data.measure import Progress
from hedgerow.data.mixture import DataSet
from hedgerow.data.oversize import Oversize
from hedgerow.errors import RecipeError
from hedgerow.flops import MOLMO2_8B
from hedgerow.packing.plan import Plan, plan_epoch
from hedgerow.recipe import Recipe, Room, data_recipe
from hedgerow.report.budgets import Fit, Held, hold, hold_all, recommend
from hedgerow.report.lengths import Lengths, by_kind, by_task, look
from hedgerow.report.trials import (
    Saving,
    Trial,
    Waiting,
    against_padding,
    against_repeats,
    best_pool,
    try_all,
    waiting,
)
from hedgerow.sequence import Array, Budget
from hedgerow.vision.processor import Molmo2Processor

LOOKED = 2_000  # trees that are read for what costs do not tell
TRIED = 50_000  # examples that budgets, pools and windows are tried on
_NOTE = (
    f"Measured with Molmo2's vision settings (crops of {Molmo2Processor().crop_size} pixels) and the small "
    "tokenizer; for your own add --recipe FILE."
)
_ANY = Room(tokens=2**40, crops=2**40)


@dataclass(frozen=True, slots=True)
class DataPlan:
    """All that `hedgerow data plan` says.

    Of `examples` in an epoch, `looked` were read for kinds and answers, and `tried` were packed. The last of
    `fits` is the recommended budget; before it stands the recipe's own, which is `kept` where nothing better
    was found. `pool` or `window`, trials, savings and waiting belong to the recommended budget. A row of
    `whole` would hold every example, `oversize` is what becomes of larger ones. `dropped` are of no use.
    `astray` answers give points or tracks under a task that is weighted as text. `note` says whose settings
    trees were measured with, if not those of a recipe.
    """

    files: tuple[str, ...]
    examples: int
    looked: int
    tried: int
    kinds: tuple[Lengths, ...]
    tasks: tuple[Lengths, ...]
    fits: tuple[Fit, ...]
    kept: bool
    pool: int
    window: int | None
    whole: Budget
    oversize: Oversize
    trials: tuple[Trial, ...]
    savings: tuple[Saving, ...]
    model: str
    waiting: Waiting | None
    dropped: tuple[Dropped, ...]
    astray: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain data; plans by their figures."""
        found: dict[str, Any] = _plain(self)
        return found


def plan_files(files: Listing[Path], recipe: Recipe | None, *, progress: Progress | None = None) -> DataPlan:
    """Try how data pack, without decoding a pixel.

    Args:
        files: trees in the native format; none takes the training data of the recipe, with its mixture. With
            files the groups and rates of the recipe are not used: each tree comes once.
        recipe: how trees are transformed and encoded, its budget, pool and rows a step; None takes the vision
            settings of Molmo2, and leaves out what is bad.
        progress: called with how many trees are measured, and how many there are.

    Raises:
        DataError: an example is bad and `on_bad` is raise, or none is left.
        RecipeError: neither a file nor a recipe is given, or a recipe in place of data.
    """
    for file in files:
        if file.suffix.lower() in (".yaml", ".yml"):
            raise RecipeError(f"{file}: a recipe is not data; write --recipe {file}, or name a JSONL file")
    if recipe is None:
        if not files:
            raise RecipeError("nothing to plan for; name a JSONL file of trees, or --recipe FILE")
        plain = _of_files(data_recipe(files), files)
        return dataclasses.replace(plan_data(plain, None, progress=progress), note=_NOTE)
    if files:
        recipe = _of_files(recipe, files)
    return plan_data(recipe, budget_of(recipe), progress=progress)


def plan_data(recipe: Recipe, own: Budget | None, *, progress: Progress | None = None) -> DataPlan:
    """Try how the training data of a recipe pack.

    Args:
        recipe: its data, measured without regard to its budget: a larger one may be recommended.
        own: the budget to compare with, if any; it is recommended itself unless another is better.
        progress: called with how many trees are measured, and how many there are.
    """
    packing = recipe.packing.model_copy(update={"budget": _ANY})
    unbound = recipe.model_copy(update={"packing": packing})
    examples = training_examples(unbound, build_encoder(unbound), progress=progress)
    costs, tasks = examples.costs(0), examples.tasks(0)
    looks = [look(examples.tree(0, int(n)), examples.encoder) for n in _evenly(len(costs), LOOKED)]
    choice = _choose(examples, recipe, own)
    best = choice.fits[-1]
    return DataPlan(
        files=tuple(str(one.path) for one in recipe.data.train),
        examples=len(costs),
        looked=len(looks),
        tried=best.plan.examples,
        kinds=tuple(by_kind(looks)),
        tasks=tuple(by_task(costs, tasks, looks)),
        fits=choice.fits,
        kept=choice.kept,
        pool=choice.pool,
        window=choice.window,
        whole=hold_all(costs),
        oversize=recipe.packing.oversize,
        trials=choice.trials,
        savings=(
            against_padding(choice.tried.costs, best.plan, MOLMO2_8B),
            against_repeats(looks, MOLMO2_8B),
        ),
        model=MOLMO2_8B.name,
        waiting=waiting(choice.tried.costs, choice.tried.tasks, best.plan, MOLMO2_8B, recipe.rows_per_step),
        dropped=examples.dropped,
        astray=int(examples.surveys.astray.sum()),
    )


@dataclass(frozen=True, slots=True)
class _Choice:
    """The recommended budget, pool and window, the recipe's own before it, and what was tried with it."""

    fits: tuple[Fit, ...]
    kept: bool
    pool: int
    window: int | None
    trials: tuple[Trial, ...]
    tried: Held


def _choose(examples: Examples, recipe: Recipe, own: Budget | None) -> _Choice:
    found = hold(examples, recipe, recommend(examples.costs(0)))
    if found.mixture is None:  # a set may consist of nothing but outliers
        found = hold(examples, recipe, hold_all(examples.costs(0)))
    some = _some(found)
    trials = tuple(try_all(some.costs, some.budget))
    pool = best_pool(trials)
    plan = next(trial.plan for trial in trials if trial.way == "pool" and trial.size == pool)
    best = Fit.of("recommended", found, plan)
    if own is None:
        return _Choice((best,), False, pool, None, trials, some)
    held, packing = hold(examples, recipe, own), recipe.packing
    mine = _some(held)
    rows = plan_epoch(mine.costs, own, seed=0, epoch=0, pool=packing.pool, window=packing.window)
    first = Fit.of("recipe", held, rows)
    if not first.beats(best):
        return _Choice((first, best), False, pool, None, trials, some)
    kept = dataclasses.replace(first, name="recommended")
    trials = tuple(try_all(mine.costs, own))
    return _Choice((first, kept), True, packing.pool, packing.window, trials, mine)


def _some(held: Held) -> Held:
    """Return the examples that budgets, pools and windows are tried on."""
    some = _evenly(len(held.costs), TRIED)
    return dataclasses.replace(held, costs=held.costs.take(some), tasks=held.tasks.take(some))


def _evenly(count: int, most: int) -> Array:
    """Choose up to `most` of `count` places, evenly spread, int64."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)


def _of_files(recipe: Recipe, files: Listing[Path]) -> Recipe:
    """Return a recipe that trains on some files, each tree once."""
    sets = tuple(DataSet(file) for file in files)
    data = recipe.data.model_copy(update={"train": sets, "groups": {}, "epoch": None})
    return recipe.model_copy(update={"data": data})


def _plain(value: Any) -> Any:
    if isinstance(value, Plan):
        figures = {"rows": len(value.rows), "bound": value.bound, "gap": value.gap}
        return {**figures, "share_of_bound": value.efficiency, "fill": value.fill}
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
