"""Mixtures: exact epochs, exact quotas, no state, and a report of what they bring."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.data.measure import Surveys
from hedgerow.data.mixture import DataSet, Endless, Rates, Whole, mixture
from hedgerow.data.shares import report
from hedgerow.errors import DataError
from hedgerow.sequence import Costs

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=9)


def sets(*options):
    return [DataSet(Path(f"s{n}.jsonl"), **given) for n, given in enumerate(options)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=6), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_without_rates_every_example_comes_as_often_as_it_is_repeated(given_sets, epoch):
    sizes, repeats = zip(*given_sets, strict=True)
    drawn = Whole(sizes, repeats).draw(epoch)
    wanted = [
        (int(sum(sizes[:n])) + place, epoch * repeats[n] + copy)
        for n in range(len(sizes))
        for place in range(sizes[n])
        for copy in range(repeats[n])
    ]
    assert list(zip(drawn.examples.tolist(), drawn.turns.tolist(), strict=True)) == wanted


@st.composite
def endless(draw):
    sizes = draw(SIZES)
    weights = draw(
        st.lists(st.floats(0.001, 1.0), min_size=len(sizes), max_size=len(sizes))
        | st.just([2.0**-n for n in range(len(sizes))])
    )
    rates = np.array(weights) / sum(weights)
    return Endless(tuple(sizes), rates, draw(st.integers(1, 60)), draw(st.integers(0, 99)))


@given(endless())
@settings(deadline=None, max_examples=80)
def test_after_any_number_of_draws_each_set_has_had_its_share(mix):
    owner = np.repeat(np.arange(len(mix.sizes)), mix.sizes)
    drawn = np.concatenate([mix.draw(epoch).examples for epoch in range(6)])
    counts = np.cumsum(owner[drawn][:, None] == np.arange(len(mix.sizes)), axis=0)
    quotas = np.arange(1, len(drawn) + 1)[:, None] * mix.rates
    assert np.abs(counts - quotas).max() < 2
    assert len(drawn) == 6 * len(mix)


def test_the_share_stays_exact_far_from_the_start():
    rates = np.array([0.5, 0.3, 0.15, 0.04, 0.009, 0.001])
    mix = Endless((1000, 7, 50, 3, 2, 9), rates, 1000, 0)
    owner = np.repeat(np.arange(6), mix.sizes)
    for epoch in (0, 999, 4_000_000):
        counts = np.bincount(owner[mix.draw(epoch).examples], minlength=6)
        assert np.abs(counts - 1000 * rates).max() < 4  # two ends, each less than 2 off
    with pytest.raises(DataError, match=r"beyond 2\*\*32 draws; lower data.epoch"):
        mix.draw(4_400_000)


@given(endless())
@settings(deadline=None, max_examples=40)
def test_a_set_is_gone_through_whole_pass_after_pass_in_new_orders(mix):
    epochs = [mix.draw(epoch) for epoch in range(8)]
    examples = np.concatenate([drawn.examples for drawn in epochs])
    turns = np.concatenate([drawn.turns for drawn in epochs])
    starts = np.cumsum((0, *mix.sizes))
    for number, size in enumerate(mix.sizes):
        own = (examples >= starts[number]) & (examples < starts[number + 1])
        mine, passes = examples[own], turns[own]
        assert (passes == np.arange(len(mine)) // size).all()
        for turn in range(len(mine) // size):
            assert sorted(mine[passes == turn]) == list(range(starts[number], starts[number + 1]))


def test_orders_differ_by_pass_set_and_seed_and_an_epoch_needs_no_earlier_one():
    mix = Endless((50, 50), np.array([0.5, 0.5]), 100, seed=1)
    first, second = mix.draw(0), mix.draw(1)
    own = [drawn.examples[drawn.examples < 50] for drawn in (first, second)]
    other = first.examples[first.examples >= 50] - 50
    reseeded = Endless((50, 50), mix.rates, 100, seed=2).draw(0).examples
    orders = [own[0], own[1], other, reseeded[reseeded < 50]]
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert (mix.draw(1).examples == second.examples).all()
    # No release of numpy may change a run.
    assert first.examples[:6].tolist() == [9, 65, 36, 55, 39, 71]


def test_groups_have_their_rates_and_sets_the_root_of_their_size_within():
    given_sets = sets(
        {"group": "a"}, {"group": "b", "cap": 100}, {"group": "a", "factor": 2.0}, {"group": "b"}
    )
    mix = mixture(given_sets, Rates({"a": 3.0, "b": 1.0}), [400, 10_000, 100, 25], seed=0)
    assert mix.rates == pytest.approx([0.75 / 2, 0.25 * 2 / 3, 0.75 / 2, 0.25 / 3])
    assert len(mix) == 10_525
    one = mixture(sets({"cap": 9}, {}), Rates(draws=10), [100, 36], seed=0)
    assert one.rates == pytest.approx([1 / 3, 2 / 3])
    assert len(one) == 10


def test_without_rates_the_mixture_is_every_example():
    mix = mixture(sets({}, {"repeat": 3}), Rates(), [4, 2], seed=0)
    assert isinstance(mix, Whole)
    assert len(mix) == 10
    assert mix.rates == pytest.approx([0.4, 0.6])


@pytest.mark.parametrize(
    ("options", "rates", "why"),
    [
        ([{"group": "a"}], Rates(), "is of group 'a', and no group has a rate; give data.groups"),
        ([{"repeat": 2}], Rates(draws=5), "repeat is for epochs without rates; give a factor instead"),
        ([{}], Rates({"a": 1.0}), "s0.jsonl: it has no group; give one of data.groups: a"),
        ([{"group": "b"}], Rates({"a": 1.0}), "its group is 'b'; give one of data.groups: a"),
        ([{"group": "b"}], Rates(draws=1), "group 'b' has no rate; give it one in data.groups"),
        ([{"group": "a"}], Rates({"a": 1.0, "c": 1.0}), "group 'c' has a rate and no data set"),
    ],
)
def test_groups_that_do_not_match_are_refused(options, rates, why):
    with pytest.raises(ValueError, match=why):
        rates.govern(sets(*options))


def surveys(tokens, samples, weight, cut=None):
    tasks = Costs(["qa", "pointing"], [[0, count] for count in samples])
    costs = Costs(["tokens", "crops"], [[count, 1] for count in tokens])
    none = np.zeros(len(tokens), np.int64)
    cuts = none if cut is None else np.array(cut, np.int64)
    return Surveys(
        costs, tasks, np.array(weight, float), cuts, astray=none, points=none, lost=none, left=none
    )


def test_the_report_says_what_each_set_brings():
    given_sets = sets({"group": "a"}, {"group": "b"}, {"group": "b"})
    owner = np.array([0, 0, 1, 2, 2])
    known = surveys([100, 300, 50, 10, 20], [1, 3, 5, 1, 1], [8, 8, 4, 1, 3])
    mix = Endless((2, 1, 2), np.array([0.5, 0.25, 0.25]), 8, 0)
    found = report(given_sets, mix, owner, known)
    tokens = np.array([200 * 0.5, 50 * 0.25, 15 * 0.25])
    weight = np.array([8 * 0.5, 4 * 0.25, 2 * 0.25])
    samples = np.array([2 * 0.5, 5 * 0.25, 1 * 0.25])
    assert [one.tokens for one in found.sets] == pytest.approx(tokens / tokens.sum())
    assert [one.weight for one in found.sets] == pytest.approx(weight / weight.sum())
    assert [one.samples for one in found.sets] == pytest.approx(samples / samples.sum())
    assert [one.passes for one in found.sets] == pytest.approx([2.0, 2.0, 1.0])
    assert [one.name for one in found.groups] == ["a", "b"]
    both = found.groups[1]
    assert (both.size, both.examples, both.passes) == (3, 0.5, pytest.approx(4 / 3))
    assert both.weight == pytest.approx(weight[1:].sum() / weight.sum())
    plain = found.to_dict()
    assert plain["draws"] == 8
    assert plain["sets"][0]["name"] == "s0"
    assert str(found).splitlines() == [
        "An epoch draws 8 examples.",
        "data set       size  passes  examples   samples    tokens    weight",
        "a                 2    2.00     50.0%     40.0%     86.0%     72.7%",
        "  s0              2    2.00     50.0%     40.0%     86.0%     72.7%",
        "b                 3    1.33     50.0%     60.0%     14.0%     27.3%",
        "  s1              1    2.00     25.0%     50.0%     10.8%     18.2%",
        "  s2              2    1.00     25.0%     10.0%      3.2%      9.1%",
    ]


def test_files_of_one_name_are_told_apart_in_the_report():
    both = [DataSet(Path("a/d.jsonl")), DataSet(Path("b/d.jsonl"))]
    known = surveys([1, 1], [1, 1], [1, 1])
    found = report(both, Whole((1, 1), (1, 1)), np.array([0, 1]), known)
    assert [one.name for one in found.sets] == ["a/d.jsonl", "b/d.jsonl"]
    assert found.groups == ()
    assert "a/d.jsonl" in str(found)


def test_draws_that_are_left_out_bring_nothing_and_cuts_are_counted():
    given_sets, rates = sets({}, {}), np.array([0.5, 0.5])
    owner = np.array([0, 0, 0, 1])  # of four draws from each set
    known = surveys([10, 10, 10, 40], [1, 1, 1, 1], [1, 1, 1, 1], [0, 2, 0, 1])
    found = report(given_sets, Endless((9, 4), rates, 8, 0), owner, known, draws=np.array([4, 4]))
    assert [one.examples for one in found.sets] == pytest.approx([3 / 4, 1 / 4])
    assert [one.tokens for one in found.sets] == pytest.approx([30 / 70, 40 / 70])
    assert [one.size for one in found.sets] == [9, 4]
    assert [one.passes for one in found.sets] == pytest.approx([4 / 9, 1])
    assert (found.shortened, found.branches) == (2, 3)
    assert str(found).splitlines()[-1] == "2 trees shortened, 3 branches left out"
    one = report(given_sets[:1], Whole((1,), (1,)), owner[:1], surveys([9], [1], [1], [1]))
    assert str(one).splitlines()[0] == "An epoch draws 1 example."
    assert one.cuts == "1 tree shortened, 1 branch left out"
    assert report(given_sets[:1], Whole((1,), (1,)), owner[:1], surveys([9], [1], [1])).cuts == ""
