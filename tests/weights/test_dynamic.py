import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from hedgerow.weights.dynamic import Confidence, Dynamic, Entropy, Focal, Prediction, Top


def seen(ce, *, entropy=None, reference=None, weight=None, sample=None):
    def tensor(values):
        return None if values is None else torch.tensor(values, dtype=torch.float64)

    return Prediction(
        ce=tensor(ce),
        entropy=tensor(entropy),
        reference=tensor(reference),
        weight=tensor([1.0] * len(ce) if weight is None else weight),
        sample=torch.tensor([0] * len(ce) if sample is None else sample),
    )


def test_focal_is_one_minus_p_to_the_gamma():
    ce = [-math.log(p) for p in (0.9, 0.5, 0.1)]
    assert Focal(gamma=2.0)(seen(ce)).tolist() == pytest.approx([0.01, 0.25, 0.81])
    assert Focal(gamma=0.0)(seen(ce)).tolist() == [1.0, 1.0, 1.0]


def test_focal_keeps_its_precision_where_the_model_is_sure():
    """1 - exp(-ce) would be 0 from ce = 1e-17 on, and three digits wrong at 1e-13."""
    assert Focal(gamma=1.0)(seen([1e-13, 1e-18, 0.0])).tolist() == pytest.approx(
        [1e-13, 1e-18, 0.0], rel=1e-9
    )


def test_confidence_is_p():
    assert Confidence()(seen([-math.log(p) for p in (0.9, 0.5, 0.1)])).tolist() == pytest.approx(
        [0.9, 0.5, 0.1]
    )


def test_entropy_is_measured_against_a_ceiling():
    given = seen([1.0] * 4, entropy=[0.0, 0.75, 3.0, 5.0])
    assert Entropy()(given).tolist() == [0.0, 0.25, 1.0, 1.0]
    assert Entropy(alpha=0.5)(given).tolist() == [0.0, 0.5, 1.0, 1.0]


@settings(deadline=None, max_examples=60)
@given(data=st.data(), share=st.floats(0.01, 1.0), by=st.sampled_from(["ce", "entropy", "excess"]))
def test_top_keeps_the_highest_share_of_each_sample(data, share, by):
    count = data.draw(st.integers(1, 25))
    whole = st.integers(-3, 3).map(float)  # with ties
    ce, entropy, reference = (data.draw(st.lists(whole, min_size=count, max_size=count)) for _ in range(3))
    sample = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    weight = data.draw(st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=count, max_size=count))
    given = seen(ce, entropy=entropy, reference=reference, weight=weight, sample=sample)
    score = {"ce": ce, "entropy": entropy, "excess": list(np.add(ce, reference))}[by]
    expected = [0.0] * count
    for number in set(sample):
        mine = [place for place in range(count) if sample[place] == number and weight[place]]
        mine.sort(key=lambda place: -score[place])  # stable: the first of equal ones
        for place in mine[: math.ceil(share * len(mine) - 1e-9)]:
            expected[place] = 1.0
    assert Top(share=share, by=by)(given).tolist() == expected


def test_seven_percent_of_a_hundred_are_seven():
    assert Top(share=0.07)(seen([float(n) for n in range(100)])).sum() == 7


def test_a_kind_says_what_it_needs():
    kinds = (Focal(), Confidence(), Entropy(), Top(share=1, by="entropy"))
    assert [kind.needs_entropy for kind in kinds] == [False, False, True, True]
    assert [Top(share=0.5, by=by).needs_reference for by in ("ce", "entropy", "excess")] == [
        False,
        False,
        True,
    ]
    assert Top(share=1).compares
    assert not any(kind.compares for kind in (Focal(), Confidence(), Entropy()))


@pytest.mark.parametrize(
    "wrong",
    [{"name": "focal", "gamma": -1}, {"name": "top"}, {"name": "top", "share": 0}, {"name": "fokal"},
     {"gamma": 2}, {"name": "focal", "beta": 1}, {"name": "entropy", "ceiling": float("nan")},
     {"name": "top", "share": 1.5}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        TypeAdapter(Dynamic).validate_python(wrong)


def test_a_kind_is_named_in_data():
    assert TypeAdapter(Dynamic).validate_python({"name": "top", "share": 0.6, "by": "excess"}) == Top(
        0.6, "excess"
    )
