"""From the shape of a tree to logical order, rotary position and subtree end; and to a physical order."""

import dataclasses
from collections.abc import Sequence as Listing
from typing import NamedTuple

import numpy as np

from hedgerow.sequence import Array, Sequence


class Layout(NamedTuple):
    """`order`, `position` and `end` int32 [N]; `start` holds the first logical place of each node.

    With axes `position` is int32 [A, N].
    """

    order: Array
    position: Array
    end: Array
    start: tuple[int, ...]


def linearize(parents: Listing[int], lengths: Listing[int], places: Listing[Array] | None = None) -> Layout:
    """Lay the nodes of one tree out in depth-first order.

    Args:
        parents: for each node the index of its parent, -1 for the root; depth first, so parents come before
            children and a subtree is contiguous.
        lengths: number of tokens of each node.
        places: positions of each node's tokens from its start, [length] or [A, length] along A axes; None
            counts them.

    Returns:
        A layout in which a node goes on behind the greatest position of its parent and every sibling restarts
        there.

    Raises:
        ValueError: the nodes are not in depth-first order.
    """
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    ends, first = _subtree_ends(parents, starts), np.zeros(len(parents), np.int32)
    spans = lengths if places is None else [int(own.max(initial=-1)) + 1 for own in places]
    for node, parent in enumerate(parents):
        if parent >= 0:
            first[node] = first[parent] + spans[parent]
    owner = np.repeat(np.arange(len(parents)), lengths)
    order = np.arange(starts[-1], dtype=np.int32)
    local = order - starts[owner] if places is None else np.concatenate(places, axis=-1)
    position = (local + first[owner]).astype(np.int32)
    return Layout(order, position, ends[owner].astype(np.int32), tuple(int(s) for s in starts[:-1]))


def _subtree_ends(parents: Listing[int], starts: Array) -> Array:
    ends = np.full(len(parents), len(parents))
    path: list[int] = []
    for node, parent in enumerate(parents):
        while path and path[-1] != parent:
            ends[path.pop()] = node
        if not path and node > 0:
            raise ValueError(f"node {node} has parent {parent}, which is not open; give nodes depth first")
        path.append(node)
    return starts[ends]


def vision_first(owner: Array, group: Array) -> Array:
    """Return a physical order: each node's grouped tokens, then its others, nodes as they are.

    Timestamps between frames would leave every block of a mask partly visible; behind the frames they leave
    most of them whole.

    Args:
        owner: node of each token in logical order, [N].
        group: bidirectional group, -1 where causal, [N].

    Returns:
        int [N]: the logical places, in physical order.
    """
    return np.lexsort((group < 0, owner))


def arrange(sequence: Sequence, places: Array) -> Sequence:
    """Return a sequence with its tokens in another physical order, which changes no result.

    Args:
        sequence: any.
        places: the present places of the tokens, in their new order, [N]; slots keep their order.

    Raises:
        ValueError: slots would change their order, and features follow it.
    """
    new = np.empty(len(places), np.int32)
    new[places] = np.arange(len(places))
    slot = new[sequence.slot]
    if (np.diff(slot) < 0).any():
        raise ValueError("slots would change their order, and visual features follow it; keep it")
    moved = {name: getattr(sequence, name)[..., places] for name in _BY_TOKEN}
    return dataclasses.replace(sequence, slot=slot, source=new[sequence.source], **moved)


_BY_TOKEN = ("tokens", "position", "order", "end", "group")
