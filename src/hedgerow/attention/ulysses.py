"""Context parallelism: processes share one row, each takes a stretch of its tokens (arXiv 2309.14509).

Outside attention every token stands alone, so a process computes its own stretch. For attention an all-to-all
gives each process a share of the heads over all tokens, and a second one gives the tokens back. So any
backend serves, whatever the mask. Crops are shared as well, each is encoded once.

Shapes: c processes, N tokens of the row, n of a stretch, H query heads, J key heads, D channels.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from hedgerow.attention.register import Backend
from hedgerow.errors import RecipeError
from hedgerow.sequence import Array, Row, VisionInput


class Context:
    """The processes that share a row. All of them call the same methods in the same order.

    Args:
        group: a process group; None takes all processes.
    """

    def __init__(self, group: Any = None) -> None:
        self.group = group
        self.size: int = dist.get_world_size(group)
        self.rank: int = dist.get_rank(group)

    def own(self, length: int) -> slice:
        """Return this process's stretch of a row of `length` tokens; the last may be shorter, or empty."""
        stretch = -(-length // self.size)
        return slice(min(self.rank * stretch, length), min((self.rank + 1) * stretch, length))

    def gather(self, part: Tensor, counts: list[int]) -> Tensor:
        """Put the parts of all processes together; the gradient of a part is the sum over all of them.

        Args:
            part: [counts[rank], ...] of this process.
            counts: the length of each process's part.

        Returns:
            [sum(counts), ...], the same on every process.
        """
        if torch.is_grad_enabled() and not part.requires_grad:
            # Or this process alone would skip the exchange of the backward pass.
            part = part.detach().requires_grad_()
        longest = max(counts)
        filled = torch.cat([part, part.new_zeros(longest - len(part), *part.shape[1:])])
        found = self.exchange(filled.expand(self.size, *filled.shape))
        return torch.cat([piece[:count] for piece, count in zip(found, counts, strict=True)])

    def gather_tokens(self, part: Tensor, length: int) -> Tensor:
        """Put the stretches of a row together: [n, ...] of this process to [N, ...]."""
        stretch = -(-length // self.size)
        counts = [min(max(length - place * stretch, 0), stretch) for place in range(self.size)]
        return self.gather(part, counts)

    def exchange(self, parts: Tensor) -> Tensor:
        """Send `parts[i]` to process i and return what all sent here, in order of rank; differentiable."""
        found: Tensor = _Exchange.apply(parts, self.group)  # type: ignore[no-untyped-call]
        return found

    def total(self, *parts: Tensor) -> list[Tensor]:
        """Return the sum of each tensor over all processes, without a gradient."""
        found = [part.detach().clone() for part in parts]
        for tensor in found:
            dist.all_reduce(tensor, group=self.group)
        return found

    def targets(self, row: Row) -> Row:
        """Return the row with this process's share of the targets: every c-th one."""
        own = slice(self.rank, None, self.size)
        reference = None if row.reference is None else row.reference[own]
        names = ("source", "target", "weight", "sample")
        shares: dict[str, Any] = {name: getattr(row, name)[own] for name in names}
        return dataclasses.replace(row, reference=reference, **shares)

    def crops(self, vision: VisionInput) -> tuple[VisionInput | None, list[Array]]:
        """Share crops among the processes, near-equal stretches that cut through no pooling window.

        Args:
            vision: of a row of tensors.

        Returns:
            what this process encodes, None for nothing; and of each process the slots it makes, int64.
        """
        low, high = _spans(vision)
        cuts = _cuts(low, high, crops=len(vision.crops), parts=self.size)
        slots = [np.flatnonzero((low >= a) & (low < b)) for a, b in itertools.pairwise(cuts)]
        a, b = cuts[self.rank], cuts[self.rank + 1]
        if not len(slots[self.rank]):
            return None, slots
        table = vision.pooling[torch.from_numpy(slots[self.rank]).to(vision.pooling.device)]
        pooling = torch.where(table < 0, table, table - a * vision.patches)
        return VisionInput(vision.crops[a:b], pooling, vision.grids[:0], vision.patches), slots


class Ulysses:
    """A backend whose heads are shared by the processes of a context.

    Args:
        backend: attention of the whole row.
        context: the processes that share it.
        length: N, tokens of the row.
    """

    def __init__(self, backend: Backend, context: Context, *, length: int) -> None:
        self._backend = backend
        self._context = context
        self._length = length

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        """Attend.

        Args:
            query: float [1, H, n, D] of this process's stretch.
            key: float [1, J, n, D].
            value: as the key.
            scale: factor of the scores.
            window: as the backend takes it.

        Returns:
            float [1, H, n, D].

        Raises:
            RecipeError: the number of processes does not divide the heads.
        """
        size, own, heads = self._context.size, query.shape[2], (query.shape[1], key.shape[1], value.shape[1])
        if any(count % size for count in heads):
            raise RecipeError(
                f"{size} processes cannot share {heads[0]} query and {heads[1]} key heads evenly; "
                "give a context degree that divides both"
            )
        stretch = -(-self._length // size)
        parts = [x.reshape(size, -1, *x.shape[2:]) for x in (query, key, value)]
        filled = torch.nn.functional.pad(torch.cat(parts, dim=1), (0, 0, 0, stretch - own))
        found = self._context.exchange(filled).permute(1, 0, 2, 3).flatten(1, 2)[None, :, : self._length]
        mine = torch.split(found, [count // size for count in heads], dim=1)
        out = self._backend(*mine, scale=scale, window=window)
        rest = size * stretch - self._length
        pieces = torch.nn.functional.pad(out[0], (0, 0, 0, rest))
        pieces = pieces.view(-1, size, stretch, pieces.shape[-1])
        back = self._context.exchange(pieces.transpose(0, 1))
        return back.flatten(0, 1)[None, :, :own]


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parts: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _all_to_all(parts, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _all_to_all(grad, ctx.group), None


def _all_to_all(parts: Tensor, group: Any) -> Tensor:
    parts = parts.contiguous()
    found = torch.empty_like(parts)
    dist.all_to_all_single(found, parts, group=group)
    return found


def _spans(vision: VisionInput) -> tuple[Array, Array]:
    """The first and the last crop that each window takes patches from, int64 [V]; of an empty window, 0."""
    crop = torch.where(vision.pooling < 0, 0, vision.pooling // vision.patches)
    unset = (vision.pooling < 0).all(dim=1, keepdim=True)
    first = torch.where((vision.pooling < 0) & ~unset, crop.max(), crop).amin(dim=1)
    return first.cpu().numpy(), crop.amax(dim=1).cpu().numpy()


def _cuts(low: Array, high: Array, *, crops: int, parts: int) -> list[int]:
    """Where stretches of crops begin and end: near an even share, where no window lies across."""
    across = np.zeros(crops + 1, np.int64)
    np.add.at(across, low + 1, 1)
    np.add.at(across, high + 1, -1)
    free = np.flatnonzero(np.cumsum(across)[: crops + 1] == 0)
    wanted = np.arange(parts + 1) * crops / parts
    return [int(free[np.abs(free - place).argmin()]) for place in wanted]
