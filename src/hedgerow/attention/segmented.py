"""Exact attention on packed trees on the CPU, tile by tile: nothing of size N x N.

The tiles come from `hedgerow.attention.tiles`. The forward pass keeps, for the queries of one cell, the
greatest score so far and shrinks its sums when that grows (online softmax, arXiv 1805.02867). The backward
pass makes the weights again from the log-sum-exp over *all* keys of a query, which the forward pass kept
(as in arXiv 2205.14135). Scores are in bits: with log2(e) in the scale, exp2 does the work of exp.

Shapes: N tokens, H query heads, J key heads, D channels; Q queries and K keys of a tile. G query heads that
share a key head are taken together, G rows a token: tensors are laid out as [S, N G, D] for S = H / G stacks.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hedgerow.attention.tiles import CELL, Plan, Tile
from hedgerow.errors import VisibilityError
from hedgerow.sequence import Row

_SCORES = 2**19  # most scores of one product: enough work for a call, and still in the cache for the next
_TOGETHER = 4  # most query heads taken together
_BITS = math.log2(math.e)
Taken = int | slice  # a head or a stack alone, or several at once
_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class Segmented:
    """Attention on the tiles of a row, found once a row. For the CPU. Computes in fp32, fp64 inputs in fp64.

    `torch.compile` leaves it out of the graph.

    Args:
        row: a row after `Row.to("cpu")`.

    Raises:
        VisibilityError: the row is not on the CPU.
        ValueError: a token of the row does not see itself.
    """

    def __init__(self, row: Row) -> None:
        _refuse_device(row.order.device)
        self.plan = Plan(row)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        """Attend.

        Args:
            query: float [1, H, N, D].
            key: float [1, J, N, D]; H is a multiple of J.
            value: as the key.
            scale: factor of the scores.
            window: how many positions back a query may look, itself included; None for no limit.

        Returns:
            float [1, H, N, D] in the dtype of the queries, differentiable once.

        Raises:
            VisibilityError: device or shapes are wrong.
        """
        _refuse_device(query.device)
        length = len(self.plan)
        if query.shape[0] != 1 or not query.shape[2] == key.shape[2] == length:
            raise VisibilityError(
                f"attention got queries {list(query.shape)} and keys {list(key.shape)} for a row of "
                f"{length} tokens; run the model on that row alone, batch 1, without a cache"
            )
        with torch.autocast("cpu", enabled=False):
            out: Tensor = _Attend.apply(query, key, value, self.plan, window, scale)  # type: ignore[no-untyped-call]
        return out


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, plan: Plan, window: int | None, scale: float
    ) -> Tensor:
        heads = _Heads(query, key, plan)
        q, k, v = heads.lay(query).mul_(scale * _BITS), heads.lay(key), heads.lay(value)
        out, lse = torch.empty_like(q), q.new_empty(q.shape[:2])

        def attend(taken: Taken) -> None:
            for queries, tiles in groupby(plan.tiles(window), attrgetter("queries")):
                rows = heads.rows(queries)
                sums = [(stack, _Softmax(q[stack, rows])) for stack in heads.stacks(taken)]
                for tile in heads.cut(tiles):
                    bias = plan.bias(tile, window) if tile.partial else None
                    for _, softmax in sums:
                        softmax.add(k[taken, tile.keys], v[taken, tile.keys], bias)
                for stack, softmax in sums:
                    softmax.finish(out[stack, rows], lse[stack, rows])

        _in_threads(attend, heads.shares(plan.tiles(window)))
        result = heads.unlay(out, query)
        ctx.save_for_backward(query, key, value, result, lse)
        ctx.plan, ctx.window, ctx.scale = plan, window, scale
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, result, lse = ctx.saved_tensors
        plan, window, scale = ctx.plan, ctx.window, ctx.scale
        heads = _Heads(query, key, plan)
        q, k, v = heads.lay(query).mul_(scale * _BITS), heads.lay(key), heads.lay(value)
        g, dq = heads.lay(grad), torch.empty_like(q)
        delta = heads.lay(result).mul_(g).sum(-1)
        dk, dv = (torch.zeros_like(x.mT, memory_format=torch.contiguous_format) for x in (k, v))

        def attend(taken: Taken) -> None:
            for queries, tiles in groupby(plan.tiles(window), attrgetter("queries")):
                rows = heads.rows(queries)
                slopes = [
                    (stack, _Slopes(q[stack, rows], g[stack, rows], lse[stack, rows], delta[stack, rows]))
                    for stack in heads.stacks(taken)
                ]
                for tile in heads.cut(tiles):
                    keys, bias = tile.keys, plan.bias(tile, window) if tile.partial else None
                    for _, slope in slopes:
                        slope.add(
                            k[taken, keys], v[taken, keys], bias, dk[taken, :, keys], dv[taken, :, keys]
                        )
                for stack, slope in slopes:
                    torch.mul(slope.total, scale, out=dq[stack, rows])

        _in_threads(attend, heads.shares(plan.tiles(window)))
        dk.div_(_BITS)
        return (
            heads.unlay(dq, query), heads.unlay(dk.mT, key), heads.unlay(dv.mT, value), None, None, None,
        )  # fmt: skip


class _Softmax:
    """The output of the queries of a cell in one stack or several, from the keys so far."""

    def __init__(self, query: Tensor) -> None:
        self._query = query
        self._top = query.new_full((*query.shape[:-1], 1), torch.finfo(query.dtype).min)
        self._total = torch.zeros_like(self._top)
        self._out = torch.zeros_like(query)

    def add(self, key: Tensor, value: Tensor, bias: Tensor | None) -> None:
        """Take K more keys in: key and value [.., K, D], bias [Q, K] of the scores or None."""
        scores = _scores(self._query, key, bias)
        top = torch.maximum(self._top, scores.amax(-1, keepdim=True))
        weights = scores.sub_(top).exp2_()
        shrink = self._top.sub_(top).exp2_()
        self._total.mul_(shrink).add_(weights.sum(-1, keepdim=True))
        self._out.mul_(shrink).add_(_product(weights, value.mT))
        self._top = top

    def finish(self, out: Tensor, lse: Tensor) -> None:
        """Write the output [.., Q G, D] and the log-sum-exp [.., Q G]."""
        torch.div(self._out, self._total, out=out)
        torch.add(self._top[..., 0], self._total[..., 0].log2(), out=lse)


class _Slopes:
    """The gradients that the queries of a cell cause, and the one they get: `total` [.., Q G, D]."""

    def __init__(self, query: Tensor, grad: Tensor, lse: Tensor, delta: Tensor) -> None:
        self._query, self._grad, self._lse, self._delta = query, grad, lse[..., None], delta[..., None]
        self._columns = query.mT.contiguous(), grad.mT.contiguous()
        self.total = torch.zeros_like(query)

    def add(self, key: Tensor, value: Tensor, bias: Tensor | None, dk: Tensor, dv: Tensor) -> None:
        """Take K more keys in: key and value [.., K, D], bias as before; adds to dk and dv [.., D, K]."""
        query, grad = self._columns
        weights = _scores(self._query, key, bias).sub_(self._lse).exp2_()
        dv.add_(_product(grad, weights.mT))
        slopes = _product(self._grad, value).sub_(self._delta).mul_(weights)
        dk.add_(_product(query, slopes.mT))
        self.total.add_(_product(slopes, key.mT))


def _scores(query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    """Return the scores [.., Q G, K] of queries [.., Q G, D], keys [.., K, D] and a bias [Q, K] or none."""
    scores = _product(query, key)
    if bias is not None:
        scores.view(*scores.shape[:-2], len(bias), -1, scores.shape[-1]).add_(bias[:, None])
    return scores


class _Heads:
    """How the heads of a call are laid out, and back."""

    def __init__(self, query: Tensor, key: Tensor, plan: Plan) -> None:
        group = query.shape[1] // key.shape[1]
        self._take, self._back = plan.take, plan.back
        self._wide = torch.promote_types(query.dtype, torch.float32)
        self._count, self._keys = query.shape[1], key.shape[1]
        self._together = max(n for n in range(1, _TOGETHER + 1) if group % n == 0)
        self._apart = group // self._together

    def lay(self, x: Tensor) -> Tensor:
        """Copy [1, H, N, D] in the order of the row to [S, N G, D] in that of the tiles; G is 1 for keys."""
        x = x[0].transpose(0, 1)
        x = x if self._take is None else x.index_select(0, self._take)
        together = self._together if x.shape[1] == self._count else 1
        x = x.view(len(x), -1, together, x.shape[2]).transpose(0, 1)
        return x.new_empty(x.shape, dtype=self._wide).copy_(x).flatten(1, 2)

    def unlay(self, x: Tensor, like: Tensor) -> Tensor:
        """[S, N G, D] -> a tensor like the given one [1, H, N, D], with the heads of a token side by side."""
        _, heads, length, width = like.shape
        x = x.view(len(x), length, -1, width).transpose(0, 1)
        x = x.to(like.dtype).reshape(length, heads, width)
        x = x if self._back is None else x.index_select(0, self._back)
        return x.transpose(0, 1)[None]

    def rows(self, tokens: slice) -> slice:
        """Return the rows of queries."""
        return slice(tokens.start * self._together, tokens.stop * self._together)

    def shares(self, tiles: Iterable[Tile]) -> list[Taken]:
        """Return the key heads to take at once: as many as `_SCORES` allows, for small calls cost as much."""
        most = max(
            (tile.queries.stop - tile.queries.start) * min(tile.keys.stop - tile.keys.start, self._step)
            for tile in tiles
        )
        many = max(1, _SCORES // (most * self._together))
        if many == 1:
            return list(range(self._keys))
        return [slice(start, min(start + many, self._keys)) for start in range(0, self._keys, many)]

    def stacks(self, taken: Taken) -> list[Taken]:
        """Return the stacks that share key heads: one of each, then the next of each."""
        if isinstance(taken, int):
            return list(range(taken * self._apart, (taken + 1) * self._apart))
        first, last = taken.start * self._apart, taken.stop * self._apart
        return [slice(first + place, last, self._apart) for place in range(self._apart)]

    def cut(self, tiles: Iterable[Tile]) -> Iterator[Tile]:
        """Cut tiles to so many keys that a product of one stack holds at most `_SCORES` scores."""
        for tile in tiles:
            for start in range(tile.keys.start, tile.keys.stop, self._step):
                yield dataclasses.replace(tile, keys=slice(start, min(start + self._step, tile.keys.stop)))

    @property
    def _step(self) -> int:
        return _SCORES // (CELL * self._together)


def _in_threads(work: Callable[[Taken], None], shares: list[Taken]) -> None:
    """Do work for each of some shares, on as many threads as torch may use.

    Torch would share each operation out to its threads and wait for the last: hundreds of waits, each as long
    as another process keeps one of the cores. Here they wait once.
    """
    threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
    count = len(shares)
    if min(threads, count) == 1:
        for item in shares:
            work(item)
        return

    def alone(item: Taken) -> None:
        torch.set_num_threads(max(threads // count, 1))  # of the calling thread
        with torch.inference_mode(inference), torch.no_grad():
            work(item)

    try:
        with ThreadPoolExecutor(min(threads, count)) as pool:
            list(pool.map(alone, shares))
    finally:
        torch.set_num_threads(threads)  # what threads to come start with was set, too


def _product(x: Tensor, rows: Tensor) -> Tensor:
    """Return x [.., m, k] times the transpose of rows [.., n, k]; `rows` or its transpose is contiguous."""
    if x.dim() == 2 and x.dtype == torch.float32 and _ONEDNN:
        # A plain product in fp32 goes to MKL, which runs at half the speed on AMD processors. This one, which
        # compiled models use for linear layers, is a thousand times slower on any other strides.
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, rows, None, "none", [], "")
        return out
    return x @ rows.mT


def _refuse_device(device: torch.device) -> None:
    if device.type != "cpu":
        raise VisibilityError(f"segmented attention runs on the CPU, got {device}; use the backend 'dense'")
