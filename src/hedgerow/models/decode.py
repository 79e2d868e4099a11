"""New tokens of many prompts at once, over one copy of what prompts of a family share.

A family of prompts is one row of the cache: the root, then the branches, then what its members write, step
by step. All members are queries of that row at once, and `owner` says which keys are whose. So k questions
on one video keep its keys once and read them once a step.

Letters for shapes: F families, Q members that write (of the family with most), K keys of a row of the cache,
H query heads, J key heads, D channels.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Listing
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import Cache, DynamicLayer

from hedgerow.models.families import Family
from hedgerow.models.rows import RowModel
from hedgerow.sequence import Array

SHARED, NOBODY = -1, -2  # owners of keys that all members see, and of padding
_STRETCH = 64  # steps that a cache has room for when it has grown


class Shared:
    """Attention of several queries on each row of a cache.

    Args:
        mask: bool [F, Q, K], True where a query sees a key; every query must see one.
        position: int [F, Q] of the queries and [F, K] of the keys.
    """

    def __init__(self, mask: Tensor, *, position: tuple[Tensor, Tensor]) -> None:
        self._mask = mask
        self._position = position

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        """Attend: query [F, H, Q, D], key and value [F, J, K, D], out [F, H, Q, D]; H is a multiple of J."""
        mask = self._mask
        if window is not None:
            of_query, of_key = self._position
            mask = mask & (of_query[:, :, None] - of_key[:, None, :] < window)
        rows, heads, queries, channels = query.shape
        times = heads // key.shape[1]
        # Heads that share a key head become more queries, so that keys are not repeated for them.
        folded = query.reshape(rows, key.shape[1], times * queries, channels)
        mask = mask.repeat(1, times, 1)[:, None]
        out = functional.scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scale)
        return out.reshape(rows, heads, queries, channels)


class _Roomy(DynamicLayer):  # type: ignore[misc]
    """Keys and values [F, J, K, D] with room behind them: a step copies only what it adds."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = self._room = (keys, values)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add keys and values [F, J, Q, D]; return all."""
        start, count = self.keys.shape[2], key_states.shape[2]
        if start + count > self._room[0].shape[2]:
            self._room = _longer(self.keys, count * _STRETCH), _longer(self.values, count * _STRETCH)
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, start : start + count] = new
        self.keys, self.values = (room[:, :, : start + count] for room in self._room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some families."""
        self.keys, self.values = self._room = (self.keys[indices], self.values[indices])


def _longer(x: Tensor, count: int) -> Tensor:
    rows, heads, length, channels = x.shape
    longer = x.new_empty(rows, heads, length + count, channels)
    longer[:, :, :length] = x
    return longer


class Kept:
    """What is kept of families while their members write.

    Args:
        model: the model that read the row.
        layers: its keys and values of one row, layer by layer; taken one after another.
        position: int64 [N] or [3, N] of the row.
        families: the families to continue, and where the tree of each starts in the row.
    """

    def __init__(
        self, model: RowModel, layers: Iterable[Any], position: Tensor, families: Listing[tuple[Family, int]]
    ) -> None:
        device = position.device
        index = _padded([family.index + start for family, start in families], 0).to(device)
        self._model = model
        self._rows = torch.arange(len(families), device=device)
        ends = _padded([np.array(family.last) + start for family, start in families], 0).to(device)
        self._ends = position.reshape(-1, position.shape[-1]).amax(0)[ends]
        self._owner = _padded([family.owner for family, _ in families], NOBODY).to(device)
        self._axes = position.shape[:-1]
        self._position = position.reshape(-1, position.shape[-1])[0][index]
        rooms = (
            _Roomy(*(x[0][:, index].transpose(0, 1) for x in (layer.keys, layer.values))) for layer in layers
        )
        self._cache = Cache(layers=list(rooms))

    def step(self, token: Tensor, place: Array) -> Tensor:
        """Read one more token of each member that still writes.

        What is kept of families without any is dropped.

        Args:
            token: int64 [B].
            place: int64 [B, 2], family and member of each, ascending.

        Returns:
            final hidden states, float [B, D].
        """
        self._keep(np.unique(place[:, 0]))
        number, member = torch.from_numpy(place).T.contiguous().to(token.device)
        row = torch.bucketize(number, self._rows)
        count = torch.bincount(row)
        first = count.cumsum(0) - count
        own = torch.arange(len(row), device=row.device)
        column = own - first[row]
        # A family with fewer members fills up with its first one, which nobody gets to see.
        source = first[:, None].repeat(1, int(count.max())).index_put((row, column), own)
        owner = torch.full_like(source, NOBODY).index_put((row, column), member)
        self._ends += 1
        here = self._ends[number, member][source]
        self._owner = torch.cat([self._owner, owner], dim=1)
        self._position = torch.cat([self._position, here], dim=1)
        keys = self._owner[:, None, :]
        mask = (keys == SHARED) | (keys == member[source][:, :, None])
        hidden = self._model.attend(
            self._model.hf.get_input_embeddings()(token[source]),
            here.expand(*self._axes, *here.shape),
            backend=Shared(mask, position=(here, self._position)),
            cache=self._cache,
        )
        return hidden[row, column]

    def _keep(self, families: Array) -> None:
        if len(families) == len(self._rows):
            return
        rows = torch.from_numpy(families).to(self._rows.device)
        index = torch.bucketize(rows, self._rows)
        self._cache.batch_select_indices(index)
        self._rows, self._owner, self._position = rows, self._owner[index], self._position[index]


def _padded(arrays: list[Array], filler: int) -> Tensor:
    table = np.full((len(arrays), max(map(len, arrays))), filler)
    for line, array in zip(table, arrays, strict=True):
        line[: len(array)] = array
    return torch.from_numpy(table)
