"""The table of document frequencies."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Point, Points, Text
from hedgerow.errors import DataError
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.weights import Idf, answer_texts

CORPUS = st.lists(
    st.lists(st.sampled_from(["a", "A", "bee", "cat's", "3.5", "é", "."]), max_size=6).map(" ".join)
)


@given(CORPUS)
@settings(max_examples=40)
def test_the_formula(texts):
    idf = Idf.fit(texts)
    for word in ("a", "Bee", "cat's", "3.5", "é", "unseen"):
        seen = sum(word.lower() in text.lower().split() for text in texts)
        assert idf(word) == math.log((1 + len(texts)) / (1 + seen)) + 1


@given(CORPUS, CORPUS, CORPUS)
@settings(max_examples=30)
def test_merged_tables_are_that_of_all_texts(one, two, three):
    first, second, third = Idf.fit(one), Idf.fit(two), Idf.fit(three)
    whole = Idf.fit([*one, *two, *three])
    assert first.merge(second).merge(third) == first.merge(second.merge(third)) == whole
    assert second.merge(first) == first.merge(second)
    assert Idf().merge(first) == first


@given(CORPUS)
@settings(max_examples=40)
def test_a_word_of_every_text_has_1_and_rarer_words_more(texts):
    idf = Idf.fit(["a b", "a c", "a", *[f"a {text}" for text in texts]])
    assert idf("a") == 1.0
    assert idf("never") >= max(idf(word) for word in ("a", "b", "bee"))
    assert min(idf(word) for word in ("a", "b", "bee", "é")) == 1.0


def test_a_saved_table_comes_back(tmp_path):
    idf = Idf.fit(["A naïve cat", "a “dog”"])
    idf.save(tmp_path / "idf.json")
    assert Idf.load(tmp_path / "idf.json") == idf
    assert json.loads((tmp_path / "idf.json").read_text(encoding="utf-8"))["counts"]["a"] == 2
    again = Idf.fit(["a “dog”", "A naïve cat"])
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "idf.json").read_bytes()
    assert repr(idf) == "Idf of 2 documents, 4 words"


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("{", "cannot be read as an idf table"),
        ("[]", "no idf table; one holds 'documents'"),
        ('{"documents": 1}', "no idf table"),
        ('{"documents": 1, "counts": {"a": 2}}', "no idf table"),
        ('{"documents": 1, "counts": {"a": "1"}}', "no idf table"),
        (None, r"cannot be read .*make one: Idf\.fit"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, written, problem):
    if written is not None:
        (tmp_path / "idf.json").write_text(written)
    with pytest.raises(DataError, match=problem):
        Idf.load(tmp_path / "idf.json")


def test_the_texts_of_trees_are_their_answers():
    ask = Message("user", "where?")
    tree = MessageTree(
        "t",
        (ask, Message("assistant", "There.")),
        (
            Branch((ask, Message("assistant", (Text("A"), Points("red ball", (Point(0.5, 0.5),)))))),
            Branch((ask,), (Branch((Message("assistant", "Deep"),)),)),
        ),
    )
    assert list(answer_texts([tree, tree])) == ["There.", "A red ball", "Deep"] * 2
