"""Attention on packed trees through FlexAttention: one fused kernel that skips the blocks nobody sees.

Which blocks are seen is known from the row's integers (`hedgerow.visibility.summary`), so no mask is ever
evaluated but within the blocks that are seen in part. Shapes as in `hedgerow.attention.dense`.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from hedgerow import visibility
from hedgerow.errors import VisibilityError
from hedgerow.sequence import Blocks, Row

SIZE = 128  # tokens of a block; the kernels' own default


class Flex:
    """Attention of a row by blocks of 128 x 128 tokens. For CUDA; on the CPU forward only.

    Each new row length, dtype, number or size of heads, window, and the first pass with gradients compile a
    kernel (tens of seconds); rows that differ in nothing of that share it, whatever their trees. Torch keeps
    8 of them and then raises, so pad rows to one length (`Row.join(..., pad=True)`). Any length will do.

    Args:
        row: a row after `Row.to(device)`, on the device of the model. Its `blocks` are used if they are
            there; otherwise, and in layers with a window, its integers are fetched from the device once.
    """

    def __init__(self, row: Row) -> None:
        self._row = row
        self._masks: dict[int | None, BlockMask] = {}

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a model's own graph must not depend on the row
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
            float [1, H, N, D]; under autocast in its dtype.

        Raises:
            VisibilityError: a gradient is asked for on the CPU, a shape is wrong, or with a window a group
                reaches over several nodes.
        """
        _refuse_training_on_cpu(query, key, value)
        length = len(self._row.order)
        if query.shape[0] != 1 or not query.shape[2] == key.shape[2] == length:
            raise VisibilityError(
                f"attention got queries {list(query.shape)} and keys {list(key.shape)} for a row of "
                f"{length} tokens; run the model on that row alone, batch 1, without a cache"
            )
        kind = query.device.type
        if torch.is_autocast_enabled(kind):
            query, key, value = (x.to(torch.get_autocast_dtype(kind)) for x in (query, key, value))
        grouped = query.shape[1] != key.shape[1]
        mask = self.block_mask(window)
        return _kernel()(query, key, value, block_mask=mask, scale=scale, enable_gqa=grouped)

    def block_mask(self, window: int | None = None) -> BlockMask:
        """Return the block mask of layers with a window, or without one; made once a row."""
        if window not in self._masks:
            self._masks[window] = self._block_mask(window)
        return self._masks[window]

    def _block_mask(self, window: int | None) -> BlockMask:
        row = self._row
        blocks = row.blocks if window is None and row.blocks is not None else _blocks(row, window)
        device, length = row.order.device, len(row.order)
        tables = (blocks.kv_count, blocks.kv_index, blocks.full_count, blocks.full_index)
        some, some_index, full, full_index = (torch.as_tensor(x, device=device)[None, None] for x in tables)
        return BlockMask.from_kv_blocks(
            some, some_index, full, full_index,
            BLOCK_SIZE=blocks.size, mask_mod=_rule(row, window), seq_lengths=(length, length),
        )  # fmt: skip


@functools.cache
def _kernel() -> Callable[..., Tensor]:
    # Whole or not at all: outside the compiler FlexAttention makes all N x N scores.
    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    return compiled


def _rule(row: Row, window: int | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return the rule of one (query, key) as FlexAttention wants it: batch, head, query, key to bool."""
    order, end, group, position = (x.int() for x in (row.order, row.end, row.group, _position(row)))

    def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        on_path = (order[key] <= order[query]) & (order[query] < end[key])
        return on_path | ((group[query] == group[key]) & (group[query] >= 0))

    if window is None:
        return visible
    most = window

    def near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return visible(batch, head, query, key) & (position[query] - position[key] < most)

    return near


def _blocks(row: Row, window: int | None) -> Blocks:
    order, end, group, position = (x.cpu().numpy() for x in (row.order, row.end, row.group, _position(row)))
    counts = visibility.blocks(order, end, group, size=SIZE, position=position, window=window)
    return visibility.sort_blocks(counts, size=SIZE)


def _position(row: Row) -> Tensor:
    """Return the positions along the path, [N]: with several axes the first."""
    position: Tensor = row.position if row.position.ndim == 1 else row.position[0]
    return position


def _refuse_training_on_cpu(query: Tensor, key: Tensor, value: Tensor) -> None:
    needed = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    if needed and query.device.type == "cpu":
        raise VisibilityError(
            "FlexAttention has no backward pass on the CPU; use the backend 'segmented', or torch.no_grad()"
        )
