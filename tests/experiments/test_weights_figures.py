"""Intervals hold what they say."""

import numpy as np
import pytest
import scipy.stats

from hedgerow.experiments.weights.figures import estimate
from hedgerow.experiments.weights.pages import bars


def test_an_interval_adds_the_variance_of_seeds_and_of_whole_trees():
    scores = np.array([[1.0, 0.0, 0.5, 0.5], [0.0, 0.0, 1.0, 0.5], [0.5, 1.0, 1.0, 1.0]])
    found = estimate(scores, ["a", "a", "b", "c"], least=-1.0)
    seeds = [0.5, 0.375, 0.875]
    value = sum(seeds) / 3
    of_seeds = sum((one - value) ** 2 for one in seeds) / 2 / 3
    question = [0.5, 1 / 3, 5 / 6, 2 / 3]
    trees = [question[0] + question[1] - 2 * value, question[2] - value, question[3] - value]
    of_trees = 3 / 2 * sum(one**2 for one in trees) / 4**2
    freedom = (of_seeds + of_trees) ** 2 / (of_seeds**2 / 2 + of_trees**2 / 2)
    assert found.value == pytest.approx(value)
    assert found.by_seed == pytest.approx(seeds)
    assert found.n == 4
    assert 2 <= freedom <= 4
    half = (of_seeds + of_trees) ** 0.5 * scipy.stats.t(freedom).ppf(0.975)
    bounds = (max(value - half, -1.0), min(value + half, 1.0))
    assert (found.low, found.high) == pytest.approx(bounds)


def planted(rng, *, seeds, trees, each, by_seed, by_tree, noise):
    level = rng.normal(0, by_seed, (seeds, 1)) + np.repeat(rng.normal(0, by_tree, trees), each)
    return level + rng.normal(0, noise, (seeds, trees * each))


@pytest.mark.parametrize(
    ("by_seed", "by_tree", "noise"), [(0.05, 0.0, 0.1), (0.0, 0.1, 0.05), (0.04, 0.15, 0.1)]
)
@pytest.mark.parametrize("seeds", [3, 6])
def test_intervals_hold_the_truth_as_often_as_they_say(by_seed, by_tree, noise, seeds):
    rng = np.random.default_rng(0)
    held, told = 0, 300
    for _ in range(told):
        scores = planted(rng, seeds=seeds, trees=20, each=3, by_seed=by_seed, by_tree=by_tree, noise=noise)
        found = estimate(scores, [f"t{n // 3}" for n in range(60)], least=-1.0)
        held += found.low <= 0.0 <= found.high
    assert held / told >= 0.92


def test_one_seed_leaves_an_interval_over_trees_and_one_tree_leaves_none():
    rng = np.random.default_rng(1)
    scores = planted(rng, seeds=1, trees=12, each=1, by_seed=0.0, by_tree=0.1, noise=0.0)
    names = [str(n) for n in range(12)]
    found = estimate(scores, names, least=-1.0)
    half = 2.20099 * scores[0].std(ddof=1) / 12**0.5  # t at 11 degrees of freedom
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), rel=1e-5)
    for many in (scores, np.repeat(scores, 3, axis=0)):
        alone = estimate(many, ["same"] * 12, least=-1.0)
        assert (alone.low, alone.high, alone.sign) == (-1.0, 1.0, 0)
    same = estimate(np.full((3, 4), 0.25), list("abcd"), least=0.0)
    assert (same.value, same.low, same.high) == (0.25, 0.25, 0.25)


def test_a_pair_of_runs_tells_more_than_two_runs_apart():
    rng = np.random.default_rng(2)
    base = planted(rng, seeds=3, trees=20, each=1, by_seed=0.1, by_tree=0.4, noise=0.0) / 4 + 0.5
    better = base + 0.05 + rng.normal(0, 0.01, base.shape)
    names = [str(n) for n in range(20)]
    assert estimate(better - base, names, least=-1.0).sign == 1
    apart = [estimate(scores, names, least=0.0) for scores in (better, base)]
    assert apart[0].low < apart[1].high


def test_bars_are_the_intervals():
    found = estimate(np.array([[0.2, 0.4]]), ["a", "b"], least=0.0)
    assert bars([5], [found]) == [(5, found.low, found.high)]
