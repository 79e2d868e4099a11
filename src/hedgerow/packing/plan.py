"""Plans: which examples share which row, for a whole set or for one epoch of it."""

import dataclasses
from collections.abc import Sequence as Listing
from typing import Any

import numpy as np

from hedgerow.packing.pool import Packer, check_fits
from hedgerow.sequence import Budget, Cost

Array = Any


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
    def efficiency(self) -> float:
        """`bound` as a share of the rows; 1 cannot be beaten."""
        return self.bound / len(self.rows) if self.rows else 1.0

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {share:.1%} full" for name, share in self.fill.items())
        best = f"{self.efficiency:.1%} of the best possible ({self.bound:,} rows)"
        return f"Plan of {self.examples:,} examples in {len(self.rows):,} rows: {shown}; {best}"


def plan_rows(costs: Listing[Cost], budget: Budget) -> Plan:
    """Plan all examples at once: vector best-fit decreasing.

    The largest example first, by the sum of its shares of the budgets, into the row with the least room that
    still takes it. Rows come out largest examples first: shuffle them before training. O(examples x rows).

    Raises:
        BudgetError: an example alone exceeds the budget; named by its index.
    """
    check_costs(costs, budget)
    limits = np.array(list(budget.values()), np.int64)
    sizes = np.array([[cost.get(name, 0) for name in budget] for cost in costs], np.int64).reshape(
        -1, len(limits)
    )
    scale = 1.0 / np.maximum(limits, 1)
    shares = sizes @ scale
    room = np.zeros((len(limits), len(costs)), np.int64)
    slack = np.zeros(len(costs))
    rows: list[list[int]] = []
    for index in np.argsort(-shares, kind="stable").tolist():
        row = _tightest(room[:, : len(rows)], slack[: len(rows)], sizes[index])
        if row is None:
            row = len(rows)
            rows.append([])
            room[:, row], slack[row] = limits, float(limits @ scale)
        rows[row].append(index)
        room[:, row] -= sizes[index]
        slack[row] -= shares[index]
    return Plan([sorted(row) for row in rows], _total(costs), budget)


def plan_epoch(costs: Listing[Cost], budget: Budget, *, seed: int, epoch: int, pool: int = 48) -> Plan:
    """Plan one epoch: all examples in an order drawn from (seed, epoch), through `Packer`.

    A pure function of its arguments: every worker, rank and resumed run gets the same rows.

    Args:
        costs: what each example takes; the rows hold indices into it.
        budget: the most a row may hold.
        seed: not negative.
        epoch: not negative.
        pool: how many examples wait at most, as in `Packer`.

    Raises:
        BudgetError: an example alone exceeds the budget; named by its index.
    """
    check_costs(costs, budget)
    packer = Packer(budget, pool)
    packs = [packer.push(index, costs[index]) for index in _shuffled(len(costs), seed, epoch)]
    rows = [[int(index) for index in pack] for pack in [*packs, *packer.flush()] if pack]
    return Plan(rows, _total(costs), budget)


def check_costs(costs: Listing[Cost], budget: Budget) -> None:
    """Raise BudgetError for the first example that alone exceeds the budget."""
    for index, cost in enumerate(costs):
        check_fits(index, cost, budget)


def _tightest(room: Array, slack: Array, size: Array) -> int | None:
    fits = (room >= size[:, None]).all(axis=0)
    if not fits.any():
        return None
    return int(np.where(fits, slack, np.inf).argmin())


def _shuffled(count: int, seed: int, epoch: int) -> list[int]:
    # The raw stream of a bit generator is stable across numpy versions; `Generator.permutation` need not be.
    draws = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(count)
    return np.argsort(draws, kind="stable").tolist()  # type: ignore[no-any-return]


def _total(costs: Listing[Cost]) -> Cost:
    names = dict.fromkeys(name for cost in costs for name in cost)
    return Cost(**{name: sum(cost.get(name, 0) for cost in costs) for name in names})
