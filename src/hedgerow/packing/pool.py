"""Packing on the fly: choose each row from a small pool of waiting examples, under any number of budgets.

A subset of the pool is judged by two sums alone, those of the two budgets that the pool strains most. So the
search is reachability over a grid of (first sum, second sum): one Python integer holds the grid, one bit a
cell, and adding an example is a shift. The best cell fills the budget that the pool strains most, and settles
ties by the other: the pool itself says which that is, and no weight between budgets is set by hand.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Listing
from typing import Any

from hedgerow.errors import BudgetError, RecipeError
from hedgerow.sequence import Budget, Cost

Key = str | int
Sizes = tuple[int, ...]  # what an example takes of each budget, in the order of their names

_LEVELS = (2048, 512)  # finest grid of the most and the second most strained budget; below these it is exact
_WAIT = 4  # an example leaves at the latest this many packs, times the pool, after it came


@dataclasses.dataclass(frozen=True, slots=True)
class _Waiting:
    key: Key
    sizes: Sizes
    last: int  # number of the last pack that it may leave in


class Packer:
    """Packs a stream of examples from a pool of at most `pool` of them; holds keys and costs, nothing else.

    What it returns is a pure function of what was pushed. No pack exceeds a budget, each example leaves once,
    and at the latest 4 x pool packs after it came.

    Example:
        >>> packer = Packer(Budget(tokens=10), pool=3)
        >>> [packer.push(key, Cost(tokens=size)) for key, size in enumerate((6, 5, 4, 7))]
        [None, None, [0, 2], None]
        >>> packer.flush()
        [[3], [1]]
    """

    def __init__(self, budget: Budget, pool: int = 48) -> None:
        if not budget or pool < 1:
            raise ValueError(
                f"{budget!r} with pool={pool}: name at least one budget and give a pool of at least 1"
            )
        self.budget = budget
        self.pool = pool
        self._names = sorted(budget)  # in whatever order a budget names its parts, the packs are the same
        self._waiting: list[_Waiting] = []  # in order of arrival
        self._packs = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, key: Key, cost: Cost) -> list[Key] | None:
        """Take in an example; return the keys of a pack if the pool is full, in order of arrival, else None.

        Raises:
            BudgetError: the example alone exceeds the budget; the pool stays as it was.
        """
        check_fits(key, cost, self.budget)
        sizes = tuple(cost.get(name, 0) for name in self._names)
        self._waiting.append(_Waiting(key, sizes, self._packs + _WAIT * self.pool))
        return self._pack() if len(self._waiting) >= self.pool else None

    def flush(self) -> list[list[Key]]:
        """Pack all that still wait, and return the packs."""
        packs = []
        while self._waiting:
            packs.append(self._pack())
        return packs

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON values: restored, every later pack is the same."""
        waiting = [[item.key, list(item.sizes), item.last] for item in self._waiting]
        return {"budget": dict(self.budget), "pool": self.pool, "packs": self._packs, "waiting": waiting}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved state.

        Raises:
            RecipeError: it was saved with another budget or pool.
        """
        saved, own = (Budget(**state["budget"]), state["pool"]), (self.budget, self.pool)
        if saved != own:
            raise RecipeError(
                f"packing was saved with {saved[0]} and pool={saved[1]}, "
                f"here it has {own[0]} and pool={own[1]}: resume with the saved ones"
            )
        self._packs = state["packs"]
        self._waiting = [_Waiting(key, tuple(sizes), last) for key, sizes, last in state["waiting"]]

    def _pack(self) -> list[Key]:
        # Were each of the i examples before it to leave alone, example i would leave in pack `packs + 1 + i`.
        # If that is the last pack for any, the oldest goes now. So none misses its bound, whatever the sizes.
        urgent = any(item.last <= self._packs + 1 + i for i, item in enumerate(self._waiting))
        sizes = [item.sizes for item in self._waiting]
        limits = tuple(self.budget[name] for name in self._names)
        chosen = set(choose(sizes, limits, forced=0 if urgent else None))
        keys = [item.key for i, item in enumerate(self._waiting) if i in chosen]
        self._waiting = [item for i, item in enumerate(self._waiting) if i not in chosen]
        self._packs += 1
        return keys


def check_fits(key: Key, cost: Cost, budget: Budget) -> None:
    """Raise BudgetError, naming the example, its cost and the budget, if it alone exceeds the budget."""
    if not budget.fits(cost):
        raise BudgetError(
            f"example {key!r} costs {cost}, a row holds {budget} ({budget.excess(cost)}): "
            "drop or shorten it, or raise the budget"
        )


def choose(sizes: Listing[Sizes], limits: Sizes, *, forced: int | None = None) -> list[int]:
    """Return which examples fill a row best: at least one, and never more than the limits.

    Args:
        sizes: what each example takes of each budget; each fits alone.
        limits: the budgets.
        forced: an example that must be in.
    """
    sums = [sum(item[axis] for item in sizes) for axis in range(len(limits))]
    demand = [total / limit if limit else 0.0 for total, limit in zip(sums, limits, strict=True)]
    axes = sorted(range(len(limits)), key=lambda axis: -demand[axis])[:2]
    grid = _Grid.of([limits[axis] for axis in axes])
    steps = [grid.step([item[axis] for axis in axes]) for item in sizes]
    best = _search(grid, steps, forced)
    # A third budget may refuse some of `best`; the others fill up what that, and rounding, left.
    return _admit(sizes, limits, dict.fromkeys([*best, *range(len(sizes))]))


@dataclasses.dataclass(frozen=True, slots=True)
class _Grid:
    """Cells of *room left*: cell `first * width + second`; width is one more than the second axis holds."""

    units: tuple[int, ...]
    most: tuple[int, ...]

    @classmethod
    def of(cls, limits: Listing[int]) -> "_Grid":
        units = [max(1, -(-limit // level)) for limit, level in zip(limits, _LEVELS, strict=False)]
        return cls(tuple(units), tuple(limit // unit for limit, unit in zip(limits, units, strict=True)))

    @property
    def width(self) -> int:
        return self.most[1] + 1 if len(self.most) > 1 else 1

    def step(self, sizes: Listing[int]) -> tuple[int, int]:
        """Round an example up to cells: how far it moves, and how much of that is along the second axis."""
        # What rounds up beyond the grid fits alone, so let it: it leaves no cell of that axis to any other.
        cells = [
            min(-(-size // unit), most) for size, unit, most in zip(sizes, self.units, self.most, strict=True)
        ]
        second = cells[1] if len(cells) > 1 else 0
        return cells[0] * self.width + second, second


def _search(grid: _Grid, steps: Listing[tuple[int, int]], forced: int | None) -> list[int]:
    start = (grid.most[0] + 1) * grid.width - 1
    first = [] if forced is None else [forced]
    reached = 1 << (start - sum(steps[i][0] for i in first))
    layers = []
    for i, (step, second) in enumerate(steps):
        layers.append(reached)
        if i not in first:
            # The shift drops what would leave the first axis; the mask what would leave the second.
            allowed = reached & _mask(grid.most[0] + 1, grid.width, second) if second else reached
            reached |= allowed >> step
        if reached & 1:  # both budgets are full: nothing is better
            break
    cell = (reached & -reached).bit_length() - 1  # the least room on the first axis, then on the second
    chosen = []
    for i in reversed(range(len(layers))):
        if i not in first and not layers[i] & (1 << cell):  # it cannot be reached without example i
            chosen.append(i)
            cell += steps[i][0]
    return [*first, *reversed(chosen)]


@functools.lru_cache(maxsize=256)
def _mask(rows: int, width: int, second: int) -> int:
    """Return the cells with at least `second` of room on the second axis, which has `width` cells."""
    each_row = ((1 << (rows * width)) - 1) // ((1 << width) - 1)
    return each_row * (((1 << (width - second)) - 1) << second)


def _admit(sizes: Listing[Sizes], limits: Sizes, ranked: Iterable[int]) -> list[int]:
    room, admitted = list(limits), []
    for i in ranked:
        left = [have - need for have, need in zip(room, sizes[i], strict=True)]
        if min(left) >= 0:
            room = left
            admitted.append(i)
    return admitted
