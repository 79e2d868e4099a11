import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Image, Point, Points, Subtitle, Text, Tracks, Video
from hedgerow.errors import DataError
from hedgerow.tree import Branch, Message, MessageTree, json_schema, read_trees, write_trees

LINE = {
    "id": "clip-17",
    "source": "breakout",
    "messages": [
        {"role": "user", "content": [{"type": "video", "path": "17.mp4", "start": 0.0, "end": 12.0}]}
    ],
    "branches": [
        {
            "task": "pointing",
            "messages": [
                {"role": "user", "content": "Point to the ball."},
                {
                    "role": "assistant",
                    "content": [
                        {
                            "type": "points",
                            "label": "ball",
                            "points": [{"time": 3.5, "id": 1, "x": 0.412, "y": 0.63}],
                        }
                    ],
                },
            ],
        },
        {
            "task": "qa",
            "weight": 0.5,
            "messages": [{"role": "user", "content": "Why?"}],
            "branches": [
                {"rank": 0, "messages": [{"role": "assistant", "content": "So."}]},
                {"rank": 1, "weight": 0.5, "messages": [{"role": "assistant", "content": "Because."}]},
            ],
        },
    ],
}


def changed(value, *path):
    """A deep copy of LINE with the item at `path` replaced by `value`."""
    copy = json.loads(json.dumps(LINE))
    place = copy
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return copy


FRACTION = st.floats(0, 1)
TEXTS = st.text(max_size=12)
WEIGHTS = st.none() | st.floats(0, 4)
POINTS = st.builds(
    Points,
    label=TEXTS,
    weight=WEIGHTS,
    points=st.lists(st.builds(Point, x=FRACTION, y=FRACTION), max_size=3).map(tuple),
)
TRACKS = st.builds(
    Tracks,
    label=TEXTS,
    points=st.lists(st.builds(Point, x=FRACTION, y=FRACTION, id=st.integers(1, 9), time=st.floats(0, 60)),
                    max_size=3, unique_by=lambda p: (p.time, p.id)).map(tuple),
)  # fmt: skip
VIDEO = st.builds(
    Video, path=TEXTS, start=st.none() | st.floats(0, 5), end=st.none() | st.floats(5, 9),
    subtitles=st.lists(st.builds(Subtitle, FRACTION, FRACTION, TEXTS), max_size=2).map(tuple),
)  # fmt: skip
ASKED = st.lists(st.builds(Image, TEXTS) | VIDEO | st.builds(Text, TEXTS, WEIGHTS), min_size=1, max_size=3)
SAID = st.lists(POINTS | TRACKS | st.builds(Text, TEXTS, WEIGHTS), min_size=1, max_size=3)
TURNS = st.tuples(
    st.builds(Message, st.just("user"), TEXTS | ASKED.map(tuple), WEIGHTS),
    st.builds(Message, st.just("assistant"), TEXTS | SAID.map(tuple), WEIGHTS),
)
LEAVES = st.builds(Branch, TURNS, task=st.none() | TEXTS, weight=WEIGHTS, rank=st.none() | st.integers(0, 3))
BRANCHES = st.recursive(
    st.lists(LEAVES, max_size=2).map(tuple),
    lambda below: st.lists(st.builds(Branch, TURNS, below, weight=WEIGHTS), max_size=2).map(tuple),
    max_leaves=4,
)
TREES = st.builds(MessageTree, id=TEXTS, messages=TURNS, branches=BRANCHES, source=TEXTS, weight=WEIGHTS)


@settings(max_examples=40, deadline=None)
@given(tree=TREES)
def test_to_dict_and_back_is_the_same_tree(tree):
    line = json.dumps(tree.to_dict())
    assert MessageTree.from_dict(json.loads(line)) == tree


class Place:
    """A path of a class of the user's own."""

    def __fspath__(self):
        return "c.mp4"


def test_paths_of_any_kind_are_kept_as_text():
    parts = [Image(Path("a") / "b.png"), Video(Path("c.mp4"), subtitles=Path("c.srt")), Video(Place())]
    assert parts == [Image("a/b.png"), Video("c.mp4", subtitles="c.srt"), Video("c.mp4")]
    assert [type(part.path) for part in parts] == [str, str, str]
    tree = MessageTree(id="t", messages=[Message("user", parts), Message("assistant", "So.")])
    assert MessageTree.from_dict(json.loads(json.dumps(tree.to_dict()))) == tree
    for wrong in (3, None, ["a.mp4"]):
        with pytest.raises(ValueError, match="valid string"):
            Video(wrong)


@settings(max_examples=15, deadline=None)
@given(tree=TREES)
def test_what_is_written_fits_the_schema(tree):
    jsonschema.validate(json.loads(json.dumps(tree.to_dict())), json_schema())


def test_the_documented_line_is_read_and_written_without_loss():
    assert json.loads(json.dumps(MessageTree.from_dict(LINE).to_dict())) == LINE


def test_the_schema_is_a_valid_schema_and_refuses_unknown_keys():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(LINE, schema)
    with pytest.raises(jsonschema.ValidationError, match="wait"):
        jsonschema.validate(LINE | {"wait": 1}, schema)


