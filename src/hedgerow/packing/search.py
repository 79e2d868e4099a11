"""The search for a row: which of the waiting examples fill it best.

A subset of them is judged by two sums alone, those of the two budgets that the pool strains most. So the
search is reachability over a grid of *room left*, one bit a cell, and adding an example is a shift. The pool
itself says what room is worth: that of the scarcer budget counts in full, that of the other the less the more
it abounds, and no weight between budgets is set by hand. The grid rounds up; exact swaps then close the gaps.

Examples of more than half of the scarcest budget are *large*: a row holds one at most. So the search runs
over the others, and then tries each large one on what they reach. Where the large ones need more rows than
the volume of the pool, only a small one that goes with a large one saves a row: one without a large one then
loses as much of itself as those rows leave empty.

The longer an example has waited, the more may be lost to let it leave. So hard ones leave early, in what
suits them best, and few are still there when their time is up, when they have to leave whatever the loss.

This is the reference, in whole Python integers. `hedgerow.packing.fast` is the same search compiled, and its
rows are the same.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Sequence as Listing

Sizes = tuple[int, ...]  # what an example takes of each budget, in the order of their names
Step = tuple[int, int]  # what it takes in cells

COLUMNS, ROWS = 511, 511  # most cells of the axis of the larger budget, and of the other
LINE = 65535  # most cells where there is one budget only: up to here it is exact
SLACK = 1024  # a row is full when less than this part of the scarcest budget is left, and of the other ...
MARGIN = 1.3  # ... this many times its fair share is used: more than that would spend what later rows need
SHARES = 512  # the demand of the one budget as part of the other's is rounded to 1/512
STEEPNESS = 12  # how fast a budget that abounds loses its worth: half as much at .944 of the demand
GRACE = 0.05  # part of a row that may be lost to let an example leave when its time is up; a quarter, at half


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


@dataclasses.dataclass(frozen=True, slots=True)
class Time:
    """What time is left to the examples that wait.

    | field | meaning |
    |---|---|
    | last | number of the last pack that each may leave in, the oldest first; packs count from 1 |
    | packs | how many packs have left |
    | most | how many packs an example may wait |
    | must | how many of the oldest have to be in the next: 0 or 1 |
    """

    last: Listing[int]
    packs: int
    most: int
    must: int

    def grace(self, place: int) -> float:
        """Return the part of a row that may be lost to let this one leave."""
        waited = 1 - (self.last[place] - self.packs) / self.most
        return GRACE * waited * waited


@dataclasses.dataclass(frozen=True, slots=True)
class Strain:
    """Examples that are large: a row holds one at most, as each takes more than half of the scarcest budget.

    | field | meaning |
    |---|---|
    | large | whether each is |
    | bare | what a row without one loses: the part of the rows of large ones that all volume leaves empty |
    """

    large: list[bool]
    bare: float

    @classmethod
    def of(cls, sizes: list[int], limit: int) -> "Strain":
        """Find them by what each takes of the scarcest budget."""
        large = [2 * size > limit for size in sizes]
        return cls(large, max(0.0, 1 - sum(sizes) / (sum(large) * limit)) if any(large) else 0.0)


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
    if len(limits) == 1:
        return _aim(limits, 0, 0, SHARES)
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


def choose(sizes: Listing[Listing[int]], grid: Grid, goal: Goal, time: Time) -> list[int]:
    """Return which of the waiting examples share the next row, in order of arrival: never none.

    A full row of the oldest and others that are not large ends the search. Otherwise it is the row that loses
    least, less the grace of the oldest and of the large example if they are in. Then whatever else still fits
    is in too, and examples are swapped while that fills the row.

    Args:
        sizes: what each example takes of each budget, the oldest first; each fits alone.
        grid: from `aim`.
        goal: from `aim`.
        time: what is left to each.
    """
    steps = [(grid.cells(0, item[grid.axes[0]]), grid.cells(1, item[grid.axes[1]])) for item in sizes]
    first = grid.axes[grid.scarce]
    strain = Strain.of([item[first] for item in sizes], grid.limits[first])
    chosen = sorted(_search(steps, grid, goal, time, strain))
    return _complete(sizes, grid, _values(sizes, grid, goal, time, strain), chosen, time.must)


def _values(sizes: Listing[Listing[int]], grid: Grid, goal: Goal, time: Time, strain: Strain) -> list[float]:
    """Return what each example is worth to a row, as `_least` counts."""
    values = [size[grid.axes[0]] * goal.worth[0] + size[grid.axes[1]] * goal.worth[1] for size in sizes]
    for i, large in enumerate(strain.large):
        if large or i == 0:
            values[i] += time.grace(i)
        if large:
            values[i] += strain.bare
    return values


def _search(steps: list[Step], grid: Grid, goal: Goal, time: Time, strain: Strain) -> list[int]:
    width = 64 * grid.words
    reach = 1 << (grid.most[1] * width + grid.most[0])  # the room that some of the examples so far leave
    layers, rest = [reach], [i for i in range(1, len(steps)) if not strain.large[i]]
    with_oldest = _full(grid, goal, steps[0])
    for i in rest:
        if reach & with_oldest:
            break
        across, down = steps[i]
        allowed = reach & _columns(grid.most[1] + 1, width, across) if across else reach
        reach |= allowed >> (down * width + across)
        layers.append(reach)
    rows = _rows(reach, grid)
    if reach & with_oldest:
        chosen, (_, cell) = [0], _best(rows, grid, goal, steps[0], math.inf)
    else:
        chosen, cell = _least(steps, rows, grid, goal, time, strain)
    return chosen + _path(layers, rest, steps, width, cell)


def _least(
    steps: list[Step], rows: list[int], grid: Grid, goal: Goal, time: Time, strain: Strain
) -> tuple[list[int], int]:
    """Return the oldest, a large example, both or neither, and the cell: of the row that loses least."""
    best, chosen, cell = math.inf, [0], -1
    large = [i for i in range(1, len(steps)) if strain.large[i]]
    with_oldest, without = [[0], *([0, i] for i in large)], [[], *([i] for i in large)]
    for together in with_oldest if time.must else with_oldest + without:
        corner = sum(steps[i][0] for i in together), sum(steps[i][1] for i in together)
        extra = 0.0 if any(strain.large[i] for i in together) else strain.bare
        for i in together:
            extra -= time.grace(i)
        if corner[0] <= grid.most[0] and corner[1] <= grid.most[1]:
            loss, found = _best(rows, grid, goal, corner, best - extra)
            if found >= 0 and loss + extra < best:
                best, chosen, cell = loss + extra, together, found
    return chosen, cell


def _path(layers: list[int], rest: list[int], steps: list[Step], width: int, cell: int) -> list[int]:
    """Return which of the `rest` lead to a cell of the last layer: the oldest that can."""
    chosen = []
    for number in reversed(range(1, len(layers))):
        if not layers[number - 1] >> cell & 1:
            chosen.append(rest[number - 1])
            across, down = steps[rest[number - 1]]
            cell += down * width + across
    return chosen


def _rows(layer: int, grid: Grid) -> list[int]:
    size = 8 * grid.words
    table = layer.to_bytes(size * (grid.most[1] + 1), "little")
    return [int.from_bytes(table[start : start + size], "little") for start in range(0, len(table), size)]


def _best(rows: list[int], grid: Grid, goal: Goal, corner: Step, below: float) -> tuple[float, int]:
    """Return the least loss below a bound, and its cell, when what is left at `corner` would be used up."""
    across, down = (worth * unit for worth, unit in zip(goal.worth, grid.units, strict=True))
    best, found = below, -1
    for y in range(corner[1], grid.most[1] + 1):
        if (y - corner[1]) * down >= best:
            break
        row = rows[y] >> corner[0]
        if row:
            x = (row & -row).bit_length() - 1
            loss = x * across + (y - corner[1]) * down
            if loss < best:
                best, found = loss, y * 64 * grid.words + x + corner[0]
    return best, found


def _full(grid: Grid, goal: Goal, corner: Step) -> int:
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
    items: Listing[Listing[int]], grid: Grid, value: list[float], chosen: list[int], kept: int
) -> list[int]:
    """Keep within all budgets, exactly; take in what fits, and swap for what is worth more.

    The first `kept` examples stay in.
    """
    first, second = grid.axes
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
