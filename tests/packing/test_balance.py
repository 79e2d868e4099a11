"""Balanced steps: every row once, rows of a step alike, tasks in their shares, no order among steps."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.packing.balance import arrange, excess, per_row, spread


def mixture(rows, seed=0):
    """Rows whose FLOPs follow from their tasks, as in training: captions of videos take longest."""
    rng = np.random.default_rng([seed, 1])
    samples = rng.poisson([2.0, 3.0, 1.0, 0.3], (rows, 4))
    return 1000 + samples @ [5.0, -10.0, 60.0, 40.0] + rng.normal(0, 40, rows), samples


def steps_of(order, values, step):
    return values[order][: len(order) // step * step].reshape(-1, step, *values.shape[1:])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 150),
    step=st.integers(1, 20),
    window=st.integers(1, 9),
    tasks=st.integers(0, 3),
    seed=st.integers(0, 9),
)
def test_rows_are_neither_lost_nor_doubled_and_stay_in_their_window(rows, step, window, tasks, seed):
    rng = np.random.default_rng(seed)
    flops, samples = rng.integers(0, 5, rows).astype(float), rng.integers(0, 4, (rows, tasks))
    order = arrange(flops, samples, step, seed=seed, epoch=0, window=window)
    for start in range(0, rows, step * window):
        end = min(start + step * window, rows)
        assert sorted(order[start:end]) == list(range(start, end))


def test_it_is_a_pure_function_and_each_seed_and_epoch_has_an_order_of_its_own():
    flops, samples = mixture(128)
    orders = [arrange(flops, samples, 8, seed=s, epoch=e).tolist() for s in (0, 1) for e in (0, 1)]
    assert orders[0] == arrange(flops.copy(), samples.copy(), 8, seed=0, epoch=0).tolist()
    assert len(set(map(tuple, orders))) == 4


@pytest.mark.parametrize("seed", range(3))
def test_without_tasks_no_other_steps_wait_less(seed):
    flops = np.random.default_rng(seed).random(6)
    steps = steps_of(arrange(flops, np.zeros((6, 0)), 2, seed=0, epoch=0), flops, 2)
    least = min(
        sum(max(flops[list(pair)]) for pair in (order[:2], order[2:4], order[4:]))
        for order in itertools.permutations(range(6))
    )
    assert steps.max(axis=1).sum() == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("step", [8, 64])
def test_steps_are_balanced_and_every_task_has_its_share(step):
    flops, samples = mixture(step * 8 * 4)
    order = arrange(flops, samples, step, seed=0, epoch=0)
    share = samples.sum(axis=0) / samples.sum()
    alone = arrange(flops, samples[:, :0], step, seed=0, epoch=0)  # by FLOPs alone
    assert excess(steps_of(alone, samples, step).sum(axis=1), share).max() > 0
    assert excess(steps_of(order, samples, step).sum(axis=1), share).max() == 0
    waits = [(spread(flops[o], step) - 1).mean() for o in (np.arange(len(flops)), order, alone)]
    assert waits[1] < 0.5 * waits[0]
    assert waits[1] >= waits[2]


def test_what_cannot_be_brought_into_its_band_is_brought_nearer():
    samples = np.ones((64, 2), int)
    samples[:8] = [20, 0]
    samples[0] = [400, 0]  # whatever step has this row has too much
    flops = np.concatenate([np.full(8, 2.0), np.linspace(1, 1.5, 56)])
    share = samples.sum(axis=0) / samples.sum()
    off = [
        excess(steps_of(arrange(flops, s, 8, seed=0, epoch=0), samples, 8).sum(axis=1), share).sum()
        for s in (samples[:, :0], samples)
    ]
    assert 0 < off[1] < off[0]


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_excess_is_what_lies_outside_three_binomial_deviations(counts, seed):
    share = np.random.default_rng(seed).dirichlet(np.ones(len(counts)))
    n, expected = sum(counts), 0.0
    for count, p in zip(counts, share, strict=True):
        expected += max(0.0, abs(count - n * p) - 3 * math.sqrt(n * p * (1 - p)))
    assert excess(np.array(counts), share) == pytest.approx(expected, abs=1e-8)


def test_steps_come_in_no_order():
    flops, samples = mixture(8 * 8 * 40)
    cost = steps_of(arrange(flops, samples, 8, seed=0, epoch=0), flops, 8).mean(axis=1).reshape(40, 8)
    rank = cost.argsort(axis=1).argsort(axis=1)
    assert abs(rank.mean(axis=0) - 3.5).max() < 4 * math.sqrt((8**2 - 1) / 12 / 40)
    assert len({tuple(row) for row in rank}) > 35


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_ranks_are_balanced_also_with_several_rows_each(world):
    step = 12
    flops, samples = mixture(step * 8 * 10)
    flops[::step] *= 1.2  # some rows stand out
    waits = []
    for order in (np.arange(len(flops)), arrange(flops, samples, step, seed=0, epoch=0)):
        ranks = steps_of(order, flops, step).reshape(-1, step // world, world).sum(axis=1)
        waits.append((ranks.max(axis=1) / ranks.mean(axis=1) - 1).mean())
    assert waits[1] <= 0.5 * waits[0]
    sums = steps_of(arrange(flops, samples[:, :0], step, seed=0, epoch=0), flops, step)
    pairs = sums[:, :6] + sums[:, 6:]  # what six ranks take with two rows each
    in_order = np.sort(sums, axis=1)
    assert np.sort(pairs, axis=1) == pytest.approx(np.sort(in_order[:, :6] + in_order[:, :5:-1], axis=1))


def test_rows_that_make_no_whole_step_come_last():
    flops, samples = mixture(8 * 3 + 5)
    order = arrange(flops, samples, 8, seed=0, epoch=0)
    assert sorted(order) == list(range(29))
    assert spread(flops[order], 8).shape == (3,)
    drawn = {tuple(sorted(arrange(flops, samples, 8, seed=seed, epoch=0)[-5:])) for seed in range(20)}
    assert len(drawn) > 15  # any rows, not the lightest


def test_per_row_adds_up_the_examples_of_each_row():
    rows, amounts = [[0, 2], [], [3, 1, 4]], np.arange(10).reshape(5, 2)
    expected = [sum((amounts[i] for i in row), np.zeros(2, int)).tolist() for row in rows]
    assert per_row(rows, amounts).tolist() == expected
    assert per_row(rows, amounts[:, 0]).tolist() == [pair[0] for pair in expected]


def test_spread_is_the_most_over_the_mean_of_each_whole_step():
    assert spread(np.array([1.0, 3.0, 2.0, 2.0, 9.0]), 2).tolist() == [1.5, 1.0]
    assert spread(np.zeros(4), 2).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("rows", [[0, 1, 2], np.array([0, 1, 2])])
def test_rows_that_are_no_lists_of_indices_are_refused(rows):
    with pytest.raises(TypeError, match=r"rows=.*: give a list of indices for each row"):
        per_row(rows, np.ones(3))
    assert per_row(np.array([[0, 1], [1, 2]]), np.ones(3)).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("flops", "samples", "step"),
    [((8,), (8,), 2), ((8,), (5, 1), 2), ((8, 1), (8, 1), 2), ((8,), (8, 1), 0)],
)
def test_shapes_that_do_not_match_are_refused(flops, samples, step):
    with pytest.raises(ValueError, match=rf"step={step}, window=8: give \[R\], \[R, tasks\]"):
        arrange(np.ones(flops), np.zeros(samples), step, seed=0, epoch=0)
