"""Weighers of words, each against a slow reference."""

import logging
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weights_answers import by_character, by_tokenizer, by_word, said, shown

from hedgerow.content import Point, Points
from hedgerow.errors import RecipeError
from hedgerow.weights import Answer, Idf, Keywords, Lexical, Rarity, Repeats, StopWords
from hedgerow.weights.lexical import stop_words

PIECES = st.sampled_from(["a", "The", "cat", "cats", "red", "RED", "car", "-", ",", "\n"])
TEXTS = st.lists(PIECES, max_size=14).map(" ".join)
PHRASES = st.sampled_from(["cat", "red car", "a", "red", "the cat", "car"])


def characters_where(text, spans, factor):
    inside = {place for start, end in spans for place in range(start, end)}
    return [factor if place in inside else 1.0 for place in range(len(text))]


def test_stop_words_weigh_less_whatever_their_case_and_negations_do_not():
    answer = by_word("The cat is not on THE mat; theory is.")
    found = shown(answer, StopWords(factor=0.25)(answer))
    assert found == [("The", 0.25), ("is", 0.25), ("on", 0.25), ("THE", 0.25), ("is", 0.25)]


def test_stop_words_of_another_language_or_of_your_own():
    answer = by_word("Der Hund is big")
    assert shown(answer, StopWords(language="de")(answer)) == [("Der", 0.3)]
    assert shown(answer, StopWords(words=("HUND",))(answer)) == [("Hund", 0.3)]


@pytest.mark.parametrize("language", ["de", "en", "es", "fr"])
def test_lists_hold_folded_words_once_and_nothing_that_denies(language):
    words = stop_words(language)
    assert 60 < len(words) < 130
    assert all(word == word.casefold() and word.isalpha() for word in words)
    assert not words & {
        *["not", "no", "never", "nicht", "kein", "nie", "sin", "nunca", "ne", "pas", "non", "jamais"]
    }


def test_a_language_without_a_list_is_refused():
    with pytest.raises(RecipeError, match="no stop words of 'xx'; choose one of de, en, es, fr"):
        stop_words("xx")


@given(TEXTS, st.lists(PHRASES, min_size=1, max_size=4))
@settings(max_examples=60)
def test_keywords_are_those_that_a_pattern_of_whole_words_finds(text, words):
    for case, flags in (("ignore", re.IGNORECASE), ("exact", 0)):
        longest_first = sorted(words, key=lambda word: -len(word.split()))
        inner = "|".join(word.replace(" ", r"\s+") for word in longest_first)
        spans = [match.span() for match in re.finditer(rf"(?<!\w)(?:{inner})(?!\w)", text, flags)]
        factors = Keywords(words=tuple(words), factor=3.0, case=case)(by_character(text))
        assert factors.tolist() == characters_where(text, spans, 3.0)


def test_a_word_is_found_whole_and_a_phrase_over_line_ends():
    answer = by_word("Category: red\n car, red cars, cat-like, cat's. CAT")
    assert shown(answer, Keywords(words=("cat", "red car"))(answer)) == [
        ("red", 2.0),
        ("car", 2.0),
        ("cat", 2.0),
        ("CAT", 2.0),
    ]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("red", "red car"), ["red", "car"]),  # the longest of those that begin together
        (("red car", "car park"), ["red", "car"]),  # the first of those that overlap
        (("car park", "park"), ["car", "park"]),
        (("very", "car"), ["car"]),
    ],
)
def test_of_phrases_that_overlap_one_counts_once(words, found):
    answer = by_word("a red car park")
    assert shown(answer, Keywords(words=words)(answer)) == [(word, 2.0) for word in found]


def test_keywords_with_marks_and_in_scripts_without_spaces():
    answer = by_character("C++ or C#, not C+; 一只红汽车")
    found = shown(answer, Keywords(words=("C++", "c#", "汽车"))(answer))
    assert "".join(text for text, _ in found) == "C++C#汽车"
    assert shown(by_character("xC++"), Keywords(words=("C++",))(by_character("xC++"))) == []


def test_a_label_has_keywords_and_the_coordinates_have_none():
    answer = by_tokenizer("At 500: ", Points("red ball", (Point(0.5, 0.5),)))
    found = shown(answer, Keywords(words=("500", "ball", "coords", "points"))(answer))
    assert "".join(text for text, _ in found) == "500ball"


def test_a_list_in_a_file(tmp_path):
    (tmp_path / "list.txt").write_text("# anatomy\nleft atrium\n\nC#\n", encoding="utf-8")
    answer = by_word("the left atrium in C#")
    found = shown(answer, Keywords(file=tmp_path / "list.txt", words=("the",))(answer))
    assert [text for text, _ in found] == ["the", "left", "atrium", "C", "#"]


