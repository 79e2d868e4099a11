"""What is known of an answer, and how factors of characters come to tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from weights_answers import by_character, by_tokenizer, by_word, said

from hedgerow.content import Point, Points, Text, Tracks
from hedgerow.errors import RecipeError
from hedgerow.grounding.codec import parse
from hedgerow.weights.answer import Answer, over_tokens, words_of

CARS = Tracks("red < car", (Point(0.1, 0.2, time=0.5, id=4), Point(0.3, 1.0, time=1.0, id=4)))


def slow_over_tokens(answer, characters):
    found = []
    for start, end in answer.offsets:
        places = range(start, end) if end > start else range(start, min(start + 1, len(answer.text)))
        solid = [place for place in places if not answer.text[place].isspace()]
        taken = [characters[place] for place in solid or places]
        found.append(sum(taken) / len(taken) if taken else 1.0)
    return found


@st.composite
def cut_texts(draw):
    text = draw(st.text("ab \n\u3000é😀.", max_size=12))
    place = st.integers(0, len(text))
    offsets = draw(st.lists(st.tuples(place, place).map(sorted), max_size=8))
    if text and offsets and all(start == end for start, end in offsets):
        offsets.append((0, len(text)))
    return text, offsets


@given(cut_texts(), st.data())
def test_a_token_has_the_mean_of_its_characters_white_space_aside(cut, data):
    text, offsets = cut
    answer = Answer.of(said(text), offsets)
    values = st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, -1.0])
    characters = np.array(data.draw(st.lists(values, min_size=len(text), max_size=len(text))), float)
    found = over_tokens(answer, characters)
    np.testing.assert_allclose(found, slow_over_tokens(answer, characters), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.3, 0.5, 1 / 3])
def test_a_factor_comes_to_tokens_to_the_last_bit(factor):
    answer = by_tokenizer("the quick brown fox jumps over the lazy dog, twice 😀")
    assert set(over_tokens(answer, np.full(len(answer.text), factor))) == {factor}


def test_white_space_weighs_as_the_word_it_clings_to():
    answer = Answer.of(said("a cat sat"), [(0, 1), (1, 5), (5, 9)])  # as byte-level tokenizers cut
    characters = np.array([1, 1, 3, 3, 3, 1, 1, 1, 1.0])
    assert over_tokens(answer, characters).tolist() == [1.0, 3.0, 1.0]


def texts_of(answer, *kinds):
    return [answer.text[start:end] for start, end, _ in answer.of_kind(*kinds)]


def test_regions_say_what_the_parser_reads():
    answer = by_character("Look: ", Points("a & b", (Point(0.5, 0.25),)), " and ", CARS, Points("no"), "!")
    parts = parse(answer.text, strict=True).parts
    assert texts_of(answer, "label") == ["a & b", "red &lt; car"]
    assert texts_of(answer, "coordinates") == ["1 1 500 250", "0.5 1 100 200;1.0 1 300 1000"]
    assert [part.label for part in parts] == ["a & b", "red < car", ""]
    whole = texts_of(answer, "points", "tracks")
    assert [parse(text, strict=True).parts[0].type for text in whole] == ["points", "tracks", "points"]
    assert texts_of(answer, "text") == ["Look: ", " and ", "!"]


@given(st.text(max_size=8), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4))
def test_a_label_and_its_coordinates_are_found_whatever_they_hold(label, places):
    answer = by_character(Points(label, tuple(Point(x, y) for x, y in places)))
    (coordinates,), (written,) = texts_of(answer, "coordinates"), texts_of(answer, "label")
    assert answer.text == f'<points coords="{coordinates}">{written}</points>'
    (again,) = parse(f'<points coords="{coordinates}">x</points>', strict=True).parts
    assert len(again.points) == len(places)


def test_texts_side_by_side_are_one():
    answer = by_character(Text("red "), Text("car"), Points("x"), Text(""), Text("!"))
    assert [(a, b) for a, b, kind in answer.regions if kind == "text"] == [(0, 7), (22, 23)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's 3.5 m, or 1,000?", ["It's", "3.5", "m", "or", "1,000"]),
        ("well-known end.Start", ["well", "known", "end", "Start"]),
        ("l\u2019été naïve", ["l\u2019été", "naïve"]),
        ("一只cat", ["一", "只", "cat"]),
        ("हिन्दी!", ["हिन्दी"]),
        ("'quoted' ...", ["quoted"]),
        ("", []),
    ],
)
def test_words(text, words):
    assert [word.text for word in words_of(text)] == words
    assert all(text[word.start : word.end] == word.text for word in words_of(text))


@pytest.mark.parametrize(
    ("offsets", "problem"),
    [
        (
            [(0, 0), (0, 0)],
            "no token of 'two words' has a character; take a tokenizer with character offsets",
        ),
        ([(0, 3), (4, 12)], "offsets from 0 to 12 in a text of 9 characters"),
        ([(3, 0)], "offsets from 3 to 0 in a text"),
        ([(-1, 2)], "offsets from -1 to 2"),
        ([0, 3], r"offsets int64 \[2\]: weighers need each token's first character"),
        ([(0.0, 1.0)], r"offsets float64 \[1, 2\]"),
    ],
)
def test_offsets_that_say_nothing_are_refused(offsets, problem):
    with pytest.raises(RecipeError, match=problem):
        Answer.of(said("two words"), offsets)


def test_an_answer_without_tokens_has_no_factors():
    assert over_tokens(by_word(""), np.ones(0)).shape == (0,)
