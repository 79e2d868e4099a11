"""Plans: which examples share which row, for a whole set or for one epoch of it."""

import dataclasses
import functools
import logging
from collections.abc import Iterable
from collections.abc import Sequence as Listing
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.errors import RecipeError
from hedgerow.packing.fill import fill_rows
from hedgerow.packing.pool import Packer, check_fits
from hedgerow.packing.saved import Match, load_rows, save_rows, split_rows
from hedgerow.sequence import Budget, Cost, Costs

Array = Any
POOL = 48  # examples that wait at most, unless something else is said
_LOG = logging.getLogger("hedgerow")
_OWN = (
    0x726F7773  # without it, seed 0 would order examples by the very draws of `default_rng(0)` that made them
)


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """Rows of example indices, with what they hold together.

    | field | type | meaning |
    |---|---|---|
    | rows | list of lists of int | the examples of each row, as indices into the costs that were planned |
    | cost | Cost | the sum over all examples |
    | budget | Budget | the most a row may hold |
    """

    rows: list[list[int]]
    cost: Cost
    budget: Budget

    @property
    def examples(self) -> int:
        """How many examples the rows hold."""
        return sum(map(len, self.rows))

    @property
    def fill(self) -> dict[str, float]:
        """Share of each budget that is used, over all rows: 1 is full."""
        held = {name: (self.cost.get(name, 0), most * len(self.rows)) for name, most in self.budget.items()}
        return {name: used / space if space else 0.0 for name, (used, space) in held.items()}

    @property
    def bound(self) -> int:
        """Rows that every plan needs: the volume of the scarcest budget, rounded up."""
        needs = [-(-self.cost.get(name, 0) // most) for name, most in self.budget.items() if most]
        return max([*needs, min(len(self.rows), 1)])

    @property
    def gap(self) -> int:
        """Rows above `bound`; 0 cannot be beaten."""
        return len(self.rows) - self.bound

    @property
    def efficiency(self) -> float:
        """`bound` as a share of the rows; 1 cannot be beaten."""
        return self.bound / len(self.rows) if self.rows else 1.0

    def save(self, path: str | Path, match: Match) -> None:
        """Write the plan as .npz, whole or not at all.

        Args:
            path: of the file; its folder is made.
            match: what the plan was made from: `Match.of(costs, budget, seed=..., ...)`.

        Raises:
            ValueError: `match` names another budget.
        """
        if match.budget != self.budget:
            raise ValueError(f"a plan for {self.budget} with a match for {match.budget}: give its own")
        save_rows(Path(path), self.rows, self.cost, match)

    @classmethod
    def load(cls, path: str | Path, match: Match) -> "Plan":
        """Read a plan that was made from the same.

        Raises:
            RecipeError: it was made from other data, budget or settings, which the message names; there is no
                file, or it is not a whole plan.
        """
        rows, cost = load_rows(Path(path), match)
        return cls(rows, cost, match.budget)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {share:.1%} full" for name, share in self.fill.items())
        above = f"{self.gap:,} above the bound of {self.bound:,} ({self.efficiency:.2%})"
        return f"Plan of {self.examples:,} examples in {len(self.rows):,} rows: {shown}; {above}"


def plan_rows(costs: Listing[Cost], budget: Budget) -> Plan:
    """Plan all examples at once, under any number of budgets.

    Rows come out largest examples first: shuffle them before training. Some 3 microseconds an example with
    numba, 200 without.

    Args:
        costs: what each example takes; the rows hold indices into it. Give `Costs` for millions of examples.
        budget: the most a row may hold.

    Raises:
        BudgetError: an example alone exceeds the budget; named by its index.
        RecipeError: the budget misspells what the examples cost.
        TypeError: these are no costs, or this is no budget.
        ValueError: the budget names nothing.
    """
    table = checked(costs, budget)
    return Plan(split_rows(*_filled(table, budget)), table.total(), budget)


def plan_epoch(
    costs: Listing[Cost],
    budget: Budget,
    *,
    seed: int,
    epoch: int,
    pool: int = POOL,
    window: int | None = None,
) -> Plan:
    """Plan one epoch: all examples in an order drawn from (seed, epoch).

    A pure function of its arguments: every worker, rank and resumed run gets the same rows.

    Args:
        costs: what each example takes; the rows hold indices into it.
        budget: the most a row may hold.
        seed: not negative.
        epoch: not negative.
        pool: without a window, the examples go through `Packer`, and this many wait at most. Give one of
            both.
        window: plan this many examples of the order at once, as `plan_rows` does, then the next. The rows of
            a window come in random order, so that an example moves by less than a window. The larger,
            the fuller the rows and the further an example is from where the order had it.

    Raises:
        BudgetError: an example alone exceeds the budget; named by its index.
        RecipeError: a pool and a window are given, or the budget misspells what the examples cost.
        TypeError: these are no costs, or this is no budget.
        ValueError: the window is below 1, or the budget names nothing.
    """
    check_way(pool, window)
    table = checked(costs, budget)
    order = _shuffled(len(table), seed, epoch)
    if window is None:
        rows = _streamed(table, budget, order, pool)
    elif window < 1:
        raise ValueError(f"window={window}: give at least 1, or None to pack on the fly")
    else:
        rows = []
        for number, start in enumerate(range(0, len(table), window), start=1):
            own = order[start : start + window]
            found = split_rows(*_filled(table.take(own), budget, own))
            rows += [found[row] for row in _shuffled(len(found), seed, epoch, number).tolist()]
    return Plan(rows, table.total(), budget)


def check_way(pool: int, window: int | None) -> None:
    """Refuse a pool beside a window, which would have no effect.

    Raises:
        RecipeError: both are given.
    """
    if window is not None and pool != POOL:
        raise RecipeError(
            f"pool={pool} and window={window}: examples wait in a pool, or are planned a window at a time; "
            "give one of them"
        )


def table_of(costs: Iterable[Cost]) -> Costs:
    """Make the table of costs.

    Raises:
        TypeError: these are no costs.
    """
    try:
        return Costs.of(costs)
    except (TypeError, AttributeError):
        raise TypeError(f"costs={costs!r:.80}: give a list with one Cost for each example") from None


def checked(costs: Iterable[Cost], budget: Budget) -> Costs:
    """Make the table of costs, if rows can be planned from them.

    Raises:
        BudgetError: an example alone exceeds the budget; the first is named by its index.
        RecipeError: the budget misspells what the examples cost.
        TypeError: these are no costs, or this is no budget.
    """
    if not isinstance(budget, Budget):
        raise TypeError(f"budget={budget!r:.80}: give a Budget, such as Budget(tokens=16384)")
    table = table_of(costs)
    _check_names(table.names, budget)
    over = (table.amounts(*budget) > np.array(list(budget.values()), np.int64)).any(axis=1)
    if over.any():
        index = int(over.argmax())
        check_fits(index, table[index], budget)
    return table


def _check_names(names: tuple[str, ...], budget: Budget) -> None:
    """Refuse a budget that no example uses, if it looks like the name of a cost without a budget."""
    for unused in [name for name in budget if names and name not in names]:
        told = f"budget {unused}: no example costs any '{unused}'; they cost {', '.join(names)}"
        near = get_close_matches(unused, [name for name in names if name not in budget], n=1)
        if near:
            raise RecipeError(f"{told}: did you mean '{near[0]}'?")
        _name_unused(told)


@functools.cache
def _name_unused(told: str) -> None:
    _LOG.warning("%s, so it limits no row", told)


def _filled(table: Costs, budget: Budget, keys: Array | None = None) -> tuple[Array, Array]:
    """Return the examples row by row, within a row in their order, and where each row ends."""
    if not budget:
        raise ValueError(f"{budget!r} names nothing: name at least one budget")
    names = sorted(budget)  # in whatever order a budget names its parts, the rows are the same
    limits = np.array([budget[name] for name in names], np.int64)
    examples, ends = fill_rows(table.amounts(*names), limits)
    row = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    examples = np.sort(row * len(table) + examples) - row * len(table)
    return examples if keys is None else keys[examples], ends


def _streamed(table: Costs, budget: Budget, order: Array, pool: int) -> list[list[int]]:
    packer = Packer(budget, pool)
    packs = [packer.push(index, table[index]) for index in order.tolist()]
    return [[int(index) for index in pack] for pack in [*packs, *packer.flush()] if pack]


def _shuffled(count: int, seed: int, epoch: int, window: int = 0) -> Array:
    # The raw stream of a bit generator is stable across numpy versions; `Generator.permutation` need not be.
    source = np.random.PCG64(np.random.SeedSequence([seed, epoch], spawn_key=(_OWN, window)))
    return np.argsort(source.random_raw(count), kind="stable")
