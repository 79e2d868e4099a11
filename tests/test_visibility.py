"""The rule as a mask against a walk over ancestors; everything fast against the mask."""

import dataclasses
import pickle
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow import visibility
from hedgerow.errors import VisibilityError
from hedgerow.linearize import linearize
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


ORDERS = ("logical", "vision first", "shuffled")


def draw(seed, order="shuffled", *, padding=0, **sizes):
    """The integers of a forest in some physical order, padding at the end but for a shuffled one."""
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, **sizes)
    own = np.arange(len(forest), len(forest) + padding)
    first_vision = np.lexsort((forest.order, forest.group < 0, forest.owner))
    where = {
        "logical": np.arange(len(forest) + padding),
        "vision first": np.append(first_vision, own),
        "shuffled": rng.permutation(len(forest) + padding),
    }[order]
    fields = zip(
        (forest.order, forest.end, forest.group, forest.position),
        (own, own + 1, np.full(padding, -1), np.zeros(padding)),
        strict=True,
    )
    return SimpleNamespace(
        **{
            name: np.concatenate(pair).astype(np.int32)[where]
            for name, pair in zip(("order", "end", "group", "position"), fields, strict=True)
        }
    )


def rule(row):
    return row.order, row.end, row.group


def realistic(tokens, *, vision_first):
    """One video of frames with timestamps, branches that answer, padding: a row of some tokens."""
    frames, branches = int(tokens * 0.9) // 87, [120] * (tokens // 4000)
    layout = linearize([-1] + [0] * len(branches), [frames * 87, *branches])
    group = np.full(tokens, -1, np.int32)
    group[: frames * 87] = np.where(np.arange(frames * 87) % 87 < 6, -1, 0)
    own = np.arange(len(layout.order), tokens)
    order = np.append(layout.order, own).astype(np.int32)
    end = np.append(layout.end, own + 1).astype(np.int32)
    node = np.searchsorted([*layout.start[1:], len(layout.order)], order, side="right")
    where = np.lexsort((order, group < 0, node)) if vision_first else order
    return SimpleNamespace(order=order[where], end=end[where], group=group[where])


def in_blocks(mask, size):
    count = -(-len(mask) // size)
    square = np.zeros((count * size, count * size), int)
    square[: len(mask), : len(mask)] = mask
    return square.reshape(count, size, count, size).sum(axis=(1, 3))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), order=st.sampled_from(ORDERS), trees=st.integers(1, 3),
    nodes=st.integers(1, 7), vision=st.integers(0, 9), padding=st.integers(0, 5),
    window=st.none() | st.integers(1, 12), size=st.integers(1, 20),
)  # fmt: skip
def test_counts_are_sums_of_dense(seed, order, trees, nodes, vision, padding, window, size):
    row = draw(seed, order, padding=padding, trees=trees, nodes=nodes, vision=vision)
    limit = {} if window is None else {"position": row.position, "window": window}
    mask = visibility.dense(*rule(row), **limit)
    np.testing.assert_array_equal(visibility.visible(*rule(row), **limit), mask.sum(axis=1))
    assert visibility.pairs(*rule(row), **limit) == mask.sum()
    found = visibility.blocks(*rule(row), size=size, **limit)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, in_blocks(mask, size))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 40), size=st.integers(1, 9))
def test_without_a_window_any_integers_are_counted(seed, length, size):
    rng = np.random.default_rng(seed)
    order = rng.permutation(length)
    end, group = rng.integers(order + 1, length + 1), rng.integers(-1, 4, length)
    mask = visibility.dense(order, end, group)
    np.testing.assert_array_equal(visibility.visible(order, end, group), mask.sum(axis=1))
    np.testing.assert_array_equal(visibility.blocks(order, end, group, size=size), in_blocks(mask, size))


