"""Attention through an explicit mask: the reference on any device, and decoding with a key-value cache.

Shapes: B prompts, H query heads, J key heads (H is a multiple of J), Q queries, K keys, N tokens of a row,
D channels.
"""

import torch
from torch import Tensor
from torch.nn import functional

from hedgerow import visibility
from hedgerow.errors import VisibilityError
from hedgerow.sequence import Row


class Dense:
    """The visibility rule as a bool mask [N, N], made once a row. Exact, honours windows, costs N x N memory.

    Args:
        row: a row after `Row.to(device)`, on the device of the model.
    """

    def __init__(self, row: Row) -> None:
        self._row = row
        self._masks: dict[int | None, Tensor] = {}

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        """Attend.

        Args:
            query: float [1, H, N, D].
            key: float [1, J, N, D].
            value: as the key.
            scale: factor of the scores.
            window: how many positions back a query may look, itself included; None for no limit.

        Returns:
            float [1, H, N, D].
        """
        return _attend(query, key, value, mask=self._mask(window), scale=scale)

    def _mask(self, window: int | None) -> Tensor:
        if window not in self._masks:
            row = self._row
            position = row.position if row.position.ndim == 1 else row.position[0]
            mask: Tensor = visibility.dense(row.order, row.end, row.group, position=position, window=window)
            self._masks[window] = mask
        return self._masks[window]


class Masked:
    """Attention through a mask that the caller made, for decoding, where queries are fewer than keys.

    Args:
        mask: bool [B, 1, Q, K], True where a query sees a key; every query must see one.
        position: positions int [B, Q] of the queries and [B, K] of the keys, needed in layers with a window.
    """

    def __init__(self, mask: Tensor, *, position: tuple[Tensor, Tensor] | None = None) -> None:
        self._mask = mask
        self._position = position

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        """Attend.

        Args:
            query: float [B, H, Q, D].
            key: float [B, J, K, D].
            value: as the key.
            scale: factor of the scores.
            window: how many positions back a query may look, itself included; None for no limit.

        Returns:
            float [B, H, Q, D].

        Raises:
            VisibilityError: a layer has a window and no positions were given.
        """
        mask = self._mask
        if window is not None:
            if self._position is None:
                raise VisibilityError(
                    f"a layer has a window of {window}, the mask no positions; give position="
                )
            of_query, of_key = self._position
            mask = mask & (of_query[:, None, :, None] - of_key[:, None, None, :] < window)
        return _attend(query, key, value, mask=mask, scale=scale)


def _attend(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor, scale: float) -> Tensor:
    # The fused CUDA kernels that take a mask do not take fewer key heads than query heads.
    times = query.shape[1] // key.shape[1]
    key, value = (torch.repeat_interleave(x, times, dim=1) if times > 1 else x for x in (key, value))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
