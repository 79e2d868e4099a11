"""The search: against all subsets, against its compiled twin, and what it may never do."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.packing import search
from hedgerow.packing.search import Goal, Time, aim, choose, grid_of

fast = pytest.importorskip("hedgerow.packing.fast")

quick = settings(max_examples=60, deadline=None)
MOST = 192  # packs that an example may wait
LIMITS = st.integers(0, 40) | st.sampled_from([128, 511, 512, 1000, 16384, 70_001])


@st.composite
def pools(draw, names=4, most=12):
    """Budgets, examples that fit alone, often many of one kind, and what time is left to them."""
    limits = tuple(draw(st.lists(LIMITS, min_size=1, max_size=names)))
    size = st.tuples(*(st.integers(0, limit) | st.integers(0, limit // 8) for limit in limits))
    kinds = draw(st.lists(size, min_size=1, max_size=3))
    sizes = draw(st.lists(st.sampled_from(kinds) | size, min_size=1, max_size=most))
    last = sorted(draw(st.lists(st.integers(1, MOST), min_size=len(sizes), max_size=len(sizes))))
    return sizes, limits, Time(last, 0, MOST, draw(st.integers(0, 1)))


def fresh(sizes, must=0):
    """All have just come."""
    return Time([MOST] * len(sizes), 0, MOST, must)


def random_pools(count, names, examples):
    """The same on a larger scale, as real budgets are."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        limits = tuple(rng.choice([16384, 128, 36_000, 600_001, 300], names).tolist())
        shares = rng.random((int(rng.integers(1, examples)), names)) ** rng.integers(1, 6)
        sizes = [tuple((share * limits).astype(int).tolist()) for share in shares]
        yield sizes, limits, aged(rng, sizes)


def aged(rng, sizes):
    return Time(np.sort(rng.integers(1, MOST + 1, len(sizes))).tolist(), 0, MOST, int(rng.integers(2)))


def room(sizes, limits, chosen):
    return [limit - sum(sizes[i][axis] for i in chosen) for axis, limit in enumerate(limits)]


def loss(grid, goal, left):
    return sum(left[axis] * worth for axis, worth in zip(grid.axes, goal.worth, strict=True))


def subsets(count):
    return itertools.chain.from_iterable(itertools.combinations(range(count), n) for n in range(1, count + 1))


@given(pools())
@quick
def test_both_paths_choose_the_same(pool):
    sizes, limits, time = pool
    asked = aim(sizes, limits)
    assert fast.choose(sizes, *asked, time) == choose(sizes, *asked, time)


@pytest.mark.parametrize("names", [1, 2, 3, 4])
def test_both_paths_choose_the_same_under_large_budgets(names):
    for sizes, limits, time in random_pools(60, names, 60):
        asked = aim(sizes, limits)
        assert fast.choose(sizes, *asked, time) == choose(sizes, *asked, time)


@given(pools())
@quick
def test_a_choice_fits_is_never_empty_and_leaves_nothing_behind_that_fits(pool):
    sizes, limits, time = pool
    chosen = choose(sizes, *aim(sizes, limits), time)
    assert chosen
    assert chosen == sorted(set(chosen))
    assert not time.must or chosen[0] == 0
    left = room(sizes, limits, chosen)
    assert min(left) >= 0
    for i in set(range(len(sizes))) - set(chosen):
        assert any(need > have for need, have in zip(sizes[i], left, strict=True))


def check_best(sizes, limits, time):
    """Where the grid is exact the choice is as good as the best of all, or full and with the oldest."""
    grid, goal = aim(sizes, limits)
    chosen = choose(sizes, grid, goal, time)
    left = room(sizes, limits, chosen)
    if chosen[0] == 0 and all(
        left[axis] <= most for axis, most in zip(grid.axes[: len(limits)], goal.slack, strict=False)
    ):
        return
    first = grid.axes[grid.scarce]
    large = {i for i, size in enumerate(sizes) if size[first] > limits[first] / 2}
    volume = sum(size[first] for size in sizes) / max(limits[first], 1)
    bare = max(0, 1 - volume / len(large)) if large else 0
    found = []
    for subset in subsets(len(sizes)):
        if min(room(sizes, limits, subset)) >= 0 and (subset[0] == 0 or not time.must):
            lost = loss(grid, goal, room(sizes, limits, subset))
            grace = sum(0.05 * (1 - time.last[i] / MOST) ** 2 for i in subset if i == 0 or i in large)
            found.append((lost - grace + (0 if large & set(subset) else bare), lost))
    least = min(found)[0]
    assert loss(grid, goal, left) <= max(lost for worst, lost in found if worst <= least + 1e-9) + 1e-9


