"""Law 4 for the tiles: which pairs they visit, and that what is computed on them equals the mask."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from hedgerow import visibility
from hedgerow.attention import Dense, Segmented, segmented, tiles
from hedgerow.attention.tiles import Plan
from hedgerow.errors import VisibilityError
from hedgerow.testing import random_forest

SEEDS = st.integers(0, 2**32 - 1)
WINDOWS = st.none() | st.integers(1, 12)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10, torch.bfloat16: 2e-2, torch.float16: 3e-3}
PARTS = ("out", "dq", "dk", "dv")


def draw(length, *, heads=(4, 2), width=8, dtype=torch.float32, seed=0):
    """Query, key, value and output gradient, laid out token by token as models do."""
    random = torch.Generator().manual_seed(seed)
    shapes = [(1, length, count, width) for count in (heads[0], heads[1], heads[1], heads[0])]
    return [
        torch.randn(shape, generator=random, dtype=torch.float64).to(dtype).transpose(1, 2)
        for shape in shapes
    ]


def run(backend, query, key, value, grad, *, window=None, scale=None):
    leaves = [x.detach().clone().requires_grad_() for x in (query, key, value)]
    out = backend(*leaves, scale=query.shape[-1] ** -0.5 if scale is None else scale, window=window)
    out.backward(grad)
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def distance(found, wanted):
    """Error relative to the norm; absolute where the true value is nothing but rounding."""
    error = (found.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1.0)
    return error.item()


def assert_equal_to_dense(row, *, dtype=torch.float32, window=None, scale=None, **sizes):
    tensors = draw(len(row.order), dtype=dtype, **sizes)
    wanted = run(Dense(row), *(x.double() for x in tensors), window=window, scale=scale)
    found = run(Segmented(row), *tensors, window=window, scale=scale)
    for name, a, b in zip(PARTS, found, wanted, strict=True):
        assert a.dtype == dtype
        assert distance(a, b) <= TOLERANCE[dtype], name


def shuffled(seed, **sizes):
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, **sizes)
    return forest.take(rng.permutation(len(forest)))


CELLS = segmented.CELL, segmented._SCORES
CELL, ONE_HEAD, SEVERAL = 6, 6 * 4 * 5, 6 * 4 * 5 * 8  # scores of a product: of one key head, of some


def set_cells(patch, cell, scores):
    for module in (tiles, segmented):
        patch.setattr(module, "CELL", cell)
    patch.setattr(segmented, "_SCORES", scores)


@pytest.fixture(scope="module", autouse=True)
def small_cells():
    """So that small rows have many tiles, cut into several products."""
    with pytest.MonkeyPatch.context() as patch:
        set_cells(patch, CELL, ONE_HEAD)
        yield


@settings(max_examples=25, deadline=None)
@given(
    seed=SEEDS, trees=st.integers(1, 4), nodes=st.integers(1, 8), vision=st.integers(0, 9),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1), (3, 3), (15, 3)]), width=st.sampled_from([1, 4, 16]),
    dtype=st.sampled_from([torch.float32, torch.float64]), window=WINDOWS, shuffle=st.booleans(),
    scores=st.sampled_from([ONE_HEAD, SEVERAL]),
)  # fmt: skip
def test_segmented_equals_dense(seed, trees, nodes, vision, heads, width, dtype, window, shuffle, scores):
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, trees=trees, nodes=nodes, vision=vision)
    if shuffle:
        forest = forest.take(rng.permutation(len(forest)))
    with pytest.MonkeyPatch.context() as patch:
        set_cells(patch, CELL, scores)
        assert_equal_to_dense(
            forest.row(), dtype=dtype, heads=heads, width=width, window=window, seed=seed % 1000
        )


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, nodes=st.integers(1, 8), vision=st.integers(0, 12), window=WINDOWS, shuffle=st.booleans())
def test_tiles_hold_every_visible_pair_once_and_hide_the_others(seed, nodes, vision, window, shuffle):
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, trees=3, nodes=nodes, vision=vision)
    if shuffle:
        forest = forest.take(rng.permutation(len(forest)))
    names = rng.permutation(int(forest.group.max(initial=0)) + 1)  # nothing says that groups are counted up
    forest = dataclasses.replace(forest, group=np.where(forest.group < 0, -1, names[forest.group]))
    plan = Plan(forest.row())
    take = np.arange(len(forest)) if plan.take is None else plan.take.numpy()
    found = np.zeros((len(forest), len(forest)), int)
    for tile in plan.tiles(window):
        seen = (plan.bias(tile, window) == 0.0).numpy() if tile.partial else 1
        found[np.ix_(take[tile.queries], take[tile.keys])] += seen
    mask = visibility.dense(forest.order, forest.end, forest.group, position=forest.position, window=window)
    np.testing.assert_array_equal(found, mask)


def test_groups_over_several_nodes_are_exact():
    """No tree has them; the tiles do not care."""
    row = shuffled(3, trees=2, nodes=6).row()
    row = dataclasses.replace(row, group=torch.arange(len(row.order)) % 5 - 1)
    assert_equal_to_dense(row)
    assert_equal_to_dense(row, window=4)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_segmented_equals_dense_in_every_dtype(dtype):
    assert_equal_to_dense(shuffled(5, trees=3, vision=20).row(), dtype=dtype)


@pytest.mark.parametrize("width", [1, 8, 24, 72, 80, 128])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (7, 1), (8, 1), (10, 2), (15, 3)])
@pytest.mark.parametrize("scores", [ONE_HEAD, SEVERAL])
def test_any_size_and_number_of_heads(monkeypatch, width, heads, scores):
    set_cells(monkeypatch, CELL, scores)
    assert_equal_to_dense(shuffled(6, trees=1).row(), width=width, heads=heads, window=7)


@pytest.mark.parametrize("window", [None, 100])
def test_segmented_equals_dense_with_cells_of_the_real_size(window, monkeypatch):
    set_cells(monkeypatch, *CELLS)
    forest = random_forest(np.random.default_rng(8), trees=2, nodes=3, vision=500)
    assert len(forest) > 1100
    assert_equal_to_dense(forest.row(), window=window)


def test_scores_far_from_zero_neither_overflow_nor_vanish():
    row = shuffled(9).row()
    assert_equal_to_dense(row, scale=200.0, dtype=torch.float64)
    tensors = draw(len(row.order))
    tensors[1] -= 1000.0 * tensors[0].mean((1, 2)).sign()[:, None, None]
    out = Segmented(row)(*tensors[:3], scale=1.0)
    assert distance(out, Dense(row)(*(x.double() for x in tensors[:3]), scale=1.0)) < 1e-3


def test_the_three_axes_of_a_position_window_by_the_first():
    row = shuffled(6).row()
    three = dataclasses.replace(row, position=torch.stack([row.position, row.position * 0, row.position * 7]))
    tensors = draw(len(row.order))
    for a, b in zip(*(run(Segmented(r), *tensors, window=3) for r in (row, three)), strict=True):
        assert torch.equal(a, b)


def test_padding_sees_itself_alone():
    own = torch.arange(5)
    row = SimpleNamespace(order=own, end=own + 1, group=torch.full((5,), -1), position=torch.zeros(5).long())
    query, key, value, grad = draw(5)
    out, dq, *_ = run(Segmented(row), query, key, value, grad)
    torch.testing.assert_close(out, value.repeat_interleave(2, 1))
    assert dq.abs().max() < 1e-6


def test_segmented_takes_any_strides_and_leaves_its_inputs_alone():
    forest = random_forest(np.random.default_rng(2))
    tensors = draw(len(forest), heads=(3, 1))
    wanted = run(Segmented(forest.row()), *tensors)
    by_channel = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in tensors]
    assert by_channel[0].stride(-1) != 1
    for a, b in zip(run(Segmented(forest.row()), *by_channel), wanted, strict=True):
        torch.testing.assert_close(a, b)
    before = [x.clone() for x in tensors]
    leaf = tensors[0].requires_grad_()
    Segmented(forest.row())(leaf, *tensors[1:3], scale=3.0).backward(tensors[3])
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_autocast_does_not_reach_the_products():
    row = shuffled(2).row()
    query, key, value, _ = draw(len(row.order))
    plain = Segmented(row)(query, key, value.bfloat16(), scale=0.3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = Segmented(row)(query, key, value.bfloat16(), scale=0.3)
    assert out.dtype == torch.float32
    assert torch.equal(out, plain)


@pytest.mark.parametrize("heads", [(6, 1), (4, 2), (5, 5)])
def test_threads_change_nothing_and_are_put_back(heads):
    row, before = shuffled(11).row(), torch.get_num_threads()
    tensors, found = draw(len(row.order), heads=heads), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run(Segmented(row), *tensors))
            assert torch.get_num_threads() == threads
        with torch.inference_mode():
            out = Segmented(row)(*tensors[:3], scale=8**-0.5)
    finally:
        torch.set_num_threads(before)
    for others in (*found[1:], [out]):
        for a, b in zip(others, found[0], strict=False):
            assert distance(a, b) < 1e-6


def test_gradcheck():
    row = shuffled(1, trees=1, nodes=3, messages=1, vision=3).row()
    query, key, value, _ = draw(len(row.order), heads=(2, 1), width=2, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in (query, key, value)]
    assert torch.autograd.gradcheck(lambda *x: Segmented(row)(*x, scale=0.7, window=3), leaves)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_no_gradient(reentrant):
    row = shuffled(7).row()
    *tensors, grad = draw(len(row.order))
    backend = Segmented(row)

    def checkpointed(query, key, value, *, scale, window):
        return checkpoint(
            lambda *x: backend(*x, scale=scale, window=window), query, key, value, use_reentrant=reentrant
        )

    for a, b in zip(run(checkpointed, *tensors, grad), run(backend, *tensors, grad), strict=True):
        assert torch.equal(a, b)


# After a break in its graph torch looks at `.grad` of an inner tensor, and fails to silence its own warning.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_compiled_model_gives_the_same_gradients():
    row = shuffled(7).row()
    *tensors, grad = draw(len(row.order))
    backend, graphs = Segmented(row), []

    def model(query, key, value, *, scale, window):
        out = backend(query.sin(), key, value, scale=scale, window=window)
        return out.cos() * 2.0

    def count(module, _):
        graphs.append(module)
        return module

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=count)
    for a, b in zip(run(compiled, *tensors, grad), run(model, *tensors, grad), strict=True):
        torch.testing.assert_close(a, b)
    names = " ".join(node.name for graph in graphs for node in graph.graph.nodes)
    assert "sin" in names
    assert "cos" in names  # before and after it, the model is compiled
    assert "exp2" not in names


def test_a_dropped_gradient_of_the_log_sum_exp_would_be_noticed():
    """Parts merged by autograd over kernels that give their log-sum-exp no gradient: dq and dk are off."""
    own = torch.arange(40)
    row = SimpleNamespace(order=own, end=torch.full((40,), 40), group=torch.zeros(40).long(), position=own)
    tensors = draw(40, heads=(2, 2))

    def merged(query, key, value, *, scale, window):
        parts = []
        for keys in (slice(0, 25), slice(25, 40)):
            scores = query @ key[:, :, keys].mT * scale
            parts.append(
                (scores.softmax(-1) @ value[:, :, keys], scores.logsumexp(-1, keepdim=True).detach())
            )
        outs, sums = (torch.stack(x) for x in zip(*parts, strict=True))
        return (outs * sums.softmax(0)).sum(0)

    wanted, found = run(Dense(row), *tensors), run(Segmented(row), *tensors)
    trap = run(merged, *tensors)
    assert all(distance(a, b) < 1e-5 for a, b in zip(found, wanted, strict=True))
    off = [distance(a, b) for a, b in zip(trap, wanted, strict=True)]
    assert max(off[0], off[3]) < 1e-5
    assert min(off[1:3]) > 0.01


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is made, in elements of 4 bytes."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.found = max(self.found, out.untyped_storage().nbytes() // 4)
        return out


def test_no_tensor_is_larger_than_the_row(monkeypatch):
    set_cells(monkeypatch, 64, 64 * 64)
    for length in (500, 1000):
        own = torch.arange(length)
        row = SimpleNamespace(
            order=own, end=torch.full_like(own, length), group=torch.where(own < 400, 0, -1), position=own
        )
        query, key, value, grad = draw(length, heads=(1, 1))
        with Largest() as largest:
            out = Segmented(row)(query.requires_grad_(), key, value, scale=0.5, window=300)
            out.backward(grad)
        assert largest.found == length * 8  # the integers of the rule are 4 a token


def small_row(**changes):
    integers = {"order": [0, 1, 2, 3], "end": [4, 4, 3, 4], "group": [-1] * 4, "position": [0, 1, 2, 2]}
    return SimpleNamespace(**{name: torch.tensor(x) for name, x in (integers | changes).items()})


def test_segmented_refuses_tokens_that_do_not_see_themselves():
    with pytest.raises(ValueError, match="token 2 has place 2 and end 2; an end lies behind"):
        Segmented(small_row(end=[4, 4, 2, 4]))


def test_segmented_refuses_other_shapes_than_the_row():
    backend = Segmented(small_row())
    for batch, length in ((1, 5), (2, 4)):
        with pytest.raises(VisibilityError, match="a row of 4 tokens"):
            backend(*torch.randn(3, batch, 2, length, 4), scale=0.5)


def test_segmented_refuses_other_devices():
    with pytest.raises(VisibilityError, match="runs on the CPU, got meta; use the backend 'dense'"):
        Segmented(SimpleNamespace(order=torch.zeros(3, device="meta")))
