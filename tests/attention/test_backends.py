"""Laws 3, 4, 5 and 13 for the backends, on random packed trees."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow import visibility
from hedgerow.attention import BACKENDS, Dense, Masked, Segmented
from hedgerow.errors import VisibilityError
from hedgerow.linearize import linearize
from hedgerow.testing import random_forest

SEEDS = st.integers(0, 2**32 - 1)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10, torch.bfloat16: 2e-2, torch.float16: 5e-3}
NAMES = sorted(BACKENDS)


def draw(length, *, heads=(4, 2), width=8, dtype=torch.float32, seed=0):
    """Query, key, value and output gradient, laid out token by token as models do."""
    random = torch.Generator().manual_seed(seed)
    shapes = [(1, length, count, width) for count in (heads[0], heads[1], heads[1], heads[0])]
    return [
        torch.randn(shape, generator=random, dtype=torch.float64).to(dtype).transpose(1, 2)
        for shape in shapes
    ]


def run(backend, query, key, value, grad):
    leaves = [x.detach().clone().requires_grad_() for x in (query, key, value)]
    out = backend(*leaves, scale=query.shape[-1] ** -0.5)
    out.backward(grad)
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def distance(found, wanted):
    """Error relative to the norm; absolute where the true value is nothing but rounding."""
    error = (found.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1.0)
    return error.item()


def assert_equal_to_dense(forest, *, dtype=torch.float32, **sizes):
    row = forest.row()
    tensors = draw(len(forest), dtype=dtype, **sizes)
    wanted = run(Dense(row), *(x.double() for x in tensors))
    for name, a, b in zip(["out", "dq", "dk", "dv"], run(Segmented(row), *tensors), wanted, strict=True):
        assert a.dtype == dtype
        assert distance(a, b) <= TOLERANCE[dtype], name


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS, trees=st.integers(1, 4), nodes=st.integers(1, 8), vision=st.integers(0, 9),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1), (3, 3)]), width=st.sampled_from([1, 4, 16]),
    dtype=st.sampled_from([torch.float32, torch.float64]), shuffle=st.booleans(),
)  # fmt: skip
def test_segmented_equals_dense(seed, trees, nodes, vision, heads, width, dtype, shuffle):
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, trees=trees, nodes=nodes, vision=vision)
    if shuffle:
        forest = forest.take(rng.permutation(len(forest)))
    assert_equal_to_dense(forest, dtype=dtype, heads=heads, width=width, seed=seed % 1000)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_segmented_equals_dense_in_every_dtype(dtype):
    forest = random_forest(np.random.default_rng(5), trees=3, vision=20)
    assert_equal_to_dense(forest, dtype=dtype)


def test_segmented_equals_dense_over_several_kernel_blocks():
    forest = random_forest(np.random.default_rng(8), trees=2, nodes=3, vision=500)
    assert len(forest) > 1100
    assert_equal_to_dense(forest)


def test_a_row_of_one_token_attends_to_itself():
    forest = random_forest(np.random.default_rng(0), trees=1, nodes=1, messages=1, vision=0).take(
        np.array([0])
    )
    forest = dataclasses.replace(forest, end=np.array([1], np.int32))
    query, key, value, grad = draw(1)
    out, *_ = run(Segmented(forest.row()), query, key, value, grad)
    torch.testing.assert_close(out, value.repeat_interleave(2, 1))


def test_segmented_takes_any_strides():
    forest = random_forest(np.random.default_rng(2))
    tensors = draw(len(forest))
    wanted = run(Segmented(forest.row()), *tensors)
    by_channel = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in tensors]
    assert by_channel[0].stride(-1) != 1
    for a, b in zip(run(Segmented(forest.row()), *by_channel), wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_segmented_computes_in_fp32_under_autocast():
    forest = random_forest(np.random.default_rng(2))
    query, key, value, _ = draw(len(forest))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = Segmented(forest.row())(query, key, value.bfloat16(), scale=0.3)
    assert out.dtype == torch.float32
    assert (
        distance(out, Dense(forest.row())(query, key, value.bfloat16().float(), scale=0.3))
        < TOLERANCE[torch.float32]
    )


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, nodes=st.integers(1, 8), vision=st.integers(0, 8), shuffle=st.booleans())
def test_parts_cover_every_visible_pair_once(seed, nodes, vision, shuffle):
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, trees=3, nodes=nodes, vision=vision)
    if shuffle:
        forest = forest.take(rng.permutation(len(forest)))
    parts = Segmented(forest.row()).parts
    found = np.zeros((len(forest), len(forest)), int)
    place = np.arange(len(forest))
    for part in parts:
        queries, keys = (place[x].reshape(part.shape[0], -1) for x in (part.queries, part.keys))
        for q, k in zip(queries, keys, strict=True):
            found[np.ix_(q, k)] += np.tri(len(q), dtype=int) if part.causal else 1
    mask = visibility.dense(forest.order, forest.end, forest.group)
    np.testing.assert_array_equal(found, mask)
    assert sum(part.pairs for part in parts) == mask.sum()
    assert visibility.pairs(forest.order, forest.end, forest.group) == mask.sum()


def test_blocks_of_one_shape_run_as_one_part_without_gathering():
    layout = linearize([-1, 0, 0, 0], [5, 3, 3, 3])
    group = torch.full((14,), -1)
    order, end, position = (torch.from_numpy(x).long() for x in (layout.order, layout.end, layout.position))
    parts = Segmented(SimpleNamespace(order=order, end=end, group=group, position=position)).parts
    assert [(part.queries, part.keys, part.shape, part.causal) for part in parts] == [
        (slice(5, 14), slice(5, 14), (3, 3, 3), True),
        (slice(0, 5), slice(0, 5), (1, 5, 5), True),
        (slice(5, 14), slice(0, 5), (1, 9, 5), False),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_leaks_between_branches_or_trees(name):
    rng = np.random.default_rng(3)
    forest = random_forest(rng, trees=3, nodes=6)
    forest = forest.take(rng.permutation(len(forest)))
    backend = BACKENDS[name](forest.row())
    tensors = draw(len(forest))
    for node in range(len(forest.parents)):
        loss_here = torch.from_numpy(forest.owner == node)[None, None, :, None]
        seen = np.isin(forest.owner, forest.path(node))
        _, _, dk, dv = run(backend, *tensors[:3], tensors[3] * loss_here)
        assert (dk[:, :, ~seen] == 0.0).all()
        assert (dv[:, :, ~seen] == 0.0).all()
        assert (dv[:, :, seen] != 0.0).all(-1).any(1).all()


@pytest.mark.parametrize("name", NAMES)
def test_physical_order_changes_nothing(name):
    rng = np.random.default_rng(4)
    forest = random_forest(rng, trees=3)
    where = rng.permutation(len(forest))
    tensors = draw(len(forest))
    straight = run(BACKENDS[name](forest.row()), *tensors)
    moved = run(BACKENDS[name](forest.take(where).row()), *(x[:, :, where] for x in tensors))
    for a, b in zip(moved, straight, strict=True):
        assert distance(a, b[:, :, where]) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_branch_order_changes_nothing(name):
    lengths, swapped = [4, 3, 2, 5], [4, 5, 3, 2]
    where = np.r_[0:4, 9:14, 4:7, 7:9]
    first, second = (linearize([-1, 0, 0, 0], x) for x in (lengths, swapped))
    rows = [
        SimpleNamespace(
            order=torch.from_numpy(x.order).long(), end=torch.from_numpy(x.end).long(),
            group=torch.tensor([0, 0, 0, -1] + [-1] * 10), position=torch.from_numpy(x.position).long(),
        )
        for x in (first, second)
    ]  # fmt: skip
    tensors = draw(14)
    straight = run(BACKENDS[name](rows[0]), *tensors)
    moved = run(BACKENDS[name](rows[1]), *(x[:, :, where] for x in tensors))
    for a, b in zip(moved, straight, strict=True):
        assert distance(a, b[:, :, where]) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_no_target_reaches_its_own_source_through_any_number_of_layers(name):
    rng = np.random.default_rng(11)
    forest = random_forest(rng, trees=2, nodes=4, messages=3, vision=5)
    forest = forest.take(rng.permutation(len(forest)))
    backend = BACKENDS[name](forest.row())
    embedded = torch.randn(1, 2, len(forest), 8, requires_grad=True)
    hidden = embedded
    for _ in range(3):
        hidden = hidden + backend(hidden, hidden, hidden, scale=0.3)
    for target in np.flatnonzero(forest.text & (forest.position > 0)):
        path = np.isin(forest.owner, forest.path(forest.owner[target]))
        source = np.flatnonzero(path & (forest.position == forest.position[target] - 1)).item()
        (grad,) = torch.autograd.grad(hidden[0, :, source].sum(), embedded, retain_graph=True)
        later = (forest.owner == forest.owner[target]) & (forest.position >= forest.position[target])
        assert (grad[:, :, later] == 0.0).all()


@pytest.mark.parametrize("axes", [1, 3])
def test_dense_honours_a_window_on_the_first_position_axis(axes):
    forest = random_forest(np.random.default_rng(6), trees=2)
    row = forest.row()
    if axes == 3:
        row = dataclasses.replace(
            row, position=torch.stack([row.position, row.position * 0, row.position * 7])
        )
    query, key, value, _ = draw(len(forest), heads=(2, 2))
    out = Dense(row)(query, key, value, scale=0.3, window=3)
    mask = visibility.dense(forest.order, forest.end, forest.group)
    mask &= forest.position[:, None] - forest.position[None, :] < 3
    scores = (query @ key.transpose(2, 3) * 0.3).masked_fill(~torch.from_numpy(mask), -torch.inf)
    torch.testing.assert_close(out, scores.softmax(-1) @ value)
    assert distance(Dense(row)(query, key, value, scale=0.3), out) > 0.01


def test_segmented_takes_a_window_that_hides_nothing_and_refuses_one_that_does():
    forest = random_forest(np.random.default_rng(6), trees=2)
    query, key, value, _ = draw(len(forest))
    backend, span = Segmented(forest.row()), int(forest.position.max())
    free = backend(query, key, value, scale=0.3)
    torch.testing.assert_close(backend(query, key, value, scale=0.3, window=span + 1), free)
    with pytest.raises(VisibilityError, match="use the backend 'dense'"):
        backend(query, key, value, scale=0.3, window=span)


def test_masked_attends_through_its_mask_and_window():
    query, key, value = torch.randn(2, 4, 1, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]).bool()[:, None, None]
    position = torch.tensor([[4], [2]]), torch.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]])
    out = Masked(mask)(query, key, value, scale=0.3)
    few = Masked(mask, position=position)(query, key, value, scale=0.3, window=2)
    for example, (first, inside) in enumerate([(0, 3), (2, 3)]):
        for keys, found in ((slice(first, 5), out), (slice(inside, 5), few)):
            k, v = (x[example, :, keys].repeat_interleave(2, 0) for x in (key, value))
            wanted = (query[example] @ k.mT * 0.3).softmax(-1) @ v
            torch.testing.assert_close(found[example], wanted)


def test_masked_without_positions_refuses_a_window():
    mask = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    with pytest.raises(VisibilityError, match="give position="):
        Masked(mask)(torch.randn(1, 1, 1, 4), *torch.randn(2, 1, 1, 2, 4), scale=0.5, window=1)


def small_row(**changes):
    integers = {
        "order": [0, 1, 2, 3],
        "end": [4, 4, 3, 4],
        "group": [-1] * 4,
        "position": [0, 1, 2, 2],
    } | changes
    return SimpleNamespace(**{name: torch.tensor(value) for name, value in integers.items()})


@pytest.mark.parametrize(
    "changes",
    [{"order": [0, 1, 1, 3]}, {"end": [4, 4, 2, 4]}, {"end": [4, 4, 3, 5]}, {"end": [2, 3, 3, 4]}],
    ids=["place twice", "ends before itself", "ends after the row", "not nested"],
)
def test_segmented_refuses_integers_that_are_no_trees(changes):
    Segmented(small_row())
    with pytest.raises(ValueError, match=r"order must hold|ends at"):
        Segmented(small_row(**changes))


def test_segmented_refuses_a_group_over_several_nodes():
    with pytest.raises(VisibilityError, match="group 0 reaches over several nodes"):
        Segmented(small_row(group=[-1, 0, 0, -1]))


def test_segmented_refuses_other_shapes_than_the_row():
    backend = Segmented(small_row())
    for batch, length in ((1, 5), (2, 4)):
        with pytest.raises(VisibilityError, match="a row of 4 tokens"):
            backend(*torch.randn(3, batch, 2, length, 4), scale=0.5)


def test_segmented_refuses_other_devices():
    with pytest.raises(VisibilityError, match="runs on the CPU, got meta; use the backend 'dense'"):
        Segmented(SimpleNamespace(order=torch.zeros(3, device="meta")))
