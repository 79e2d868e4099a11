"""Weighers of parts of answers."""

import re

import numpy as np
import pytest
from weights_answers import by_character, by_tokenizer, by_word, shown

from hedgerow.content import Point, Points, Tracks
from hedgerow.errors import DataError, RecipeError
from hedgerow.testing import tiny_encoder
from hedgerow.tree import MessageTree
from hedgerow.weights import AnswerSpan, Grounded, Named, Opening, Region, Spans, Speech, Weighting
from hedgerow.weights.answer import Answer


def named(answer, *regions):
    return Answer(answer.text, answer.offsets, answer.task, answer.source, (*answer.regions, *regions))


def weighed(answer, weigher):
    return "".join(text for text, _ in shown(answer, weigher(answer)))


@pytest.mark.parametrize(
    ("text", "opening"),
    [
        ("Sure! A cat.", "Sure!"),
        ("Certainly, the dog", "Certainly,"),
        ("  okay . Of course! Here is the list: 1", "okay.Ofcourse!Hereisthelist:"),
        ("Here's what I see: two", "Here'swhatIsee:"),
        ("That\u2019s a great question! No", "That\u2019sagreatquestion!"),
        ("Sure enough it rains", ""),
        ("Certainly the dog", ""),
        ("A cat. Sure! Yes", ""),
        ("Here is a dog. It runs: fast", ""),
        ("", ""),
    ],
)
def test_an_opening_is_what_the_patterns_match_at_the_start(text, opening):
    assert weighed(by_character(text), Opening()) == opening


def test_an_opening_may_be_of_your_own_and_weigh_a_fraction():
    answer = by_word("Ahoy, mate! Sure! Yes")
    assert shown(answer, Opening(patterns=("ahoy",), factor=0.25)(answer)) == [("Ahoy", 0.25)]


def test_points_before_a_text_leave_it_no_opening():
    ball = Points("ball", (Point(0.5, 0.5),))
    assert weighed(by_character(ball, "Sure! there"), Opening()) == ""
    assert weighed(by_character("Sure! ", ball), Opening()) == "Sure!"


@pytest.mark.parametrize(
    ("text", "settings", "span"),
    [
        ("2 + 2. Answer: 4", {}, "4"),
        ("answer: 3? No. ANSWER: four cats", {}, "fourcats"),
        ("no marker", {}, ""),
        ("So it is B", {"after": ("so it is",)}, "B"),
        ("Thus 7. Final: 8", {"after": ("thus", "final:")}, "8"),
        ("x = 3, y = 14", {"pattern": r"[0-9]+"}, "314"),
        ("It is \\boxed{42}!", {"pattern": r"boxed\{(?P<answer>[^}]*)\}"}, "42"),
        ("boxed{} Answer: 1", {"pattern": r"boxed\{(?P<answer>[^}]*)\}"}, "1"),
        ("Answer: yes. Because", {"pattern": r"Answer: (?P<answer>\w+)"}, "yes"),
    ],
)
def test_the_answer_is_what_a_pattern_or_a_marker_says(text, settings, span):
    answer = by_character(text)
    assert weighed(answer, AnswerSpan(**settings)) == span
    assert set(AnswerSpan(factor=0.5, **settings)(answer)) <= {1.0, 0.5}


def test_the_answer_that_the_data_name_goes_first():
    answer = named(by_word("It is blue. Answer: red"), Region(6, 10, "answer"))
    assert weighed(answer, AnswerSpan(pattern="red")) == "blue"


@pytest.mark.parametrize(
    ("kind", "pattern", "problem"),
    [
        (AnswerSpan, "(", "no pattern"),
        (AnswerSpan, "a*", "matches nothing"),
        (Opening, "x?", "matches nothing"),
    ],
)
def test_a_pattern_that_is_none_is_refused(kind, pattern, problem):
    settings = {"pattern": pattern} if kind is AnswerSpan else {"patterns": (pattern,)}
    with pytest.raises(ValueError, match=problem):
        kind(**settings)


@pytest.mark.parametrize("kind", [Points, Tracks])
def test_coordinates_and_labels_have_factors_of_their_own(kind):
    part = kind("12 balls", (Point(0.125, 0.5, time=0.5, id=1), Point(0.25, 1.0, time=12.5, id=2)))
    answer = by_tokenizer("At 12: ", part, " 12")
    factors = Grounded(coordinates=3.0, label=0.5)(answer)
    text = [answer.text[start:end] for start, end in answer.offsets]
    inside = {f: "".join(t for t, g in zip(text, factors, strict=True) if g == f) for f in (3.0, 0.5)}
    assert inside == {3.0: "0.5 1 125 500;12.5 2 250 1000", 0.5: "12 balls"}
    assert set(factors) == {1.0, 3.0, 0.5}


