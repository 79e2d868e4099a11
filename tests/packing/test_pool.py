"""The packer: law 9 (budgets and waits), tiny and oversize examples, exact restore."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.errors import BudgetError, RecipeError
from hedgerow.packing import pool as module
from hedgerow.packing import search
from hedgerow.packing.pool import Packer
from hedgerow.sequence import Budget, Cost

NAMES = ("tokens", "crops", "examples", "pixels")
quick = settings(max_examples=60, deadline=None)


def run(packer, costs):
    """Push all and flush; return the packs, and how many of them were out when each key came."""
    packs, came = [], {}
    for key, cost in enumerate(costs):
        came[key] = len(packs)
        pack = packer.push(key, cost)
        assert len(packer._keys) < packer.pool
        if pack is not None:
            packs.append(pack)
    return packs + packer.flush(), came


def total(costs, pack):
    return sum((costs[key] for key in pack), Cost())


def check_laws(packer, costs):
    packs, came = run(packer, costs)
    assert sorted(key for pack in packs for key in pack) == list(range(len(costs)))
    for number, pack in enumerate(packs, start=1):
        assert packer.budget.fits(total(costs, pack)), packer.budget.excess(total(costs, pack))
        assert all(number - came[key] <= 4 * packer.pool for key in pack)
    return packs


@st.composite
def streams(draw):
    """A budget of one to four names, a pool, and examples that fit alone; often many of one kind, or tiny."""
    names = NAMES[: draw(st.integers(1, 4))]
    budget = Budget(**{name: draw(st.integers(0, 12) | st.just(100)) for name in names})
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


def draw_mix(count, seed=0):
    """Text, images and videos, as in real mixes; some texts are tiny."""
    rng = np.random.default_rng(seed)
    kinds = (
        lambda: (rng.integers(8, 64), 0),
        lambda: (rng.integers(200, 2001), 0),
        lambda: (rng.integers(300, 1501), rng.integers(1, 26)),
        lambda: (frames := rng.integers(16, 129), (83 * frames + rng.integers(50, 4001), frames))[1],
    )
    drawn = [kinds[kind]() for kind in rng.choice(4, count, p=(0.1, 0.1, 0.4, 0.4))]
    return [Cost(tokens=min(int(tokens), 16384), crops=int(crops)) for tokens, crops in drawn]


def shares(costs, budget, packs):
    """What the packs hold of each budget, as a part of the rows."""
    held = sum((costs[key] for pack in packs for key in pack), Cost())
    return {name: held.get(name, 0) / most / len(packs) for name, most in budget.items()}


def test_a_mix_fills_the_scarcest_budget():
    budget, costs = Budget(tokens=16384, crops=128), draw_mix(3000)
    packer = Packer(budget)
    packs = [pack for key, cost in enumerate(costs) if (pack := packer.push(key, cost))]
    assert max(shares(costs, budget, packs).values()) > 0.998
    check_laws(Packer(budget), costs)


def test_tiny_examples_fill_rows_too():
    budget = Budget(tokens=16384, crops=128)
    costs = [Cost(tokens=8 + i % 57) for i in range(6000)]
    packs = check_laws(Packer(budget), costs)
    assert len(packs) <= 1 + -(-sum(cost["tokens"] for cost in costs) // 16384)


def test_without_shared_places_tiny_examples_would_leave_rows_empty(monkeypatch):
    monkeypatch.setattr(module, "_HELD", 0)
    packs, _ = run(Packer(Budget(tokens=16384)), [Cost(tokens=8 + i % 57) for i in range(6000)])
    assert len(packs) > 100


@pytest.mark.parametrize("pool", [1, 2, 7, 48, 200])
def test_tiny_examples_share_a_place_within_bounds(pool):
    packer = Packer(Budget(tokens=16384, crops=128), pool)
    share = 16384 * 3 // 2 // pool if pool >= 16 else 16384 // max(1, pool - 1)
    for key in range(4 * pool):
        packer.push(key, Cost(tokens=0 if key % 2 else 40))
        for keys, (_, tokens) in zip(packer._keys, packer._sizes, strict=True):
            assert len(keys) == 1 or tokens <= share
            assert tokens == 40 * sum(key % 2 == 0 for key in keys)


@pytest.mark.parametrize("pool", [2, 3, 4, 8, 15, 16, 48])
def test_tiny_examples_fill_the_rows_of_a_small_pool_too(pool):
    costs = [Cost(tokens=20)] * 5000
    packs = check_laws(Packer(Budget(tokens=16384), pool), costs)
    steady = packs[: -2 if pool < 48 else -3]
    assert len(steady) >= 3
    assert min(len(pack) for pack in steady) * 20 / 16384 > 0.9


def test_examples_that_cost_nothing_do_not_wait_for_ever():
    packs = check_laws(Packer(Budget(tokens=10), pool=3), [Cost()] * 40)
    assert max(map(len, packs)) == 7  # two places hold three each, and the one that takes the last place


@pytest.mark.parametrize("key", [("a", 1), 1.5, None, b"a", ["a"]])
def test_a_key_that_json_would_change_is_refused(key):
    packer = Packer(Budget(tokens=10), pool=3)
    with pytest.raises(TypeError, match=r"is a \w+: a key is a str or an int.*give .* number or id"):
        packer.push(key, Cost(tokens=1))
    assert len(packer) == 0


@pytest.mark.parametrize("cost", [3, None, {"tokens": 3}])
def test_a_cost_that_is_none_is_refused(cost):
    packer = Packer(Budget(tokens=10), pool=3)
    with pytest.raises(TypeError, match=r"example 'a' came with .* as its cost: give a Cost"):
        packer.push("a", cost)
    assert len(packer) == 0


def test_once_the_places_are_taken_each_push_of_a_huge_example_returns_one_pack():
    packer = Packer(Budget(tokens=100, crops=10), pool=6)
    pushes = [packer.push(key, Cost(tokens=90 + key % 10, crops=key % 10)) for key in range(60)]
    assert pushes[:5] == [None] * 5
    assert [len(pack) for pack in pushes[5:]] == [1] * 55
    assert len(packer) == 5


def test_a_huge_example_among_tiny_ones_leaves_in_time():
    costs = [Cost(tokens=98)] + [Cost(tokens=3 + i % 3) for i in range(3000)]
    check_laws(Packer(Budget(tokens=100), pool=4), costs)


@given(streams())
@quick
def test_both_searches_make_the_same_packs(stream):
    budget, pool, costs = stream
    packs = []
    for choose in (module.choose, search.choose):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "choose", choose)
            packs.append(run(Packer(budget, pool), costs))
    assert packs[0] == packs[1]


def test_both_searches_make_the_same_packs_of_a_mix(monkeypatch):
    budget, costs = Budget(tokens=16384, crops=128), draw_mix(300)
    fast = run(Packer(budget), costs)
    monkeypatch.setattr(module, "choose", search.choose)
    assert run(Packer(budget), costs) == fast


@pytest.mark.parametrize(("numba", "module_name"), [("present", "fast"), ("missing", "search")])
def test_the_compiled_search_is_taken_where_numba_is_installed(numba, module_name):
    pytest.importorskip("numba")
    hide = "import sys; sys.modules['numba'] = None; " if numba == "missing" else ""
    code = f"{hide}from hedgerow.packing import pool; print(pool.choose.__module__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == f"hedgerow.packing.{module_name}"


def test_an_oversize_example_is_dropped_and_named_where_asked():
    packer = Packer(Budget(tokens=10, crops=2), pool=2, oversize="drop")
    costs = {"a": Cost(tokens=11), "b": Cost(tokens=6), "c": Cost(crops=3), "d": Cost(tokens=5)}
    pushes = [packer.push(key, cost) for key, cost in costs.items()]
    assert pushes == [None, None, None, ["b"]]
    assert packer.dropped == ["a", "c"]
    again = Packer(Budget(tokens=10, crops=2), pool=2, oversize="drop")
    again.load_state_dict(json.loads(json.dumps(packer.state_dict())))
    assert again.dropped == ["a", "c"]
    assert again.flush() == [["d"]]


def test_an_unknown_rule_for_oversize_examples_is_refused():
    with pytest.raises(ValueError, match="choose 'raise' or 'drop'"):
        Packer(Budget(tokens=10), oversize="skip")


def test_an_example_of_the_documentation():
    packer = Packer(Budget(tokens=10), pool=3)
    pushes = [packer.push(key, Cost(tokens=size)) for key, size in enumerate((6, 5, 4, 7))]
    assert (pushes, packer.flush()) == ([None, None, [0, 2], None], [[3], [1]])
