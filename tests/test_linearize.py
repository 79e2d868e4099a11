import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.linearize import arrange, linearize, vision_first
from hedgerow.testing import random_forest, tiny_encoder
from hedgerow.tree import Message, MessageTree


def test_a_root_with_two_branches_of_which_one_has_a_child():
    layout = linearize([-1, 0, 1, 0], [3, 2, 1, 2])
    assert layout.order.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert layout.position.tolist() == [0, 1, 2, 3, 4, 5, 3, 4]
    assert layout.end.tolist() == [8, 8, 8, 6, 6, 6, 8, 8]
    assert layout.start == (0, 3, 5, 6)
    assert {x.dtype for x in layout[:3]} == {np.dtype(np.int32)}


def test_a_node_without_tokens_takes_no_place():
    layout = linearize([-1, 0, 1], [0, 2, 1])
    assert layout.position.tolist() == [0, 1, 2]
    assert layout.end.tolist() == [3, 3, 3]
    assert layout.start == (0, 0, 2)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), nodes=st.integers(1, 9))
def test_positions_count_along_the_path_and_end_closes_the_subtree(seed, nodes):
    forest = random_forest(np.random.default_rng(seed), trees=1, nodes=nodes)
    for node in range(len(forest.parents)):
        path, own = forest.path(node), np.flatnonzero(forest.owner == node)
        on_path = np.isin(forest.owner, path)
        np.testing.assert_array_equal(forest.position[on_path], np.arange(on_path.sum()))
        below = [n for n in range(len(forest.parents)) if node in forest.path(n)]
        last = np.flatnonzero(np.isin(forest.owner, below)).max()
        assert set(forest.end[own].tolist()) == {last + 1}


@pytest.mark.parametrize("parents", [[-1, 0, 0, 1], [-1, -1], [-1, 1], [-1, 2, 0]])
def test_nodes_that_are_not_depth_first_are_refused(parents):
    with pytest.raises(ValueError, match="give nodes depth first"):
        linearize(parents, [1] * len(parents))


def test_vision_first_keeps_nodes_and_the_order_within_vision_and_text():
    owner = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    group = np.array([-1, 3, -1, 3, -1, -1, -1, 4])
    assert vision_first(owner, group).tolist() == [1, 3, 0, 2, 4, 5, 7, 6]


def test_slots_may_not_change_their_order():
    tree = MessageTree("a", [Message("user", "Who?"), Message("assistant", "I.")])
    sequence = tiny_encoder()(tree)
    slotted = dataclasses.replace(sequence, slot=np.array([0, 1], np.int32))
    with pytest.raises(ValueError, match="slots would change their order"):
        arrange(slotted, np.arange(len(sequence))[::-1])
