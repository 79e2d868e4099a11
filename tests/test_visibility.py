import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow import visibility
from hedgerow.testing import random_forest


def naive(forest, *, window=None):
    """The rule from parents alone: own node up to itself, all of every ancestor, and the own vision group."""
    mask = np.zeros((len(forest), len(forest)), bool)
    for q in range(len(forest)):
        path = forest.path(forest.owner[q])
        for k in range(len(forest)):
            if forest.owner[k] == forest.owner[q]:
                mask[q, k] = forest.position[k] <= forest.position[q]
            else:
                mask[q, k] = forest.owner[k] in path
            mask[q, k] |= forest.group[q] == forest.group[k] >= 0
            mask[q, k] &= window is None or forest.position[q] - forest.position[k] < window
    return mask


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), trees=st.integers(1, 3), nodes=st.integers(1, 6),
    vision=st.integers(0, 6), window=st.none() | st.integers(1, 8),
)  # fmt: skip
def test_dense_is_the_walk_over_ancestors(seed, trees, nodes, vision, window):
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, trees=trees, nodes=nodes, vision=vision)
    forest = forest.take(rng.permutation(len(forest)))
    mask = visibility.dense(forest.order, forest.end, forest.group, position=forest.position, window=window)
    np.testing.assert_array_equal(mask, naive(forest, window=window))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), trees=st.integers(1, 3), vision=st.integers(0, 9))
def test_pairs_counts_what_dense_shows(seed, trees, vision):
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, trees=trees, vision=vision)
    forest = forest.take(rng.permutation(len(forest)))
    mask = visibility.dense(forest.order, forest.end, forest.group)
    assert visibility.pairs(forest.order, forest.end, forest.group) == mask.sum()


def test_pairs_counts_a_group_over_several_nodes():
    order, end, group = np.arange(4), np.array([4, 4, 3, 4]), np.array([-1, 0, 0, 0])
    assert visibility.pairs(order, end, group) == visibility.dense(order, end, group).sum()


def test_every_token_sees_itself_and_padding_sees_only_itself():
    order, group = np.arange(5), np.full(5, -1)
    end = np.array([3, 3, 3, 4, 5])
    mask = visibility.dense(order, end, group)
    assert mask.diagonal().all()
    assert mask[3:].sum() == mask[:, 3:].sum() == 2


def test_a_window_without_positions_is_refused():
    with pytest.raises(ValueError, match="pass position="):
        visibility.dense(np.arange(2), np.full(2, 2), np.full(2, -1), window=1)


def test_pairs_of_a_long_row_needs_no_square_array():
    order = np.arange(200_000, dtype=np.int32)
    assert (
        visibility.pairs(order, np.full_like(order, 200_000), np.full_like(order, -1))
        == 200_000 * 200_001 // 2
    )
