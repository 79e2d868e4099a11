"""Law 4 for FlexAttention on the CPU: its block masks entry by entry, its numbers in eager mode."""

import dataclasses
import itertools
import pickle
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import flex_attention as torch_flex

from hedgerow import visibility
from hedgerow.attention import flex
from hedgerow.attention.dense import Dense
from hedgerow.attention.flex import Flex
from hedgerow.errors import VisibilityError
from hedgerow.linearize import linearize
from hedgerow.testing import Forest, random_forest

SEEDS = st.integers(0, 2**32 - 1)
TENSORS = tuple(
    f"{full}{side}_{what}"
    for full in ("", "full_")
    for side in ("kv", "q")
    for what in ("num_blocks", "indices")
)


def draw_forest(seed, *, order="shuffled", tokens=None, padding=0, **sizes):
    """A forest with padding in some physical order; to have `tokens` of them each is repeated at random."""
    rng = np.random.default_rng(seed)
    small = random_forest(rng, **sizes)
    repeats = np.ones(len(small), int)
    if tokens is not None:
        repeats += rng.multinomial(tokens - len(small), rng.dirichlet(np.full(len(small), 0.5)))
    owner, group, text = (np.repeat(x, repeats) for x in (small.owner, small.group, small.text))
    layout = linearize_forest(small.parents, np.bincount(owner))
    own = np.arange(len(owner), len(owner) + padding)
    forest = Forest(
        parents=small.parents + (-1,) * padding,
        owner=np.append(owner, np.arange(padding) + len(small.parents)).astype(np.int32),
        order=np.append(layout[0], own).astype(np.int32),
        end=np.append(layout[1], own + 1).astype(np.int32),
        group=np.append(group, np.full(padding, -1)).astype(np.int32),
        position=np.append(layout[2], np.zeros(padding)).astype(np.int32),
        text=np.append(text, np.zeros(padding, bool)),
    )
    where = {
        "logical": np.arange(len(forest)),
        "vision first": np.lexsort((forest.order, forest.group < 0, forest.owner)),
        "shuffled": rng.permutation(len(forest)),
    }[order]
    return forest.take(where)


def linearize_forest(parents, lengths):
    """Order, end and position of several trees side by side."""
    roots, start, found = [*np.flatnonzero(np.array(parents) < 0), len(parents)], 0, []
    for first, stop in itertools.pairwise(roots):
        of_tree = [-1, *(parent - first for parent in parents[first + 1 : stop])]
        layout = linearize(of_tree, lengths[first:stop])
        found.append((layout.order + start, layout.end + start, layout.position))
        start += len(layout.order)
    return [np.concatenate(field) for field in zip(*found, strict=True)]


def random_row(seed, *, most):
    """A forest of up to `most` tokens, a tenth of them padding at most, and a window or None."""
    rng = np.random.default_rng(seed)
    tokens = int(rng.integers(250, most - 99))
    forest = draw_forest(
        seed, order=("logical", "vision first", "shuffled")[seed % 3], tokens=tokens,
        padding=int(rng.integers(0, 100)), trees=int(rng.integers(1, 4)), nodes=int(rng.integers(1, 9)),
        vision=int(rng.integers(0, 9)),
    )  # fmt: skip
    return forest, int(rng.integers(1, tokens)) if rng.random() < 0.3 else None


def assert_equal_to_create_block_mask(forest, *, window):
    row = forest.row()
    mask = Flex(row).block_mask(window)
    truth = torch.from_numpy(
        visibility.dense(forest.order, forest.end, forest.group, position=forest.position, window=window)
    )
    wanted = torch_flex.create_block_mask(
        lambda _b, _h, q, k: truth[q, k], None, None, len(forest), len(forest), device="cpu"
    )
    for name in TENSORS:
        found = getattr(mask, name)
        assert found.dtype == torch.int32
        assert torch.equal(found, getattr(wanted, name)), name
    assert mask.shape == wanted.shape
    assert mask.BLOCK_SIZE == wanted.BLOCK_SIZE


