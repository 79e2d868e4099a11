"""Weighted cross entropy without a matrix of logits: chunk by chunk, forward and backward at once.

The gradient of a chunk is made while its logits are there, for by then its weights are known. So the head's
matrix is multiplied three times, as in a plain loss, and logits are never computed twice. The memory above
inputs and gradients is one chunk of logits, and a second one where entropies are asked for.

Letters: M targets, m those of a chunk, D the width of the model, W words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hedgerow.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of targets, without a gradient, in fp32 or better.

    `ce` [m] cross entropy, `lse` [m] log-sum-exp of the logits, `entropy` [m] in nats or None.
    """

    ce: Tensor
    lse: Tensor
    entropy: Tensor | None


Weigh = Callable[[slice, Seen], Tensor]  # the loss weights [m] of a chunk of targets


def summed_loss(
    hidden: Tensor,
    target: Tensor,
    head: nn.Linear,
    weigh: Weigh,
    *,
    z_loss: float = 0.0,
    chunk: int = 256,
    entropy: bool = False,
) -> tuple[Tensor, Tensor, Seen]:
    """Return sum of w (ce + z lse^2), differentiable once, the weights [M], and what was seen.

    Args:
        hidden: states that predict, [M, D].
        target: int64 [M].
        head: from states to logits.
        weigh: gives the weights of a chunk of targets; called once for each chunk, in order.
        z_loss: z.
        chunk: most targets for which logits exist at once.
        entropy: whether `weigh` is told the entropies.

    Raises:
        RecipeError: the head is no `nn.Linear`.
    """
    job = _Job(target, weigh, z_loss, chunk, entropy, _autocast(hidden.device))
    matrix, bias = _parts(head)
    total, weight, ce, lse, *rest = _Summed.apply(hidden, matrix, bias, job, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return total, weight, Seen(ce, lse, rest[0] if entropy else None)


@torch.no_grad()
def predict(
    hidden: Tensor, target: Tensor, head: nn.Linear, *, chunk: int = 256, entropy: bool = False
) -> Seen:
    """Return what a model says of targets; arguments as for `summed_loss`.

    Raises:
        RecipeError: the head is no `nn.Linear`.
    """
    job = _Job(target, _weightless, 0.0, chunk, entropy, _autocast(hidden.device))
    return _run(hidden, *_parts(head), job, _Gradients()).seen


def _weightless(_: slice, seen: Seen) -> Tensor:
    return torch.zeros_like(seen.ce)


@dataclass(frozen=True, slots=True)
class _Job:
    """The arguments of a loss that are no inputs of the graph; `low` is what autocast computes in, if on."""

    target: Tensor
    weigh: Weigh
    z_loss: float
    chunk: int
    entropy: bool
    low: torch.dtype | None


@dataclass(frozen=True, slots=True)
class _Gradients:
    """Where the gradients of hidden states, matrix and bias are added up; None for what needs none."""

    hidden: Tensor | None = None
    matrix: Tensor | None = None
    bias: Tensor | None = None

    @property
    def any(self) -> bool:
        return not (self.hidden is None and self.matrix is None and self.bias is None)


@dataclass(frozen=True, slots=True)
class _Result:
    weight: Tensor
    seen: Seen


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, matrix: Tensor, bias: Tensor | None, job: _Job, grad: bool) -> Any:  # noqa: FBT001
        given = (hidden, matrix, bias)
        needed = [grad and need for need in ctx.needs_input_grad[:3]]
        gradients = _Gradients(*(_space(x, needed=n) for x, n in zip(given, needed, strict=True)))
        result = _run(hidden, matrix, bias, job, gradients)
        ctx.gradients = gradients
        ctx.dtypes = [None if x is None else x.dtype for x in given]
        seen, weight = result.seen, result.weight
        total = (weight * (seen.ce + job.z_loss * seen.lse.square())).sum()
        rest = (weight, seen.ce, seen.lse) + (() if seen.entropy is None else (seen.entropy,))
        ctx.mark_non_differentiable(*rest)
        ctx.set_materialize_grads(False)
        return total, *rest

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: None) -> Any:
        if ctx.gradients is None:
            raise RuntimeError("the gradient of this loss was taken and is gone; compute the loss again")
        # Handed over, not kept: what nobody else holds becomes the parameter's gradient without a copy.
        gradients, ctx.gradients = ctx.gradients, None
        found = (gradients.hidden, gradients.matrix, gradients.bias)
        del gradients
        pairs = zip(found, ctx.dtypes, strict=True)
        return *(None if x is None else x.mul_(upstream).to(dtype) for x, dtype in pairs), None, None


