"""The search of `hedgerow.packing.search`, compiled by numba: the same rows, many times faster.

A layer is a table of 64-bit words: one row of words for each row of the grid, one bit for each cell. Loops
over words count in unsigned integers: with no check for negative indices the compiler makes vectors of them.
"""

import functools
import itertools
from collections.abc import Callable
from collections.abc import Sequence as Listing
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

from hedgerow.packing.search import GRACE, Goal, Grid, Time

Array = Any

Function = TypeVar("Function", bound=Callable[..., Any])
U: Any = np.uint64


def _compiled(function: Function) -> Function:
    return cast(Function, njit(cache=True, error_model="numpy")(function))


def choose(sizes: Listing[Listing[int]], grid: Grid, goal: Goal, time: Time) -> list[int]:
    """Return which of the waiting examples share the next row; see `hedgerow.packing.search.choose`."""
    count = len(sizes)
    found = np.empty(count, np.int64)
    taken = _choose(
        np.fromiter(itertools.chain.from_iterable(sizes), np.int64, count * len(grid.limits)),
        np.fromiter(time.last, np.int64, count),
        (time.packs, time.most, time.must),
        np.array(grid.limits),
        grid.axes,
        grid.units,
        grid.most,
        grid.scarce,
        goal.worth,
        goal.slack,
        _layers(count * grid.words * (grid.most[1] + 1)),
        found,
    )
    chosen: list[int] = found[:taken].tolist()
    return chosen


@functools.lru_cache(maxsize=1)
def _layers(words: int) -> Array:
    return np.empty(words, np.uint64)  # kept from row to row: fresh pages would take longer than the search


