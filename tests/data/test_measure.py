"""Measuring once and then under a budget is measuring under that budget."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.data.lines import Lines
from hedgerow.data.measure import Maker, bounded, measure
from hedgerow.sequence import Budget
from hedgerow.testing import tiny_encoder, write_jsonl

LONG = st.integers(0, 30)


def tree(number, root, branches):
    said = [
        {"role": "user", "content": "why " * words} | ({} if words else {"content": "Why?"})
        for words in branches
    ]
    answered = [{"messages": [asked, {"role": "assistant", "content": "so " * 5}]} for asked in said]
    messages = [{"role": "user", "content": "look " * root + "."}]
    return {"id": f"t{number}", "messages": messages, "branches": answered}


@given(
    st.lists(st.tuples(LONG, st.lists(LONG, min_size=1, max_size=4)), min_size=1, max_size=8),
    st.integers(20, 90),
    st.sampled_from(["drop", "shorten"]),
)
@settings(deadline=None, max_examples=25)
def test_a_budget_set_afterwards_is_the_same_as_one_from_the_start(tmp_path_factory, shapes, tokens, rule):
    file = tmp_path_factory.mktemp("m") / "d.jsonl"
    write_jsonl(file, [tree(number, *shape) for number, shape in enumerate(shapes)])
    lines, turns = Lines.scan([file]), np.zeros(len(shapes), np.int64)
    maker = Maker(tiny_encoder(), budget=Budget(tokens=tokens), oversize=rule)
    known = measure(dataclasses.replace(maker, budget=None), lines, turns).surveys
    wanted, found = measure(maker, lines, turns), bounded(maker, lines, turns, known)
    assert found.kept.tolist() == wanted.kept.tolist()
    assert list(found.surveys.costs) == list(wanted.surveys.costs)
    assert list(found.surveys.tasks) == list(wanted.surveys.tasks)
    assert found.surveys.weight.tolist() == wanted.surveys.weight.tolist()
    assert found.surveys.cut.tolist() == wanted.surveys.cut.tolist()
    assert [item.where for item in found.dropped] == [item.where for item in wanted.dropped]


def test_a_maker_that_stops_or_has_no_budget_is_refused(tmp_path):
    lines = Lines.scan([write_jsonl(tmp_path / "d.jsonl", [tree(0, 1, [1])])])
    turns, maker = np.zeros(1, np.int64), Maker(tiny_encoder())
    known = measure(maker, lines, turns).surveys
    for wrong in (
        dataclasses.replace(maker, oversize="drop"),
        dataclasses.replace(maker, budget=Budget(tokens=9)),
    ):
        with pytest.raises(ValueError, match="give one, and drop or shorten"):
            bounded(wrong, lines, turns, known)
