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
from hedgerow.data.shares import MixtureReport
from hedgerow.errors import RecipeError
from hedgerow.flops import MOLMO2_8B
from hedgerow.models.assemble import ModelSpec
from hedgerow.packing.plan import Plan, plan_epoch
from hedgerow.recipe import Data, Model, Recipe, Room
from hedgerow.report.lengths import Lengths, by_kind, by_task, look
from hedgerow.report.trials import (
    Saving,
    Trial,
    Waiting,
    against_padding,
    against_repeats,
    best_pool,
    recommend,
    try_all,
    waiting,
    within,
)
from hedgerow.sequence import Array, Budget, Costs
from hedgerow.vision.processor import Molmo2Processor

LOOKED = 2_000  # trees that are read for what costs do not tell
TRIED = 50_000  # examples that budgets, pools and windows are tried on
NAMED = 20  # examples that do not fit, named one by one
_ANY = Room(tokens=2**40, crops=2**40)


@dataclass(frozen=True, slots=True)
class Fit:
    """A budget on these data.

    `left_out` examples are larger than a row, the first of them are `named`. `plan` is of those that were
    tried, `rows` what that makes for a whole epoch.
    """

    name: str
    budget: Budget
    left_out: int
    named: tuple[Dropped, ...]
    rows: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class DataPlan:
    """All that `hedgerow data plan` says.

    Of `examples` in an epoch, `looked` were read for kinds and answers, and `tried` were packed. Trials,
    savings and waiting are of the budget that `basis` names. `pool` is the recommended one. `dropped` are of
    no use.
    """

    files: tuple[str, ...]
    examples: int
    looked: int
    tried: int
    kinds: tuple[Lengths, ...]
    tasks: tuple[Lengths, ...]
    fits: tuple[Fit, ...]
    basis: str
    trials: tuple[Trial, ...]
    pool: int
    savings: tuple[Saving, ...]
    model: str
    waiting: Waiting | None
    mixture: MixtureReport
    dropped: tuple[Dropped, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain data; plans by their figures."""
        found: dict[str, Any] = _plain(self)
        return found


def plan_files(files: Listing[Path], recipe: Recipe | None, *, progress: Progress | None = None) -> DataPlan:
    """Try how data pack, without decoding a pixel.

    Args:
        files: trees in the native format; none takes the training data of the recipe, with its mixture.
        recipe: how trees are transformed and encoded, its budget, pool and rows a step; None takes the vision
            settings of Molmo2, and leaves out what is bad.
        progress: called with how many trees are measured, and how many there are.

    Raises:
        DataError: an example is bad and `on_bad` is raise, or none is left.
        RecipeError: neither a file nor a recipe is given.
    """
    sets = tuple(DataSet(file) for file in files)
    if recipe is None:
        if not sets:
            raise RecipeError("nothing to plan for; name a JSONL file of trees, or --recipe FILE")
        return plan_data(_molmo2(sets), {}, progress=progress)
    if sets:
        data = recipe.data.model_copy(update={"train": sets, "groups": {}, "epoch": None})
        recipe = recipe.model_copy(update={"data": data})
    return plan_data(recipe, {"recipe": budget_of(recipe)}, progress=progress)


def plan_data(recipe: Recipe, budgets: Mapping[str, Budget], *, progress: Progress | None = None) -> DataPlan:
    """Try how the training data of a recipe pack.

    Args:
        recipe: its data, measured without regard to its budget: a larger one may be recommended.
        budgets: by name, tried first; the recommended one is tried last.
        progress: called with how many trees are measured, and how many there are.
    """
    packing = recipe.packing.model_copy(update={"budget": _ANY})
    unbound = recipe.model_copy(update={"packing": packing})
    examples = training_examples(unbound, build_encoder(unbound), progress=progress)
    costs, tasks = examples.costs(0), examples.tasks(0)
    looks = [look(examples.tree(0, int(n)), examples.encoder) for n in _evenly(len(costs), LOOKED)]
    some = _evenly(len(costs), TRIED)
    tried = costs.take(some)
    named = {**budgets, "recommended": recommend(costs)}
    fits = [_fit(name, budget, examples, tried, recipe) for name, budget in named.items()]
    basis = next(fit for fit in fits if fit.plan.rows)  # the recommended one holds something
    fitting = within(tried, basis.budget)
    held = tried.take(fitting)
    trials = tuple(try_all(held, basis.budget))
    step = recipe.rows_per_step
    return DataPlan(
        files=tuple(str(one.path) for one in recipe.data.train),
        examples=len(costs),
        looked=len(looks),
        tried=len(tried),
        kinds=tuple(by_kind(looks)),
        tasks=tuple(by_task(costs, tasks, looks)),
        fits=tuple(fits),
        basis=basis.name,
        trials=trials,
        pool=best_pool(trials),
        savings=(against_padding(held, basis.plan, MOLMO2_8B), against_repeats(looks, MOLMO2_8B)),
        model=MOLMO2_8B.name,
        waiting=waiting(held, tasks.take(some[fitting]), basis.plan, MOLMO2_8B, step),
        mixture=examples.report(),
        dropped=examples.dropped,
    )


def _fit(name: str, budget: Budget, examples: Examples, tried: Costs, recipe: Recipe) -> Fit:
    costs = examples.costs(0)
    fitting = within(costs, budget)
    over = np.setdiff1d(np.arange(len(costs)), fitting)
    drawn = examples.epoch(0).drawn.examples
    named = tuple(
        Dropped(str(examples.lines[int(drawn[n])]), budget.excess(costs[int(n)])) for n in over[:NAMED]
    )
    held, own = tried.take(within(tried, budget)), recipe.packing
    plan = plan_epoch(held, budget, seed=0, epoch=0, pool=own.pool, window=own.window)
    rows = round(len(plan.rows) * len(costs) / len(tried))
    return Fit(name, budget, len(over), named, rows, plan)


def _evenly(count: int, most: int) -> Array:
    """Choose up to `most` of `count` places, evenly spread, int64."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)


def _molmo2(sets: tuple[DataSet, ...]) -> Recipe:
    vision = Molmo2Processor()
    spec = ModelSpec(crop_size=vision.crop_size, patch_size=vision.patch_size)
    return Recipe(
        data=Data(train=sets, on_bad="skip"),
        model=Model(spec=spec),
        vision=vision,
        steps=1,
        out=Path("runs/plan"),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Plan):
        figures = {"rows": len(value.rows), "bound": value.bound, "gap": value.gap}
        return {**figures, "share_of_bound": value.efficiency, "fill": value.fill}
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
