"""Weights of tasks by step."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.weights import TaskSchedule

FALL = TaskSchedule({"video_caption": ((100, 1.0), (300, 0.25)), "qa": ((10, 0.5),)})


@pytest.mark.parametrize(
    ("step", "factor"),
    [(1, 1.0), (100, 1.0), (150, 0.8125), (200, 0.625), (300, 0.25), (301, 0.25), (10**6, 0.25)],
)
def test_straight_lines_between_the_steps(step, factor):
    assert FALL.factor("video_caption", step) == factor
    assert FALL.factor("qa", step) == 0.5
    assert FALL.factor("text", step) == 1.0


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True).map(sorted),
    st.data(),
    st.integers(0, 60),
)
def test_the_slow_way(steps, data, step):
    factors = data.draw(st.lists(st.floats(0, 4), min_size=len(steps), max_size=len(steps)))
    knots = tuple(zip(steps, factors, strict=True))
    wanted = factors[0] if step < steps[0] else factors[-1]
    for (a, left), (b, right) in pairwise(knots):
        if a <= step <= b:
            wanted = left + (right - left) * (step - a) / (b - a)
    assert TaskSchedule({"qa": knots}).factor("qa", step) == pytest.approx(wanted, abs=1e-12)


def test_the_samples_of_a_row():
    found = FALL.factors(["qa", "text", "video_caption", "qa"], 200)
    assert found.dtype == np.float32
    assert found.tolist() == [0.5, 1.0, 0.625, 0.5]
    assert TaskSchedule().factors([], 3).shape == (0,)
    assert FALL
    assert not TaskSchedule()


@pytest.mark.parametrize(
    ("knots", "problem"),
    [
        ((), "the schedule of qa is empty"),
        (((5, 1.0), (5, 2.0)), r"has the steps \[5, 5\]"),
        (((9, 1.0), (5, 2.0)), "let them increase"),
        (((-1, 1.0),), "from 0"),
        (((1, float("nan")),), "give finite ones"),
    ],
)
def test_what_is_no_function_is_refused(knots, problem):
    with pytest.raises(ValueError, match=problem):
        TaskSchedule({"qa": knots})
