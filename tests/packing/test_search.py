"""The search: against all subsets, against its compiled twin, and what it may never do."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.packing import search
from hedgerow.packing.search import Goal, aim, choose, grid_of

fast = pytest.importorskip("hedgerow.packing.fast")

quick = settings(max_examples=60, deadline=None)
LIMITS = st.integers(0, 40) | st.sampled_from([128, 511, 512, 1000, 16384, 70_001])


@st.composite
def pools(draw, names=4, most=12):
    """Budgets, examples that fit alone, often many of one kind, and how much the oldest may cost."""
    limits = tuple(draw(st.lists(LIMITS, min_size=1, max_size=names)))
    size = st.tuples(*(st.integers(0, limit) | st.integers(0, limit // 8) for limit in limits))
    kinds = draw(st.lists(size, min_size=1, max_size=3))
    sizes = draw(st.lists(st.sampled_from(kinds) | size, min_size=1, max_size=most))
    return sizes, limits, draw(st.sampled_from([0.0, 0.01, 0.2, math.inf]))


def random_pools(count, names, examples):
    """The same on a larger scale, as real budgets are."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        limits = tuple(rng.choice([16384, 128, 36_000, 600_001, 300], names).tolist())
        shares = rng.random((int(rng.integers(1, examples)), names)) ** rng.integers(1, 6)
        sizes = [tuple((share * limits).astype(int).tolist()) for share in shares]
        yield sizes, limits, float(rng.choice([0.0, 0.02, np.inf]))


def room(sizes, limits, chosen):
    return [limit - sum(sizes[i][axis] for i in chosen) for axis, limit in enumerate(limits)]


def loss(grid, goal, left):
    return sum(left[axis] * worth for axis, worth in zip(grid.axes, goal.worth, strict=True))


def subsets(count):
    return itertools.chain.from_iterable(itertools.combinations(range(count), n) for n in range(1, count + 1))


@given(pools())
@quick
def test_both_paths_choose_the_same(pool):
    sizes, limits, grace = pool
    asked = aim(sizes, limits)
    assert fast.choose(sizes, *asked, grace) == choose(sizes, *asked, grace)


@pytest.mark.parametrize("names", [1, 2, 3, 4])
def test_both_paths_choose_the_same_under_large_budgets(names):
    for sizes, limits, grace in random_pools(60, names, 60):
        asked = aim(sizes, limits)
        assert fast.choose(sizes, *asked, grace) == choose(sizes, *asked, grace)


@given(pools())
@quick
def test_a_choice_fits_is_never_empty_and_leaves_nothing_behind_that_fits(pool):
    sizes, limits, grace = pool
    chosen = choose(sizes, *aim(sizes, limits), grace)
    assert chosen
    assert chosen == sorted(set(chosen))
    assert grace < math.inf or chosen[0] == 0
    left = room(sizes, limits, chosen)
    assert min(left) >= 0
    for i in set(range(len(sizes))) - set(chosen):
        assert any(need > have for need, have in zip(sizes[i], left, strict=True))


def check_best(sizes, limits, grace):
    """Where the grid is exact the choice is as good as the best of all subsets, or full and good enough."""
    grid, goal = aim(sizes, limits)
    left = room(sizes, limits, choose(sizes, grid, goal, grace))
    fitting = [s for s in subsets(len(sizes)) if min(room(sizes, limits, s)) >= 0]
    best = {o: min((loss(grid, goal, room(sizes, limits, s)) for s in fitting if s[0] == 0 or not o),
                   default=math.inf) for o in (True, False)}  # fmt: skip
    full = all(left[axis] <= slack for axis, slack in zip(grid.axes[: len(limits)], goal.slack, strict=False))
    allowed = best[True] if grace == math.inf else min(best[True], best[False] + grace)
    assert full or loss(grid, goal, left) <= allowed + 1e-9


@given(pools(names=2, most=7))
@quick
def test_the_choice_is_the_best_of_all_subsets(pool):
    sizes, limits, grace = pool
    if max(limits) <= search.COLUMNS:
        check_best(sizes, limits, grace)


def test_the_choice_is_the_best_of_all_subsets_of_pools_of_all_sizes():
    rng = np.random.default_rng(0)
    for _ in range(120):
        limits = tuple(rng.integers(5, 500, 2).tolist())
        sizes = [tuple((rng.random(2) ** 2 * limits).astype(int).tolist()) for _ in range(8)]
        check_best(sizes, limits, float(rng.choice([0.0, 0.02, np.inf])))


def test_one_budget_is_exact():
    rng = np.random.default_rng(1)
    for _ in range(40):
        sizes = [(int(size),) for size in rng.integers(1000, 9000, 9)]
        check_best(sizes, (16384,), 0.0)


def test_a_full_row_takes_the_oldest_if_it_can():
    sizes = [(40, 1), (60, 3), (30, 2), (60, 4), (70, 3), (40, 1)]
    assert choose(sizes, *aim(sizes, (100, 5)), 0.0) == [
        0,
        3,
    ]  # [1, 5] is older but not full, [2, 4] lacks it


def test_the_grace_decides_what_the_oldest_may_cost():
    sizes = [(90,), (60,), (40,), (80,), (70,)]
    grid, goal = aim(sizes, (100,))
    assert choose(sizes, grid, goal, 0.0) == [1, 2]
    assert choose(sizes, grid, goal, 0.09) == [1, 2]
    assert 0 in choose(sizes, grid, goal, math.inf)
    assert choose([(90,), (61,), (37,), (80,), (70,)], grid, goal, 0.09)[0] == 0


@pytest.mark.parametrize("limit", [511, 512, 513, 16383, 65535, 65536, 10**9 + 7])
@pytest.mark.parametrize("names", [1, 2])
def test_an_example_that_fills_a_budget_fits_however_that_is_rounded(limit, names):
    sizes = [(1,) * names, (limit,) * names, (limit - 1,) + (0,) * (names - 1), (limit,) * names]
    limits = (limit,) * names
    assert choose(sizes, *aim(sizes, limits), 0.0)
    assert choose(sizes[1:], *aim(sizes[1:], limits), math.inf) == [0]


def test_the_scarcer_budget_counts_in_full_and_the_other_less_the_more_it_abounds():
    limits = (1000, 100)
    worths = [aim([(1000, crops)], limits)[1].worth for crops in (100, 95, 50)]
    assert [worth[0] for worth in worths] == [1 / 1000] * 3
    assert worths[0][1] == 1 / 100
    assert worths[0][1] > 2 * worths[1][1] > 2000 * worths[2][1] > 0


def test_swaps_close_what_rounding_up_left():
    limits = (16384, 128)  # a column stands for 33 tokens: 10 examples of 34 columns each are all that fit
    sizes = [(1090 + i, 12) for i in range(30)]
    grid, goal = aim(sizes, limits)
    assert isinstance(goal, Goal)
    assert grid == grid_of(limits, 1, 0)
    left = room(sizes, limits, choose(sizes, grid, goal, 0.0))
    assert left[1] < 12
    best = sum(sorted((size for size, _ in sizes), reverse=True)[:10])
    assert left[0] == limits[0] - best
