"""What counting shares: tokens by place, groups as rows of their own, and where a window cuts a path."""

from typing import NamedTuple

import numpy as np

from hedgerow.errors import VisibilityError
from hedgerow.sequence import Array


def by_place(order: Array, end: Array) -> Array:
    """Return the token at each logical place, int64 [N].

    Raises:
        ValueError: `order` is no permutation of 0 .. N - 1, or a subtree ends before its own token.
    """
    where = np.full(len(order), -1)
    if len(order) and order.min() >= 0 and order.max() < len(order):
        where[order] = np.arange(len(order))
    if (where < 0).any():
        raise ValueError("order must hold each place 0 .. N - 1 once")
    if (end <= order).any() or (end > len(order)).any():
        raise ValueError("the end of a token lies after its own place and at most at N")
    return where


class Groups(NamedTuple):
    """The m tokens in bidirectional groups, one group after another as if they were a row of their own.

    `members` are their physical positions, ascending; `place` says where each stands by (group, order),
    `start` and `stop` where its group does, and `end` is the first place of the group after its subtree.
    """

    members: Array
    place: Array
    start: Array
    stop: Array
    end: Array

    @property
    def scattered(self) -> bool:
        """Whether a group reaches over several nodes, so that not all its tokens are on one path."""
        return bool((self.end < self.stop).any())


def groups(order: Array, end: Array, group: Array) -> Groups:
    """Find the tokens in bidirectional groups."""
    members = np.flatnonzero(group >= 0)
    name, span = group[members].astype(np.int64), len(order) + 1
    key = name * span + order[members]
    ranked = np.argsort(key, kind="stable")  # on runs that are sorted already, as here, this merges
    place = np.empty_like(ranked)
    place[ranked] = np.arange(len(ranked))
    first = np.flatnonzero(np.diff(name[ranked], prepend=-1))
    sizes = np.diff(first, append=len(ranked))
    start = np.repeat(first, sizes)[place]
    stop = start + np.repeat(sizes, sizes)[place]
    if (end[members] > order[members[ranked[stop - 1]]]).all():
        return Groups(members, place, start, stop, stop)
    return Groups(members, place, start, stop, np.searchsorted(key[ranked], name * span + end[members]))


def cuts(order: Array, end: Array, group: Array, position: Array | None, window: int) -> Array:
    """Return for each token a place whose path, but for its last token, is what the window hides, int64 [N].

    So windows need no counting of their own. That place is where the window begins; where it begins with a
    node, the place after the parent's last token, which has the same path before it. Within a group a window
    hides only what lies on the path.

    Raises:
        ValueError: no positions, a window below 1, subtrees that are not nested, or positions that fall along
            a path.
        VisibilityError: a bidirectional group reaches over several nodes.
    """
    if position is None:
        raise ValueError("a window needs the positions; pass position=")
    if window < 1:
        raise ValueError(f"a window of {window} hides a token from itself; give at least 1")
    if groups(order, end, group).scattered:
        raise VisibilityError(
            "a bidirectional group reaches over several nodes; with a window, give each message its own group"
        )
    where = by_place(order, end)
    at = position[where].astype(np.int64)
    return _climb(at, at - window, *_segments(end[where], at))[order]


def _segments(end: Array, at: Array) -> tuple[Array, Array]:
    """Return the starts of the maximal runs of equal `end`, and for each the run that its path goes on in."""
    starts = np.flatnonzero(np.diff(end, prepend=-1))
    stops, ends, parent = np.append(starts[1:], len(end)), end[starts], np.full(len(starts), -1)
    path: list[tuple[int, int]] = []  # end and number of the open segments
    spans = zip(starts.tolist(), stops.tolist(), ends.tolist(), strict=True)
    for number, (start, stop, last) in enumerate(spans):
        while path and path[-1][0] <= start:
            path.pop()
        if not stop <= last <= (path[-1][0] if path else len(end)):
            raise ValueError(f"the subtree of places {start}..{stop - 1} ends at {last}, not in its parent's")
        parent[number] = path[-1][1] if path else -1
        path.append((last, number))
    before = np.arange(len(end)) - 1
    before[starts] = np.where(parent < 0, starts, stops[parent] - 1)
    if (at < at[before]).any():
        raise ValueError("positions fall along a path; with a window they must not")
    return starts, parent


def _climb(at: Array, low: Array, starts: Array, parent: Array) -> Array:
    """Return for each place where on its path `at` begins to be above its `low`.

    Args:
        at: positions by place.
        low: the last position that is hidden, by place.
        starts: of the segments.
        parent: segment in which the path of each goes on, -1 at a root.
    """
    segment = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(at)))
    base, span = at.min(), int(at.max() - at.min()) + 2
    sorted_at = segment * span + (at - base)
    cut, left = np.empty_like(segment), np.arange(len(at))
    while len(left):
        here = segment[left]
        found = np.searchsorted(sorted_at, here * span + np.maximum(low[left] - base, -1), side="right")
        cut[left] = found
        climbs = (found == starts[here]) & (parent[here] >= 0)
        left = left[climbs]
        segment[left] = parent[here[climbs]]
    return cut