def test_counts_by_hand():
    # A root of frame, text, frame (one group), two branches of two, and padding; blocks of three.
    order, end = np.arange(8), np.array([7, 7, 7, 5, 5, 7, 7, 8])
    group = np.array([0, -1, 0, -1, -1, -1, -1, -1])
    assert visibility.visible(order, end, group).tolist() == [2, 2, 3, 4, 5, 4, 5, 1]
    assert visibility.pairs(order, end, group) == 26
    assert visibility.blocks(order, end, group, size=3).tolist() == [[7, 0, 0], [9, 4, 0], [3, 1, 2]]
    position = np.array([0, 1, 2, 3, 4, 3, 4, 0])
    near = {"position": position, "window": 2}
    assert visibility.visible(order, end, group, **near).tolist() == [2, 2, 2, 2, 2, 2, 2, 1]
    assert visibility.tree_pairs(order, end, group, [7]).tolist() == [25]
    assert visibility.reach(order, end, group).tolist() == [2, 2, 2, 3, 4, 5, 6, 7]
    assert visibility.intervals(order[:5], np.minimum(end[:5], 5), group[:5]).tolist() == [
        [0, 1, 2, 3], [0, 2, 2, 2], [0, 3, 3, 3], [0, 4, 4, 4], [0, 5, 5, 5],
    ]  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), window=st.none() | st.integers(1, 9))
def test_pairs_of_each_tree_are_those_of_the_tree_alone(seed, window):
    rng = np.random.default_rng(seed)
    alone = [draw(int(rng.integers(1000)), ORDERS[i], trees=1, vision=4) for i in range(3)]
    lengths = [len(tree.order) for tree in alone]
    starts = np.cumsum([0, *lengths])
    row = {name: np.concatenate([getattr(tree, name) for tree in alone]) for name in vars(alone[0])}
    shift = np.repeat(starts[:-1], lengths)
    row |= {"order": row["order"] + shift, "end": row["end"] + shift}
    row["group"] = np.where(row["group"] < 0, -1, row["group"] + shift)
    row = {name: np.append(row[name], last) for name, last in zip(
        ("order", "end", "group", "position"), (starts[-1], starts[-1] + 1, -1, 0), strict=True
    )}  # fmt: skip
    limit = {} if window is None else {"position": row.pop("position"), "window": window}
    row.pop("position", None)
    found = visibility.tree_pairs(**row, lengths=lengths, **limit)
    wanted = [visibility.dense(*rule(t), position=t.position, window=window).sum() for t in alone]
    assert found.tolist() == wanted
    assert visibility.pairs(**row, **limit) == sum(wanted) + 1


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), order=st.sampled_from(ORDERS), nodes=st.integers(1, 4),
    messages=st.integers(1, 2), vision=st.integers(0, 5), padding=st.integers(0, 3),
)  # fmt: skip
def test_intervals_are_dense_and_missing_only_where_a_query_needs_three(
    seed, order, nodes, messages, vision, padding
):
    row = draw(seed, order, padding=padding, trees=2, nodes=nodes, messages=messages, vision=vision)
    mask, found = visibility.dense(*rule(row)), visibility.intervals(*rule(row))
    stretches = (mask & ~np.pad(mask, ((0, 0), (1, 0)))[:, :-1]).sum(axis=1)
    assert (found is None) == (stretches > 2).any()
    if found is not None:
        assert found.dtype == np.int32
        a, b, c, d = found.T[:, :, None]
        key = np.arange(len(mask))
        np.testing.assert_array_equal((key >= a) & (key < b) | (key >= c) & (key < d), mask)
        assert ((a < b) & (b <= c) & (c <= d)).all()


def test_one_video_vision_first_has_two_intervals_and_in_logical_order_not():
    row = realistic(4096, vision_first=True)
    found = visibility.intervals(*rule(row)).astype(int)
    assert (found[:, 1] - found[:, 0] + found[:, 3] - found[:, 2]).sum() == visibility.pairs(*rule(row))
    assert visibility.intervals(*rule(realistic(4096, vision_first=False))) is None


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 30), nested=st.booleans())
def test_reach_is_the_transitive_closure_of_dense(seed, length, nested):
    rng = np.random.default_rng(seed)
    order = rng.permutation(length)
    integers = order, rng.integers(order + 1, length + 1), rng.integers(-1, 4, length)
    integers = rule(draw(seed)) if nested else integers
    closed = visibility.dense(*integers)
    for _ in range(len(closed)):
        closed = (closed.astype(int) @ closed) > 0
    wanted = np.where(closed, integers[0], -1).max(axis=1)
    found = visibility.reach(*integers)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, wanted)


def test_reach_finds_a_group_that_spans_an_answer():
    order, end = np.arange(8), np.full(8, 8)
    apart, across = np.array([0, 0, -1, -1, -1, 1, 1, -1]), np.array([0, 0, -1, -1, -1, 0, 0, -1])
    source = np.array([2, 3])  # the answer is at 3 and 4
    assert visibility.reach(order, end, apart)[source].tolist() == [2, 3]
    assert visibility.reach(order, end, across)[source].tolist() == [6, 6]