@pytest.mark.parametrize("seed", range(12))
def test_the_block_mask_is_that_of_create_block_mask(seed):
    forest, window = random_row(seed, most=900)
    assert_equal_to_create_block_mask(forest, window=window)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 200, 20))
def test_the_block_mask_is_that_of_create_block_mask_on_many_long_rows(first):
    for seed in range(first, first + 20):
        forest, window = random_row(1000 + seed, most=4096)
        assert_equal_to_create_block_mask(forest, window=window)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "window"), [("logical", None), ("vision first", 2000), ("shuffled", None)])
def test_the_block_mask_is_that_of_create_block_mask_at_16k(order, window):
    forest = draw_forest(7, order=order, tokens=16_300, padding=84, trees=3, nodes=8, vision=9)
    assert_equal_to_create_block_mask(forest, window=window)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, vision=st.integers(0, 8), window=st.none() | st.integers(1, 9))
def test_the_rule_of_one_pair_is_dense(seed, vision, window):
    forest = draw_forest(seed, padding=3, vision=vision)
    rule = Flex(forest.row()).block_mask(window).mask_mod
    index = torch.arange(len(forest))
    none = torch.tensor(0)
    found = rule(none, none, index[:, None], index[None, :])
    wanted = visibility.dense(forest.order, forest.end, forest.group, position=forest.position, window=window)
    np.testing.assert_array_equal(found.numpy(), wanted)


@pytest.fixture
def eager(monkeypatch):
    """FlexAttention without the compiler and with gradients on the CPU, for small rows."""
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(flex, "_refuse_training_on_cpu", lambda *_: None)
    monkeypatch.setattr(flex, "_kernel", lambda: torch_flex.flex_attention)


def draw(length, *, heads=(4, 2), width=16, dtype=torch.float32):
    random = torch.Generator().manual_seed(1)
    shapes = [(1, length, count, width) for count in (heads[0], heads[1], heads[1], heads[0])]
    return [torch.randn(shape, generator=random).to(dtype).transpose(1, 2) for shape in shapes]


def run(backend, query, key, value, grad, *, window=None):
    leaves = [x.detach().clone().requires_grad_() for x in (query, key, value)]
    out = backend(*leaves, scale=0.3, window=window)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def distance(found, wanted):
    return ((found - wanted).norm() / wanted.norm().clamp_min(1.0)).item()


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("heads", [(4, 2), (3, 3), (6, 1)])
@pytest.mark.parametrize(("order", "window"), [("logical", None), ("vision first", 70), ("shuffled", None)])
def test_flex_equals_dense_forward_and_backward(order, window, heads):
    forest = draw_forest(3, order=order, tokens=280, padding=9, trees=3)
    tensors, row = draw(len(forest), heads=heads), forest.row()
    wanted = run(Dense(row), *tensors, window=window)
    found = run(Flex(row), *tensors, window=window)
    for name, a, b in zip(["out", "dq", "dk", "dv"], found, wanted, strict=True):
        assert distance(a, b) <= 1e-5, name


@pytest.mark.usefixtures("eager")
def test_no_gradient_leaks_between_branches_or_trees():
    forest = draw_forest(5, tokens=200, trees=2, nodes=5)
    *tensors, grad = draw(len(forest))
    for node in range(len(forest.parents)):
        here = torch.from_numpy(forest.owner == node)[None, None, :, None]
        seen = np.isin(forest.owner, forest.path(node))
        _, _, dk, dv = run(Flex(forest.row()), *tensors, grad * here)
        assert (dk[:, :, ~seen] == 0.0).all()
        assert (dv[:, :, ~seen] == 0.0).all()
        assert (dv[:, :, seen] != 0.0).any()


