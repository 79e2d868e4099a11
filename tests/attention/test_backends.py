"""Laws 3, 4, 5 and 13 for the backends, on random packed trees."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow import visibility
from hedgerow.attention import BACKENDS, Dense, Masked
from hedgerow.attention.register import trains_on
from hedgerow.errors import VisibilityError
from hedgerow.linearize import linearize
from hedgerow.testing import random_forest

SEEDS = st.integers(0, 2**32 - 1)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
NAMES = trains_on(torch.device("cpu"))


def draw(length, *, heads=(4, 2), width=8, dtype=torch.float32, seed=0):
    """Query, key, value and output gradient, laid out token by token as models do."""
    random = torch.Generator().manual_seed(seed)
    shapes = [(1, length, count, width) for count in (heads[0], heads[1], heads[1], heads[0])]
    return [
        torch.randn(shape, generator=random, dtype=torch.float64).to(dtype).transpose(1, 2)
        for shape in shapes
    ]


def run(backend, query, key, value, grad, *, window=None):
    leaves = [x.detach().clone().requires_grad_() for x in (query, key, value)]
    out = backend(*leaves, scale=query.shape[-1] ** -0.5, window=window)
    out.backward(grad)
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def distance(found, wanted):
    """Error relative to the norm; absolute where the true value is nothing but rounding."""
    error = (found.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1.0)
    return error.item()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(
    seed=SEEDS,
    nodes=st.integers(1, 8),
    vision=st.integers(0, 9),
    window=st.none() | st.integers(1, 9),
    dtype=st.sampled_from(list(TOLERANCE)),
)
def test_a_backend_equals_the_rule_written_out(name, seed, nodes, vision, window, dtype):
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, trees=3, nodes=nodes, vision=vision)
    forest = forest.take(rng.permutation(len(forest)))
    tensors = draw(len(forest), dtype=dtype, seed=seed % 1000)
    mask = visibility.dense(forest.order, forest.end, forest.group, position=forest.position, window=window)

    def softmax(query, key, value, *, scale, window):
        key, value = (x.repeat_interleave(2, 1) for x in (key, value))
        scores = (query @ key.mT * scale).masked_fill(~torch.from_numpy(mask), -torch.inf)
        return scores.softmax(-1) @ value

    wanted = run(softmax, *(x.double() for x in tensors))
    found = run(BACKENDS[name](forest.row()), *tensors, window=window)
    for what, ours, theirs in zip(("out", "dq", "dk", "dv"), found, wanted, strict=True):
        assert ours.dtype == dtype
        assert distance(ours, theirs) <= TOLERANCE[dtype], what


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
