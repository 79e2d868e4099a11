"""The language of mappings: its words, its two notations, and what it says of wrong ones."""

import json
from pathlib import Path

import pytest
import yaml

from hedgerow.data.adapters import convert
from hedgerow.data.adapters.mapping import BranchRule, RowMapping, read_mapping
from hedgerow.data.adapters.paths import expanded, value_at
from hedgerow.errors import DataError, RecipeError
from hedgerow.testing import write_jsonl

ROOT = Path(__file__).parents[2]


def user(content):
    return {"role": "user", "content": content}


def bot(content):
    return {"role": "assistant", "content": content}


def converted(folder, *rows, **options):
    """The trees that rows become, and what was counted."""
    path = write_jsonl(folder / "rows.jsonl", rows)
    result = convert([path], folder / "out", **options)
    return [json.loads(line) for line in (folder / "out").read_text(encoding="utf-8").splitlines()], result


SMALL = {
    "source": "mine",
    "media": [{"image": "{file}"}],
    "branches": [{"question": "What?", "answer": "{said}"}],
}


def mapping(folder, **changes):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes), encoding="utf-8")
    return path


def test_a_mapping_of_ones_own(tmp_path):
    path = mapping(tmp_path, id="{file:stem}", group_by=["file"])
    (tree,), result = converted(tmp_path, {"file": "x/a.jpg", "said": 3.0}, format=str(path))
    assert result.formats == {"mine": 1}
    assert tree == {
        "id": "a",
        "source": "mine",
        "messages": [user([{"type": "image", "path": "x/a.jpg"}])],
        "branches": [{"messages": [user("What?"), bot("3")]}],
    }


def test_a_mapping_without_media_is_a_conversation(tmp_path):
    path = mapping(tmp_path, media=[])
    (tree,), _ = converted(tmp_path, {"said": "Hm."}, format=str(path))
    assert tree == {"id": "rows-1", "source": "mine", "messages": [user("What?"), bot("Hm.")]}


def test_points_stand_in_the_answer_where_it_says(tmp_path):
    rule = {
        "question": "Count.",
        "answer": "Counting the {} shows {n}.",
        "points": {"label": "it", "x": "xs[]", "y": "y"},
    }
    (tree,), _ = converted(
        tmp_path,
        {"file": "a", "n": 2, "xs": [0.1, 0.2], "y": 0.5},
        format=str(mapping(tmp_path, branches=[rule])),
    )
    before, part, after = tree["branches"][0]["messages"][1]["content"]
    assert (before["text"], after["text"]) == ("Counting the ", " shows 2.")
    assert part["points"] == [{"x": 0.1, "y": 0.5}, {"x": 0.2, "y": 0.5}]


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ({"equals": 3}, [3]),
        ({"one_of": [1, 3]}, [1, 3]),
        ({"none_of": [1, 3]}, [2, None]),
        ({"given": True}, [1, 2, 3]),
        ({"given": False}, [None]),
        ({"given": True, "none_of": [1]}, [2, 3]),
    ],
)
def test_conditions_choose_rows(tmp_path, condition, kept):
    rows = [{"file": "a", "said": "x", "n": n} for n in (1, 2, 3, None)]
    path = mapping(tmp_path, when={"n": condition}, id="{file}", media=[{"image": "{file}"}])
    trees, result = converted(tmp_path, *[row | {"file": str(row["n"])} for row in rows], format=str(path))
    assert [tree["id"] for tree in trees] == [str(n) for n in kept]
    assert result.left_out.get("mine", 0) == 4 - len(kept)


@pytest.mark.parametrize(
    ("condition", "kept"),
    [({"at_least": 2}, "23"), ({"at_most": 2}, "12"), ({"above": 2}, "3"), ({"multiple_of": "k"}, "2")],
)
def test_conditions_compare_numbers_and_lengths(tmp_path, condition, kept):
    path = mapping(tmp_path, when={"n": condition}, id="{file}")
    rows = [{"file": str(n), "said": "x", "n": n, "k": 2} for n in (1, 2, 3)]
    trees, _ = converted(tmp_path, *rows, format=str(path))
    assert "".join(tree["id"] for tree in trees) == kept
    with pytest.raises(DataError, match="n: 'x' is no number, and is compared with one"):
        converted(tmp_path, rows[0] | {"n": "x"}, format=str(path))


