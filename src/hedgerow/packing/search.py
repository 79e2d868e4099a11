"""The search for a row: which of the waiting examples fill it best.

A subset of them is judged by two sums alone, those of the two budgets that the pool strains most. So the
search is reachability over a grid of *room left*, one bit a cell, and adding an example is a shift. The pool
itself says what room is worth: that of the scarcer budget counts in full, that of the other the less the more
it abounds, and no weight between budgets is set by hand. The grid rounds up; exact swaps then close the gaps.

A full row that takes in the oldest example ends the search. So hard examples leave early, at no loss, and few
are still there when their time is up, when they would have to leave whatever the loss.

This is the reference, in whole Python integers. `hedgerow.packing.fast` is the same search compiled, and its
rows are the same.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Sequence as Listing

Sizes = tuple[int, ...]  # what an example takes of each budget, in the order of their names

COLUMNS, ROWS = 511, 511  # most cells of the axis of the larger budget, and of the other
LINE = 65535  # most cells where there is one budget only: up to here it is exact
SLACK = 1024  # a row is full when less than this part of the scarcest budget is left, and of the other ...
MARGIN = 1.1  # ... this many times its fair share is used: more than that would spend what later rows need
SHARES = 512  # the demand of the one budget as part of the other's is rounded to 1/512
STEEPNESS = 20  # how fast a budget that abounds loses its worth: half as much at .966 of the demand


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """Cells of room left under two budgets: columns along `axes[0]`, rows along `axes[1]`.

    | field | meaning |
    |---|---|
    | limits | the budgets, all of them |
    | axes | the larger of the two that count, and the other; the same twice where there is only one |
    | units | what a cell stands for along each axis; an example is rounded up to whole cells |
    | most | the last column and the last row: room for everything |
    | scarce | 0 or 1: the axis that the pool strains most |
    """

    limits: Sizes
    axes: tuple[int, int]
    units: tuple[int, int]
    most: tuple[int, int]
    scarce: int

    @property
    def words(self) -> int:
        """How many 64-bit words a row of cells takes."""
        return (self.most[0] >> 6) + 1

    def cells(self, axis: int, size: int) -> int:
        """Round the size of an example up to cells."""
        # What rounds up beyond the grid fits alone, so let it: it leaves no cell of that axis to any other.
        return min(-(-size // self.units[axis]), self.most[axis])


@dataclasses.dataclass(frozen=True, slots=True)
class Goal:
    """What a row is worth, and when it is good enough to stop the search.

    | field | meaning |
    |---|---|
    | worth | of one token, crop, ... along the two axes of the grid |
    | slack | most cells left of a full row, along the two axes |
    """

    worth: tuple[float, float]
    slack: tuple[int, int]


def grid_of(limits: Sizes, first: int, second: int) -> Grid:
    """Return the grid for the most and the second most strained budget."""
    if first == second:
        unit = max(1, -(-limits[first] // LINE))
        return Grid(limits, (first, first), (unit, 1), (limits[first] // unit, 0), 0)
    axes = (first, second) if limits[first] >= limits[second] else (second, first)
    units = (max(1, -(-limits[axes[0]] // COLUMNS)), max(1, -(-limits[axes[1]] // ROWS)))
    most = (limits[axes[0]] // units[0], limits[axes[1]] // units[1])
    return Grid(limits, axes, units, most, axes.index(first))


def aim(sizes: Listing[Listing[int]], limits: Sizes) -> tuple[Grid, Goal]:
    """Return the grid and the goal that what waits asks for; arguments as in `choose`."""
    totals = list(map(sum, zip(*sizes, strict=True)))
    demand = [total / limit if limit else 0.0 for total, limit in zip(totals, limits, strict=True)]
    order = sorted(range(len(limits)), key=demand.__getitem__, reverse=True)
    first, second = order[0], order[:2][-1]
    share = round(SHARES * demand[second] / demand[first]) if demand[first] else SHARES
    return _aim(limits, first, second, share)


@functools.lru_cache(maxsize=1024)
def _aim(limits: Sizes, first: int, second: int, share: int) -> tuple[Grid, Goal]:
    grid = grid_of(limits, first, second)
    slack = grid.most[1 - grid.scarce]
    slack -= int(slack * min(1.0, MARGIN * share / SHARES))
    worth = (share / SHARES) ** STEEPNESS / max(limits[second], 1) if second != first else 0.0
    goal = (1 / max(limits[first], 1), worth), (grid.most[grid.scarce] // SLACK, slack)
    return grid, Goal(*goal) if grid.scarce == 0 else Goal(goal[0][::-1], goal[1][::-1])


def choose(sizes: Listing[Listing[int]], grid: Grid, goal: Goal, grace: float) -> list[int]:
    """Return which of the waiting examples share the next row, in order of arrival: never none.

    The search takes the oldest in if a full row does, or any row that loses little by it. Then whatever else
    still fits is in too, and examples are swapped while that fills the row.

    Args:
        sizes: what each example takes of each budget, the oldest first; each fits alone.
        grid: from `aim`.
        goal: from `aim`.
        grace: how much more of the scarcest budget, as a part of it, a row with the oldest may leave unused
            than one without; infinite: the oldest must be in.
    """
    steps = [(grid.cells(0, item[grid.axes[0]]), grid.cells(1, item[grid.axes[1]])) for item in sizes]
    return _complete(sizes, grid, goal, _search(steps, grid, goal, grace), int(grace == math.inf))


def _search(steps: list[tuple[int, int]], grid: Grid, goal: Goal, grace: float) -> list[int]:
    width = 64 * grid.words
    reach = 1 << (grid.most[1] * width + grid.most[0])  # the room that some of the examples so far leave
    layers: list[int] = []
    with_oldest, without = _full(grid, goal, steps[0]), _full(grid, goal, (0, 0))
    stop = None  # the first layer with a full row that lacks the oldest
    for i, (across, down) in enumerate(steps):
        if i:  # the oldest is left out: at its corner of the grid is what takes it in
            allowed = reach & _columns(grid.most[1] + 1, width, across) if across else reach
            reach |= allowed >> (down * width + across)
        layers.append(reach)
        if reach & with_oldest:
            return [0, *_path(layers, steps, width, _best(reach, grid, goal, steps[0])[1])]
        if stop is None and reach & without:
            stop = i
    others = layers if stop is None else layers[: stop + 1]
    loss, cell = _best(reach, grid, goal, steps[0])
    other_loss, other = _best(others[-1], grid, goal, (0, 0))
    if loss <= other_loss + grace:
        return [0, *_path(layers, steps, width, cell)]
    return _path(others, steps, width, other)


def _path(layers: list[int], steps: list[tuple[int, int]], width: int, cell: int) -> list[int]:
    """Return the examples that lead to a cell of the last layer: the oldest that can."""
    chosen = []
    for i in reversed(range(1, len(layers))):
        if not layers[i - 1] >> cell & 1:
            chosen.append(i)
            cell += steps[i][1] * width + steps[i][0]
    return chosen[::-1]


def _best(layer: int, grid: Grid, goal: Goal, corner: tuple[int, int]) -> tuple[float, int]:
    """Return the least loss, and its cell, when what is left at `corner` would be used up."""
    across, down = (worth * unit for worth, unit in zip(goal.worth, grid.units, strict=True))
    size = 8 * grid.words
    table = layer.to_bytes(size * (grid.most[1] + 1), "little")
    best, found = float("inf"), -1
    for y in range(corner[1], grid.most[1] + 1):
        row = int.from_bytes(table[y * size : (y + 1) * size], "little") >> corner[0]
        if row:
            x = (row & -row).bit_length() - 1
            loss = x * across + (y - corner[1]) * down
            if loss < best:
                best, found = loss, y * size * 8 + x + corner[0]
    return best, found


def _full(grid: Grid, goal: Goal, corner: tuple[int, int]) -> int:
    """Return the cells of a row that is full once what is left at `corner` is used up."""
    width = 64 * grid.words
    across = min(goal.slack[0], grid.most[0] - corner[0])
    down = min(goal.slack[1], grid.most[1] - corner[1])
    block = _columns(down + 1, width, 0) // ((1 << width) - 1) * ((1 << (across + 1)) - 1)
    return block << (corner[1] * width + corner[0])


@functools.lru_cache(maxsize=1024)
def _columns(rows: int, width: int, start: int) -> int:
    """Return the cells of the first rows from a column on."""
    each_row = ((1 << (rows * width)) - 1) // ((1 << width) - 1)
    return each_row * (((1 << (width - start)) - 1) << start)


def _complete(
    items: Listing[Listing[int]], grid: Grid, goal: Goal, chosen: list[int], kept: int
) -> list[int]:
    """Keep within all budgets, exactly; take in and swap what brings the row nearer to full.

    The first `kept` examples stay in.
    """
    first, second = grid.axes
    value = [item[first] * goal.worth[0] + item[second] * goal.worth[1] for item in items]
    room, inside = list(grid.limits), [False] * len(items)
    # A third budget may refuse some of `chosen`; the others fill up what that, and rounding, left.
    _admit(items, room, inside, chosen)
    while True:
        _admit(items, room, inside, range(len(items)))
        swap = _swap(items, value, room, inside, kept) if room[first] or room[second] else None
        if swap is None:
            return [i for i, here in enumerate(inside) if here]
        out, new = swap
        inside[out], inside[new] = False, True
        room[:] = [have + a - b for have, a, b in zip(room, items[out], items[new], strict=True)]


def _admit(items: Listing[Listing[int]], room: list[int], inside: list[bool], ranked: Listing[int]) -> None:
    for i in ranked:
        if not inside[i] and all(need <= have for need, have in zip(items[i], room, strict=True)):
            inside[i] = True
            room[:] = [have - need for have, need in zip(room, items[i], strict=True)]


def _swap(
    items: Listing[Listing[int]], value: list[float], room: list[int], inside: list[bool], kept: int
) -> tuple[int, int] | None:
    """Return the one example to take out and the one to put in that gain most; none gains: None."""
    best, found = 0.0, None
    for i in range(kept, len(items)):
        if not inside[i]:
            continue
        freed = [have + size for have, size in zip(room, items[i], strict=True)]
        for j, item in enumerate(items):
            gain = value[j] - value[i]
            if gain > best and not inside[j] and all(map(operator.le, item, freed)):
                best, found = gain, (i, j)
    return found