@pytest.mark.usefixtures("eager")
@torch.no_grad()
def test_under_autocast_it_attends_in_that_dtype():
    forest = draw_forest(5, tokens=100)
    query, key, value, _ = draw(len(forest))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = Flex(forest.row())(query, key, value.bfloat16(), scale=0.3)
    assert out.dtype == torch.bfloat16
    assert distance(out.float(), Dense(forest.row())(query, key, value, scale=0.3)) < 2e-2


@pytest.mark.usefixtures("eager")
@torch.no_grad()
def test_the_window_is_over_the_first_axis_of_the_positions():
    forest = draw_forest(6, tokens=150)
    row = forest.row()
    wide = dataclasses.replace(row, position=torch.stack([row.position, row.position * 0, row.position * 7]))
    query, key, value, _ = draw(len(forest))
    out = Flex(wide)(query, key, value, scale=0.3, window=9)
    assert torch.equal(out, Flex(row)(query, key, value, scale=0.3, window=9))
    assert distance(out, Flex(row)(query, key, value, scale=0.3)) > 0.01


def test_blocks_of_the_row_are_used_and_a_mask_is_made_once(monkeypatch):
    forest = draw_forest(2, tokens=300)
    row = dataclasses.replace(forest.row(), blocks=visibility.summary(forest, size=16)).to("cpu")
    wanted = Flex(row)._block_mask(None)
    monkeypatch.setattr(visibility, "blocks", None)  # what is here already need not be counted
    backend = Flex(pickle.loads(pickle.dumps(row)))
    mask = backend.block_mask()
    assert mask is backend.block_mask()
    assert mask.BLOCK_SIZE == (16, 16)
    assert all(torch.equal(getattr(mask, name), getattr(wanted, name)) for name in TENSORS)


def test_a_layer_with_a_window_does_not_use_the_blocks_of_the_row():
    forest = draw_forest(2, order="logical", tokens=900, trees=1)
    plain, made = forest.row(), visibility.summary(forest)
    found = Flex(dataclasses.replace(plain, blocks=made).to("cpu")).block_mask(50)
    wanted = Flex(plain).block_mask(50)
    assert all(torch.equal(getattr(found, name), getattr(wanted, name)) for name in TENSORS)
    assert not np.array_equal(found.full_kv_num_blocks[0, 0].numpy(), made.full_count)


def test_training_on_the_cpu_is_refused_and_says_what_does_train():
    forest = draw_forest(2)
    query, key, value, _ = draw(len(forest))
    with pytest.raises(VisibilityError, match=r"no backward pass on the CPU; use the backend 'segmented'"):
        Flex(forest.row())(query, key, value.requires_grad_(), scale=0.3)


@pytest.mark.parametrize("change", [lambda x: x[:, :, 1:], lambda x: x.expand(2, -1, -1, -1)])
def test_another_length_or_batch_is_refused(change):
    forest = draw_forest(2)
    query, key, value, _ = (change(x) for x in draw(len(forest)))
    with pytest.raises(VisibilityError, match=f"for a row of {len(forest)} tokens"):
        Flex(forest.row())(query, key, value, scale=0.3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler of torch needs g++")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # inductor's
@torch.no_grad()
def test_compiled_it_equals_dense_and_rows_of_one_length_share_a_kernel():
    for seed in range(3):
        forest = draw_forest(seed, tokens=380, padding=5, trees=2)
        query, key, value, _ = draw(len(forest))
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            out = Flex(forest.row())(query, key, value, scale=0.3)
        assert distance(out, Dense(forest.row())(query, key, value, scale=0.3)) <= 1e-5


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler of torch needs g++")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@torch.no_grad()
def test_a_compiled_model_around_it_is_not_compiled_again_for_another_row():
    def layer(query, key, value, backend):
        return backend(query * 2, key, value, scale=0.3) + 1

    compiled = torch.compile(layer, backend="aot_eager")
    for seed in range(3):
        forest = draw_forest(seed, tokens=300, trees=2)
        query, key, value, _ = draw(len(forest))
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            found = compiled(query, key, value, Flex(forest.row()))
        assert distance(found, layer(query, key, value, Dense(forest.row()))) <= 1e-5