@_compiled
def _choose(
    sizes: Array,
    last: Array,
    clock: tuple[int, int, int],
    limits: Array,
    axes: tuple[int, int],
    units: tuple[int, int],
    most: tuple[int, int],
    scarce: int,
    worth: tuple[float, float],
    slack: tuple[int, int],
    layers: Array,
    found: Array,
) -> int:
    count = len(sizes) // len(limits)
    items = sizes.reshape(count, len(limits))
    cells = np.empty((count, 2), np.int64)
    for i in range(count):
        for axis in range(2):
            cells[i, axis] = min(-(-items[i, axes[axis]] // units[axis]), most[axis])
    large, bare = _strain(items[:, axes[scarce]], limits[axes[scarce]])
    packs, longest, must = clock
    waited = 1 - (last - packs) / longest
    grace = GRACE * waited * waited
    loss = (worth[0] * units[0], worth[1] * units[1])
    chosen = np.zeros(count, np.bool_)
    _search(layers, cells, most, slack, loss, large, bare, grace, must, chosen)
    value = items[:, axes[0]] * worth[0] + items[:, axes[1]] * worth[1]
    for i in range(count):
        if large[i] or i == 0:
            value[i] += grace[i]
        if large[i]:
            value[i] += bare
    inside = _complete(items, limits, axes, value, chosen, must)
    taken = 0
    for i in range(count):
        if inside[i]:
            found[taken] = i
            taken += 1
    return taken


@_compiled
def _strain(sizes: Array, limit: int) -> tuple[Array, float]:
    large, number, total = np.zeros(len(sizes), np.bool_), 0, 0
    for i in range(len(sizes)):
        total += sizes[i]
        if 2 * sizes[i] > limit:
            large[i] = True
            number += 1
    return large, max(0.0, 1 - total / (number * limit)) if number else 0.0


@_compiled
def _search(
    layers: Array,
    cells: Array,
    most: tuple[int, int],
    slack: tuple[int, int],
    loss: tuple[float, float],
    large: Array,
    bare: float,
    grace: Array,
    must: int,
    chosen: Array,
) -> None:
    """Mark the examples that are `chosen`."""
    words = (most[0] >> 6) + 1
    size = words * (most[1] + 1)
    for i in range(size):
        layers[i] = U(0)
    layers[size - words + (most[0] >> 6)] = U(1) << U(most[0] & 63)
    rest, number = np.empty(len(cells), np.int64), 0  # the examples whose layers are there
    first, second = cells[0, 0], cells[0, 1]
    full = _has_full(layers, 0, most, slack, first, second)
    for i in range(1, len(cells)):
        if full:
            break
        if not large[i]:
            old, new = number * size, (number + 1) * size
            _extend(layers, U(old), U(new), U(words), U(most[1] + 1), U(cells[i, 0]), U(cells[i, 1]))
            rest[number] = i
            number += 1
            full = _has_full(layers, new, most, slack, first, second)
    if full:
        chosen[0] = True
        _, x, y = _best(layers, number * size, most, loss, first, second, np.inf)
    else:
        x, y = _least(layers, number * size, cells, most, loss, large, bare, grace, must, chosen)
    _path(layers, cells, most, rest[:number], x, y, chosen)


@_compiled
def _least(
    layers: Array,
    at: int,
    cells: Array,
    most: tuple[int, int],
    loss: tuple[float, float],
    large: Array,
    bare: float,
    grace: Array,
    must: int,
    chosen: Array,
) -> tuple[int, int]:
    """Mark the oldest, a large example, both or neither: of the row that loses least; return its cell."""
    best, oldest, beside, found_x, found_y = np.inf, True, 0, -1, -1
    for turn in range(1 if must else 2):
        here = turn == 0  # whether the oldest is in
        for i in range(len(cells)):  # 0: nothing large beside it
            if i > 0 and not large[i]:
                continue
            extra = 0.0 if i > 0 or (here and large[0]) else bare
            first, second = 0, 0
            if here:
                extra, first, second = extra - grace[0], cells[0, 0], cells[0, 1]
            if i > 0:
                extra, first, second = extra - grace[i], first + cells[i, 0], second + cells[i, 1]
            if first > most[0] or second > most[1]:
                continue
            lost, x, y = _best(layers, at, most, loss, first, second, best - extra)
            if x >= 0 and lost + extra < best:
                best, oldest, beside, found_x, found_y = lost + extra, here, i, x, y
    chosen[0] = oldest
    if beside > 0:
        chosen[beside] = True
    return found_x, found_y


@_compiled
def _extend(layers: Array, old: int, new: int, words: int, rows: int, across: int, down: int) -> None:
    """Make the layer at `new`: what the one at `old` reaches, with and without a step of this many cells."""
    skip, shift, one = across >> U(6), across & U(63), U(1)
    rest = U(63) - shift
    kept = rows - min(down, rows)  # rows that a step can end in
    whole = words - min(skip, words)
    for y in range(U(0), kept):
        here, there, source = new + y * words, old + y * words, old + (y + down) * words + skip
        for w in range(U(0), whole - one):
            moved = (layers[source + w] >> shift) | ((layers[source + w + one] << one) << rest)
            layers[here + w] = layers[there + w] | moved
        layers[here + whole - one] = layers[there + whole - one] | (layers[source + whole - one] >> shift)
        for w in range(whole, words):
            layers[here + w] = layers[there + w]
    for w in range(kept * words, rows * words):
        layers[new + w] = layers[old + w]


@_compiled
def _has_full(
    layers: Array, at: int, most: tuple[int, int], slack: tuple[int, int], first: int, second: int
) -> bool:
    words = (most[0] >> 6) + 1
    for y in range(second, min(second + slack[1], most[1]) + 1):
        x = _lowest(layers, at + y * words, first, min(first + slack[0], most[0]))
        if 0 <= x <= first + slack[0]:
            return True
    return False


@_compiled
def _lowest(layers: Array, row: int, start: int, end: int) -> int:
    """Return the first cell of a row from `start` on, or -1 if no word up to the one of `end` has any."""
    w = start >> 6
    word = layers[row + w] >> U(start & 63) << U(start & 63)
    while word == U(0):
        w += 1
        if w > end >> 6:
            return -1
        word = layers[row + w]
    bit = 0
    for step in (32, 16, 8, 4, 2, 1):
        if word & ((U(1) << U(step)) - U(1)) == U(0):
            word >>= U(step)
            bit += step
    return (w << 6) + bit


@_compiled
def _best(
    layers: Array,
    at: int,
    most: tuple[int, int],
    loss: tuple[float, float],
    first: int,
    second: int,
    below: float,
) -> tuple[float, int, int]:
    words = (most[0] >> 6) + 1
    best, found_x, found_y = below, -1, -1
    for y in range(second, most[1] + 1):
        if (y - second) * loss[1] >= best:
            break
        x = _lowest(layers, at + y * words, first, most[0])
        if x >= 0:
            lost = (x - first) * loss[0] + (y - second) * loss[1]
            if lost < best:
                best, found_x, found_y = lost, x, y
    return best, found_x, found_y


@_compiled
def _path(
    layers: Array, cells: Array, most: tuple[int, int], rest: Array, x: int, y: int, chosen: Array
) -> None:
    words = (most[0] >> 6) + 1
    size = words * (most[1] + 1)
    for number in range(len(rest) - 1, -1, -1):
        word = layers[number * size + y * words + (x >> 6)]
        if not (word >> U(x & 63)) & U(1):
            i = rest[number]
            chosen[i] = True
            x += cells[i, 0]
            y += cells[i, 1]


@_compiled
def _complete(
    items: Array, limits: Array, axes: tuple[int, int], value: Array, chosen: Array, kept: int
) -> Array:
    room, inside = limits.copy(), np.zeros(len(items), np.bool_)
    for i in range(len(items)):
        if chosen[i]:
            _admit(items[i], room, inside, i)
    while True:
        for i in range(len(items)):
            if not inside[i]:
                _admit(items[i], room, inside, i)
        if room[axes[0]] == 0 and room[axes[1]] == 0:
            return inside
        out, new = _swap(items, value, room, inside, kept)
        if out < 0:
            return inside
        inside[out], inside[new] = False, True
        for axis in range(len(room)):
            room[axis] += items[out, axis] - items[new, axis]


@_compiled
def _admit(item: Array, room: Array, inside: Array, i: int) -> None:
    for axis in range(len(room)):
        if item[axis] > room[axis]:
            return
    inside[i] = True
    for axis in range(len(room)):
        room[axis] -= item[axis]


@_compiled
def _swap(items: Array, value: Array, room: Array, inside: Array, kept: int) -> tuple[int, int]:
    best, out, new = 0.0, -1, -1
    for i in range(kept, len(items)):
        if not inside[i]:
            continue
        for j in range(len(items)):
            gain = value[j] - value[i]
            if gain <= best or inside[j]:
                continue
            fits = True
            for axis in range(len(room)):
                if items[j, axis] > room[axis] + items[i, axis]:
                    fits = False
            if fits:
                best, out, new = gain, i, j
    return out, new
