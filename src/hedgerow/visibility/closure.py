"""How far a token sees through many layers: law 13 as a check of integers."""

import numpy as np

from hedgerow.sequence import Array
from hedgerow.visibility.paths import by_place


def reach(order: Array, end: Array, group: Array) -> Array:
    """Return the greatest logical place that each token sees through any number of layers, int32 [N].

    The hidden state of a token that reaches no place after its own holds nothing of what follows it. So no
    target is visible to its own source where `reach(...)[source] == order[source]`. Windows, which only hide,
    are left out.

    Args:
        order: logical place of each token, each place once.
        end: first logical place after the subtree of each token's node.
        group: bidirectional group, -1 where causal.

    Raises:
        ValueError: `order` or `end` is malformed.
    """
    by_place(order, end)
    far, members = order.astype(np.int64), np.flatnonzero(group >= 0)
    names, number = np.unique(group[members], return_inverse=True)
    while True:
        seen = _greatest_over(order, end, far)[order]
        most = np.zeros(len(names), np.int64)
        np.maximum.at(most, number, seen[members])
        seen[members] = most[number]
        if np.array_equal(seen, far):
            return far.astype(np.int32)
        far = seen


def _greatest_over(start: Array, stop: Array, value: Array) -> Array:
    """Return for each place 0 .. N - 1 the greatest value of the ranges [start, stop) that cover it.

    A range is covered by two of a power of two in length, and those are halved from the longest down.
    """
    size = len(start)
    level = np.frexp(stop - start)[1] - 1  # the greatest power of two within each range
    table = np.zeros((int(level.max(initial=0)) + 1, size), value.dtype)
    np.maximum.at(table, (level, start), value)
    np.maximum.at(table, (level, stop - (1 << level)), value)
    for upper in range(len(table) - 1, 0, -1):
        half, lower = 1 << (upper - 1), table[upper - 1]
        np.maximum(lower, table[upper], out=lower)
        np.maximum(lower[half:], table[upper][:-half], out=lower[half:])
    return table[0]
