"""Saved plans: read back whole, and only for what they were made from."""

import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.errors import RecipeError
from hedgerow.packing import saved
from hedgerow.packing.plan import Plan, plan_epoch, plan_rows
from hedgerow.packing.saved import VERSION, Match
from hedgerow.sequence import Budget, Cost, Costs

BUDGET = Budget(tokens=20, crops=6)
COSTS = [Cost(tokens=1 + i * 7 % 20, crops=i * 5 % 7) for i in range(50)]
GIVEN = {"seed": 1, "epoch": 2, "pool": 8, "window": None}


@pytest.fixture
def path(tmp_path):
    plan_rows(COSTS, BUDGET).save(tmp_path / "deep" / "plan.npz", Match.of(COSTS, BUDGET, **GIVEN))
    return tmp_path / "deep" / "plan.npz"


@given(st.lists(st.builds(Cost, tokens=st.integers(0, 20), crops=st.integers(0, 6)), max_size=30))
@settings(max_examples=30, deadline=None)
def test_a_plan_comes_back_as_it_was(tmp_path_factory, costs):
    path, match = tmp_path_factory.mktemp("plans") / "plan", Match.of(costs, BUDGET)
    plan = plan_rows(costs, BUDGET)
    plan.save(path, match)
    found = Plan.load(path, Match.of(Costs.of(costs), BUDGET))
    assert (found.rows, found.cost, found.budget) == (plan.rows, plan.cost, plan.budget)
    assert {type(index) for row in found.rows for index in row} <= {int}
    assert [file.name for file in path.parent.iterdir()] == ["plan"]


@pytest.mark.parametrize("name", GIVEN)
def test_a_plan_of_another_setting_is_refused(path, name):
    other = Match.of(COSTS, BUDGET, **{**GIVEN, name: 64})
    with pytest.raises(
        RecipeError, match=rf"{name} was {GIVEN[name]} and is 64\. .*delete the file and plan again"
    ):
        Plan.load(path, other)


def test_a_setting_that_was_not_given_is_refused(path):
    with pytest.raises(RecipeError, match="mixture was not set and is even"):
        Plan.load(path, Match.of(COSTS, BUDGET, **GIVEN, mixture="even"))
    with pytest.raises(RecipeError, match="seed was 1 and is not set"):
        Plan.load(path, Match.of(COSTS, BUDGET))


@pytest.mark.parametrize(
    "budget",
    [Budget(tokens=21, crops=6), Budget(tokens=20, crops=5), Budget(tokens=20), Budget(tokens=20, pairs=6)],
)
def test_a_plan_of_another_budget_is_refused(path, budget):
    with pytest.raises(
        RecipeError, match=r"holds another plan: budget was Budget\(tokens=20, crops=6\) and is"
    ):
        Plan.load(path, Match.of(COSTS, budget, **GIVEN))


def test_a_plan_of_another_release_is_refused(path):
    match = Match.of(COSTS, BUDGET, **GIVEN)
    with pytest.raises(RecipeError, match=f"planner version was {VERSION} and is {VERSION + 1}"):
        Plan.load(path, dataclasses.replace(match, version=VERSION + 1))


@pytest.mark.parametrize(
    "costs",
    [
        COSTS[:-1],
        [*COSTS, Cost()],
        [*COSTS[1:], COSTS[0]],
        [*COSTS[:-1], COSTS[-1] + Cost(crops=1)],
        [Cost(crops=cost["tokens"], tokens=cost["crops"]) for cost in COSTS],
        [Cost(tokens=cost["tokens"], pairs=cost["crops"]) for cost in COSTS],
    ],
)
def test_a_plan_of_other_data_is_refused(path, costs):
    with pytest.raises(RecipeError, match="holds another plan: data was"):
        Plan.load(path, Match.of(costs, BUDGET, **GIVEN))


