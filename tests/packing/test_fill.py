"""Filling rows: the same compiled and not, as a slow reference does it, and nearly as few rows as can be."""

import importlib.util
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.packing.fill import fill_compiled, fill_python, fill_rows

quick = settings(max_examples=80, deadline=None)


@st.composite
def some_sizes(draw, count=40):
    limits = draw(st.lists(st.sampled_from((0, 3, 9, 300)), min_size=1, max_size=4))
    each = st.tuples(*(st.integers(0, limit) for limit in limits))
    sizes = draw(st.lists(each, max_size=count))
    return np.array(sizes, np.int64).reshape(len(sizes), len(limits)), np.array(limits, np.int64)


def split(examples, ends):
    return [row.tolist() for row in np.split(examples, ends[:-1])] if len(ends) else []


def slow_rows(sizes, limit):
    """One budget, by plain lists: with pairs, or without where that takes fewer rows."""
    return min(slow_run(sizes, limit, 0), slow_run(sizes, limit, 16), key=len)


def slow_run(sizes, limit, samples):
    """The largest example left, then whatever leaves the least room, or the larger of the pair that does."""
    left, rows = sorted(sizes), []
    while left:
        row = [left.pop()]
        while fitting := [size for size in left if size <= limit - sum(row)]:
            room, best = limit - sum(row), max(fitting)
            least = room - best
            for number in range(samples):
                at_most = [size for size in left if size <= room - room * number // samples]
                if least / limit <= 2e-4 or not at_most:
                    break
                first, others = max(at_most), list(left)
                others.remove(first)
                second = max((size for size in others if size <= room - first), default=None)
                if second is not None and room - first - second < least:
                    least, best = room - first - second, max(first, second)
            left.remove(best)
            row.append(best)
        rows.append(row)
    return rows


def mixed(count, seed):
    """Texts, images and videos, as tokens and crops."""
    rng = np.random.default_rng(seed)
    frames, kind = rng.integers(16, 129, count), rng.integers(0, 3, count)
    tokens = np.choose(
        kind, [rng.integers(200, 2001, count), rng.integers(300, 1501, count), 83 * frames + 900]
    )
    return np.stack([tokens, np.choose(kind, [0 * frames, rng.integers(1, 26, count), frames])], axis=1)


@given(some_sizes())
@quick
def test_each_example_is_in_one_row_and_no_row_breaks_a_budget(case):
    sizes, limits = case
    rows = split(*fill_rows(sizes, limits))
    assert sorted(example for row in rows for example in row) == list(range(len(sizes)))
    assert all((sizes[row].sum(axis=0) <= limits).all() for row in rows)
    assert all(rows)


@given(some_sizes())
@quick
def test_compiled_and_plain_give_the_same_rows(case):
    assert [a.tolist() for a in fill_compiled(*case)] == [a.tolist() for a in fill_python(*case)]


@pytest.mark.parametrize("seed", range(3))
def test_compiled_and_plain_give_the_same_rows_of_a_large_mix(seed):
    case = mixed(1500, seed), np.array([16384, 128])
    assert [a.tolist() for a in fill_compiled(*case)] == [a.tolist() for a in fill_python(*case)]


@given(st.lists(st.integers(0, 256), max_size=40))
@quick
def test_rows_under_one_budget_are_those_of_the_slow_reference(sizes):
    examples = np.array(sizes, np.int64)[:, None]
    rows = [[sizes[example] for example in row] for row in split(*fill_python(examples, np.array([256])))]
    slow = slow_rows(sizes, 256)
    assert len(rows) == len(slow)
    if len(slow) > sum(sizes) / 256 * 1.001:  # else the first plan was good enough
        assert rows == slow
    else:
        assert rows == slow_run(sizes, 256, 16)


@given(some_sizes(count=5))
@quick
def test_no_row_of_few_examples_is_closed_while_one_that_is_left_fits(case):
    sizes, limits = case
    rows = split(*fill_python(sizes, limits))
    for number, row in enumerate(rows):
        room = limits - sizes[row].sum(axis=0)
        assert not any((sizes[example] <= room).all() for later in rows[number + 1 :] for example in later)


@given(some_sizes())
@quick
def test_each_row_begins_with_the_largest_example_left(case):
    sizes, limits = case
    largest = (sizes / np.maximum(limits, 1)).max(axis=1)
    rows = split(*fill_python(sizes, limits))
    for number, row in enumerate(rows):
        assert largest[row[0]] == max(largest[example] for later in rows[number:] for example in later)


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_a_large_mix_are_full(seed):
    sizes, limits = mixed(20_000, seed), np.array([16384, 128])
    bound = np.ceil((sizes.sum(axis=0) / limits).max())
    rows = split(*fill_rows(sizes, limits))
    assert len(rows) <= bound + 3
    assert all((sizes[row].sum(axis=0) <= limits).all() for row in rows)
    one = sizes[:, :1]
    assert len(fill_rows(one, limits[:1])[1]) <= np.ceil(one.sum() / 16384) + 2


def test_where_pairs_would_cost_rows_none_are_made():
    # Two of these fill a row but for a little, and three are rare: first-fit-decreasing needs 683 rows.
    sizes = np.random.default_rng(1).normal(0.45, 0.09, 1500).clip(0.1, 0.7)
    alone = (sizes[:, None] * 16384).astype(np.int64), np.array([16384])
    sizes = sorted(alone[0][:, 0].tolist(), reverse=True)
    assert len(fill_rows(*alone)[1]) <= len(slow_run(sizes, 16384, 0)) < len(slow_run(sizes, 16384, 16))


def test_a_third_budget_costs_few_rows():
    rng = np.random.default_rng(0)
    sizes = np.column_stack([mixed(5000, 0), rng.integers(0, 4000, 5000)])
    limits = np.array([16384, 128, 16000])
    bound = np.ceil((sizes.sum(axis=0) / limits).max())
    assert len(fill_rows(sizes, limits)[1]) <= 1.01 * bound


def test_budgets_beyond_32_bits_are_kept():
    sizes = np.array([[2**40, 1], [2**40, 1], [2**41, 1]])
    rows = split(*fill_rows(sizes, np.array([2**41, 9])))
    assert sorted(map(sorted, rows)) == [[0, 1], [2]]


def test_without_numba_the_plain_functions_run():
    spec = sys.modules[fill_rows.__module__].__spec__  # loaded a second time: the one in use stays as it is
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "numba", None)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    assert module.numba is None
    case = mixed(300, 0), np.array([16384, 128])
    assert [a.tolist() for a in module.fill_rows(*case)] == [a.tolist() for a in fill_compiled(*case)]
