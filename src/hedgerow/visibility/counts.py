"""How many keys each query sees; sums of that are the visible pairs of trees and rows."""

from collections.abc import Sequence

import numpy as np

from hedgerow.sequence import Array
from hedgerow.visibility.paths import cuts, groups


def visible(
    order: Array, end: Array, group: Array, *, position: Array | None = None, window: int | None = None
) -> Array:
    """Return how many keys each query sees, int64 [N]; O(N log N).

    Args:
        order: logical place of each token.
        end: first logical place after the subtree of each token's node.
        group: bidirectional group, -1 where causal.
        position: rotary position, needed with a window.
        window: how many positions back a query may look, itself included.

    Raises:
        ValueError: with a window, as `hedgerow.visibility.paths.cuts`.
        VisibilityError: a window, and a group that reaches over several nodes.
    """
    depth = _depth(order, end)
    seen = depth[order]
    if window is not None:
        seen -= depth[cuts(order, end, group, position, window)] - 1
    found = groups(order, end, group)
    seen[found.members] += found.stop - found.start - _depth(found.place, found.end)[found.place]
    return seen


def _depth(start: Array, stop: Array) -> Array:
    """Return how many of the ranges [start, stop) cover each place up to the last stop, int64."""
    size = int(stop.max(initial=0)) + 1
    return np.cumsum(np.bincount(start, minlength=size) - np.bincount(stop, minlength=size))


def pairs(
    order: Array, end: Array, group: Array, *, position: Array | None = None, window: int | None = None
) -> int:
    """Return how many (query, key) pairs are visible; attention costs 4 d heads FLOPs for each.

    Arguments and errors as in `visible`.
    """
    return int(visible(order, end, group, position=position, window=window).sum())


def tree_pairs(
    order: Array,
    end: Array,
    group: Array,
    lengths: Sequence[int],
    *,
    position: Array | None = None,
    window: int | None = None,
) -> Array:
    """Return how many pairs are visible in each tree of a row, int64 [trees].

    Args:
        order: logical place of each token.
        end: first logical place after the subtree of each token's node.
        group: bidirectional group, -1 where causal.
        lengths: tokens of each tree, as in `hedgerow.sequence.Row`; padding may follow the last.
        position: rotary position, needed with a window.
        window: how many positions back a query may look, itself included.

    Raises:
        ValueError: the trees are longer than the row; with a window, as in `visible`.
        VisibilityError: as in `visible`.
    """
    stops = np.cumsum([0, *lengths])
    if stops[-1] > len(order):
        raise ValueError(f"trees of {stops[-1]} tokens in a row of {len(order)}; give the row's own lengths")
    seen = visible(order, end, group, position=position, window=window)
    return np.diff(np.concatenate(([0], np.cumsum(seen)))[stops])
