"""The two-interval form: what a query sees as two ranges of physical positions, where two are enough."""

from typing import NamedTuple

import numpy as np

from hedgerow.sequence import Array
from hedgerow.visibility.paths import by_place

_CELLS = 1 << 19  # (run, run) pairs at a time


def intervals(order: Array, end: Array, group: Array) -> Array | None:
    """Return two ranges of physical positions that together are what each query sees, or None.

    They exist for all queries of a row whose trees have one level of branches and one group a node, vision
    first; elsewhere it depends on the order.

    Args:
        order: logical place of each token, each place once.
        end: first logical place after the subtree of each token's node.
        group: bidirectional group, -1 where causal.

    Returns:
        int32 [N, 4], columns a, b, c, d: a query sees [a, b) and [c, d), b <= c; c = d where one range is
        enough. None if some query of the row needs three.

    Raises:
        ValueError: `order` or `end` is malformed.
    """
    by_place(order, end)
    runs = _runs(order, end, group)
    step = max(1, _CELLS // max(1, len(runs.first)))
    found = []
    for low in range(0, len(runs.first), step):
        ranges = _ranges(runs, np.arange(low, min(low + step, len(runs.first))))
        if ranges is None:
            return None
        found.append(ranges)
    length = runs.stop - runs.first
    table = np.repeat(np.concatenate([np.zeros((0, 4), np.int64), *found]), length, axis=0)
    # A causal query sees its own run up to itself.
    after = np.arange(1, len(order) + 1)[:, None]
    partly = (table[:, 1::2] == np.repeat(runs.stop, length)[:, None]) & (group < 0)[:, None]
    table[:, 1::2] = np.where(partly, after, table[:, 1::2])
    alone = table[:, 2] == table[:, 0]
    table[alone, 2:] = table[alone, 1:2]
    return table.astype(np.int32)


class _Runs(NamedTuple):
    """Stretches that are seen whole or not at all, but by their own causal queries; each field int [R].

    `first` and `stop` are physical positions; the rest is what the first token has.
    """

    first: Array
    stop: Array
    order: Array
    end: Array
    group: Array


def _runs(order: Array, end: Array, group: Array) -> _Runs:
    closes = np.zeros(len(order) + 1, bool)
    closes[end] = True
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(order) != 1) | (np.diff(end) != 0) | (np.diff(group) != 0) | closes[order[1:]]
    first = np.flatnonzero(new)
    return _Runs(first, np.append(first[1:], len(order)), order[first], end[first], group[first])


def _ranges(runs: _Runs, some: Array) -> Array | None:
    """Return two ranges [runs, 4] for some runs of queries, the only one twice; None if one needs three."""
    place, group = runs.order[some, None], runs.group[some, None]
    seen = (runs.order <= place) & (place < runs.end) | (group == runs.group) & (group >= 0)
    # The first query of a longer causal run sees its own run in part, so its range does not go on after it.
    gap = np.ones((len(some), len(runs.first) + 1), bool)
    gap[:, 1:-1] = seen[:, 1:] != seen[:, :-1]
    torn = (runs.group[some] < 0) & (runs.stop[some] - runs.first[some] > 1)
    gap[np.flatnonzero(torn), some[torn] + 1] = True
    opens, closes = seen & gap[:, :-1], seen & gap[:, 1:]
    if (opens.sum(axis=1) > 2).any():
        return None
    last = len(runs.first) - 1
    return np.stack(
        [
            runs.first[opens.argmax(axis=1)],
            runs.stop[closes.argmax(axis=1)],
            runs.first[last - opens[:, ::-1].argmax(axis=1)],
            runs.stop[last - closes[:, ::-1].argmax(axis=1)],
        ],
        axis=1,
    )
