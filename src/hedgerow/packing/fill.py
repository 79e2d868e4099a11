"""Rows for a whole set of examples at once: the search under `plan_rows`.

Rows are filled one after another, each around the largest example left. What else goes in is looked up among
all examples left: the one, or the pair, that leaves the least room, where room is weighted by how scarce each
budget is for the examples still to come. So the largest go early, and what fills gaps is kept for later.

The look-up: examples are put into cells by the rough size of all budgets but the scarcest, and sorted by
the scarcest within a cell. "The largest that still fits" is then one binary search a cell.

The functions are written once. Where numba is installed they run compiled, over arrays; else as they are,
over lists. The rows are the same: all is decided by integers and by sums and products of floats.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

try:
    import numba
    from numba.extending import register_jitable
except ImportError:
    numba = None

Array = Any
_F = TypeVar("_F", bound=Callable[..., Any])

_SAMPLES = (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)  # neighbours are far apart
_STEPS = 4  # examples of a cell that are tried in turn, where the largest does not fit
_ENOUGH = 2e-4  # a row with less room than this share is full: no pair is looked for
_CLOSE = 1e-3  # a plan within this share of the bound is good enough: no other is tried
_SQUARINGS = 3  # how steeply scarcity counts: demand to the power 2**3


class Shelf(NamedTuple):
    """Examples sorted into cells, and rows in the making: n examples, c cells, k budgets, the scarcest first.

    Arrays of int64 and float64 when compiled, lists otherwise; tables are flat. A *place* is an example's
    place in the sorted order.
    """

    sizes: Any  # [n * k]
    starts: Any  # [c + 1] first place of each cell
    floors: Any  # [c * k] the least any example of the cell takes of each budget; 0 for the scarcest
    limits: Any  # [k]
    scale: Any  # [k] 1 / limit
    largest: Any  # [n] places, largest example first
    samples: Any  # where pairs are looked for: [s] cells, out of s; none for no pairs
    before: Any  # [n + 1] leads from place + 1 down to the next place + 1 that is left; 0 is none
    left: Any  # [k] sum over the examples left
    room: Any  # [k] of the row that is being filled
    trial: Any  # [k] that room, less an example on trial
    weight: Any  # [k] what a unit of room is worth
    placed: Any  # [n] places, row by row
    ends: Any  # [n] where each row ends in `placed`


def fill_rows(sizes: Array, limits: Array) -> tuple[Array, Array]:
    """Put examples into as few rows as we can.

    Args:
        sizes: int64 [n, budgets], what each example takes; each fits alone.
        limits: int64 [budgets], the most a row may hold.

    Returns:
        The examples row by row, int64 [n], and where each row ends among them, int64 [rows]. The rows with
        the largest examples come first.
    """
    return fill_python(sizes, limits) if numba is None else fill_compiled(sizes, limits)


def fill_compiled(sizes: Array, limits: Array) -> tuple[Array, Array]:
    """`fill_rows` with numba: above 100,000 examples a second."""
    return _fewest(sizes, limits, _run_compiled)


def fill_python(sizes: Array, limits: Array) -> tuple[Array, Array]:
    """`fill_rows` without numba: the same rows, about fifty times slower."""
    return _fewest(sizes, limits, _run_python)


def _fewest(sizes: Array, limits: Array, run: Callable[[Shelf], Shelf]) -> tuple[Array, Array]:
    def rows(samples: tuple[int, ...]) -> tuple[Array, Array]:
        shelf, order = _shelf(sizes, limits, samples)
        shelf = run(shelf)
        return order[shelf.placed], shelf.ends

    found = rows(_SAMPLES)
    bound = (sizes.sum(axis=0) / np.maximum(limits, 1)).max()
    if len(found[1]) <= bound * (1 + _CLOSE):
        return found
    # Where rows cannot all be full, pairs may use up the small examples too early.
    return min(rows(()), found, key=lambda each: len(each[1]))


def _run_compiled(shelf: Shelf) -> Shelf:
    return shelf._replace(ends=shelf.ends[: _compiled(shelf)])


def _run_python(shelf: Shelf) -> Shelf:
    shelf = Shelf(*(array.tolist() for array in shelf))
    return shelf._replace(ends=np.array(shelf.ends[: _fill(shelf)], np.int64))


def _shelf(sizes: Array, limits: Array, samples: tuple[int, ...]) -> tuple[Shelf, Array]:
    count, width = sizes.shape
    scale = 1.0 / np.maximum(limits, 1)
    axes = np.argsort(-(sizes.sum(axis=0) * scale), kind="stable")
    limits, scale = limits[axes], scale[axes]
    floors = _floors(sizes[:, axes])
    order = np.lexsort((sizes[:, axes[0]], *floors.T[::-1]))
    sizes, floors = np.ascontiguousarray(sizes[order][:, axes]), floors[order]
    opens = np.flatnonzero(np.r_[True, (floors[1:] != floors[:-1]).any(axis=1)][:count])
    largest = np.zeros(count)
    for axis in range(width):
        np.maximum(largest, sizes[:, axis] * scale[axis], out=largest)
    shelf = Shelf(
        sizes=sizes.reshape(-1),
        starts=np.r_[opens, count],
        floors=floors[opens].reshape(-1),
        limits=limits,
        scale=scale,
        largest=np.argsort(-largest, kind="stable"),
        samples=np.array(samples, np.int64),
        before=np.arange(count + 1),
        left=sizes.sum(axis=0),
        room=np.zeros(width, np.int64),
        trial=np.zeros(width, np.int64),
        weight=np.zeros(width),
        placed=np.zeros(count, np.int64),
        ends=np.zeros(count, np.int64),
    )
    return shelf, order


def _floors(sizes: Array) -> Array:
    """Round sizes down to a few steps an octave, fewer the more budgets there are; the first budget to 0."""
    bits = {1: 2, 2: 2, 3: 1}.get(sizes.shape[1], 0)
    dropped = np.maximum(np.frexp(sizes.astype(np.float64))[1] - 1 - bits, 0)
    floors = (sizes >> dropped) << dropped
    floors[:, 0] = 0
    return floors


def _jitable(function: _F) -> _F:
    """Let compiled functions call this one; it stays a Python function."""
    return function if numba is None else register_jitable(function)


def _fill(shelf: Shelf) -> int:
    """Fill rows until no example is left; return how many."""
    done, rows = 0, 0
    for place in shelf.largest:
        if shelf.before[place + 1] != place + 1:
            continue
        _open_row(shelf)
        while place >= 0:
            _take(shelf, place)
            shelf.placed[done] = place
            done += 1
            place = _next(shelf)
        shelf.ends[rows] = done
        rows += 1
    return rows


@_jitable
def _open_row(shelf: Shelf) -> None:
    """Give the row all its room, and weigh the budgets by what the examples left demand of them."""
    most = 0.0
    for axis in range(len(shelf.limits)):
        shelf.room[axis] = shelf.limits[axis]
        most = max(most, shelf.left[axis] * shelf.scale[axis])
    for axis in range(len(shelf.limits)):
        worth = shelf.left[axis] * shelf.scale[axis] / most if most > 0 else 1.0
        for _ in range(_SQUARINGS):  # not `**`: that may round differently when compiled
            worth *= worth
        shelf.weight[axis] = worth * shelf.scale[axis]


@_jitable
def _take(shelf: Shelf, place: int) -> None:
    width = len(shelf.limits)
    shelf.before[place + 1] = place
    for axis in range(width):
        shelf.room[axis] -= shelf.sizes[place * width + axis]
        shelf.left[axis] -= shelf.sizes[place * width + axis]


@_jitable
def _next(shelf: Shelf) -> int:
    """Return the place that goes into the row next, -1 if the row is done."""
    best, least = _tightest(shelf, shelf.room, -1)
    if best < 0 or least <= _ENOUGH:
        return best
    width, cells = len(shelf.limits), _open_cells(shelf, shelf.room)
    for number in range(len(shelf.samples)):
        most = shelf.room[0] - shelf.room[0] * number // len(shelf.samples)
        first = _largest(shelf, cells * shelf.samples[number] // len(shelf.samples), most)
        if first < 0 or not _fits(shelf, first, shelf.room):
            continue
        for axis in range(width):
            shelf.trial[axis] = shelf.room[axis] - shelf.sizes[first * width + axis]
        second, waste = _tightest(shelf, shelf.trial, first)
        if second >= 0 and waste < least:
            least = waste
            best = first if shelf.sizes[first * width] >= shelf.sizes[second * width] else second
            if least <= _ENOUGH:
                break
    return best


@_jitable
def _tightest(shelf: Shelf, room: Any, without: int) -> tuple[int, float]:
    """Return the place that leaves the least of this room, and what it leaves; -1 if none was found."""
    width = len(shelf.limits)
    worth = 0.0
    for axis in range(width):
        worth += shelf.weight[axis] * room[axis]
    best, least = -1, worth + 1.0
    for cell in range(_open_cells(shelf, room)):
        place = _largest(shelf, cell, room[0]) if _opens(shelf, cell, room) else -1
        for _ in range(_STEPS):
            if place < shelf.starts[cell]:
                break
            if place != without and _fits(shelf, place, room):
                waste = worth
                for axis in range(width):
                    waste -= shelf.weight[axis] * shelf.sizes[place * width + axis]
                if waste < least:
                    best, least = place, waste
            place = _last(shelf, place - 1)
    return best, least


@_jitable
def _open_cells(shelf: Shelf, room: Any) -> int:
    """Return how many cells, from the first, may hold an example that fits."""
    width, cells = len(shelf.limits), len(shelf.starts) - 1
    if width == 1:
        return cells
    low, high = 0, cells
    while low < high:
        middle = (low + high) // 2
        if shelf.floors[middle * width + 1] <= room[1]:
            low = middle + 1
        else:
            high = middle
    return low


@_jitable
def _opens(shelf: Shelf, cell: int, room: Any) -> bool:
    """Say whether an example of the cell may fit."""
    width = len(shelf.limits)
    for axis in range(2, width):  # noqa: SIM110 (`_open_cells` saw to the first two)
        if shelf.floors[cell * width + axis] > room[axis]:
            return False
    return True


@_jitable
def _largest(shelf: Shelf, cell: int, most: int) -> int:
    """Return the last place left in the cell with at most this much of the scarcest budget; else -1."""
    width, low, high = len(shelf.limits), shelf.starts[cell], shelf.starts[cell + 1]
    while low < high:
        middle = (low + high) // 2
        if shelf.sizes[middle * width] <= most:
            low = middle + 1
        else:
            high = middle
    place = _last(shelf, low - 1)
    return place if place >= shelf.starts[cell] else -1


@_jitable
def _last(shelf: Shelf, place: int) -> int:
    """Return the last place up to this one whose example is left; -1 if there is none."""
    link = place + 1
    while shelf.before[link] != link:
        shelf.before[link] = shelf.before[shelf.before[link]]
        link = shelf.before[link]
    return link - 1


@_jitable
def _fits(shelf: Shelf, place: int, room: Any) -> bool:
    width = len(shelf.limits)
    for axis in range(width):  # noqa: SIM110 (numba takes no generator)
        if shelf.sizes[place * width + axis] > room[axis]:
            return False
    return True


_compiled: Any = None if numba is None else numba.njit(cache=True)(_fill)