def test_nodes_stand_depth_first_with_inherited_task_and_weight():
    nodes = MessageTree.from_dict(LINE).nodes()
    assert [(n.index, n.parent, n.address, n.task, n.weight, n.rank) for n in nodes] == [
        (0, -1, "", None, 1.0, None),
        (1, 0, "0", "pointing", 1.0, None),
        (2, 0, "1", "qa", 0.5, None),
        (3, 2, "1.0", "qa", 0.5, 0),
        (4, 2, "1.1", "qa", 0.25, 1),
    ]
    assert nodes[4].path == nodes[0].messages + nodes[2].messages


def test_repr_draws_one_line_a_message():
    assert repr(MessageTree.from_dict(LINE)).splitlines() == [
        "clip-17 (breakout)",
        "  user: [video 17.mp4 0-12 s]",
        "├─ 0 pointing",
        "│    user: Point to the ball.",
        "│    assistant: [points ball: 1]",
        "└─ 1 qa",
        "     user: Why?",
        "   ├─ 0",
        "   │    assistant: So.",
        "   └─ 1",
        "        assistant: Because.",
    ]


def test_repr_shortens_long_text_and_keeps_one_line():
    branch = Branch((Message("user", "a\nb" + "c" * 100),), task="qa")
    assert repr(branch) == "qa\n  user: a / b" + "c" * 64 + "..."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (LINE | {"brunches": []}, "brunches: unknown key 'brunches'; did you mean 'branches'?"),
        (LINE | {"zzz": 1}, "zzz: unknown key 'zzz'; known keys: branches, id, messages, source"),
        (
            changed("pointing", "branches", 0, "taks"),
            "branches.0.taks: unknown key 'taks'; did you mean 'task'?",
        ),
        (changed(1, "branches", 0, "messages", 0, "wieght"), "unknown key 'wieght'; did you mean 'weight'?"),
        (changed("v.mp4", "messages", 0, "content", 0, "pth"), "unknown key 'pth'; did you mean 'path'?"),
        (changed("vidoe", "messages", 0, "content", 0, "type"), "'vidoe' .*expected tags.* 'video'"),
        (
            changed("bot", "messages", 0, "role"),
            "messages.0.role: Input should be 'system', 'user' or 'assistant'",
        ),
        (changed(-1, "branches", 1, "weight"), "branches.1.weight: .*greater than or equal to 0.*given: -1"),
        (
            changed("human", "branches", 0, "messages", 0, "from"),
            "from: unknown key 'from'; known keys: content, role, weight$",
        ),
        (
            changed(
                {"type": "points", "label": "a", "frame": "pixel", "points": []}, "messages", 0, "content", 0
            ),
            r"frame: Input should be .*'thousandths' \(given: 'pixel'\); did you mean 'pixels'\?$",
        ),
        (changed([], "messages"), "messages: .*at least 1 item"),
        (
            changed(20.0, "messages", 0, "content", 0, "start"),
            "ends at 12.0 s before it starts at 20.0 s; swap",
        ),
        ({"messages": LINE["messages"]}, "id: "),
        ([1], "tree: "),
    ],
)
def test_errors_name_the_place_and_the_nearest_key(line, message):
    with pytest.raises(DataError, match=message) as caught:
        MessageTree.from_dict(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([("assistant", "Hi.")], "root: message 0 answers nothing; put a user message before it"),
        ([("user", "?"), ("assistant", "a"), ("assistant", "b")], "root: message 2 answers nothing"),
        ([("user", "?"), ("system", "s")], "root: message 1 is a system message"),
        ([("user", "?"), ("assistant", (Image("a.png"),))], "root: message 1 shows media as assistant"),
    ],
)
def test_conversations_no_chat_can_hold_are_refused(messages, message):
    with pytest.raises(ValueError, match=message):
        MessageTree("x", tuple(Message(role, content) for role, content in messages))


def test_a_branch_may_answer_its_parents_question_but_not_its_answer():
    answer, question = Message("assistant", "a"), Message("user", "?")
    MessageTree("x", (question,), (Branch((answer,)),))
    with pytest.raises(ValueError, match="branch 0: message 0 answers nothing"):
        MessageTree("x", (question, answer), (Branch((answer,)),))


def test_a_track_with_one_object_twice_at_one_time_is_refused():
    point = Point(0.1, 0.2, id=1, time=2.0)
    with pytest.raises(ValueError, match="object 1 stands twice at 2"):
        Tracks("ball", (point, point))
    with pytest.raises(ValueError, match="needs a time and an id"):
        Tracks("ball", (Point(0.1, 0.2, id=1),))


def test_files_are_read_with_media_relative_to_the_file(tmp_path):
    path = tmp_path / "data.jsonl"
    tree = MessageTree.from_dict(LINE)
    assert write_trees(path, [tree, tree]) == 2
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    found = list(read_trees(path))
    assert len(found) == 2
    assert found[0].media == (Video(str(tmp_path / "17.mp4"), 0.0, 12.0),)
    assert found[0].branches == tree.branches


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"data.jsonl:2: not JSON \(.*\); write one object a line"),
        ('{"id": 3, "messages": []}', "data.jsonl:2: "),
    ],
)
def test_errors_of_a_file_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + text + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        list(read_trees(path))


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        list(read_trees(tmp_path / "none.jsonl"))


def test_trees_are_frozen():
    tree = MessageTree.from_dict(LINE)
    with pytest.raises(AttributeError):
        tree.id = "other"