def test_examples_with_the_same_costs_are_told_by_their_identity(path):
    plan_rows(COSTS, BUDGET).save(path, Match.of(COSTS, BUDGET, identity=b"clip-1"))
    Plan.load(path, Match.of(COSTS, BUDGET, identity=b"clip-1"))
    for identity in (b"clip-2", b""):
        with pytest.raises(RecipeError, match="data was"):
            Plan.load(path, Match.of(COSTS, BUDGET, identity=identity))


def test_all_that_changed_is_named(path):
    with pytest.raises(RecipeError, match=r"data was .*; budget was .*; seed was 1 and is 5"):
        Plan.load(path, Match.of(COSTS[1:], Budget(tokens=30), **{**GIVEN, "seed": 5}))


def test_every_part_of_a_match_counts():
    match = Match.of(COSTS, BUDGET, **GIVEN)
    others = {"data": "0", "budget": Budget(tokens=1), "settings": {}, "version": 0}
    assert set(others) == {field.name for field in dataclasses.fields(match)}
    for name, value in others.items():
        other = dataclasses.replace(match, **{name: value})
        assert match.differences(other)
        assert Match.from_json(other.to_json()) == other


@pytest.mark.parametrize("keep", [0, 10, 400, -30])
def test_a_file_cut_short_is_named(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RecipeError, match=r"plan\.npz is not a whole saved plan .*delete it and plan again"):
        Plan.load(path, Match.of(COSTS, BUDGET, **GIVEN))


def test_a_damaged_file_is_named(path):
    whole = path.read_bytes()
    place = whole.index(np.arange(50).tobytes()[8:16])  # the index 1, somewhere in the rows
    path.write_bytes(whole[:place] + b"\x02" + whole[place + 1 :])
    with pytest.raises(RecipeError, match="not a whole saved plan"):
        Plan.load(path, Match.of(COSTS, BUDGET, **GIVEN))


def test_another_file_is_named(path):
    np.savez(path, examples=np.arange(3))
    with pytest.raises(RecipeError, match="not a whole saved plan"):
        Plan.load(path, Match.of(COSTS, BUDGET, **GIVEN))
    np.save(path.with_suffix(".npy"), np.arange(3))
    with pytest.raises(RecipeError, match="not a whole saved plan"):
        Plan.load(path.with_suffix(".npy"), Match.of(COSTS, BUDGET, **GIVEN))


@pytest.mark.parametrize("place", ["none.npz", "."])
def test_no_file_is_no_plan(tmp_path, place):
    with pytest.raises(RecipeError, match=r"no saved plan can be read there \(.*\); give the file"):
        Plan.load(tmp_path / place, Match.of(COSTS, BUDGET))


def test_a_save_that_fails_leaves_what_was_there(path, monkeypatch):
    def fails(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(saved.np, "savez", fails)
    match = Match.of(COSTS, BUDGET, **GIVEN)
    with pytest.raises(OSError, match="disk full"):
        plan_rows(COSTS[:5], BUDGET).save(path, match)
    assert Plan.load(path, match) == plan_rows(COSTS, BUDGET)
    assert [file.name for file in path.parent.iterdir()] == ["plan.npz"]


def test_a_match_for_another_budget_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="give its own"):
        plan_rows(COSTS, BUDGET).save(tmp_path / "plan", Match.of(COSTS, Budget(tokens=20)))


def test_other_rows_come_with_another_version():
    # When this fails because rows changed on purpose: raise VERSION, then put the new digests here.
    costs = [Cost(tokens=1 + i * 7919 % 2000, crops=i * 7907 % 30) for i in range(3000)]
    budget = Budget(tokens=16384, crops=128)
    plans = [
        plan_rows(costs, budget),
        plan_epoch(costs, budget, seed=1, epoch=2, window=500),
        plan_epoch(costs, budget, seed=1, epoch=2),
    ]
    digests = [hashlib.sha256(repr(plan.rows).encode()).hexdigest()[:16] for plan in plans]
    assert (VERSION, digests) == (2, ["1d2046eed14a28e5", "41c549a5ca7a046a", "3e782591cc68bc20"])
