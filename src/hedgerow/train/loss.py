"""The weighted loss of a row: cross entropy at its supervised positions only, logits made chunk by chunk.

Letters as in `hedgerow.sequence`: N tokens, M supervised targets, S samples; D is the width of the model.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Literal, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hedgerow.sequence import Row, Sample

Head = Callable[[Tensor], Tensor]
Key = tuple[str, str]  # task and data set


@dataclass(frozen=True, slots=True)
class RowLoss:
    """What a row adds to the loss of a step.

    `numerator` [] is sum of w (ce + z lse^2), not normalised, the only field with a gradient; `z_term` [] its
    part that comes from z. `sums` float64 [5, S] holds for each sample: sum of w ce, sum of ce, sum of w,
    number of targets, number of targets with w > 0.
    """

    numerator: Tensor
    z_term: Tensor
    sums: Tensor


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over targets: `weighted` of w ce, `nll` of ce, `weight` of w; `tokens` are those with w > 0.

    `samples` is the number of samples that have a target. What is reported and divided by derives from these.
    """

    weighted: float = 0.0
    nll: float = 0.0
    weight: float = 0.0
    targets: int = 0
    tokens: int = 0
    samples: int = 0

    @staticmethod
    def total(parts: Iterable["Sums"]) -> "Sums":
        """Add up, in the given order."""
        columns = list(zip(*map(astuple, parts), strict=True))
        return Sums(*map(sum, columns)) if columns else Sums()

    def divisor(self, normalize: Literal["weights", "samples", "tokens"]) -> float:
        """Return what the summed loss is divided by."""
        parts = {"weights": self.weight, "samples": float(self.samples), "tokens": float(self.tokens)}
        return parts[normalize]


def weighted_loss(hidden: Tensor, row: Row, head: Head, *, z_loss: float = 0.0, chunk: int = 1024) -> RowLoss:
    """Return the loss of a row and the sums it is normalised and reported by.

    Args:
        hidden: last hidden states [N, D].
        row: a row of tensors (`Row.to`); one without targets gives 0.
        head: from hidden states [m, D] to logits [m, vocabulary].
        z_loss: factor on the squared log of the softmax's denominator, weighted like the cross entropy.
        chunk: most positions for which logits exist at once.
    """
    ce, lse = cross_entropy(hidden, row, head, chunk=chunk)
    weight = row.weight.to(ce.dtype)
    z_term = z_loss * (weight * lse.square()).sum()
    numerator = (weight * ce).sum() + z_term
    return RowLoss(numerator, z_term.detach(), _sums(ce.detach().double(), row))


def cross_entropy(hidden: Tensor, row: Row, head: Head, *, chunk: int = 1024) -> tuple[Tensor, Tensor]:
    """Return cross entropy and log-sum-exp of the logits of every target, both [M], in fp32 or better.

    Args:
        hidden: last hidden states [N, D].
        row: a row of tensors.
        head: from hidden states [m, D] to logits [m, vocabulary].
        chunk: most positions for which logits exist at once, in backward too: several chunks are computed
            twice.
    """
    # index_select: its backward adds in a fixed order, that of indexing in any; branches share sources.
    picked = torch.split(hidden.index_select(0, row.source), chunk)
    targets = torch.split(row.target, chunk)
    if len(picked) == 1:
        return _token_losses(picked[0], targets[0], head)
    found = [
        checkpoint(_token_losses, part, target, head, use_reentrant=False, preserve_rng_state=False)
        for part, target in zip(picked, targets, strict=True)
    ]
    pairs = cast("list[tuple[Tensor, Tensor]]", found)
    return torch.cat([ce for ce, _ in pairs]), torch.cat([lse for _, lse in pairs])


def by_task(loss: RowLoss, samples: Iterable[Sample]) -> dict[Key, Sums]:
    """Return the sums of a row for each task and data set, read from the device."""
    found = []
    for sample, (weighted, nll, weight, targets, tokens) in zip(samples, loss.sums.T.tolist(), strict=True):
        sums = Sums(weighted, nll, weight, int(targets), int(tokens), int(targets > 0))
        found.append({(sample.task, sample.source): sums})
    return merged(found)


def merged(parts: Iterable[Mapping[Key, Sums]]) -> dict[Key, Sums]:
    """Add up sums key by key, in the given order."""
    columns: dict[Key, list[Sums]] = {}
    for part in parts:
        for key, sums in part.items():
            columns.setdefault(key, []).append(sums)
    return {key: Sums.total(column) for key, column in columns.items()}


def _token_losses(hidden: Tensor, target: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    logits = head(hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    lse = logits.logsumexp(-1)
    return lse - logits.gather(-1, target[:, None])[:, 0], lse


def _sums(ce: Tensor, row: Row) -> Tensor:
    weight = row.weight.double()
    each = torch.stack([weight * ce, ce, weight, torch.ones_like(ce), (weight > 0).double()])
    return each.new_zeros(5, len(row.samples)).index_add_(1, row.sample, each)
