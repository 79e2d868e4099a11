"""Preference losses on trees: ranked sibling branches of a node are the candidates.

Image and prompt stand in the trunk of the tree, so they run once for all candidates. All pairs of candidates
of one node with different ranks are compared, the lower rank being the better answer; the loss of a step is
the mean over all its pairs. Only ranked answers are trained, other answers of the tree are left as they are.

Letters as in `hedgerow.sequence`; P pairs, I and J targets of the longest better and worse answer.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hedgerow.errors import DataError
from hedgerow.sequence import Row
from hedgerow.train.chunks import predict, summed_loss
from hedgerow.train.loss import RowLoss, references, trees_of
from hedgerow.weights.transport import transport_weights


@dataclass(frozen=True, slots=True)
class Transport:
    """Strengths of the optimal transport of OTPO, as for `hedgerow.weights.transport.sinkhorn`."""

    entropy: float = 1.0
    marginal: float = 0.2


def preference_loss(
    hidden: Tensor,
    row: Row,
    head: nn.Linear,
    *,
    beta: float,
    smoothing: float = 0.0,
    transport: Transport | None = None,
    chunk: int = 256,
) -> RowLoss:
    """Return the preference loss of a row, summed over its pairs.

    With r = log p - log p_ref of a target and m = beta (sum of v r over the better answer - sum of v r over
    the worse), a pair's loss is -(1 - smoothing) log sigmoid(m) - smoothing log sigmoid(-m): DPO, arXiv
    2305.18290, equation 7, with smoothed labels. v is the weight that message, part and rules gave the
    target, 1 if none did; the weight by task and length does not enter. With `transport` v is also multiplied
    by the target's transport weight: OTPO, arXiv 2505.18720.

    In `sums` a pair counts as weight 1 of its better sample, so the divisor `weights` is the number of pairs.
    The head's matrix is multiplied four times: what a target's gradient is depends on all of its pairs.

    Args:
        hidden: last hidden states [N, D].
        row: a row of tensors, with reference log-probabilities.
        head: from hidden states to logits.
        beta: how far the model may go from the reference: the smaller, the further.
        smoothing: share of pairs that may be the wrong way round, from 0 to 0.5.
        transport: weighs targets by optimal transport; None is DPO.
        chunk: most positions for which logits exist at once.

    Raises:
        DataError: a tree has no pair, or a target no reference log-probability.
    """
    picked = hidden.index_select(0, row.source)
    seen = predict(picked, row.target, head, chunk=chunk)
    pairs = find_pairs(row)
    share = _shares(row).to(seen.ce.dtype)
    weights = [share[side.target] * side.present for side in (pairs.better, pairs.worse)]
    if transport is not None:
        factors = _transported(picked.detach(), pairs, weights, transport)
        weights = [weight * factor for weight, factor in zip(weights, factors, strict=True)]
    with torch.enable_grad():
        ce = seen.ce.detach().requires_grad_()
        ratio = -ce - references(row, "a preference loss").to(ce.dtype)
        better, worse = (
            (weight * ratio[side.target]).sum(1)
            for weight, side in zip(weights, (pairs.better, pairs.worse), strict=True)
        )
        margin = beta * (better - worse)
        losses = -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)
        (slope,) = torch.autograd.grad(losses.sum(), ce)
    total, _, _ = summed_loss(picked, row.target, head, lambda part, _: slope[part], chunk=chunk)
    loss = losses.detach()
    # sum of slope x ce has the gradient of the loss, not its value.
    numerator = loss.sum() + (total - total.detach())
    return RowLoss(numerator, torch.zeros_like(numerator), _sums(seen.ce, share, loss, margin, pairs, row))


@dataclass(frozen=True, slots=True)
class Side:
    """One answer of each pair: `sample` int64 [P]; `target` int64 and `present` bool [P, I]."""

    sample: Tensor
    target: Tensor
    present: Tensor


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of a row: sides [P, I] and [P, J]."""

    better: Side
    worse: Side


def find_pairs(row: Row) -> Pairs:
    """Return all pairs of answers to one question with different ranks.

    Args:
        row: a row of tensors.

    Raises:
        DataError: a tree has none.
    """
    tree = torch.zeros(len(row.samples), dtype=torch.int64, device=row.sample.device)
    tree[row.sample] = trees_of(row)
    # Nodes are numbered tree by tree: the same number in another tree is another question.
    questions: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for number, (place, sample) in enumerate(zip(tree.tolist(), row.samples, strict=True)):
        if sample.pair >= 0:
            questions[place, sample.pair].append(number)
    found: list[tuple[int, int]] = []
    paired = set()
    for (place, _), answers in questions.items():
        ranked = [
            (one, other)
            for one, other in permutations(answers, 2)
            if row.samples[one].rank < row.samples[other].rank
        ]
        found += ranked
        paired |= {place} if ranked else set()
    for place, example in enumerate(row.examples):
        if place not in paired:
            raise DataError(
                f"{example}: no better and worse answer to one question; give sibling branches a rank (0 is "
                "best), or leave the tree out of a preference run"
            )
    better, worse = torch.tensor(found, device=row.sample.device).T
    return Pairs(_side(better, row), _side(worse, row))


def _side(sample: Tensor, row: Row) -> Side:
    order = row.sample.argsort(stable=True)
    count = torch.bincount(row.sample, minlength=len(row.samples))
    start = (count.cumsum(0) - count)[sample]
    place = torch.arange(int(count[sample].max()), device=sample.device)
    present = place < count[sample][:, None]
    return Side(sample, order[(start[:, None] + place).clamp(max=len(order) - 1)], present)


def _shares(row: Row) -> Tensor:
    """The weight of each target over that of its sample, float32 [M]; 0 for a sample of weight 0."""
    weight = torch.tensor([sample.weight for sample in row.samples], device=row.weight.device)
    weight = weight.to(row.weight.dtype)[row.sample]
    return torch.where(weight != 0, row.weight / weight, 0.0)


def _transported(states: Tensor, pairs: Pairs, weights: list[Tensor], transport: Transport) -> list[Tensor]:
    better, worse = transport_weights(
        states[pairs.better.target],
        states[pairs.worse.target],
        weights[0] != 0,
        weights[1] != 0,
        entropy=transport.entropy,
        marginal=transport.marginal,
    )
    return [better.to(weights[0].dtype), worse.to(weights[1].dtype)]


def _sums(ce: Tensor, share: Tensor, losses: Tensor, margin: Tensor, pairs: Pairs, row: Row) -> Tensor:
    """As `RowLoss.sums`, a pair being a weight of 1 on its better sample."""
    sums = ce.new_zeros(9, len(row.samples), dtype=torch.float64)
    one, margin = torch.ones_like(losses, dtype=torch.float64), margin.detach().double()
    compared = torch.stack([losses.double(), one, one, one, (margin > 0).double(), margin])
    places = [0, 2, 3, 6, 7, 8]
    sums[places] = sums[places].index_add_(1, pairs.better.sample, compared)
    seen = torch.stack([ce.double(), torch.ones_like(ce, dtype=torch.float64), (share > 0).double()])
    sums[[1, 4, 5]] = sums[[1, 4, 5]].index_add_(1, row.sample, seen)
    return sums
