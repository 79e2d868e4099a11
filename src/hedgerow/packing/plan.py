"""Plans: which examples share which row, for a whole set or for one epoch of it."""

import dataclasses
from collections.abc import Sequence as Listing
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.packing.fill import fill_rows
from hedgerow.packing.pool import Packer, check_fits
from hedgerow.packing.saved import Match, load_rows, save_rows, split_rows
from hedgerow.sequence import Budget, Cost, Costs

Array = Any
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
            RecipeError: it was made from other data, budget or settings, which the message names; or the file
                is not a whole plan.
            FileNotFoundError: there is no file.
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
        ValueError: the budget names nothing.
    """
    table = Costs.of(costs)
    check_costs(table, budget)
    return Plan(split_rows(*_filled(table, budget)), table.total(), budget)


def plan_epoch(
    costs: Listing[Cost], budget: Budget, *, seed: int, epoch: int, pool: int = 48, window: int | None = None
) -> Plan:
    """Plan one epoch: all examples in an order drawn from (seed, epoch).

    A pure function of its arguments: every worker, rank and resumed run gets the same rows.

    Args:
        costs: what each example takes; the rows hold indices into it.
        budget: the most a row may hold.
        seed: not negative.
        epoch: not negative.
        pool: without a window, the examples go through `Packer`, and this many wait at most.
        window: plan this many examples of the order at once, as `plan_rows` does, then the next. The rows of
            a window come in random order, so that an example moves by less than a window. The larger,
            the fuller the rows and the further an example is from where the order had it.

    Raises:
        BudgetError: an example alone exceeds the budget; named by its index.
        ValueError: the window is below 1, or the budget names nothing.
    """
    table = Costs.of(costs)
    check_costs(table, budget)
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


def check_costs(costs: Listing[Cost], budget: Budget) -> None:
    """Raise BudgetError for the first example that alone exceeds the budget."""
    table = Costs.of(costs)
    over = (table.amounts(*budget) > np.array(list(budget.values()), np.int64)).any(axis=1)
    if over.any():
        index = int(over.argmax())
        check_fits(index, table[index], budget)


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
