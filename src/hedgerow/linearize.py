"""From the shape of a tree to logical order, rotary position and subtree end of every token."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hedgerow.sequence import Array


class Layout(NamedTuple):
    """`order`, `position` and `end` int32 [N]; `start` holds the first logical place of each node."""

    order: Array
    position: Array
    end: Array
    start: tuple[int, ...]


def linearize(parents: Sequence[int], lengths: Sequence[int]) -> Layout:
    """Lay the nodes of one tree out in depth-first order.

    Args:
        parents: for each node the index of its parent, -1 for the root; depth first, so parents come before
        children
            and a subtree is contiguous.
        lengths: number of tokens of each node.

    Returns:
        A layout in which a node's positions continue its parent's and every sibling restarts there.

    Raises:
        ValueError: the nodes are not in depth-first order.
    """
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    ends, first = _subtree_ends(parents, starts), np.zeros(len(parents), np.int32)
    for node, parent in enumerate(parents):
        if parent >= 0:
            first[node] = first[parent] + lengths[parent]
    owner = np.repeat(np.arange(len(parents)), lengths)
    order = np.arange(starts[-1], dtype=np.int32)
    position = (order - starts[owner] + first[owner]).astype(np.int32)
    return Layout(order, position, ends[owner].astype(np.int32), tuple(int(s) for s in starts[:-1]))


def _subtree_ends(parents: Sequence[int], starts: Array) -> Array:
    ends = np.full(len(parents), len(parents))
    path: list[int] = []
    for node, parent in enumerate(parents):
        while path and path[-1] != parent:
            ends[path.pop()] = node
        if not path and node > 0:
            raise ValueError(f"node {node} has parent {parent}, which is not open; give nodes depth first")
        path.append(node)
    return starts[ends]
