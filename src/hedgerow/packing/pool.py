"""Packing on the fly: choose each row from a small pool of waiting examples, under any number of budgets."""

import bisect
import itertools
import operator
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal

from hedgerow.errors import BudgetError, RecipeError
from hedgerow.packing import search
from hedgerow.sequence import Budget, Cost

if find_spec("numba"):
    from hedgerow.packing.fast import choose
else:
    from hedgerow.packing.search import choose

Key = str | int
_KEYS = (str, int)  # what JSON gives back as it was
Oversize = Literal["raise", "drop"]

_WAIT = 4  # an example leaves at the latest this many packs, times the pool, after it came
_HELD = 1.5  # tiny examples share a place up to a size at which the places together hold this many rows ...
_LEAST = 16  # ... but in a pool smaller than this all but one hold one row, and tiny is no more than in this


class Packer:
    """Packs a stream of examples from a small pool of them; holds keys and costs, nothing else.

    What it returns is a pure function of what was pushed. No pack exceeds a budget, each example leaves once,
    and at the latest 4 x pool packs after it came.

    The pool has `pool` places, and a push that takes the last one returns a pack. Tiny examples would fill
    the places and no row, so those of at most 1.5/pool of each budget share a place up to that size, and
    leave together. Where the pool is smaller than 16, tiny is what takes at most 3/32, and a place holds up
    to 1/(pool - 1) of each budget. At most `pool` that take nothing of any budget share a place.

    A key is a str or an int, so that it is the same after the state went through JSON.

    Args:
        budget: the most a row may hold.
        pool: how many places there are.
        oversize: "raise" a BudgetError for an example that exceeds the budget alone, or "drop" it: its key is
            then in `dropped`, and in no pack.

    Raises:
        ValueError: the budget is empty, the pool is not positive, or `oversize` is neither of the above.

    Example:
        >>> packer = Packer(Budget(tokens=10), pool=3)
        >>> [packer.push(key, Cost(tokens=size)) for key, size in enumerate((6, 5, 4, 7))]
        [None, None, [0, 2], None]
        >>> packer.flush()
        [[3], [1]]
    """

    def __init__(self, budget: Budget, pool: int = 48, *, oversize: Oversize = "raise") -> None:
        if not budget or pool < 1:
            raise ValueError(
                f"{budget!r} with pool={pool}: name at least one budget and give a pool of at least 1"
            )
        if oversize not in ("raise", "drop"):
            raise ValueError(f"oversize={oversize!r}: choose 'raise' or 'drop'")
        self.budget = budget
        self.pool = pool
        self.oversize = oversize
        self.dropped: list[Key] = []
        self._names = sorted(budget)  # in whatever order a budget names its parts, the packs are the same
        self._none = [0] * len(budget)
        self._limits = tuple(budget[name] for name in self._names)
        self._tiny = tuple(int(_HELD * limit) // max(pool, _LEAST) for limit in self._limits)
        small = pool < _LEAST
        self._shared = tuple(limit // max(pool - 1, 1) for limit in self._limits) if small else self._tiny
        self._packs = 0
        # The places in use, in order of arrival of their first example:
        self._keys: list[list[Key]] = []
        self._last: list[int] = []  # number of the last pack that it may leave in
        self._sizes: list[list[int]] = []  # what it takes of each budget
        self._open = -1  # the place that tiny examples share

    def __len__(self) -> int:
        return sum(map(len, self._keys))

    def push(self, key: Key, cost: Cost) -> list[Key] | None:
        """Take in an example; return the keys of a pack if it took the last place, else None.

        The keys of a pack come place by place, the oldest first.

        Raises:
            BudgetError: the example alone exceeds the budget.
            TypeError: the key is neither a str nor an int, or the cost is not a Cost.
                In all these cases the pool stays as it was.
        """
        if not (isinstance(key, _KEYS) and isinstance(cost, Cost)):
            raise _wrong_type(key, cost)
        sizes = list(map(cost.get, self._names, self._none))
        if all(map(operator.le, sizes, self._tiny)):
            if self._share(key, sizes):
                return None
            self._open = len(self._keys)
        elif not all(map(operator.le, sizes, self._limits)):
            if self.oversize == "raise":
                check_fits(key, cost, self.budget)
            self.dropped.append(key)
            return None
        self._keys.append([key])
        self._last.append(self._packs + _WAIT * self.pool)
        self._sizes.append(sizes)
        return self._pack() if len(self._keys) >= self.pool else None

    def flush(self) -> list[list[Key]]:
        """Pack all that still wait, and return the packs."""
        packs = []
        while self._keys:
            packs.append(self._pack())
        return packs

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON values: restored, every later pack is the same."""
        return {
            "budget": dict(self.budget),
            "pool": self.pool,
            "packs": self._packs,
            "keys": [list(keys) for keys in self._keys],
            "last": list(self._last),
            "sizes": [list(sizes) for sizes in self._sizes],
            "open": self._open,
            "dropped": list(self.dropped),
        }

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
        self._packs, self._open = state["packs"], state["open"]
        self._keys = [list(keys) for keys in state["keys"]]
        self._last, self._sizes = list(state["last"]), [list(sizes) for sizes in state["sizes"]]
        self.dropped = list(state["dropped"])

    def _share(self, key: Key, sizes: list[int]) -> bool:
        """Let a tiny example wait where others do, if there is room."""
        if self._open < 0 or (len(self._keys[self._open]) >= self.pool and not any(sizes)):
            return False
        together = list(map(operator.add, self._sizes[self._open], sizes))
        if not all(map(operator.le, together, self._shared)):
            return False
        self._keys[self._open].append(key)
        self._sizes[self._open] = together
        return True

    def _pack(self) -> list[Key]:
        # Were each of the i places before it to leave alone, place i would leave in pack `packs + 1 + i`. If
        # that is the last pack for any, the oldest goes now. So none misses its bound, whatever the sizes.
        # `last` never falls from place to place: while that of the oldest is far off, all are.
        urgent = self._last[0] <= self._packs + len(self._last) and any(
            map(operator.le, self._last, itertools.count(self._packs + 1))
        )
        time = search.Time(self._last, self._packs, _WAIT * self.pool, int(urgent))
        chosen = choose(self._sizes, *search.aim(self._sizes, self._limits), time)
        packed = [key for place in chosen for key in self._keys[place]]
        for place in reversed(chosen):
            del self._keys[place], self._last[place], self._sizes[place]
        before = bisect.bisect_left(chosen, self._open)
        left = self._open in chosen[before : before + 1]
        self._open = -1 if left else self._open - before
        self._packs += 1
        return packed


def _wrong_type(key: object, cost: object) -> TypeError:
    if isinstance(key, _KEYS):
        return TypeError(
            f"example {key!r} came with {cost!r} as its cost: give a Cost, such as Cost(tokens=900)"
        )
    return TypeError(
        f"{key!r} is a {type(key).__name__}: a key is a str or an int, which JSON gives back as it was; "
        "give the example's number or id, and look the rest up by it"
    )


def check_fits(key: Key, cost: Cost, budget: Budget) -> None:
    """Raise BudgetError, naming the example, its cost and the budget, if it alone exceeds the budget."""
    if not budget.fits(cost):
        raise BudgetError(
            f"example {key!r} costs {cost}, a row holds {budget} ({budget.excess(cost)}): "
            "drop or shorten it, or raise the budget"
        )