def test_lists_of_several_domains_multiply_where_they_agree():
    one, two = Keywords(words=("cat",)), Keywords(words=("cat", "dog"), factor=0.5)
    lists = Lexical(keywords={"one": one, "two": two})
    answer = by_word("cat dog")
    assert [shown(answer, weigher(answer)) for weigher in lists.weighers()] == [
        [("cat", 2.0)],
        [("cat", 0.5), ("dog", 0.5)],
    ]


def test_a_list_without_words_is_refused(tmp_path):
    for settings_of, problem in (
        ({}, "no keywords; give words, or a file"),
        ({"words": ("a", " ")}, "the keyword ' ' has no character"),
    ):
        with pytest.raises(ValueError, match=problem):
            Keywords(**settings_of)
    answer = by_word("a")
    with pytest.raises(RecipeError, match=r"gone\.txt: no list of keywords"):
        Keywords(file=tmp_path / "gone.txt")(answer)
    (tmp_path / "empty.txt").write_text("# none\n")
    with pytest.raises(RecipeError, match=r"empty\.txt: no keyword in it"):
        Keywords(file=tmp_path / "empty.txt")(answer)


def test_a_keyword_that_no_token_covers_is_named_once(caplog):
    answer = Answer.of(said("see quark-of-this-test now"), [(0, 3), (23, 26)])
    with caplog.at_level(logging.WARNING, logger="hedgerow"):
        for _ in range(2):
            assert Keywords(words=("quark-of-this-test",))(answer).tolist() == [1.0, 1.0]
    (record,) = caplog.records
    assert "no token covers the keyword 'quark-of-this-test' in 'see quark" in record.getMessage()


@given(TEXTS, st.integers(1, 3))
@settings(max_examples=60)
def test_repeated_phrases_are_those_seen_before(text, length):
    words = list(re.finditer(r"\w+", text))
    spans = []
    for place in range(len(words) - length + 1):
        phrase = [word[0].lower() for word in words[place : place + length]]
        earlier = [[word[0].lower() for word in words[n : n + length]] for n in range(place)]
        if phrase in earlier:
            spans.append((words[place].start(), words[place + length - 1].end()))
    factors = Repeats(length=length, factor=0.5)(by_character(text))
    assert factors.tolist() == characters_where(text, spans, 0.5)


def test_numbers_of_points_do_not_repeat():
    dots = Points("dot", tuple(Point(0.5, 0.5) for _ in range(4)))
    answer = by_tokenizer("Here: ", dots, " here: ", dots)
    found = shown(answer, Repeats(length=1)(answer))
    assert "".join(text for text, _ in found) == "heredot"  # the second word and the second label


def test_rare_words_weigh_more(tmp_path):
    Idf.fit(["the cat", "the dog", "The end"]).save(tmp_path / "idf.json")
    answer = by_word("The cat, the emu")
    factors = Rarity(table=tmp_path / "idf.json")(answer)
    wanted = [1.0, np.log(4 / 2) + 1, 1.0, 1.0, np.log(4 / 1) + 1]
    np.testing.assert_allclose(factors, wanted, rtol=1e-6)
    capped = Rarity(table=tmp_path / "idf.json", cap=2.0)(answer)
    np.testing.assert_allclose(capped, np.minimum(wanted, 2.0), rtol=1e-6)


def test_a_table_that_says_nothing_is_the_recipes_fault(tmp_path):
    Idf().save(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    for name, problem in (("none", "fitted on no text"), ("bad", "no idf table"), ("gone", "cannot be read")):
        with pytest.raises(RecipeError, match=problem):
            Rarity(table=tmp_path / f"{name}.json")(by_word("a"))


@given(TEXTS)
@settings(max_examples=30)
def test_words_weigh_alike_whatever_the_tokenizer(text):
    """What a weigher says of characters comes to the tokens of any tokenizer."""
    for weigher in (StopWords(), Keywords(words=("red car", "cat")), Repeats(length=2)):
        characters = weigher(by_character(text))
        for made in (by_word(text), by_tokenizer(text)):
            for (start, end), factor in zip(made.offsets, weigher(made), strict=True):
                solid = [n for n in range(start, end) if not text[n].isspace()] or range(start, end)
                assert factor == pytest.approx(np.mean([characters[n] for n in solid]), rel=1e-6)


def test_a_weigher_of_some_tasks_and_sources_leaves_the_others_alone():
    weigher = StopWords(tasks=("qa",), sources=("books",))
    for task, source, wanted in (("qa", "books", 1), ("text", "books", 0), ("qa", "films", 0)):
        answer = by_word("the cat", task=task, source=source)
        assert len(shown(answer, weigher(answer))) == wanted
