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

from hedgerow.packing.search import Goal, Grid

Array = Any

Function = TypeVar("Function", bound=Callable[..., Any])
U: Any = np.uint64


def _compiled(function: Function) -> Function:
    return cast(Function, njit(cache=True, error_model="numpy")(function))


def choose(sizes: Listing[Listing[int]], grid: Grid, goal: Goal, grace: float) -> list[int]:
    """Return which of the waiting examples share the next row; see `hedgerow.packing.search.choose`."""
    count = len(sizes)
    found = np.empty(count, np.int64)
    layers = _layers(count * grid.words * (grid.most[1] + 1))
    taken = _choose(
        np.fromiter(itertools.chain.from_iterable(sizes), np.int64, count * len(grid.limits)),
        np.array(grid.limits),
        grid.axes,
        grid.units,
        grid.most,
        goal.worth,
        goal.slack,
        grace,
        layers,
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
    limits: Array,
    axes: tuple[int, int],
    units: tuple[int, int],
    most: tuple[int, int],
    worth: tuple[float, float],
    slack: tuple[int, int],
    grace: float,
    layers: Array,
    found: Array,
) -> int:
    count = len(sizes) // len(limits)
    items = sizes.reshape(count, len(limits))
    cells = np.empty((count, 2), np.int64)
    for i in range(count):
        for axis in range(2):
            cells[i, axis] = min(-(-items[i, axes[axis]] // units[axis]), most[axis])
    loss = (worth[0] * units[0], worth[1] * units[1])
    last, x, y, oldest = _search(layers, cells, most, slack, loss, grace)
    chosen = np.zeros(count, np.bool_)
    _path(layers, cells, most, last, x, y, chosen)
    chosen[0] = oldest
    inside = _complete(items, limits, axes, worth, chosen, 1 if grace == np.inf else 0)
    taken = 0
    for i in range(count):
        if inside[i]:
            found[taken] = i
            taken += 1
    return taken


@_compiled
def _search(
    layers: Array,
    cells: Array,
    most: tuple[int, int],
    slack: tuple[int, int],
    loss: tuple[float, float],
    grace: float,
) -> tuple[int, int, int, bool]:
    """Return the layer and the cell to go back from, and whether the oldest is in."""
    words = (most[0] >> 6) + 1
    size = words * (most[1] + 1)
    for i in range(size):
        layers[i] = U(0)
    layers[size - words + (most[0] >> 6)] = U(1) << U(most[0] & 63)
    first, second = cells[0, 0], cells[0, 1]
    stop = -1
    for i in range(len(cells)):
        at = i * size
        if i > 0:
            _extend(layers, U(at - size), U(at), U(words), U(most[1] + 1), U(cells[i, 0]), U(cells[i, 1]))
        if _has_full(layers, at, most, slack, first, second):
            _, x, y = _best(layers, at, most, loss, first, second)
            return i, x, y, True
        if stop < 0 and _has_full(layers, at, most, slack, 0, 0):
            stop = i
    end = len(cells) - 1
    last = stop if stop >= 0 else end
    lost, x, y = _best(layers, end * size, most, loss, first, second)
    other, other_x, other_y = _best(layers, last * size, most, loss, 0, 0)
    if lost <= other + grace:
        return end, x, y, True
    return last, other_x, other_y, False


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
    layers: Array, at: int, most: tuple[int, int], loss: tuple[float, float], first: int, second: int
) -> tuple[float, int, int]:
    words = (most[0] >> 6) + 1
    best, found_x, found_y = np.inf, -1, -1
    for y in range(second, most[1] + 1):
        if (y - second) * loss[1] > best:
            break
        x = _lowest(layers, at + y * words, first, most[0])
        if x >= 0:
            lost = (x - first) * loss[0] + (y - second) * loss[1]
            if lost < best:
                best, found_x, found_y = lost, x, y
    return best, found_x, found_y


@_compiled
def _path(
    layers: Array, cells: Array, most: tuple[int, int], last: int, x: int, y: int, chosen: Array
) -> None:
    words = (most[0] >> 6) + 1
    size = words * (most[1] + 1)
    for i in range(last, 0, -1):
        word = layers[(i - 1) * size + y * words + (x >> 6)]
        if not (word >> U(x & 63)) & U(1):
            chosen[i] = True
            x += cells[i, 0]
            y += cells[i, 1]


@_compiled
def _complete(
    items: Array, limits: Array, axes: tuple[int, int], worth: tuple[float, float], chosen: Array, kept: int
) -> Array:
    value = items[:, axes[0]] * worth[0] + items[:, axes[1]] * worth[1]
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
