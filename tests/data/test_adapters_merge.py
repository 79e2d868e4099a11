"""Points of which each row holds one: what belongs together is one answer, what contradicts it is told."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.data.adapters import convert
from hedgerow.data.adapters.mapping import read_mapping
from hedgerow.errors import DataError, RecipeError
from hedgerow.testing import write_jsonl

POINTS = {
    "question": "Point to {label}.",
    "points": {"label": "{label}", "x": "x", "y": "y"},
    "merge_by": ["label"],
}
TRACKS = {
    "question": "Track {label}.",
    "tracks": {"label": "{label}", "x": "x", "y": "y", "time": "t", "id": "name"},
    "merge_by": ["label"],
}


def mapping(folder, *branches, **changes):
    given = {
        "source": "mine",
        "media": [{"image": "{file}"}],
        "group_by": ["file"],
        "branches": list(branches),
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(given | changes), encoding="utf-8")
    return path


def converted(folder, rule, *rows, changes=None, **options):
    path = write_jsonl(folder / "rows.jsonl", rows)
    form = mapping(folder, *(rule if isinstance(rule, list) else [rule]), **(changes or {}))
    result = convert([path], folder / "out", format=str(form), **options)
    trees = [json.loads(line) for line in (folder / "out").read_text(encoding="utf-8").splitlines()]
    assert result.trees == len(trees)
    assert result.branches == sum(len(tree["branches"]) for tree in trees)
    return trees, result


def answers(tree):
    """The parts of each answer, by the label of its points."""
    found = [branch["messages"][-1]["content"][0] for branch in tree["branches"]]
    assert len({part["label"] for part in found}) == len(found)
    return {part["label"]: [(point["x"], point["y"]) for point in part.get("points", ())] for part in found}


def one(file, label, x, y=0.5, **more):
    return {"file": file, "label": label, "x": x, "y": y, **more}


ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("pqr"), st.integers(0, 9)), min_size=1, max_size=12
)


@given(ROWS)
def test_rows_that_agree_are_one_answer_in_order(tmp_path_factory, rows):
    expected = {}
    for file, label, x in rows:
        expected.setdefault(file, {}).setdefault(label, []).append((x / 10, 0.5))
    made = [one(file, label, x / 10) for file, label, x in rows]
    trees, result = converted(tmp_path_factory.mktemp("rows"), POINTS, *made)
    assert [answers(tree) for tree in trees] == list(expected.values())
    assert [list(answers(tree)) for tree in trees] == [list(found) for found in expected.values()]
    assert result.rows == len(rows)


def test_a_merged_answer_is_dealt_to_one_tree(tmp_path):
    rows = [one("a", label, x / 10) for x in range(3) for label in "pq"]
    trees, _ = converted(tmp_path, POINTS, *rows, changes={"per_tree": {"points": 4}})
    assert [{label: len(points) for label, points in answers(tree).items()} for tree in trees] == [
        {"p": 3},
        {"q": 3},
    ]
    assert [tree["id"] for tree in trees] == ["rows-1", "rows-2 (2)"]


def test_rows_that_are_merged_away_count_no_more(tmp_path):
    rows = [one("a", label, x / 10) for x, label in enumerate("pppq")]
    ((tree,), _) = converted(tmp_path, POINTS, *rows, per_tree=2)
    assert {label: len(points) for label, points in answers(tree).items()} == {"p": 3, "q": 1}


def test_other_branches_of_merged_rows_stay(tmp_path):
    qa = {"question": "Is it {n}?", "answer": "{said}", "when": {"said": {"given": True}}}
    rows = [
        one("a", "p", 0.1, n=1, said=None),
        one("a", "p", 0.2, n=2, said="yes"),
        one("a", "q", 0.3, n=3, said="no"),
    ]
    ((tree,), _) = converted(tmp_path, [POINTS, qa], *rows)
    assert [branch["messages"][0]["content"] for branch in tree["branches"]] == [
        "Point to p.", "Is it 2?", "Point to q.", "Is it 3?",
    ]  # fmt: skip
    assert len(tree["branches"][0]["messages"][1]["content"][0]["points"]) == 2


def test_rows_without_a_point_bring_none(tmp_path):
    ((tree,), _) = converted(tmp_path, POINTS, one("a", "p", None), one("a", "p", 0.2), one("a", "q", None))
    assert answers(tree) == {"p": [(0.2, 0.5)], "q": []}


def test_items_of_one_row_are_merged(tmp_path):
    row = {"file": "a", "marks": [{"label": "p", "x": 0.1, "y": 0.5}, {"label": "p", "x": 0.2, "y": 0.5}]}
    ((tree,), _) = converted(tmp_path, POINTS | {"each": "marks"}, row, changes={"group_by": []})
    assert answers(tree) == {"p": [(0.1, 0.5), (0.2, 0.5)]}


def test_objects_of_merged_tracks_keep_their_numbers(tmp_path):
    rows = [one("a", "cat", 0.1, t=0, name="tom"), one("a", "cat", 0.2, t=0, name="kit")]
    rows += [one("a", "cat", 0.3, t=1, name="kit"), one("a", "cat", 0.4, t=1, name="tom")]
    ((tree,), _) = converted(tmp_path, TRACKS, *rows, changes={"media": [{"video": "{file}"}]})
    (branch,) = tree["branches"]
    assert branch["task"] == "tracking"
    (part,) = branch["messages"][1]["content"]
    assert [(p["id"], p["time"], p["x"]) for p in part["points"]] == [
        (1, 0, 0.1),
        (2, 0, 0.2),
        (2, 1, 0.3),
        (1, 1, 0.4),
    ]
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*object 1 stands twice at 0\.0 s"):
        converted(tmp_path, TRACKS, rows[0], rows[0] | {"x": 0.9}, changes={"media": [{"video": "{file}"}]})


UNMERGED = {key: value for key, value in POINTS.items() if key != "merge_by"}


def test_rows_that_contradict_each_other_are_both_named(tmp_path):
    rows = [one("a", "p", 0.1), one("a", "q", 0.1), one("a", "p", 0.2), one("b", "p", 0.3)]
    said = (
        r"rows\.jsonl:3: asks 'Point to p\. p' as .*rows\.jsonl:1 does, and points elsewhere; .* by merge_by"
    )
    with pytest.raises(DataError, match=said):
        converted(tmp_path, UNMERGED, *rows)
    assert not (tmp_path / "out").exists()
    trees, result = converted(tmp_path, UNMERGED, *rows, on_bad="skip")
    assert [answers(tree) for tree in trees] == [{"p": [(0.1, 0.5)], "q": [(0.1, 0.5)]}, {"p": [(0.3, 0.5)]}]
    assert (result.skipped, len(result.named)) == (1, 1)
    same, _ = converted(tmp_path, UNMERGED, rows[0], rows[0])
    assert len(same[0]["branches"]) == 2, "what is said twice is no contradiction"


def test_merged_answers_that_contradict_each_other_are_named(tmp_path):
    rows = [one("a", "p", 0.1, kind=1), one("a", "p", 0.2, kind=2)]
    with pytest.raises(DataError, match=r"rows\.jsonl:2: asks .* as .*rows\.jsonl:1 does"):
        converted(tmp_path, POINTS | {"merge_by": ["label", "kind"]}, *rows)


def test_what_is_merged_has_the_same_words(tmp_path):
    rows = [one("a", "p", 0.1), one("a", "q", 0.2), one("a", "p", 0.3)]
    with pytest.raises(
        DataError, match=r"rows\.jsonl:2: merge_by makes it one with .*rows\.jsonl:1, and their words"
    ):
        converted(tmp_path, POINTS | {"merge_by": ["file"]}, *rows)
    ((tree,), result) = converted(tmp_path, POINTS | {"merge_by": ["file"]}, *rows, on_bad="skip")
    assert answers(tree) == {"p": [(0.1, 0.5), (0.3, 0.5)]}
    assert result.skipped == 1


def test_a_row_that_contradicts_itself_leaves_no_file(tmp_path):
    row = {"file": "a", "marks": [{"label": "p", "x": 0.1, "y": 0.5}, {"label": "p", "x": 0.2, "y": 0.5}]}
    with pytest.raises(DataError, match="no row is left; nothing was written"):
        converted(tmp_path, UNMERGED | {"each": "marks"}, row, on_bad="skip")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ({"points": None, "answer": "a"}, {}, "merge_by merges points or tracks, and there are none"),
        ({"points": POINTS["points"] | {"only": "ends"}}, {}, "merge_by takes all points of a row"),
        ({}, {"group_by": []}, "merge_by merges rows that share a tree, and no rows do; give group_by"),
    ],
)
def test_merge_by_stands_where_there_is_something_to_merge(tmp_path, changes, more, message):
    with pytest.raises(RecipeError, match=message):
        read_mapping(mapping(tmp_path, POINTS | changes, **more))


@pytest.mark.parametrize(
    ("rule", "task"),
    [
        (UNMERGED, "pointing"),
        (UNMERGED | {"task": "mine"}, "mine"),
        (UNMERGED | {"answer": "{}"}, "pointing"),
        (UNMERGED | {"answer": "Counting the {} shows 1."}, None),
        ({"question": "q", "answer": "{label}"}, None),
    ],
)
def test_answers_of_points_alone_have_their_task(tmp_path, rule, task):
    ((tree,), _) = converted(tmp_path, rule, one("a", "p", 0.1))
    assert tree["branches"][0].get("task") == task


def swift(*answers):
    turns = [{"role": "user", "content": "<image>Where?"}, {"role": "assistant", "content": answers[0]}]
    for answer in answers[1:]:
        turns += [{"role": "user", "content": "And?"}, {"role": "assistant", "content": answer}]
    boxes = [[1, 2]] * sum(answer.count("<bbox>") for answer in answers)
    return {"messages": turns, "images": ["1.jpg"], "objects": {"ref": [], "bbox": boxes}}


@pytest.mark.parametrize(
    ("said", "turns", "tasks"),
    [
        (("<bbox>",), "together", ["pointing"]),
        (("<bbox> ", "<bbox><bbox>"), "together", ["pointing"]),
        (("<bbox>", "No."), "together", [None]),
        (("<bbox>", "No."), "apart", ["pointing", None]),
        (("<bbox> on a wall",), "together", [None]),
    ],
)
def test_boxes_of_ms_swift_have_their_task(tmp_path, said, turns, tasks):
    path = write_jsonl(tmp_path / "rows.jsonl", [swift(*said)])
    convert([path], tmp_path / "out", turns=turns)
    tree = json.loads((tmp_path / "out").read_text(encoding="utf-8"))
    assert [branch.get("task") for branch in tree["branches"]] == tasks


def test_names_of_ms_swift_leave_no_double_space(tmp_path):
    turns = [
        {"role": "user", "content": "<image> Find <ref-object> here."},
        {"role": "assistant", "content": "No."},
    ]
    row = {"messages": turns, "images": ["1.jpg"], "objects": {"ref": [" a cat "], "bbox": []}}
    convert([write_jsonl(tmp_path / "rows.jsonl", [row])], tmp_path / "out")
    tree = json.loads((tmp_path / "out").read_text(encoding="utf-8"))
    assert tree["branches"][0]["messages"][0]["content"] == "Find a cat here."
    turns[0]["content"] = "<image> Find <ref-object>  here."
    convert([write_jsonl(tmp_path / "rows.jsonl", [row | {"objects": {"ref": [" "]}}])], tmp_path / "out")
    tree = json.loads((tmp_path / "out").read_text(encoding="utf-8"))
    assert tree["branches"][0]["messages"][0]["content"] == "Find here."
