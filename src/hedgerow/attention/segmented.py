"""Exact attention on packed trees from plain squares and rectangles: no mask, nothing of size N x N.

In logical order, let a segment be a maximal run [a, b) of tokens with one subtree end e. The visible pairs are, disjoint:

- per segment, the causal square on [a, b);
- per segment with e > b, the full rectangle of queries [b, e) and keys [a, b): what the subtree sees of its ancestor;
- per bidirectional group g0 < g1 < ... < gn, the pairs whose query comes first. On the group in reverse they are a causal
  square again: queries g(n-1) ... g0, keys gn ... g1.

Blocks of one shape run as one call. Each call returns its output and the log-sum-exp of its scores; parts of one query
merge as O = sum_p exp(lse_p - L) O_p with L = logsumexp_p lse_p. In the backward pass each part's kernel gets the merged O
and L, which yields exactly that part's share of the gradients (the identity behind ring attention, arXiv 2310.01889).

Shapes: N tokens, H query heads, J key heads, D channels, C blocks of a part, L queries or keys of a block.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hedgerow.errors import VisibilityError
from hedgerow.sequence import Array, Row

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Blocks of one shape: `queries` and `keys` pick C x L tokens of the row, a slice where they are contiguous."""

    queries: slice | Tensor
    keys: slice | Tensor
    shape: tuple[int, int, int]  # C blocks, queries and keys of each
    causal: bool

    @property
    def pairs(self) -> int:
        """How many (query, key) pairs it computes."""
        count, queries, keys = self.shape
        return count * (queries * (queries + 1) // 2 if self.causal else queries * keys)


class Segmented:
    """Attention on the squares and rectangles of a row, found once a row. For CPU; fp32, fp64, bf16 and fp16.

    Args:
        row: a row after `Row.to("cpu")`.

    Raises:
        VisibilityError: the row is not on the CPU, or a group reaches over several nodes.
        ValueError: `order` and `end` do not describe nested subtrees.
    """

    def __init__(self, row: Row) -> None:
        _refuse_device(row.order.device)
        position = row.position if row.position.ndim == 1 else row.position[0]
        self._length = len(row.order)
        self._span = int(position.max() - position.min())
        self.parts = _split(row.order.numpy(), row.end.numpy(), row.group.numpy())

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        """Attend.

        Args:
            query: float [1, H, N, D].
            key: float [1, J, N, D].
            value: as the key.
            scale: factor of the scores.
            window: how many positions back a query may look; allowed where it hides nothing of this row.

        Returns:
            float [1, H, N, D], differentiable once.

        Raises:
            VisibilityError: the window would hide tokens, a tensor is not on the CPU, or its length is not the row's.
        """
        _refuse_device(query.device)
        if window is not None and window <= self._span:
            raise VisibilityError(
                f"a layer looks back {window} positions and the row spans {self._span + 1}; "
                "segmented attention has no windows, use the backend 'dense'"
            )
        if query.shape[0] != 1 or not query.shape[2] == key.shape[2] == self._length:
            raise VisibilityError(
                f"attention got queries {list(query.shape)} and keys {list(key.shape)} for a row of "
                f"{self._length} tokens; run the model on that row alone, batch 1, without a cache"
            )
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        out: Tensor = _Attend.apply(query, key, value, self.parts, scale)
        return out


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, parts: tuple[Part, ...], scale: float
    ) -> Tensor:
        q, k, v = _by_token(query), _by_token(key), _by_token(value)
        wide = torch.promote_types(q.dtype, torch.float32)
        out = q.new_zeros(q.shape, dtype=wide)
        lse = q.new_full(q.shape[:2], -torch.inf, dtype=wide)
        for part in parts:
            picked = _blocks(q, part.queries, part), _blocks(k, part.keys, part), _blocks(v, part.keys, part)
            part_out, part_lse = _forward(*picked, 0.0, part.causal, scale=scale)
            _merge(out, lse, part.queries, part_out.transpose(1, 2).flatten(0, 1), part_lse.transpose(1, 2).flatten(0, 1))
        result = _by_head(out.to(q.dtype))
        ctx.save_for_backward(query, key, value, result, lse)
        ctx.parts, ctx.scale = parts, scale
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, result, lse = ctx.saved_tensors
        q, k, v, o, g = (_by_token(x) for x in (query, key, value, result, grad))
        dq, dk, dv = (torch.zeros(x.shape, dtype=lse.dtype) for x in (q, k, v))
        for part in ctx.parts:
            of_query = [_blocks(x, part.queries, part) for x in (g, q, o, lse)]
            of_key = [_blocks(x, part.keys, part) for x in (k, v)]
            g_part, q_part, o_part, lse_part = of_query
            grads = _backward(g_part, q_part, *of_key, o_part, lse_part, 0.0, part.causal, scale=ctx.scale)
            for total, pick, share in zip((dq, dk, dv), (part.queries, part.keys, part.keys), grads, strict=True):
                _add(total, pick, share.transpose(1, 2).flatten(0, 1))
        return *(_by_head(x.to(query.dtype)) for x in (dq, dk, dv)), None, None