@given(pools(names=2, most=7))
@quick
def test_the_choice_is_the_best_of_all_subsets(pool):
    sizes, limits, time = pool
    if max(limits) <= search.COLUMNS:
        check_best(sizes, limits, time)


def test_the_choice_is_the_best_of_all_subsets_of_pools_of_all_sizes():
    rng = np.random.default_rng(0)
    for _ in range(120):
        limits = tuple(rng.integers(5, 500, 2).tolist())
        sizes = [tuple((rng.random(2) ** 2 * limits).astype(int).tolist()) for _ in range(8)]
        check_best(sizes, limits, aged(rng, sizes))


def test_one_budget_is_exact():
    rng = np.random.default_rng(1)
    for _ in range(40):
        sizes = [(int(size),) for size in rng.integers(1000, 9000, 9)]
        check_best(sizes, (16384,), aged(rng, sizes))


def test_a_full_row_takes_the_oldest_if_it_can():
    sizes = [(40,), (35,), (60,), (65,)]  # [1, 3] is full too
    assert choose(sizes, *aim(sizes, (100,)), fresh(sizes)) == [0, 2]
    sizes = [(40,), (25,), (35,), (30,), (30,), (50,)]  # [0, 3, 4] and [2, 1, 0] are, those came first
    assert choose(sizes, *aim(sizes, (100,)), fresh(sizes)) == [0, 1, 2]


@pytest.mark.parametrize(("left", "taken"), [(192, False), (96, False), (20, True)])
def test_the_longer_the_oldest_waited_the_more_may_be_lost_for_it(left, taken):
    sizes = [(97,), (60,), (40,), (80,), (70,)]
    time = Time([left, *[MOST] * 4], 0, MOST, 0)
    assert choose(sizes, *aim(sizes, (100,)), time) == ([0] if taken else [1, 2])
    assert choose(sizes, *aim(sizes, (100,)), fresh(sizes, must=1)) == [0]


@pytest.mark.parametrize(("left", "taken"), [(192, 2), (20, 1)])
def test_a_large_example_leaves_early_too_once_it_has_waited(left, taken):
    sizes = [(90,), (69,), (70,), (30,)]
    assert choose(sizes, *aim(sizes, (100,)), Time([left, left, MOST, MOST], 0, MOST, 0)) == [taken, 3]


def test_where_large_examples_need_more_rows_than_the_volume_small_ones_go_with_them():
    small = [(35,), (33,), (32,)]
    few, many = [(60,), *small], [(60,), *small, (60,), (60,), (60,)]
    assert choose(few, *aim(few, (100,)), fresh(few)) == [1, 2, 3]
    assert choose(many, *aim(many, (100,)), fresh(many)) == [0, 1]


@pytest.mark.parametrize("path", [choose, fast.choose])
def test_a_large_example_is_not_swapped_for_a_small_one_that_fills_more(path):
    sizes = [(60, 55)] * 4 + [(50, 70)]
    assert path(sizes, *aim(sizes, (100, 100)), fresh(sizes)) == [0]
    assert path(sizes[3:], *aim(sizes[3:], (100, 100)), fresh(sizes[3:])) == [1]


@pytest.mark.parametrize("limit", [511, 512, 513, 16383, 65535, 65536, 10**9 + 7])
@pytest.mark.parametrize("names", [1, 2])
def test_an_example_that_fills_a_budget_fits_however_that_is_rounded(limit, names):
    sizes = [(1,) * names, (limit,) * names, (limit - 1,) + (0,) * (names - 1), (limit,) * names]
    limits = (limit,) * names
    assert choose(sizes, *aim(sizes, limits), fresh(sizes))
    assert choose(sizes[1:], *aim(sizes[1:], limits), fresh(sizes[1:], must=1)) == [0]


def test_the_scarcer_budget_counts_in_full_and_the_other_less_the_more_it_abounds():
    limits = (1000, 100)
    worths = [aim([(1000, crops)], limits)[1].worth for crops in (100, 95, 50)]
    assert [worth[0] for worth in worths] == [1 / 1000] * 3
    assert worths[0][1] == 1 / 100
    assert worths[0][1] > 1.8 * worths[1][1] > 2000 * worths[2][1] > 0


def test_swaps_close_what_rounding_up_left():
    limits = (16384, 128)  # a column stands for 33 tokens: 10 examples of 34 columns each are all that fit
    sizes = [(1090 + i, 12) for i in range(30)]
    grid, goal = aim(sizes, limits)
    assert isinstance(goal, Goal)
    assert grid == grid_of(limits, 1, 0)
    left = room(sizes, limits, choose(sizes, grid, goal, fresh(sizes)))
    assert left[1] < 12
    best = sum(sorted((size for size, _ in sizes), reverse=True)[:10])
    assert left[0] == limits[0] - best
