"""Budgets on data: which one suits them, and what becomes of the examples under one."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from hedgerow.build import maker_of
from hedgerow.data.index import Examples
from hedgerow.data.lines import Dropped, Lines
from hedgerow.data.measure import Measured, Surveys, bounded
from hedgerow.data.mixture import mixture
from hedgerow.data.oversize import Oversize
from hedgerow.data.shares import MixtureReport, report
from hedgerow.packing.plan import Plan
from hedgerow.recipe import Recipe
from hedgerow.report.trials import within
from hedgerow.sequence import Array, Budget, Costs

NAMED = 20  # examples that do not fit, named one by one
_STEP = 512  # tokens; a recommended budget is a multiple
_FEW = 4  # examples of median length that a recommended row holds
_FAR = 2.0  # times as long as all others: not planned for
_MANY = 20  # examples; among fewer none is an outlier


@dataclass(frozen=True, slots=True)
class Held:
    """What a budget leaves of an epoch, by the recipe's rule for what is larger than a row.

    `costs` and `tasks` are of the examples that are left, `mixture` is what data sets bring then. Of the
    examples that were larger, `over` in all, the first are `named`. Where a run could not start, because
    nothing is left or nothing of a set that has a rate, no example is, and `mixture` is None.
    """

    budget: Budget
    over: int
    named: tuple[Dropped, ...]
    costs: Costs
    tasks: Costs
    mixture: MixtureReport | None


@dataclass(frozen=True, slots=True)
class Fit:
    """A budget on these data.

    Of `over` examples that are larger than a row the first are `named`, `left_out` cannot be used at all.
    `mixture` is what data sets bring under this budget, and how many trees are shortened; None where a run
    could not start. `plan` is of the examples that were tried, `rows` what that makes for a whole epoch.
    """

    name: str
    budget: Budget
    over: int
    left_out: int
    named: tuple[Dropped, ...]
    mixture: MixtureReport | None
    rows: int
    plan: Plan

    @classmethod
    def of(cls, name: str, held: Held, plan: Plan) -> "Fit":
        """Sum up what a budget leaves and how some of it was packed."""
        shortened = 0 if held.mixture is None else held.mixture.shortened
        rows = round(len(plan.rows) * len(held.costs) / max(plan.examples, 1))
        left_out = held.over - shortened
        return cls(name, held.budget, held.over, left_out, held.named, held.mixture, rows, plan)

    def beats(self, other: "Fit") -> bool:
        """Whether it holds as many examples whole, and fills its rows with more tokens."""
        fuller = self.plan.fill["tokens"] > other.plan.fill["tokens"]
        return bool(self.plan.rows) and self.over <= other.over and fuller


def recommend(costs: Costs) -> Budget:
    """Return the budget that suits examples.

    Tokens: the least multiple of 512 that holds the longest example and four of median length. One example
    in a thousand, and of 20 to 1,999 examples one, may be an outlier: where the longest is more than twice
    as long as all but these, it is not planned for. Crops: as many as a full row brings, so that both budgets
    are used up together, and at least those of the example with most.
    """
    tokens = np.sort(costs.amounts("tokens")[:, 0])
    outliers = max(len(tokens) // 1000, 1) if len(tokens) >= _MANY else 0
    common = tokens[-1 - outliers]
    return _holding(costs, int(tokens[-1] if tokens[-1] <= _FAR * common else common))


def hold_all(costs: Costs) -> Budget:
    """Return the budget that suits examples and holds each of them, outliers too."""
    return _holding(costs, int(costs.amounts("tokens").max()))


def hold(examples: Examples, recipe: Recipe, budget: Budget) -> Held:
    """Apply a budget to examples that were measured without one, by the recipe's rule for larger ones.

    Where that rule is to stop, they are left out.

    Args:
        examples: of the recipe, measured without a budget.
        recipe: its rule, transforms and mixture.
        budget: the most a row may hold.
    """
    lines, turns, known = _known(examples, recipe)
    rule: Oversize = "shorten" if recipe.packing.oversize == "shorten" else "drop"
    maker = dataclasses.replace(maker_of(recipe, examples.encoder), budget=budget, oversize=rule)
    found = bounded(maker, lines, turns, known, workers=recipe.data.workers or 1)
    over = np.setdiff1d(np.arange(len(lines)), within(known.costs, budget))
    named = tuple(Dropped(str(lines[place]), budget.excess(known.costs[place])) for place in over[:NAMED])
    used = _varied(examples, found) if recipe.data.transforms else _fixed(examples, recipe, found)
    if used is None:
        nothing = Costs.of([])
        return Held(budget, len(over), named, nothing, nothing, None)
    surveys, mix = used
    return Held(budget, len(over), named, surveys.costs, surveys.tasks, mix)


def _holding(costs: Costs, longest: int) -> Budget:
    tokens, crops = costs.amounts("tokens", "crops").T
    most = math.ceil(max(longest, _FEW * float(np.median(tokens)), 1) / _STEP) * _STEP
    kept = tokens <= most
    share = crops[kept].sum() / max(tokens[kept].sum(), 1)
    return Budget(tokens=most, crops=max(math.ceil(most * share), int(crops[kept].max(initial=0))))


def _known(examples: Examples, recipe: Recipe) -> tuple[Lines, Array, Surveys]:
    """Return what a budget is applied to: each tree once, or with transforms what the first epoch draws."""
    if not recipe.data.transforms:
        return examples.lines, np.zeros(len(examples.lines), np.int64), examples.surveys
    epoch = examples.epoch(0)
    return examples.lines.take(epoch.drawn.examples), epoch.drawn.turns, epoch.surveys


def _fixed(examples: Examples, recipe: Recipe, found: Measured) -> tuple[Surveys, MixtureReport] | None:
    """Draw the first epoch from the trees that are left, and tell what data sets bring."""
    sets, rates = recipe.data.train, recipe.data.rates
    owner = examples.lines.files[found.kept]
    sizes = np.bincount(owner, minlength=len(sets))
    if not len(owner) or (rates.govern(sets) and not sizes.all()):
        return None
    mix = mixture(sets, rates, sizes.tolist(), seed=recipe.seed)
    return found.surveys.take(mix.draw(0).examples), report(sets, mix, owner, found.surveys)


def _varied(examples: Examples, found: Measured) -> tuple[Surveys, MixtureReport] | None:
    """Tell what data sets bring with what is left of the first epoch's draws."""
    if not len(found.kept):
        return None
    drawn = examples.lines.files[examples.epoch(0).drawn.examples]
    draws = np.bincount(drawn, minlength=len(examples.sets))
    surveys = found.surveys
    return surveys, report(examples.sets, examples.mixture, drawn[found.kept], surveys, draws=draws)