def test_paths_go_through_lists_side_by_side():
    row = {"a": [[{"x": 1}, {"x": 2}], [{"x": 3}]], "t": [5, 6], "c": 7, "s": {"p": [[1, 2], None]}}
    found = expanded({"x": "a[][].x", "t": "t[]", "c": "c"}, row)
    assert found == [{"x": 1, "t": 5, "c": 7}, {"x": 2, "t": 5, "c": 7}, {"x": 3, "t": 6, "c": 7}]
    assert expanded({"x": "s.p[][]"}, row) == [{"x": 1}, {"x": 2}]
    assert value_at("s.p.0.1", row) == 2
    assert value_at("s.q.r", row) is None
    with pytest.raises(DataError, match=r"lists that go together differ in length \(a\[\] 2, s.q\[\] 0\)"):
        expanded({"x": "a[]", "y": "s.q[]"}, row)
    with pytest.raises(DataError, match="there is no column 'b'; the row has a, t, c, s"):
        expanded({"x": "b[].x"}, row)
    with pytest.raises(DataError, match=r"c\[\]: int is no list"):
        expanded({"x": "c[]"}, row)


def grounding(**more):
    return [{"question": "q", "points": {"label": "it", "x": "x", "y": "y", **more}}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"branche": []}, "unknown key 'branche'; did you mean 'branches'?"),
        ({"branches": []}, "branches: .* at least 1"),
        (
            {"branches": [{"question": "q"}]},
            "a branch needs an answer; give answer, points, tracks or choices",
        ),
        ({"branches": [{"question": "q", "anwser": "a"}]}, "unknown key 'anwser'; did you mean 'answer'?"),
        ({"branches": [{"question": "{a b}", "answer": "a"}]}, "'a b' is no path; write a column"),
        ({"branches": [{"question": "{a", "answer": "a"}]}, "has a brace without its partner"),
        ({"branches": [{"question": "{a:upper}", "answer": "a"}]}, "no filter 'upper'; known: sha256, stem"),
        (
            {"branches": [{"question": "{a[]}", "answer": "a"}]},
            "stands for many values, a text needs one; use 'each'",
        ),
        ({"branches": [{"question": "q", "answer": "{} a"}]}, "points stand at {} in the answer: give both"),
        (
            {"branches": [{"question": "{}", "answer": "a"}]},
            "{} in a question shows the first point of tracks",
        ),
        (
            {"branches": [{**grounding()[0], "choices": {"right": "a", "wrong": "b"}}]},
            "not points and choices",
        ),
        ({"branches": grounding(width="w")}, "width and height are given together, and for frame: pixels"),
        ({"branches": grounding(frame="inches")}, "frame: .*'fraction', 'pixels'"),
        ({"media": [{"image": "a", "video": "b"}]}, "give one of image and video"),
        ({"media": [{"image": "a", "start": "b"}]}, "an image has no start; leave it out"),
        ({"media": [], "group_by": ["a"]}, "without media a row is one conversation"),
        ({"when": {"a": {}}}, "an empty condition; give one of equals, one_of"),
        ({"when": {"a": {"at_lest": 3}}}, "unknown key 'at_lest'; did you mean 'at_least'?"),
    ],
)
def test_a_wrong_mapping_is_told_by_its_file_and_word(tmp_path, changes, message):
    path = mapping(tmp_path, **changes)
    with pytest.raises(RecipeError, match=message) as told:
        read_mapping(path)
    assert str(told.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("changes", "row", "message"),
    [
        ({}, {"file": "a"}, "there is no column 'said'; the row has file"),
        (
            {},
            {"file": "a", "said": None},
            "said: holds nothing, a text needs one value; .* leave it out by 'when'",
        ),
        ({}, {"file": "a", "said": []}, "said: holds list, a text needs one value"),
        ({"branches": grounding()}, {"file": "a", "x": "l", "y": 2}, "x: 'l' is no number; correct the row"),
        (
            {"branches": grounding(frame="pixels", width="w", height="w")},
            {"file": "a", "x": 1, "y": 2, "w": 0},
            "a frame of 0 x 0 pixels holds no point",
        ),
        (
            {"branches": [{"question": "q", "choices": {"right": "r", "wrong": "w"}}]},
            {"file": "a", "r": "x", "w": []},
            "a choice needs a right option and wrong ones",
        ),
    ],
)
def test_a_row_that_does_not_fit_its_mapping_is_told(tmp_path, changes, row, message):
    path = mapping(tmp_path, **changes)
    with pytest.raises(DataError, match=rf"rows\.jsonl:1: .*{message}"):
        converted(tmp_path, row, format=str(path))


def test_two_formats_that_fit_alike_are_named(tmp_path, monkeypatch):
    row = {"conversations": [], "prompt": "q", "completion": "a"}
    with pytest.raises(DataError, match="the formats llava and trl fit alike; say which by --format"):
        converted(tmp_path, row)


def test_the_words_of_the_language_are_documented():
    text = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
    missing = [
        word for word in [*RowMapping.model_fields, *BranchRule.model_fields] if f"`{word}`" not in text
    ]
    assert not missing