@pytest.mark.parametrize("vision_first", [False, True])
def test_the_summary_sorts_blocks_by_what_is_seen(vision_first):
    row = realistic(2000, vision_first=vision_first)
    found = visibility.summary(row, size=64)
    counts = in_blocks(visibility.dense(*rule(row)), 64)
    assert found.size == 64
    for count, index, chosen in (
        (found.kv_count, found.kv_index, (counts > 0) & (counts < 64 * 64)),
        (found.full_count, found.full_index, counts == 64 * 64),
    ):
        assert count.dtype == index.dtype == np.int32
        assert chosen.any()
        for block in range(len(counts)):
            some = np.flatnonzero(chosen[block])
            assert index[block, : count[block]].tolist() == some.tolist()
            assert sorted(index[block]) == list(range(len(counts)))


@pytest.mark.parametrize("vision_first", [False, True])
def test_the_summary_of_36k_tokens_stays_within_20_mb(vision_first):
    row = realistic(36_864, vision_first=vision_first)
    tracemalloc.start()
    visibility.summary(row)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most <= 20e6


def test_the_blocks_of_a_row_move_with_it_and_stay_int32():
    row = dataclasses.replace(random_forest(np.random.default_rng(1)).row())
    assert row.to("cpu").blocks is None
    assert "blocks" not in row.to_dict()
    made = visibility.summary(realistic(500, vision_first=False))
    row = pickle.loads(pickle.dumps(dataclasses.replace(row, blocks=made)))
    moved = row.to("cpu").blocks
    assert moved.size == 128
    for name in ("kv_count", "kv_index", "full_count", "full_index"):
        assert getattr(moved, name).dtype == torch.int32
        np.testing.assert_array_equal(getattr(moved, name).numpy(), getattr(made, name))
        assert row.to_dict()[f"blocks_{name}"] is getattr(row.blocks, name)


@pytest.mark.parametrize(
    ("order", "end", "message"),
    [
        ([0, 2], [2, 2], "order must hold each place"),
        ([0, 0], [2, 2], "order must hold each place"),
        ([-1, 1], [2, 2], "order must hold each place"),
        ([0, 1], [0, 2], "the end of a token lies after"),
        ([0, 1], [2, 3], "the end of a token lies after"),
    ],
)
def test_malformed_rows_are_refused(order, end, message):
    integers = np.array(order), np.array(end), np.full(2, -1)
    for function in (visibility.blocks, visibility.intervals, visibility.reach):
        with pytest.raises(ValueError, match=message):
            function(*integers)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"window": 0}, ValueError, "give at least 1"),
        ({"position": None}, ValueError, "pass position="),
        ({"position": np.array([0, 1, 0, 2])}, ValueError, "positions fall along a path"),
        ({"end": np.array([4, 4, 3, 4]), "position": np.array([0, 3, 2, 4])}, ValueError, "positions fall"),
        ({"end": np.array([2, 3, 3, 4])}, ValueError, "not in its parent's"),
        (
            {"end": np.array([4, 4, 3, 4]), "group": np.array([-1, -1, 0, 0])},
            VisibilityError,
            "several nodes",
        ),
    ],
)
def test_windows_that_cannot_be_counted_are_refused(changes, error, message):
    row = {
        "order": np.arange(4), "end": np.full(4, 4), "group": np.full(4, -1), "position": np.arange(4),
        "window": 2,
    } | changes  # fmt: skip
    for function in (visibility.visible, visibility.pairs, visibility.blocks):
        with pytest.raises(error, match=message):
            function(**row)


def test_trees_longer_than_the_row_are_refused():
    with pytest.raises(ValueError, match="trees of 5 tokens in a row of 4"):
        visibility.tree_pairs(np.arange(4), np.full(4, 4), np.full(4, -1), [2, 3])


@pytest.mark.parametrize("size", [0, 1 << 16])
def test_blocks_of_a_size_that_cannot_be_counted_are_refused(size):
    with pytest.raises(ValueError, match="positions: give 1 to 32768"):
        visibility.blocks(np.arange(4), np.full(4, 4), np.full(4, -1), size=size)


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
