"""Several weighers together, and what they may do to a sample."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weights_answers import by_tokenizer, by_word

from hedgerow.errors import RecipeError
from hedgerow.weights import Grounded, Keywords, Lexical, Opening, Repeats, Spans, StopWords, Weighting
from hedgerow.weights.weigher import product

WORDS = st.lists(st.sampled_from(["Sure!", "the", "cat", "is", "a", "red car", "red car"]), max_size=9).map(
    " ".join
)
ALL = Weighting(
    lexical=Lexical(
        stop_words=StopWords(factor=0.3),
        keywords={"x": Keywords(words=("red car",))},
        repeats=Repeats(length=2),
    ),
    spans=Spans(opening=Opening(factor=0.1)),
)
PLAIN = Weighting(lexical=ALL.lexical, spans=ALL.spans, normalize="none")


def constant(value):
    return lambda answer: np.full(len(answer.offsets), value)


def placed(answers, gap=2):
    """Answers in a sample that has other tokens, `gap` before each and one after."""
    found, place = [], 0
    for answer in answers:
        place += gap
        found.append((place, answer))
        place += len(answer.offsets) + 1
    return found, place


@given(st.lists(WORDS, min_size=1, max_size=3), st.data())
@settings(max_examples=40)
def test_factors_multiply_and_a_sample_keeps_its_total(texts, data):
    answers, length = placed([by_tokenizer(text) for text in texts])
    values = st.sampled_from([0.0, 0.5, 1.0, 2.0])
    weight = np.array(data.draw(st.lists(values, min_size=length, max_size=length)))
    inside = np.zeros(length, bool)
    slow = weight.copy()
    for first, answer in answers:
        for n in range(len(answer.offsets)):
            inside[first + n] = True
            for weigher in ALL.weighers:
                slow[first + n] *= float(weigher(answer)[n])
    np.testing.assert_allclose(PLAIN.tokens(weight, answers), slow, rtol=1e-6)
    found = ALL.tokens(weight, answers)
    assert found[~inside].tolist() == weight[~inside].tolist()  # ends of turns, and what is no target
    assert found[inside].sum() == pytest.approx(weight[inside].sum(), rel=1e-6)
    share = slow[inside].sum()
    if share:
        np.testing.assert_allclose(found[inside], slow[inside] * weight[inside].sum() / share, rtol=1e-5)


def test_without_weighers_weights_stay_to_the_last_bit():
    weight = np.array([0.1, 0.3, 1.0])
    assert Weighting().tokens(weight, [(0, by_word("a b"))]).tolist() == weight.tolist()


def test_an_answer_of_which_nothing_would_be_left_keeps_its_weights_and_is_named(caplog):
    weighting = {"lexical": Lexical(stop_words=StopWords(factor=0.0))}
    weight, answers = np.array([0.5, 0.5, 0.5]), [(0, by_word("it is", task="task-of-this-test"))]
    with caplog.at_level(logging.WARNING, logger="hedgerow"):
        for _ in range(2):
            assert Weighting(**weighting).tokens(weight, answers).tolist() == [0.5, 0.5, 0.5]
    (record,) = caplog.records
    assert "(task task-of-this-test) the factor 0" in record.getMessage()
    bare = Weighting(**weighting, normalize="none").tokens(weight, answers)
    assert bare.tolist() == [0.0, 0.0, 0.5]


def test_an_empty_answer_asks_no_weigher():
    assert product(by_word(""), [constant(np.nan)]).shape == (0,)
    assert ALL.tokens(np.array([1.0]), [(0, by_word(""))]).tolist() == [1.0]


@pytest.mark.parametrize(
    ("weigher", "problem"),
    [
        (constant(np.nan), "the factor of token 0 is nan; give finite factors"),
        (constant(np.inf), "is inf"),
        (constant(-0.5), r"the factor of token 0 is -0\.5; give 0 or more, or set weights\.allow_negative"),
        (lambda _: np.ones(5), r"\[5\] factors for 2 tokens"),
        (lambda _: 1.0, r"\[\] factors for 2 tokens"),
    ],
)
def test_a_weigher_that_gives_no_factors_is_named_with_the_answer(weigher, problem):
    with pytest.raises(RecipeError, match=rf"the weigher <lambda> on the answer 'a cat': .*{problem}"):
        product(by_word("a cat"), [weigher])
    assert product(by_word("a"), [constant(-0.5)], allow_negative=True).tolist() == [-0.5]


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"c": -4.0}, "c"),
        ({"scale": {"riddle": -1.0}}, r"scale\.riddle"),
        ({"sources": {"web": -0.1}}, r"sources\.web"),
        ({"tasks": {"text": -0.1}}, r"tasks\.text"),
        (
            {"lexical": Lexical(keywords={"bad": Keywords(words=("a",), factor=-1.0)})},
            r"lexical\.keywords\.bad\.factor",
        ),
        ({"spans": Spans(grounded=Grounded(label=-2.0))}, r"spans\.grounded\.label"),
        ({"schedule": {"qa": ((1, -1.0),)}}, r"schedule\.qa\.0\.1"),
    ],
)
def test_what_is_below_zero_is_refused_by_name_unless_asked_for(wrong, name, caplog):
    with pytest.raises(ValueError, match=f"{name} is below 0; give 0 or more, or set allow_negative"):
        Weighting(**wrong)
    with caplog.at_level(logging.WARNING, logger="hedgerow"):
        for _ in range(2):
            Weighting(**wrong, allow_negative=True)
    (record,) = caplog.records
    assert record.getMessage() == f"weights below 0 are allowed and used: {name}".replace("\\", "")


def test_negative_factors_keep_the_total_of_amounts():
    words = Keywords(words=("bad",), factor=-3.0)
    weighting = Weighting(lexical=Lexical(keywords={"x": words}), allow_negative=True)
    found = weighting.tokens(np.ones(4), [(0, by_word("a bad cat"))])
    assert found.tolist() == pytest.approx([0.6, -1.8, 0.6, 1.0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_factor_that_is_no_number_is_refused(value):
    for wrong in ({"c": value}, {"scale": {"qa": value}}, {"tasks": {"qa": value}}):
        with pytest.raises(ValueError, match="finite"):
            Weighting(**wrong)
    with pytest.raises(ValueError, match="finite"):
        StopWords(factor=value)


def test_uniform_has_no_c():
    with pytest.raises(ValueError, match="c is 3, but the preset uniform has none"):
        Weighting(preset="uniform", c=3.0)


def test_the_weight_of_a_sample_has_all_its_factors():
    weighting = Weighting(
        c=8.0, tasks={"pointing": "otherwise", "text": 0.7}, scale={"qa": 0.5}, sources={"web": 0.25}
    )
    assert weighting.sample("qa", "web", 16) == 8 / 4 * 0.5 * 0.25
    assert weighting.sample("pointing", "books", 64) == 1.0
    assert weighting.sample("text", "web", 64) == 0.7 * 0.25
    assert weighting.sample("tracking", "books", 64) == 0.2
    assert Weighting(preset="molmo2_code", c=6.0).sample("qa", "x", 4, branches=9) == 1.0
