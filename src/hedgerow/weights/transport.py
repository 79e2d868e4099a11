"""Token weights of two answers by optimal transport between what a model thinks at their tokens (OTPO).

Tokens of the better answer are matched with those of the worse one by unbalanced optimal transport over
hidden states; a token weighs what it sends or receives. So what both answers share counts, and an answer's
length does not. Source: arXiv 2505.18720, section 4.

P pairs, I and J tokens of the longest better and the longest worse answer, D channels.
"""

import torch
from torch import Tensor


def transport_weights(
    left: Tensor, right: Tensor, left_mass: Tensor, right_mass: Tensor, *, entropy: float, marginal: float
) -> tuple[Tensor, Tensor]:
    """Return how much each token of either answer weighs.

    With G the plan of `sinkhorn`, a token's weight is its sum of G over s = sum(G) / min(|left|, |right|), so
    the weights of both answers sum to min(|left|, |right|). The cost of two tokens is the Euclidean distance
    of their states, over the largest of the pair where that is above 1.

    Args:
        left: hidden states [P, I, D]; no gradient flows to them.
        right: hidden states [P, J, D].
        left_mass: [P, I], 1 for a token and 0 for padding.
        right_mass: [P, J].
        entropy: as for `sinkhorn`; 1 is the paper's default.
        marginal: as for `sinkhorn`; 0.2 is the paper's default.

    Returns:
        float64 [P, I] and [P, J], 0 at padding.

    Raises:
        ValueError: an answer has no tokens.
    """
    a, b = left_mass.detach().double(), right_mass.detach().double()
    # Squares, not inner products: equal states must have distance 0, whatever stands beside them.
    cost = torch.cdist(
        left.detach().double(), right.detach().double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    cost = cost * (a > 0)[:, :, None] * (b > 0)[:, None, :]
    cost = cost / cost.amax((1, 2), keepdim=True).clamp(min=1.0)
    plan = sinkhorn(cost, a, b, entropy=entropy, marginal=marginal)
    least = torch.minimum(a.sum(1), b.sum(1))
    scale = (least / plan.sum((1, 2)))[:, None]
    return plan.sum(2) * scale, plan.sum(1) * scale


def sinkhorn(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    entropy: float,
    marginal: float,
    tolerance: float = 1e-13,
    iterations: int = 10_000,
) -> Tensor:
    """Return the plans G of unbalanced optimal transport problems, in the log domain.

    G minimises <G, C> + entropy KL(G | a b^T) + marginal (KL(G 1 | a) + KL(G^T 1 | b)). The iteration is that
    of arXiv 1607.05816; between its steps the potentials move by the constant that is best for both, which
    keeps it fast for strong marginals (arXiv 2201.00730, section 3).

    Args:
        cost: float [P, I, J].
        a: masses [P, I]; 0 is padding.
        b: masses [P, J].
        entropy: strength of the entropic term, above 0.
        marginal: how strongly the sums of the plan are held to the masses, above 0.
        tolerance: change of a potential, over `entropy`, at which the iteration ends.
        iterations: the most there are.

    Raises:
        ValueError: a strength is not above 0, or a side of a pair has no mass.
    """
    if entropy <= 0 or marginal <= 0:
        raise ValueError(f"entropy {entropy} and marginal {marginal}: give numbers above 0")
    if not (a.sum(1) > 0).all() or not (b.sum(1) > 0).all():
        raise ValueError("an answer without tokens cannot be transported; give both sides of a pair some")
    scaled, log_a, log_b = cost / entropy, a.log(), b.log()
    share = marginal / (marginal + entropy)
    f, g = torch.zeros_like(a), torch.zeros_like(b)  # potentials over entropy
    limit = tolerance * max(1.0, marginal / entropy)  # rounding of `_balance` grows with this
    for _ in range(iterations):
        before = f
        f = -share * (log_b[:, None, :] + g[:, None, :] - scaled).logsumexp(2)
        g = -share * (log_a[:, :, None] + f[:, :, None] - scaled).logsumexp(1)
        move = _balance(f, g, log_a, log_b, entropy / marginal)
        f, g = f + move, g - move
        if float((f - before).abs().amax()) <= limit:
            break
    return (f[:, :, None] + g[:, None, :] + log_a[:, :, None] + log_b[:, None, :] - scaled).exp()


def _balance(f: Tensor, g: Tensor, log_a: Tensor, log_b: Tensor, ratio: float) -> Tensor:
    """The constant that, added to f and taken from g, maximises the dual; [P, 1]."""
    left = (log_a - ratio * f).logsumexp(1, keepdim=True)
    right = (log_b - ratio * g).logsumexp(1, keepdim=True)
    return (left - right) / (2 * ratio)