def test_a_sentence_that_says_there_are_none_has_neither():
    answer = by_tokenizer(Points("ball"), Tracks("ball"))
    assert set(Grounded(coordinates=3.0, label=0.5)(answer)) == {1.0}


def test_spans_that_the_data_name_multiply_where_they_overlap():
    answer = named(by_word("one two three"), Region(0, 7, "x"), Region(4, 13, "y"), Region(0, 3, "z"))
    assert Named(names={"x": 0.5, "y": 3.0})(answer).tolist() == [0.5, 1.5, 3.0]


def capitals(text):
    """A tagger."""
    return [
        (n, n + 1, "UP" if letter.isupper() else "LOW") for n, letter in enumerate(text) if letter.isalpha()
    ]


def test_parts_of_speech_are_what_the_tagger_says_of_each_text():
    answer = by_character("aB ", Points("CC", (Point(0.5, 0.5),)), " Dé")
    factors = Speech(tagger=capitals, tags={"UP": 2.0})(answer)
    assert [text for text, _ in shown(answer, factors)] == ["B", "D"]


def test_a_tagger_is_found_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "taggers_of_this_test.py").write_text(
        "def all_noun(text):\n    return [(0, len(text), 'NOUN')]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    answer = by_word("a cat")
    assert Speech(tagger="taggers_of_this_test:all_noun", tags={"NOUN": 0.5})(answer).tolist() == [0.5, 0.5]
    for name, problem in (
        ("taggers_of_this_test:gone", "no tagger at taggers_of_this_test:gone"),
        ("no_such_module:tag", "no tagger at no_such_module:tag.*in a folder of PYTHONPATH"),
        (
            "importlib:machinery",
            "the tagger importlib:machinery is <module 'importlib.machinery'.* no function",
        ),
    ):
        with pytest.raises(RecipeError, match=problem):
            Speech(tagger=name, tags={})(answer)
    with pytest.raises(ValueError, match=r"write package\.module:name"):
        Speech(tagger="taggers", tags={})


@pytest.mark.parametrize("said", [(0, 9, "X"), (-1, 1, "X"), (1, 1, "X")])
def test_a_tagger_that_leaves_its_text_is_refused(said):
    with pytest.raises(DataError, match=f"says that characters {said[0]} to {said[1]} are X, in a text of 5"):
        Speech(tagger=lambda _: [said], tags={})(by_word("a cat"))


def test_an_empty_answer_has_no_factors():
    answer = by_word("")
    for weigher in (Opening(), AnswerSpan(), Grounded(), Named(names={}), Speech(tagger=capitals, tags={})):
        assert np.asarray(weigher(answer)).shape == (0,)


def _fails(text):
    raise OSError(f"no model for {text}")


@pytest.mark.parametrize(
    ("tagger", "said"),
    [
        (_fails, r"raises OSError: no model for a cat; mend it"),
        (lambda _: None, r"returns None; return a list of \(first character, one past the last, tag\)"),
        (lambda _: [(0, 1)], r"returns \[\(0, 1\)\]; return a list"),
        (lambda _: [("A", "cat", "NOUN")], r"returns .*; return a list"),
    ],
    ids=["raises", "none", "pairs", "words"],
)
def test_a_tagger_that_fails_is_named_with_the_branch(tagger, said):
    """Anybody's code: what goes wrong in it is an example's fault, so that it is named and may be skipped."""
    name = f"{tagger.__module__}:{tagger.__qualname__}"
    answered = {"role": "assistant", "content": "a cat"}
    asked = {"messages": [{"role": "user", "content": "What?"}, answered]}
    tree = MessageTree.from_dict(
        {"id": "t", "messages": [{"role": "user", "content": "See."}], "branches": [asked]}
    )
    encode = tiny_encoder(weights=Weighting(spans=Spans(speech=Speech(tagger=tagger, tags={}))))
    for use in (encode, encode.survey):
        told = f"^t, branch 0: the tagger {re.escape(name)}, given 'a cat', {said}"
        with pytest.raises(DataError, match=told):
            use(tree)
