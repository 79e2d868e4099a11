"""Plans of a whole set and of an epoch: complete, within budget, pure."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.errors import BudgetError
from hedgerow.packing.plan import plan_epoch, plan_rows
from hedgerow.packing.pool import Packer
from hedgerow.sequence import Budget, Cost

BUDGET = Budget(tokens=20, crops=6)
some_costs = st.lists(st.builds(Cost, tokens=st.integers(0, 20), crops=st.integers(0, 6)), max_size=40)
quick = settings(max_examples=60, deadline=None)


def check(plan, costs):
    assert sorted(index for row in plan.rows for index in row) == list(range(len(costs)))
    for row in plan.rows:
        assert plan.budget.fits(sum((costs[index] for index in row), Cost()))
    assert plan.examples == len(costs)
    assert plan.bound <= len(plan.rows)
    assert 0 <= plan.efficiency <= 1
    assert all(0 <= share <= 1 for share in plan.fill.values())


def slow_best_fit_decreasing(costs, budget):
    share = {
        i: sum(cost.get(name, 0) / most for name, most in budget.items()) for i, cost in enumerate(costs)
    }
    rows = []
    for i in sorted(share, key=lambda i: -share[i]):
        fitting = [row for row in rows if budget.fits(sum((costs[j] for j in row), costs[i]))]
        if fitting:
            max(fitting, key=lambda row: round(sum(share[j] for j in row), 9)).append(i)
        else:
            rows.append([i])
    return [sorted(row) for row in rows]


@given(some_costs)
@quick
def test_an_offline_plan_holds_each_example_once_within_the_budget(costs):
    check(plan_rows(costs, BUDGET), costs)


@given(st.lists(st.builds(Cost, tokens=st.integers(0, 16), crops=st.integers(0, 4)), max_size=25))
@quick
def test_an_offline_plan_is_best_fit_decreasing(costs):
    # Shares of powers of two add without rounding, so that ties are ties in both.
    budget = Budget(tokens=16, crops=4)
    assert plan_rows(costs, budget).rows == slow_best_fit_decreasing(costs, budget)


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


def test_an_epoch_is_the_packer_run_over_its_order():
    costs = [Cost(tokens=1 + i * 7 % 20, crops=i % 7) for i in range(50)]
    order = [index for row in plan_epoch(costs, BUDGET, seed=3, epoch=1, pool=1).rows for index in row]
    packer = Packer(BUDGET, 8)
    packs = [packer.push(index, costs[index]) for index in order]
    rows = [pack for pack in packs if pack] + packer.flush()
    plan = plan_epoch(costs, BUDGET, seed=3, epoch=1, pool=8)
    assert [sorted(row) for row in plan.rows] == [sorted(row) for row in rows]


def test_the_indices_are_plain_integers():
    costs = [Cost(tokens=9)] * 5
    for plan in (plan_rows(costs, BUDGET), plan_epoch(costs, BUDGET, seed=0, epoch=0)):
        assert {type(index) for row in plan.rows for index in row} == {int}


@pytest.mark.parametrize("plan", [plan_rows, lambda c, b: plan_epoch(c, b, seed=0, epoch=0)])
def test_an_example_over_budget_is_named_by_its_index(plan):
    costs = [Cost(tokens=1), Cost(tokens=1, crops=7), Cost(tokens=99)]
    with pytest.raises(BudgetError, match=r"example 1 costs .*crops 7 > 6.*drop or shorten it"):
        plan(costs, BUDGET)


@pytest.mark.parametrize("plan", [plan_rows, lambda c, b: plan_epoch(c, b, seed=0, epoch=0)])
def test_a_plan_of_nothing_has_no_row(plan):
    empty = plan([], BUDGET)
    assert (empty.rows, empty.bound, empty.efficiency) == ([], 0, 1.0)
    assert "0 examples in 0 rows" in repr(empty)


def test_the_figures_of_a_plan_follow_from_its_rows():
    plan = plan_rows([Cost(tokens=15, crops=1)] * 4, BUDGET)
    assert len(plan.rows) == 4
    assert plan.fill == {"tokens": 0.75, "crops": 4 / 24}
    assert (plan.bound, plan.efficiency) == (3, 0.75)
    assert repr(plan).startswith("Plan of 4 examples in 4 rows: tokens 75.0% full, crops 16.7% full")
    assert repr(plan).endswith("75.0% of the best possible (3 rows)")


def test_a_budget_of_zero_admits_what_takes_none_of_it():
    plan = plan_rows([Cost(tokens=6)] * 3, Budget(tokens=12, crops=0))
    assert [len(row) for row in plan.rows] == [2, 1]
    assert plan.fill["crops"] == 0
