import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.weights.transport import sinkhorn, transport_weights

STRENGTHS = [(1.0, 0.2), (0.1, 0.2), (1.0, 10.0), (0.2, 100.0)]


def drawn(seed, sizes, width=5):
    """Hidden states of pairs, padded to the longest with numbers that must not matter."""
    generator = torch.Generator().manual_seed(seed)

    def side(lengths):
        states = torch.randn(len(lengths), max(lengths), width, generator=generator, dtype=torch.float64)
        mass = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).double()
        return torch.where(mass[:, :, None] > 0, states, 1e3), mass

    return (*side([one for one, _ in sizes]), *side([other for _, other in sizes]))


def weigh(left, left_mass, right, right_mass, *, entropy=1.0, marginal=0.2):
    return transport_weights(left, right, left_mass, right_mass, entropy=entropy, marginal=marginal)


@pytest.mark.filterwarnings("ignore")  # what other libraries say while they are imported
@pytest.mark.parametrize(("entropy", "marginal"), STRENGTHS)
def test_plans_and_weights_equal_those_of_pot(entropy, marginal):
    """Python Optimal Transport, one pair at a time, on the costs as the paper has them."""
    ot = pytest.importorskip("ot")
    sizes = [(7, 12), (1, 4), (9, 9), (5, 2)]
    left, left_mass, right, right_mass = drawn(3, sizes)
    found = weigh(left, left_mass, right, right_mass, entropy=entropy, marginal=marginal)
    for number, (i, j) in enumerate(sizes):
        cost = np.linalg.norm(left[number, :i, None].numpy() - right[number, None, :j].numpy(), axis=-1)
        cost = cost / max(cost.max(), 1.0)
        plan = ot.unbalanced.sinkhorn_unbalanced(
            np.ones(i), np.ones(j), cost, entropy, marginal,
            method="sinkhorn_stabilized", numItermax=100_000, stopThr=1e-12,
        )  # fmt: skip
        one = torch.ones(1, i).double(), torch.ones(1, j).double()
        own = sinkhorn(torch.from_numpy(cost)[None], *one, entropy=entropy, marginal=marginal)[0]
        np.testing.assert_allclose(own.numpy(), plan, atol=1e-5 * plan.max())
        scale = min(i, j) / plan.sum()
        np.testing.assert_allclose(found[0][number, :i].numpy(), plan.sum(1) * scale, rtol=1e-5)
        np.testing.assert_allclose(found[1][number, :j].numpy(), plan.sum(0) * scale, rtol=1e-5)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), i=st.integers(1, 9), j=st.integers(1, 9), at=st.integers(0, 3))
def test_both_answers_weigh_as_much_as_the_shorter_has_tokens(seed, i, j, at):
    entropy, marginal = STRENGTHS[at]
    states = drawn(seed, [(i, j), (4, 2)])
    left, right = weigh(*states, entropy=entropy, marginal=marginal)
    for side in (left, right):
        np.testing.assert_allclose(side.sum(1).numpy(), [min(i, j), 2], rtol=1e-10)
        assert (side >= 0).all()
    assert not left[states[1] == 0].any()
    assert not right[states[3] == 0].any()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999), i=st.integers(1, 8), j=st.integers(1, 8))
def test_swapping_the_answers_swaps_the_weights(seed, i, j):
    left, left_mass, right, right_mass = drawn(seed, [(i, j)])
    one, other = weigh(left, left_mass, right, right_mass)
    there, here = weigh(right, right_mass, left, left_mass)
    torch.testing.assert_close(one, here, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(other, there, rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999), i=st.integers(2, 8), j=st.integers(2, 8))
def test_permuting_tokens_permutes_the_weights(seed, i, j):
    left, left_mass, right, right_mass = drawn(seed, [(i, j)])
    rows, columns = torch.randperm(i), torch.randperm(j)
    one, other = weigh(left, left_mass, right, right_mass)
    moved, same = weigh(left[:, rows], left_mass, right[:, columns], right_mass)
    torch.testing.assert_close(one[:, rows], moved, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(other[:, columns], same, rtol=1e-9, atol=1e-12)


def test_strong_marginals_make_all_tokens_of_an_answer_equal():
    left, right = weigh(*drawn(1, [(7, 12)]), entropy=1.0, marginal=1e6)
    np.testing.assert_allclose(left.numpy(), 1.0, rtol=1e-4)
    np.testing.assert_allclose(right.numpy(), 7 / 12, rtol=1e-4)


def test_weak_marginals_favour_what_the_answers_share():
    left, left_mass, right, right_mass = drawn(5, [(7, 12)], width=64)
    right[0, 3] = left[0, 2]
    one, other = weigh(left, left_mass, right, right_mass, entropy=0.1, marginal=0.1)
    assert one[0].argmax() == 2
    assert other[0].argmax() == 3
    assert one[0, 2] > 1.5 * one[0, 0]


def test_other_pairs_and_padding_change_nothing():
    """Law 6 hangs on this: a pair has the same weights in any row."""
    sizes = [(7, 3), (2, 9), (5, 5)]
    left, left_mass, right, right_mass = drawn(2, sizes)
    one, other = weigh(left, left_mass, right, right_mass)
    for number, (i, j) in enumerate(sizes):
        own = slice(number, number + 1)
        alone = weigh(left[own, :i], left_mass[own, :i], right[own, :j], right_mass[own, :j])
        torch.testing.assert_close(one[own, :i], alone[0], rtol=1e-12, atol=0.0)
        torch.testing.assert_close(other[own, :j], alone[1], rtol=1e-12, atol=0.0)


def test_no_gradient_flows_to_the_states():
    left, left_mass, right, right_mass = drawn(2, [(3, 4)])
    found = weigh(left.requires_grad_(), left_mass, right.requires_grad_(), right_mass)
    assert not any(side.requires_grad for side in found)


def test_an_empty_answer_and_a_strength_of_zero_are_refused():
    left, left_mass, right, right_mass = drawn(2, [(3, 4), (2, 2)])
    with pytest.raises(ValueError, match="an answer without tokens"):
        weigh(left, left_mass * torch.tensor([[1.0], [0.0]]), right, right_mass)
    with pytest.raises(ValueError, match=r"entropy 0.0 and marginal 0.2: give numbers above 0"):
        weigh(left, left_mass, right, right_mass, entropy=0.0)
