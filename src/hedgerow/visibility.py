"""Who may attend to whom: the one rule from which masks, segments, pair counts and FLOPs derive.

    visible(q, k) = ( order[k] <= order[q] < end[k]   or   group[q] == group[k] >= 0 )
                    and, in a layer with window w,  position[q] - position[k] < w

`order`, `end`, `group`, `position` are integer arrays [N] as in `hedgerow.sequence.Row`. In depth-first
order every node is contiguous, so the first clause is causality, ancestry at any depth and the isolation of
packed trees at once.
"""

from typing import Any

import numpy as np

Array = Any


def dense(
    order: Array, end: Array, group: Array, *, position: Array | None = None, window: int | None = None
) -> Array:
    """Return the mask bool [N, N] (query, key): the reference; nothing else makes an N x N array.

    Args:
        order: logical place of each token.
        end: first logical place after the subtree of each token's node.
        group: bidirectional group, -1 where causal.
        position: rotary position, needed with a window.
        window: how many positions back a query may look, itself included.
    """
    causal = (order[None, :] <= order[:, None]) & (order[:, None] < end[None, :])
    mask = causal | ((group[:, None] == group[None, :]) & (group[:, None] >= 0))
    if window is None:
        return mask
    if position is None:
        raise ValueError("a window needs the positions; pass position=")
    return mask & (position[:, None] - position[None, :] < window)


def pairs(order: Array, end: Array, group: Array) -> int:
    """Return how many (query, key) pairs are visible; attention costs 4 d heads FLOPs for each."""
    causal = int(np.sum(end.astype(np.int64) - order))
    extra = 0
    for name in np.unique(group[group >= 0]):
        members = np.flatnonzero(group == name)
        places = np.sort(order[members])
        seen = np.searchsorted(places, end[members]) - np.searchsorted(places, order[members])
        extra += len(members) ** 2 - int(seen.sum())
    return causal + extra
