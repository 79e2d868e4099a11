"""The packer: law 9 (budgets and waits), the best subset against all subsets, exact restore."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.errors import BudgetError, RecipeError
from hedgerow.packing import pool as module
from hedgerow.packing.pool import Packer, choose
from hedgerow.sequence import Budget, Cost

LEVELS = module._LEVELS
NAMES = ("tokens", "crops", "examples")
quick = settings(max_examples=60, deadline=None)


def run(packer, costs):
    """Push all and flush; return the packs, and how many of them were out when each key came."""
    packs, came = [], {}
    for key, cost in enumerate(costs):
        came[key] = len(packs)
        pack = packer.push(key, cost)
        assert len(packer) < packer.pool
        if pack is not None:
            packs.append(pack)
    return packs + packer.flush(), came


def total(costs, pack):
    return sum((costs[key] for key in pack), Cost())


def check_laws(packer, costs):
    packs, came = run(packer, costs)
    assert sorted(key for pack in packs for key in pack) == list(range(len(costs)))
    for number, pack in enumerate(packs, start=1):
        assert pack == sorted(pack)
        assert packer.budget.fits(total(costs, pack)), packer.budget.excess(total(costs, pack))
        assert all(number - came[key] <= 4 * packer.pool for key in pack)
    return packs


@st.composite
def streams(draw):
    """A budget of one to three names, a pool, and examples that fit alone; often many of one kind."""
    names = NAMES[: draw(st.integers(1, 3))]
    budget = Budget(**{name: draw(st.integers(0, 12)) for name in names})
    cost = st.builds(lambda sizes: Cost(**dict(zip(names, sizes, strict=True))),
                     st.tuples(*(st.integers(0, most) for most in budget.values())))  # fmt: skip
    kinds = draw(st.lists(cost, min_size=1, max_size=4))
    costs = draw(st.lists(st.sampled_from(kinds) | cost, max_size=60))
    return budget, draw(st.integers(1, 5)), costs


@given(streams())
@quick
def test_each_example_leaves_once_in_time_and_no_budget_is_exceeded(stream):
    budget, pool, costs = stream
    check_laws(Packer(budget, pool), costs)


@pytest.mark.parametrize("pool", [1, 2, 5, 12])
@pytest.mark.parametrize("misfits", ["one", "many", "waves"])
def test_a_stream_of_perfect_fits_starves_nobody(pool, misfits):
    perfect, misfit = Cost(tokens=5), Cost(tokens=9)
    starts = {"one": 1, "many": max(1, pool - 1), "waves": 2}[misfits]
    costs = [misfit] * starts
    for wave in range(12 * pool):
        costs += [perfect, perfect] if misfits != "waves" or wave % 3 else [misfit]
    check_laws(Packer(Budget(tokens=10), pool), costs)


def test_without_the_bound_that_stream_would_starve_one(monkeypatch):
    monkeypatch.setattr(module, "_WAIT", 10**6)
    packs, came = run(Packer(Budget(tokens=10), pool=4), [Cost(tokens=9)] + [Cost(tokens=5)] * 200)
    (number,) = (number for number, pack in enumerate(packs, start=1) if 0 in pack)
    assert number - came[0] > 4 * 4


def cells(limit, level, size):
    unit = max(1, -(-limit // level))
    return min(-(-size // unit), limit // unit)


def subsets(count, forced):
    for size in range(count + 1):
        for some in itertools.combinations(range(count), size):
            if forced is None or forced in some:
                yield some


def best_of_all_subsets(sizes, limits, levels, forced):
    """Try every subset on the grid; return the greatest sums, and what each example takes of the grid."""
    demand = [sum(size[axis] for size in sizes) / max(limit, 1) for axis, limit in enumerate(limits)]
    axes = sorted(range(len(limits)), key=lambda axis: (-demand[axis], axis))
    grid = [
        [cells(limits[axis], level, size[axis]) for size in sizes]
        for axis, level in zip(axes, levels, strict=False)
    ]
    most = [cells(limits[axis], level, limits[axis]) for axis, level in zip(axes, levels, strict=False)]
    sums = ([sum(column[i] for i in some) for column in grid] for some in subsets(len(sizes), forced))
    return max(found for found in sums if all(a <= b for a, b in zip(found, most, strict=True))), grid


@st.composite
def pools(draw):
    limits = tuple(draw(st.lists(st.integers(0, 40), min_size=1, max_size=2)))
    size = st.tuples(*(st.integers(0, limit) for limit in limits))
    sizes = draw(st.lists(size, min_size=1, max_size=7))
    return sizes, limits, draw(st.none() | st.integers(0, len(sizes) - 1))


def check_choice(sizes, limits, forced, levels):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LEVELS", levels)
        chosen = choose(sizes, limits, forced=forced)
    best, grid = best_of_all_subsets(sizes, limits, levels, forced)
    sums = [sum(column[i] for i in chosen) for column in grid]
    assert chosen
    assert len(set(chosen)) == len(chosen)
    assert forced is None or forced in chosen
    assert all(sum(sizes[i][axis] for i in chosen) <= limit for axis, limit in enumerate(limits))
    # Rounded up, the sums of what was topped up may lie beyond the grid: never below the best on it.
    assert sums == best if levels == LEVELS else sums >= best


@given(pools(), st.sampled_from([LEVELS, (7, 5), (3, 11), (1, 1)]))
@quick
def test_the_choice_is_the_best_of_all_subsets_at_its_granularity(pool, levels):
    check_choice(*pool, levels)


@pytest.mark.parametrize("levels", [LEVELS, (7, 5)])
def test_the_choice_is_the_best_of_all_subsets_of_pools_of_all_sizes(levels):
    rng = np.random.default_rng(0)
    for _ in range(60):
        limits = tuple(rng.integers(5, 41, 2).tolist())
        sizes = [tuple(rng.integers(0, 1 + np.array(limits)).tolist()) for _ in range(7)]
        check_choice(sizes, limits, 0 if rng.random() < 0.3 else None, levels)


@given(pools())
@quick
def test_nothing_that_still_fits_is_left_behind(pool):
    sizes, limits, _ = pool
    chosen = choose(sizes, limits)
    held = [sum(sizes[i][axis] for i in chosen) for axis in range(len(limits))]
    for i in set(range(len(sizes))) - set(chosen):
        assert any(have + need > limit for have, need, limit in zip(held, sizes[i], limits, strict=True))


@pytest.mark.parametrize("limit", [2047, 2048, 2049, 16383, 16385, 10**9 + 7])
def test_an_example_that_fills_the_budget_leaves_alone_however_the_budget_is_rounded(limit):
    costs = [Cost(tokens=1), Cost(tokens=limit), Cost(tokens=limit), Cost(tokens=limit - 1), Cost(tokens=2)]
    packs = check_laws(Packer(Budget(tokens=limit), pool=3), costs)
    assert len(packs) == 4


def test_two_budgets_of_many_levels_are_kept():
    budget = Budget(tokens=16384, pixels=512_001)
    costs = [Cost(tokens=37 * i % 9000 + 1, pixels=7919 * i % 300_001) for i in range(150)]
    check_laws(Packer(budget, pool=8), costs)


def test_a_budget_the_grid_does_not_count_is_kept_too():
    budget = Budget(tokens=100, crops=10, examples=2)
    costs = [Cost(tokens=30 + i % 7, crops=2 + i % 2, examples=1) for i in range(60)]
    check_laws(Packer(budget, pool=12), costs)


@given(streams())
@quick
def test_a_packer_restored_at_any_step_goes_on_as_if_never_stopped(stream):
    budget, pool, costs = stream
    whole, packer = Packer(budget, pool), Packer(budget, pool)
    for key, cost in enumerate(costs):
        state = json.dumps(packer.state_dict(), sort_keys=True)
        packer = Packer(budget, pool)
        packer.load_state_dict(json.loads(state))
        assert packer.push(key, cost) == whole.push(key, cost)
        assert packer.state_dict() == whole.state_dict()
    assert packer.flush() == whole.flush()


def test_a_state_is_a_copy():
    packer = Packer(Budget(tokens=10), pool=4)
    packer.push("a", Cost(tokens=3))
    state = packer.state_dict()
    packer.push("b", Cost(tokens=3))
    again = Packer(Budget(tokens=10), pool=4)
    again.load_state_dict(state)
    assert again.flush() == [["a"]]


@pytest.mark.parametrize("other", [Packer(Budget(tokens=11), 4), Packer(Budget(tokens=10), 5)])
def test_a_state_of_another_budget_or_pool_is_refused(other):
    with pytest.raises(RecipeError, match="saved with"):
        other.load_state_dict(Packer(Budget(tokens=10), 4).state_dict())


@given(streams())
@quick
def test_the_order_in_which_a_budget_names_its_parts_changes_nothing(stream):
    budget, pool, costs = stream
    turned = Budget(**dict(reversed(list(budget.items()))))
    assert run(Packer(budget, pool), costs) == run(Packer(turned, pool), costs)


def test_an_example_over_budget_is_refused_by_name_and_the_pool_stays_as_it_was():
    packer = Packer(Budget(tokens=10, crops=2), pool=3)
    packer.push("small", Cost(tokens=4))
    with pytest.raises(
        BudgetError, match=r"'clip-7' costs Cost\(tokens=11, crops=1\).*crops=2.*tokens 11 > 10"
    ):
        packer.push("clip-7", Cost(tokens=11, crops=1))
    assert packer.flush() == [["small"]]


def test_costs_that_no_budget_names_do_not_count():
    packs, _ = run(Packer(Budget(tokens=10), pool=2), [Cost(tokens=5, crops=10**9), Cost(tokens=5), Cost()])
    assert packs == [[0, 1], [2]]


@pytest.mark.parametrize(("budget", "pool"), [(Budget(), 4), (Budget(tokens=3), 0)])
def test_a_packer_needs_a_budget_and_a_pool(budget, pool):
    with pytest.raises(ValueError, match="at least"):
        Packer(budget, pool)
