"""Plans of a whole set and of an epoch: complete, within budget, pure."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.errors import BudgetError, RecipeError
from hedgerow.packing.plan import plan_epoch, plan_rows
from hedgerow.packing.pool import Packer
from hedgerow.sequence import Budget, Cost, Costs

BUDGET = Budget(tokens=20, crops=6)
some_costs = st.lists(st.builds(Cost, tokens=st.integers(0, 20), crops=st.integers(0, 6)), max_size=40)
quick = settings(max_examples=60, deadline=None)
PLANNERS = [
    plan_rows,
    lambda c, b: plan_epoch(c, b, seed=0, epoch=0),
    lambda c, b: plan_epoch(c, b, seed=0, epoch=0, window=7),
]


def check(plan, costs):
    assert sorted(index for row in plan.rows for index in row) == list(range(len(costs)))
    for row in plan.rows:
        assert plan.budget.fits(sum((costs[index] for index in row), Cost()))
    assert plan.examples == len(costs)
    assert plan.bound <= len(plan.rows)
    assert plan.gap == len(plan.rows) - plan.bound
    assert 0 <= plan.efficiency <= 1
    assert all(0 <= share <= 1 for share in plan.fill.values())


@given(some_costs)
@quick
def test_an_offline_plan_holds_each_example_once_within_the_budget(costs):
    check(plan_rows(costs, BUDGET), costs)


def test_a_plan_does_not_depend_on_how_costs_are_given_or_budgets_are_ordered():
    costs = [Cost(tokens=1 + i * 7 % 20, crops=1 + i * 3 % 20) for i in range(60)]  # no budget is scarcer
    for plan in PLANNERS:
        rows = plan(costs, Budget(tokens=20, crops=20)).rows
        assert plan(Costs.of(costs), Budget(tokens=20, crops=20)).rows == rows
        assert plan(costs, Budget(crops=20, tokens=20)).rows == rows


def test_the_examples_of_a_row_are_in_their_order():
    costs = [Cost(tokens=1 + i * 7 % 20, crops=i % 7) for i in range(50)]
    assert all(row == sorted(row) for row in plan_rows(costs, BUDGET).rows)
    place = {index: place for place, index in enumerate(shuffled_order(costs, seed=1, epoch=2))}
    for row in plan_epoch(costs, BUDGET, seed=1, epoch=2, window=20).rows:
        assert [place[index] for index in row] == sorted(place[index] for index in row)


def shuffled_order(costs, *, seed, epoch):
    return [index for row in plan_epoch(costs, BUDGET, seed=seed, epoch=epoch, pool=1).rows for index in row]


@given(some_costs, st.integers(0, 9), st.integers(0, 9), st.integers(1, 6))
@quick
def test_a_plan_of_an_epoch_holds_each_example_once_within_the_budget(costs, seed, epoch, pool):
    plan = plan_epoch(costs, BUDGET, seed=seed, epoch=epoch, pool=pool)
    check(plan, costs)
    assert plan == plan_epoch(costs, BUDGET, seed=seed, epoch=epoch, pool=pool)


def test_another_seed_or_epoch_gives_another_order():
    costs = [Cost(tokens=1 + i % 9, crops=i % 3) for i in range(60)]
    plans = [
        plan_epoch(costs, BUDGET, seed=seed, epoch=epoch).rows for seed in range(3) for epoch in range(3)
    ]
    assert all(a != b for i, a in enumerate(plans) for b in plans[:i])


def test_the_order_of_an_epoch_is_a_fair_shuffle():
    costs = [Cost(tokens=20)] * 5
    first = [plan_epoch(costs, BUDGET, seed=0, epoch=epoch, pool=1).rows[0][0] for epoch in range(400)]
    assert all(50 < first.count(index) < 110 for index in range(5))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_has_nothing_of_the_draws_that_made_the_data(seed):
    drawn = np.random.default_rng(seed).random(2000)
    order = shuffled_order([Cost(tokens=20)] * 2000, seed=seed, epoch=0)
    assert abs(np.corrcoef(np.arange(2000), drawn[order])[0, 1]) < 3 / 2000**0.5


def test_an_epoch_is_the_packer_run_over_its_order():
    costs = [Cost(tokens=1 + i * 7 % 20, crops=i % 7) for i in range(50)]
    order = shuffled_order(costs, seed=3, epoch=1)
    packer = Packer(BUDGET, 8)
    packs = [packer.push(index, costs[index]) for index in order]
    rows = [pack for pack in packs if pack] + packer.flush()
    plan = plan_epoch(costs, BUDGET, seed=3, epoch=1, pool=8)
    assert [sorted(row) for row in plan.rows] == [sorted(row) for row in rows]


def test_the_indices_are_plain_integers():
    costs = [Cost(tokens=9)] * 5
    for plan in PLANNERS:
        assert {type(index) for row in plan(costs, BUDGET).rows for index in row} == {int}


@pytest.mark.parametrize("plan", PLANNERS)
def test_an_example_over_budget_is_named_by_its_index(plan):
    costs = [Cost(tokens=1), Cost(tokens=1, crops=7), Cost(tokens=99)]
    with pytest.raises(BudgetError, match=r"example 1 costs .*crops 7 > 6.*drop or shorten it"):
        plan(costs, BUDGET)


@pytest.mark.parametrize("plan", PLANNERS)
def test_a_plan_of_nothing_has_no_row(plan):
    empty = plan([], BUDGET)
    assert (empty.rows, empty.bound, empty.gap, empty.efficiency) == ([], 0, 0, 1.0)
    assert "0 examples in 0 rows" in repr(empty)


def test_the_figures_of_a_plan_follow_from_its_rows():
    plan = plan_rows([Cost(tokens=15, crops=1)] * 4, BUDGET)
    assert len(plan.rows) == 4
    assert plan.fill == {"tokens": 0.75, "crops": 4 / 24}
    assert (plan.bound, plan.gap, plan.efficiency) == (3, 1, 0.75)
    assert repr(plan).startswith("Plan of 4 examples in 4 rows: tokens 75.0% full, crops 16.7% full")
    assert repr(plan).endswith("; 1 above the bound of 3 (75.00%)")


def test_a_budget_of_zero_admits_what_takes_none_of_it():
    plan = plan_rows([Cost(tokens=6)] * 3, Budget(tokens=12, crops=0))
    assert [len(row) for row in plan.rows] == [2, 1]
    assert plan.fill["crops"] == 0


@pytest.mark.parametrize("plan", PLANNERS)
def test_a_budget_without_names_is_refused(plan):
    with pytest.raises(ValueError, match="name at least one budget"):
        plan([Cost(tokens=1)], Budget())


@pytest.mark.parametrize("plan", PLANNERS)
@pytest.mark.parametrize("costs", [[3], np.array([3, 4]), Cost(tokens=3)], ids=["ints", "array", "one cost"])
def test_what_is_no_list_of_costs_is_told_so(plan, costs):
    with pytest.raises(TypeError, match=r"costs=.*: give a list with one Cost for each example"):
        plan(costs, BUDGET)


@pytest.mark.parametrize("plan", PLANNERS)
def test_what_is_no_budget_is_told_so(plan):
    with pytest.raises(TypeError, match=r"budget={'tokens': 9}: give a Budget"):
        plan([Cost(tokens=3)], {"tokens": 9})


@pytest.mark.parametrize("plan", PLANNERS)
def test_a_misspelt_budget_is_refused_with_the_name_that_was_meant(plan):
    costs = [Cost(tokens=3, crops=1)]
    said = r"budget crop: no example costs any 'crop'; they cost tokens, crops: did you mean 'crops'\?"
    with pytest.raises(RecipeError, match=said):
        plan(costs, Budget(tokens=9, crop=2))
    plan(costs, Budget(tokens=9))  # a cost without a budget is fine


def test_a_budget_that_no_example_uses_is_named_once(caplog):
    for _ in range(2):
        plan_rows([Cost(words=3)], Budget(words=9, frames=2))
    assert [record.getMessage() for record in caplog.records] == [
        "budget frames: no example costs any 'frames'; they cost words, so it limits no row"
    ]
    plan_rows([Cost(words=3, frames=0)], Budget(words=9, frames=2))
    assert len(caplog.records) == 1


def test_a_pool_beside_a_window_is_refused():
    with pytest.raises(RecipeError, match=r"pool=5 and window=7: .*; give one of them"):
        plan_epoch([Cost(tokens=1)], BUDGET, seed=0, epoch=0, pool=5, window=7)


def test_a_window_below_one_is_refused():
    with pytest.raises(ValueError, match=r"window=0: give at least 1"):
        plan_epoch([Cost(tokens=1)], BUDGET, seed=0, epoch=0, window=0)


@given(some_costs, st.integers(0, 9), st.integers(0, 9), st.integers(1, 50))
@quick
def test_a_plan_in_windows_holds_each_example_once_within_the_budget(costs, seed, epoch, window):
    plan = plan_epoch(costs, BUDGET, seed=seed, epoch=epoch, window=window)
    check(plan, costs)
    assert plan == plan_epoch(costs, BUDGET, seed=seed, epoch=epoch, window=window)


@given(some_costs, st.integers(1, 50))
@quick
def test_each_window_of_the_order_is_planned_alone(costs, window):
    order, rows = (
        shuffled_order(costs, seed=1, epoch=1),
        plan_epoch(costs, BUDGET, seed=1, epoch=1, window=window).rows,
    )
    for start in range(0, len(order), window):
        own = order[start : start + window]
        alone = plan_rows([costs[index] for index in own], BUDGET).rows
        rows, here = rows[len(alone) :], rows[: len(alone)]
        assert sorted(here) == sorted([own[place] for place in row] for row in alone)
    assert not rows


def test_rows_of_a_window_come_in_an_order_of_their_own():
    costs = [Cost(tokens=20)] * 240  # a row each
    place = {index: place for place, index in enumerate(shuffled_order(costs, seed=0, epoch=0))}
    rows = plan_epoch(costs, BUDGET, seed=0, epoch=0, window=8).rows
    windows = [tuple(place[index] % 8 for [index] in rows[start : start + 8]) for start in range(0, 240, 8)]
    assert len(set(windows)) == len(windows)
    came_first = [window[0] for window in windows]
    assert all(came_first.count(own) <= 10 for own in range(8))


def test_rows_in_windows_show_no_trend_by_size():
    rng = np.random.default_rng(0)
    costs = Costs(("tokens",), np.clip(rng.lognormal(1.0, 0.8, (20_000, 1)), 1, 20))
    tokens = costs.amounts("tokens")[:, 0]
    ordered = plan_rows(costs, BUDGET).rows
    window = plan_epoch(costs, BUDGET, seed=0, epoch=0, window=20_000).rows
    trends = [
        np.corrcoef(np.arange(len(r)), [tokens[row].max() for row in r])[0, 1] for r in (ordered, window)
    ]
    assert trends[0] < -0.8
    assert abs(trends[1]) < 3 / len(window) ** 0.5
