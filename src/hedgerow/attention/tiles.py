"""Which rectangles of a row's (query, key) plane attention visits, and what is hidden inside them.

Tokens are taken node by node, the bidirectional ones of a node before its others. Most of what is visible
then lies in large rectangles: a subtree sees its ancestors whole, a group sees itself whole. This order is
cut into cells of neighbours. For two cells, bounds on the integers of the rule (`hedgerow.visibility`) tell
whether one sees all of the other, nothing of it, or perhaps a part; only in the last case is the rule asked
pair by pair. That holds for any integers: trees of any depth, groups of any extent, any window.

Shapes: N tokens, C cells, Q queries and K keys of a tile.
"""

import dataclasses
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from hedgerow.sequence import Array, Row

_KEPT = 4  # most biases that are kept: those of so many cells of keys for each query
CELL = 256  # most tokens of a cell; smaller cells waste less at the edges, larger ones compute faster


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """Queries and keys as places of `Plan.take`; each query sees each key unless the tile is `partial`."""

    queries: slice
    keys: slice
    partial: bool


class Plan:
    """The tiles of a row. They cover every visible pair once; only partial ones hold hidden pairs.

    Args:
        row: a row after `Row.to("cpu")`.

    Attributes:
        take: int64 [N], which token of the row stands at each place of the tiles; None where the row is in
            that order.
        back: int64 [N] or None, the place of each token of the row.

    Raises:
        ValueError: a token does not see itself, because its `end` is not behind its `order`.
    """

    def __init__(self, row: Row) -> None:
        position = row.position if row.position.ndim == 1 else row.position[0]
        order, end, group, position = (x.numpy() for x in (row.order, row.end, row.group, position))
        blind = np.flatnonzero(end <= order)
        if len(blind) > 0:
            raise ValueError(
                f"token {blind[0]} has place {order[blind[0]]} and end {end[blind[0]]}; an end lies behind"
            )
        take, starts, roots = _arrange(order, end, group)
        integers = np.stack([order, end, group, position])[:, take]
        moved = bool((take != np.arange(len(take))).any())
        self.take = torch.from_numpy(take) if moved else None
        self.back = torch.from_numpy(np.argsort(take)) if moved else None
        self._cells = _Cells(integers, _edges(starts, roots, len(take)))
        self._order, self._end, self._group, self._position = torch.from_numpy(integers).int()
        self._tiles: dict[int | None, tuple[Tile, ...]] = {}
        self._biases: dict[tuple[int, int, int, int | None], Tensor] = {}
        self._room = _KEPT * CELL * len(order)

    def __len__(self) -> int:
        return len(self._order)

    def tiles(self, window: int | None) -> tuple[Tile, ...]:
        """Return the tiles for a window (None: no limit), those of the same queries side by side."""
        if window not in self._tiles:
            self._tiles[window] = tuple(
                t for cell in range(len(self._cells)) for t in self._cells.tiles(cell, window)
            )
        return self._tiles[window]

    def bias(self, tile: Tile, window: int | None) -> Tensor:
        """Return float32 [Q, K] to add to the scores of a tile: 0 where a query sees a key, else -inf."""
        key = (tile.queries.start, tile.keys.start, tile.keys.stop, window)
        found = self._biases.get(key)
        if found is None:
            found = self._bias(tile, window)
            # All layers and heads ask for it; but there must not be more of them than grow with N.
            if found.numel() <= self._room:
                self._room -= found.numel()
                self._biases[key] = found
        return found

    def _bias(self, tile: Tile, window: int | None) -> Tensor:
        queries, keys = (tile.queries, None), tile.keys
        order, group = self._order[queries], self._group[queries]
        seen = (self._order[keys] <= order) & (order < self._end[keys])
        seen |= (self._group[keys] == group) & (group >= 0)
        if window is not None:
            seen &= self._position[queries] - self._position[keys] < window
        return torch.where(seen, 0.0, -torch.inf)  # adding it is 30 times as fast as `masked_fill_`


class _Cells:
    """Least and greatest integers of each cell: what can be said of all its tokens at once."""

    def __init__(self, integers: Array, edges: Array) -> None:
        self._edges = edges
        starts = edges[:-1]
        low, high = np.minimum.reduceat(integers, starts, 1), np.maximum.reduceat(integers, starts, 1)
        (self._order, self._end, self._group, self._position) = low
        (self._order_high, self._end_high, self._group_high, self._position_high) = high
        # The least group of a cell that has any: a causal token among them is no member of group -1.
        members = np.where(integers[2] < 0, np.iinfo(integers.dtype).max, integers[2])
        self._member = np.minimum.reduceat(members, starts)

    def __len__(self) -> int:
        return len(self._order)

    def tiles(self, cell: int, window: int | None) -> list[Tile]:
        """Return the tiles whose queries are one cell, as few as possible."""
        whole, part = self._seen(cell, window)
        kind = np.where(whole, 2, part.astype(int))
        starts = np.flatnonzero(np.diff(kind, prepend=-1))
        stops = np.append(starts[1:], len(kind))
        queries, edges = slice(*self._edges[cell : cell + 2].tolist()), self._edges.tolist()
        return [
            Tile(queries, slice(edges[a], edges[b]), partial=bool(kind[a] == 1))
            for a, b in zip(starts.tolist(), stops.tolist(), strict=True)
            if kind[a] > 0
        ]

    def _seen(self, cell: int, window: int | None) -> tuple[Array, Array]:
        """Return bool [C], [C]: cells of which each query surely sees all, may see something."""
        low, high = self._order[cell], self._order_high[cell]
        first, last = self._member[cell], self._group_high[cell]
        whole = (self._order_high <= low) & (high < self._end)
        whole |= (
            (self._group == self._group_high)
            & (self._group >= 0)
            & (self._group == self._group[cell])
            & (self._group[cell] == last)
        )
        part = (self._order <= high) & (low < self._end_high)
        part |= (self._member <= last) & (first <= self._group_high)
        if window is not None:
            whole &= self._position_high[cell] - self._position < window
            part &= self._position[cell] - self._position_high < window
        return whole, part


def _arrange(order: Array, end: Array, group: Array) -> tuple[Array, Array, Array]:
    """Return the order to take the tokens in, int64 [N], and where in it a node or a kind of token starts.

    The third array holds those of the starts at which a tree begins.
    """
    logical = np.argsort(order, kind="stable")
    node = np.empty(len(order), np.int64)
    node[logical] = np.cumsum(np.diff(end[logical], prepend=end[logical[0]]) != 0)
    causal = group < 0
    take = np.lexsort((order, causal, node))
    starts = np.flatnonzero(np.diff(2 * node[take] + causal[take], prepend=-1))
    # A tree begins behind all that came before it.
    closed = np.maximum.accumulate(end[take])[starts[1:] - 1]
    return take, starts, starts[np.append(True, np.minimum.reduceat(order[take], starts)[1:] >= closed)]


def _edges(starts: Array, roots: Array, length: int) -> Array:
    """Return the edges of the cells, int64 [C + 1]: runs are cut evenly, then small neighbours joined.

    A cell of at least half the size ends where its tree does: of the next one it would see nothing.
    """
    first = set(roots.tolist())
    ends: list[int] = []
    for start, stop in pairwise([*starts.tolist(), length]):
        pieces = -(-(stop - start) // CELL)
        ends += np.linspace(start, stop, pieces + 1).astype(int)[1:].tolist()
    edges = [0]
    for here, following in pairwise(ends):
        if following - edges[-1] > CELL or (here in first and here - edges[-1] >= CELL // 2):
            edges.append(here)
    return np.array([*edges, length])