def _run(hidden: Tensor, matrix: Tensor, bias: Tensor | None, job: _Job, gradients: _Gradients) -> _Result:
    """Go through the chunks and add their gradients up."""
    if job.low is not None:
        hidden, matrix = hidden.to(job.low), matrix.to(job.low)
        bias = None if bias is None else bias.to(job.low)
    with torch.autocast(hidden.device.type, enabled=False):
        found = [
            _chunk(hidden, matrix, bias, job, gradients, slice(start, start + job.chunk))
            for start in range(0, max(len(hidden), 1), job.chunk)
        ]
    weight = torch.cat([result.weight for result in found])
    parts = [result.seen for result in found]
    entropy = torch.cat([x.entropy for x in parts if x.entropy is not None]) if job.entropy else None
    seen = Seen(torch.cat([x.ce for x in parts]), torch.cat([x.lse for x in parts]), entropy)
    return _Result(weight, seen)


def _chunk(
    hidden: Tensor, matrix: Tensor, bias: Tensor | None, job: _Job, gradients: _Gradients, part: slice
) -> _Result:
    """Do all that needs the logits of a chunk; they are gone when it returns."""
    logits = F.linear(hidden[part], matrix, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    seen = _into_probabilities(logits, job.target[part], entropy=job.entropy)
    weight = job.weigh(part, seen).to(seen.ce.dtype)
    if gradients.any:
        _into_gradient(logits, job.target[part], weight, seen.lse, job.z_loss)
        _add(gradients, logits, hidden[part], matrix, part)
    return _Result(weight, seen)


def _into_probabilities(logits: Tensor, target: Tensor, *, entropy: bool) -> Seen:
    """Turn logits [m, W] into probabilities where they stand."""
    top = logits.amax(-1, keepdim=True)
    logits.sub_(top)
    chosen = logits.gather(-1, target[:, None])[:, 0]
    spread = logits.exp().mul_(logits).sum(-1) if entropy else None
    total = logits.exp_().sum(-1)
    logits.div_(total[:, None])
    log_total = total.log()
    surprise = None if spread is None else log_total - spread / total
    return Seen(log_total - chosen, log_total + top[:, 0], surprise)


def _into_gradient(logits: Tensor, target: Tensor, weight: Tensor, lse: Tensor, z_loss: float) -> None:
    """Turn probabilities into the gradient of the chunk's loss by its logits, where they stand."""
    logits.mul_((weight * (1 + 2 * z_loss * lse))[:, None])
    logits[torch.arange(len(target), device=target.device), target] -= weight


def _add(gradients: _Gradients, slope: Tensor, hidden: Tensor, matrix: Tensor, part: slice) -> None:
    """Add the gradients of a chunk, `slope` [m, W] being that of its logits."""
    if gradients.bias is not None:
        gradients.bias.add_(slope.sum(0))
    slope = slope.to(matrix.dtype)
    if gradients.hidden is not None:
        gradients.hidden[part] = slope @ matrix
    if gradients.matrix is None:
        return
    if gradients.matrix.dtype == slope.dtype:
        gradients.matrix.addmm_(slope.T, hidden)
        return
    # Products of low precision are added up in fp32, some words at a time for want of memory.
    for start in range(0, slope.shape[1], _WORDS):
        own = slice(start, start + _WORDS)
        gradients.matrix[own] += slope[:, own].T @ hidden


_WORDS = 16_384


def _space(given: Tensor | None, *, needed: bool) -> Tensor | None:
    if given is None or not needed:
        return None
    return torch.zeros_like(given, dtype=torch.promote_types(given.dtype, torch.float32))


def _parts(head: nn.Linear) -> tuple[Tensor, Tensor | None]:
    if not isinstance(head, nn.Linear):
        raise RecipeError(
            f"the head is {type(head).__name__}, but the loss needs a matrix; make `model.head` an nn.Linear"
        )
    return head.weight, head.bias


def _autocast(device: torch.device) -> torch.dtype | None:
    on = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if on else None
