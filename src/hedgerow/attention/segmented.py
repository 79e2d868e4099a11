"""Exact attention on packed trees from plain squares and rectangles: no mask, nothing of size N x N.

In logical order, let a segment be a maximal run [a, b) of tokens with one subtree end e. The visible pairs:

- per segment, the causal square on [a, b);
- per segment with e > b, the full rectangle of queries [b, e) and keys [a, b): a subtree sees its ancestor;
- per bidirectional group g0 < g1 < ... < gn, the pairs whose query comes first. Backwards they are a causal
  square again: queries g(n-1) ... g0, keys gn ... g1.

No pair is in two of them. Blocks of one shape run as one call, which returns its output and the log-sum-exp
of its scores; the parts of a query merge as O = sum_p exp(lse_p - L) O_p with L = logsumexp_p lse_p. In the
backward pass each kernel gets the merged O and L, which yields exactly that part's share of the gradients
(as in ring attention, arXiv 2310.01889).

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
    """Blocks of one shape: `queries` and `keys` pick C x L tokens of the row, a slice where they adjoin."""

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
            VisibilityError: the window would hide tokens, or device or shapes are wrong.
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
            # On short blocks the kernel's backward in bf16 is about three times slower than in fp32.
            query, key, value = query.float(), key.float(), value.float()
        out: Tensor = _Attend.apply(query, key, value, self.parts, scale)  # type: ignore[no-untyped-call]
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
            _merge(out, lse, part.queries, _tokens(part_out), _tokens(part_lse))
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
            g_part, q_part, o_part, lse_part = (_blocks(x, part.queries, part) for x in (g, q, o, lse))
            k_part, v_part = (_blocks(x, part.keys, part) for x in (k, v))
            dq_part, dk_part, dv_part = _backward(
                g_part, q_part, k_part, v_part, o_part, lse_part, 0.0, part.causal, scale=ctx.scale
            )
            _add(dq, part.queries, _tokens(dq_part))
            _add(dk, part.keys, _tokens(dk_part))
            _add(dv, part.keys, _tokens(dv_part))
        return *(_by_head(x.to(query.dtype)) for x in (dq, dk, dv)), None, None


def _by_token(x: Tensor) -> Tensor:
    """[1, H, N, D] -> [N, H, D]; the kernel wants the channels of a head side by side."""
    x = x[0].transpose(0, 1)
    return x if x.stride(-1) == 1 else x.contiguous()


def _by_head(x: Tensor) -> Tensor:
    return x.transpose(0, 1)[None]


def _blocks(x: Tensor, pick: slice | Tensor, part: Part) -> Tensor:
    """[N, H, ...] -> [C, H, L, ...], a view where the pick is a slice."""
    picked = x[pick] if isinstance(pick, slice) else x.index_select(0, pick)
    return picked.reshape(part.shape[0], -1, *x.shape[1:]).transpose(1, 2)


def _tokens(x: Tensor) -> Tensor:
    """[C, H, L, ...] -> [C L, H, ...]."""
    return x.transpose(1, 2).flatten(0, 1)


def _merge(out: Tensor, lse: Tensor, pick: slice | Tensor, part_out: Tensor, part_lse: Tensor) -> None:
    """Merge a part [C L, H, D] and its log-sum-exp [C L, H] into `out` and `lse`, in their precision."""
    before = lse[pick]
    share = torch.sigmoid(part_lse - before)[..., None]
    if isinstance(pick, slice):
        out[pick].lerp_(part_out.to(out.dtype), share)
    else:
        out[pick] = torch.lerp(out.index_select(0, pick), part_out.to(out.dtype), share)
    lse[pick] = torch.logaddexp(before, part_lse)


def _add(total: Tensor, pick: slice | Tensor, share: Tensor) -> None:
    if isinstance(pick, slice):
        total[pick] += share
    else:
        total.index_add_(0, pick, share.to(total.dtype))


def _split(order: Array, end: Array, group: Array) -> tuple[Part, ...]:
    """Find the parts of a row; `order`, `end` and `group` are int64 [N] in physical order."""
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise ValueError("order must hold each place 0 .. N - 1 once")
    where = np.argsort(order)
    starts, stops, ends = _segments(end[where])
    blocks = [*_squares(starts, stops), *_rectangles(starts, stops, ends), *_triangles(group[where], starts)]
    return tuple(
        Part(
            queries=_pick(where[queries].ravel()),
            keys=_pick(where[keys].ravel()),
            shape=(*queries.shape, keys.shape[1]),
            causal=causal,
        )
        for queries, keys, causal in blocks
    )


def _segments(end: Array) -> tuple[Array, Array, Array]:
    """Return first place, stop and subtree end of each maximal run of equal `end` (in logical order)."""
    starts = np.flatnonzero(np.diff(end, prepend=-1))
    stops, ends = np.append(starts[1:], len(end)), end[starts]
    enclosing: list[int] = []
    for start, stop, last in zip(starts.tolist(), stops.tolist(), ends.tolist(), strict=True):
        while enclosing and enclosing[-1] <= start:
            enclosing.pop()
        if not stop <= last <= (enclosing[-1] if enclosing else len(end)):
            raise ValueError(f"the subtree of places {start}..{stop - 1} ends at {last}, not in its parent's")
        enclosing.append(last)
    return starts, stops, ends


def _squares(starts: Array, stops: Array) -> Iterator[tuple[Array, Array, bool]]:
    lengths = stops - starts
    for length in np.unique(lengths):
        places = starts[lengths == length, None] + np.arange(length)
        yield places, places, True


def _rectangles(starts: Array, stops: Array, ends: Array) -> Iterator[tuple[Array, Array, bool]]:
    heights, widths = ends - stops, stops - starts
    shapes = np.unique(np.stack([heights, widths], 1)[heights > 0], axis=0)
    for height, width in shapes:
        chosen = (heights == height) & (widths == width)
        yield stops[chosen, None] + np.arange(height), starts[chosen, None] + np.arange(width), False


def _triangles(group: Array, starts: Array) -> Iterator[tuple[Array, Array, bool]]:
    """Yield the pairs of a group whose query comes first; `group` is in logical order."""
    found: dict[int, list[Array]] = defaultdict(list)
    members = np.flatnonzero(group >= 0)
    members = members[np.argsort(group[members], kind="stable")]
    for places in np.split(members, np.flatnonzero(np.diff(group[members])) + 1):
        if len(places) > 1:
            if np.searchsorted(starts, places[0], "right") != np.searchsorted(starts, places[-1], "right"):
                raise VisibilityError(
                    f"bidirectional group {group[places[0]]} reaches over several nodes; "
                    "give each message its own group, or use the backend 'dense'"
                )
            found[len(places)].append(places[::-1])
    for same in found.values():
        places = np.stack(same)
        yield places[:, 1:], places[:, :-1], True


def _pick(indices: Array) -> slice | Tensor:
    first, count = int(indices[0]), len(indices)
    if np.array_equal(indices, np.arange(first, first + count)):
        return slice(first, first + count)
    return torch.from_numpy(indices)


def _refuse_device(device: torch.device) -> None:
    if device.type != "cpu":
        raise VisibilityError(f"segmented attention runs on the CPU, got {device}; use the backend 'dense'")
