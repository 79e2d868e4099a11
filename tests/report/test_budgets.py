"""A recommended budget holds what it promises, and one outlier does not decide it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.packing.plan import Plan
from hedgerow.report.budgets import Fit, hold_all, recommend
from hedgerow.report.trials import within
from hedgerow.sequence import Budget, Cost, Costs

amounts = st.lists(st.tuples(st.integers(1, 9000), st.integers(0, 60)), min_size=1, max_size=40)


@given(amounts)
@settings(max_examples=60, deadline=None)
def test_a_recommended_budget_holds_what_it_promises(drawn):
    costs = Costs(("tokens", "crops"), drawn)
    lengths = sorted(tokens for tokens, _ in drawn)
    lone = len(drawn) >= 20 and lengths[-1] > 2 * lengths[-2]
    for budget, longest in ((recommend(costs), lengths[-2 if lone else -1]), (hold_all(costs), lengths[-1])):
        needed = max(longest, 4 * np.median(lengths))
        assert budget["tokens"] % 512 == 0
        assert budget["tokens"] >= needed > budget["tokens"] - 512
        tokens, crops = np.array([pair for pair in drawn if pair[0] <= budget["tokens"]]).T
        assert len(within(costs, budget)) == len(tokens)
        even = budget["tokens"] * crops.sum() / tokens.sum()
        assert budget["crops"] == max(crops.max(), math.ceil(even))


@pytest.mark.parametrize(("others", "longest", "tokens"), [
    (19, 2001, 4096), (19, 2000, 4096), (19, 9000, 4096), (18, 9000, 9216), (900, 9000, 4096),
])  # fmt: skip
def test_a_lone_outlier_does_not_decide_the_budget(others, longest, tokens):
    costs = Costs(("tokens", "crops"), [(1000, 0)] * others + [(longest, 0)])
    assert recommend(costs)["tokens"] == tokens
    two = Costs(("tokens", "crops"), [(1000, 0)] * 97 + [(9000, 0)] * 2)
    assert recommend(two)["tokens"] == 9216  # two in a hundred are no outlier


def test_one_in_thousands_that_is_far_longer_is_not_planned_for():
    costs = Costs(("tokens", "crops"), [(1000, 4)] * 2999 + [(9000, 4)])
    assert recommend(costs) == Budget(tokens=4096, crops=17)
    assert within(costs, recommend(costs)).tolist() == list(range(2999))
    near = Costs(("tokens", "crops"), [(1000, 4)] * 2999 + [(2000, 4)])
    assert len(within(near, recommend(near))) == 3000


def fit(over, tokens, rows):
    plan = Plan([[n] for n in range(rows)], Cost(tokens=tokens), Budget(tokens=100))
    return Fit("x", plan.budget, over, over, (), None, rows, plan)


def test_a_budget_beats_another_that_is_emptier_and_holds_no_more():
    assert fit(1, 90, 1).beats(fit(1, 170, 2))
    assert not fit(1, 90, 1).beats(fit(1, 90, 1))
    assert not fit(2, 90, 1).beats(fit(1, 170, 2))
    assert not fit(0, 0, 0).beats(fit(0, 1, 1))
