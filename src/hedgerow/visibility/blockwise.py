"""Visible pairs of every (query block, key block) from runs of tokens, without looking at pairs.

A run is a stretch of keys side by side in the row and in the tree, with one subtree end, in one block. A
query whose place lies between the stop of a run and its end sees all of it; one within the run sees it up to
itself. So the keys of each block that a place sees are a running sum over places, which rises where a run
stops and falls where its subtree ends.
"""

import dataclasses

import numpy as np

from hedgerow.sequence import Array, Blocks, Row
from hedgerow.visibility.paths import by_place, cuts, groups

_LARGEST = 1 << 15  # the pairs of one block fit in int32
_CELLS = 1 << 14  # of the running sum at a time, so that it stays in the cache


def blocks(
    order: Array,
    end: Array,
    group: Array,
    *,
    size: int = 128,
    position: Array | None = None,
    window: int | None = None,
) -> Array:
    """Return the visible pairs of every (query block, key block), int64 [n, n] with n = ceil(N / size).

    Takes O(n R) steps for R runs: a few per block and media item in a realistic row, N in a shuffled one.

    Args:
        order: logical place of each token, each place once.
        end: first logical place after the subtree of each token's node.
        group: bidirectional group, -1 where causal.
        size: physical positions of a block.
        position: rotary position, needed with a window.
        window: how many positions back a query may look, itself included.

    Raises:
        ValueError: `order` or `end` is malformed, or `size` out of range; with a window, as
            `hedgerow.visibility.paths.cuts`.
        VisibilityError: a window, and a group that reaches over several nodes.
    """
    if not 1 <= size <= _LARGEST:
        raise ValueError(f"blocks of {size} positions: give 1 to {_LARGEST}")
    where = by_place(order, end)
    place, block = order.astype(np.int64), np.arange(len(order)) // size
    count = -(-len(order) // size)
    keys = _Runs.of(place, end.astype(np.int64), block)
    total = keys.seen(place, block, count)
    if window is not None:
        cut = cuts(order, end, group, position, window)
        shown = np.bincount(block * count + block[where[cut]], minlength=count * count)
        total += shown.reshape(count, count) - keys.seen(cut, block, count)
    found = groups(order, end, group)
    own = block[found.members]
    earlier = _Runs.of(found.place, found.stop, own).seen(found.place, own, count)
    total += earlier.T - np.diag(np.bincount(own, minlength=count))
    if found.scattered:
        total += earlier - _Runs.of(found.place, found.end, own).seen(found.place, own, count)
    return total


def summary(row: Row, *, size: int = 128) -> Blocks:
    """Return what a block-sparse kernel needs to know of a row, for layers without a window.

    Made in the data worker; `hedgerow.attention.flex.Flex` takes it from `row.blocks`.

    Args:
        row: a row of numpy arrays.
        size: physical positions of a block.

    Raises:
        ValueError: `order` or `end` is malformed.
    """
    return sort_blocks(blocks(row.order, row.end, row.group, size=size), size=size)


def sort_blocks(counts: Array, *, size: int) -> Blocks:
    """Sort the blocks of each block of queries by what is visible: some pairs, or all.

    Args:
        counts: visible pairs of every (query block, key block), [n, n], as from `blocks`.
        size: physical positions of a block.
    """
    full = counts == size * size
    return Blocks(size, *_first((counts > 0) & ~full), *_first(full))


def _first(mask: Array) -> tuple[Array, Array]:
    """Return how many are True in each row, int32 [n], and their columns before the others', int32 [n, n]."""
    count = mask.sum(axis=1, dtype=np.int32)
    rank = np.cumsum(mask, axis=1, dtype=np.int32)
    columns = np.arange(mask.shape[1], dtype=np.int32)
    rank = np.where(mask, rank - 1, columns - rank + count[:, None])
    index = np.empty_like(rank)
    np.put_along_axis(index, rank, np.broadcast_to(columns, rank.shape), axis=1)
    return count, index


@dataclasses.dataclass(frozen=True, slots=True)
class _Runs:
    """R runs of keys: place of the first, end of their subtree, length and block, each int64 [R].

    `at` tells the run of each place.
    """

    start: Array
    end: Array
    length: Array
    block: Array
    at: Array

    @classmethod
    def of(cls, place: Array, end: Array, block: Array) -> "_Runs":
        """Find the runs of tokens in physical order; `block` never falls."""
        new = np.ones(len(place), bool)
        new[1:] = (np.diff(place) != 1) | (np.diff(end) != 0) | (np.diff(block) != 0)
        first, at = np.flatnonzero(new), np.empty(len(place), np.int64)
        at[place] = np.cumsum(new) - 1
        return cls(place[first], end[first], np.diff(first, append=len(place)), block[first], at)

    def seen(self, place: Array, block: Array, count: int) -> Array:
        """Return the (query, key) pairs on paths of every (query block, key block), int64 [count, count].

        Args:
            place: of each query; it sees the token there and all before it on its path.
            block: of each query; never falls.
            count: number of blocks.
        """
        run = self.at[place]
        own = np.bincount(block * count + self.block[run], place - self.start[run] + 1, count * count)
        total = own.reshape(count, count).astype(np.int64)
        stop = self.start + self.length
        ongoing = self.end > stop
        edge = np.zeros(len(self.at) + 1, np.int64)
        edge[stop[ongoing]] = edge[self.end[ongoing]] = 1
        edge = np.cumsum(edge)  # numbers the stretches of places between which the keys seen change
        opens, closes, stretch = edge[stop], edge[self.end], edge[place]
        new = np.ones(len(place), bool)
        new[1:] = (np.diff(stretch) != 0) | (np.diff(block) != 0)
        first = np.flatnonzero(new)
        times = np.diff(first, append=len(place)).astype(np.int32)[:, None]
        heads = np.flatnonzero(np.diff(block[first], prepend=-1))
        stretch, rows = stretch[first], block[first][heads]
        step = max(1, _CELLS // (int(edge[-1]) + 1))
        for low in range(0, count, step):
            width = min(step, count - low)
            some = slice(*np.searchsorted(self.block, (low, low + width)))
            column, length = self.block[some] - low, self.length[some]
            keys = np.zeros((int(edge[-1]) + 1, width), np.int32)
            np.add.at(keys, (opens[some], column), length)
            np.subtract.at(keys, (closes[some], column), length)
            keys = np.cumsum(keys, axis=0, dtype=np.int32)
            total[rows, low : low + width] += np.add.reduceat(keys[stretch] * times, heads, axis=0)
        return total
