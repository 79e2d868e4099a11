"""Rows of each format become the trees that a person would write."""

import base64
import json

import pytest

from hedgerow.content import Points
from hedgerow.data.adapters import convert, formats
from hedgerow.errors import DataError, RecipeError
from hedgerow.testing import tiny_encoder, write_jsonl, write_png
from hedgerow.tree import read_trees


def user(content):
    return {"role": "user", "content": content}


def bot(content):
    return {"role": "assistant", "content": content}


def shown(*paths):
    return user([{"type": "image", "path": path} for path in paths])


def converted(folder, *rows, **options):
    """The trees that rows become; their media lie beside them."""
    convert([write_jsonl(folder / "rows.jsonl", rows)], folder / "out.trees", **options)
    return [json.loads(line) for line in (folder / "out.trees").read_text(encoding="utf-8").splitlines()]


def said(*turns):
    """Turns as LLaVA has them, a person first."""
    return [{"from": ("human", "gpt")[n % 2], "value": value} for n, value in enumerate(turns)]


def test_a_conversation_about_an_image_is_one_branch_below_it(tmp_path):
    row = {
        "id": "a",
        "image": "x/1.jpg",
        "conversations": said("<image>\nWhat is it?", "A cat.", "Red?", "No."),
    }
    assert converted(tmp_path, row) == [
        {
            "id": "a",
            "source": "rows",
            "messages": [shown("x/1.jpg")],
            "branches": [{"messages": [user("What is it?"), bot("A cat."), user("Red?"), bot("No.")]}],
        }
    ]


def test_questions_that_are_apart_are_branches(tmp_path):
    row = {
        "id": "a",
        "image": "1.jpg",
        "conversations": said("What is it?\n<image>", "A cat.", "Red?", "No."),
    }
    (tree,) = converted(tmp_path, row, turns="apart")
    first, second = ([user("What is it?"), bot("A cat.")], [user("Red?"), bot("No.")])
    assert [branch["messages"] for branch in tree["branches"]] == [first, second]


def test_later_images_keep_questions_together(tmp_path):
    row = {"image": ["1.jpg", "2.jpg"], "conversations": said("<image>\nThis?", "A.", "<image>\nThat?", "B.")}
    (tree,) = converted(tmp_path, row, turns="apart")
    second = user([{"type": "image", "path": "2.jpg"}, {"type": "text", "text": "That?"}])
    assert tree["messages"] == [shown("1.jpg")]
    assert [branch["messages"] for branch in tree["branches"]] == [
        [user("This?"), bot("A."), second, bot("B.")]
    ]


def test_rows_of_one_image_share_a_tree_in_the_order_of_its_first(tmp_path):
    rows = [
        {"id": name, "image": image, "conversations": said("<image>" + name, "yes")}
        for name, image in [("a", "1.jpg"), ("b", "2.jpg"), ("c", "1.jpg"), ("d", "1.jpg")]
    ]
    one, two = converted(tmp_path, *rows)
    assert [one["id"], two["id"]] == ["a", "b"]
    assert [branch["messages"][0]["content"] for branch in one["branches"]] == ["a", "c", "d"]


def test_a_system_prompt_is_part_of_what_is_shared(tmp_path):
    row = {"image": "1.jpg", "conversations": said("<image>q", "a")}
    trees = converted(tmp_path, row | {"system": "Be short."}, row)
    assert [[message["role"] for message in tree["messages"]] for tree in trees] == [
        ["system", "user"],
        ["user"],
    ]


@pytest.mark.parametrize(
    ("text", "media", "words"),
    [
        ("<image>\nq", ["1.jpg"], "q"),
        ("q\n<image>", ["1.jpg"], "q"),
        ("In <image> there?", ["1.jpg"], "In the image there?"),
        ("<image><image>\nq", ["1.jpg", "2.jpg"], "q"),
        ("Is <image> as <image>?", ["1.jpg", "2.jpg"], "Is Image 1 as Image 2?"),
        ("<image>\nAnd <image> too, not <image>", ["1.jpg", "2.jpg", "3.jpg"], "And Image 2 too, not"),
    ],
)
def test_tags_leave_the_text(tmp_path, text, media, words):
    (tree,) = converted(tmp_path, {"image": media, "conversations": said(text, "a")})
    assert tree["messages"] == [shown(*media)]
    assert tree["branches"][0]["messages"][0] == user(words)


def test_videos_have_tags_too(tmp_path):
    (tree,) = converted(tmp_path, {"video": "v.mp4", "conversations": said("<video>\nq", "a")})
    assert tree["messages"] == [user([{"type": "video", "path": "v.mp4"}])]


def test_text_alone_is_a_root(tmp_path):
    (tree,) = converted(tmp_path, {"id": "t", "conversations": said("q", "a")})
    assert tree == {"id": "t", "source": "rows", "messages": [user("q"), bot("a")]}
    same = converted(tmp_path, *[{"conversations": said("q", "a")}] * 2)
    assert len(same) == 2, "a root without media is nobody else's"


ROW = {"messages": [user([{"type": "image"}, {"type": "text", "text": "q"}]), bot("a")], "images": ["1.jpg"]}
TREE = [{"messages": [user("q"), bot("a")]}]


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        ROW | {"images": [{"path": "1.jpg", "bytes": None}]},
        ROW | {"messages": [user("q"), bot("a")]},
        {"image": "1.jpg", "prompt": "q", "completion": "a"},
        {
            "prompt": ROW["messages"][:1],
            "completion": [bot([{"type": "text", "text": "a"}])],
            "images": ["1.jpg"],
        },
        {"messages": [user([{"type": "image", "path": "1.jpg"}, {"type": "text", "text": "q"}]), bot("a")]},
        {"messages": [user([{"type": "image", "image": "file://1.jpg"}, "q"]), bot("a")]},
        {"id": "x", "messages": [user([{"type": "image", "url": "1.jpg"}, "q"]), bot("a")]},
        {"messages": [user([{"type": "image_url", "image_url": {"url": "1.jpg"}}, "q"]), bot("a")]},
        {
            "messages": [
                user([{"type": "image", "text": None, "path": "1.jpg"}, {"type": "text", "text": "q"}]),
                bot("a"),
            ]
        },
    ],
)
def test_typed_parts_find_their_image(tmp_path, row):
    (tree,) = converted(tmp_path, row)
    assert tree["messages"] == [shown("1.jpg")]
    assert tree["branches"] == TREE


def test_typed_parts_show_videos(tmp_path):
    (tree,) = converted(tmp_path, {"messages": [user([{"type": "video", "video": "v.mp4"}, "q"]), bot("a")]})
    assert tree["messages"] == [user([{"type": "video", "path": "v.mp4"}])]


PAIR = [{"rank": 0, "messages": [bot("good")]}, {"rank": 1, "messages": [bot("bad")]}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": [user("q")], "chosen": [bot("good")], "rejected": [bot("bad")]},
        {"chosen": [user("q"), bot("good")], "rejected": [user("q"), bot("bad")]},
    ],
)
def test_preferences_are_ranked_branches(tmp_path, row):
    assert converted(tmp_path, row) == [
        {"id": "rows-1", "source": "rows", "messages": [user("q")], "branches": PAIR}
    ]
    (tree,) = converted(tmp_path, row | {"images": ["1.jpg"]})
    assert tree["messages"] == [shown("1.jpg")]
    assert tree["branches"] == [{"messages": [user("q")], "branches": PAIR}]


def test_pairs_of_one_prompt_stay_pairs(tmp_path):
    assert len(converted(tmp_path, *[{"prompt": "q", "chosen": "good", "rejected": "bad"}] * 2)) == 2


SWIFT = {"messages": [user("<image>Find the <ref-object>."), bot("<bbox><bbox> it is")], "images": ["1.jpg"]}


def test_ms_swift_boxes_are_points_with_their_extent(tmp_path):
    objects = {"ref": ["sheep"], "bbox": [[90, 160, 136, 212], [360, 480]]}
    (tree,) = converted(tmp_path, SWIFT | {"objects": objects})
    points = [{"x": 113.0, "y": 186.0, "box": [90.0, 160.0, 136.0, 212.0]}, {"x": 360.0, "y": 480.0}]
    (branch,) = tree["branches"]
    assert branch["messages"] == [
        user("Find the sheep."),
        bot(
            [
                {"type": "points", "label": "sheep", "frame": "pixels", "points": points},
                {"type": "text", "text": " it is"},
            ]
        ),
    ]


def test_ms_swift_names_go_to_the_boxes_behind_them(tmp_path):
    row = {
        "messages": [user("<image>Tell."), bot("<ref-object><bbox> and <ref-object> <bbox> play")],
        "images": ["1.jpg"],
        "objects": {"ref": ["a dog", "a cat"], "bbox": [[0, 0, 0.5, 0.5], [0.5, 1]], "bbox_type": "norm1"},
    }
    (tree,) = converted(tmp_path, row)
    dog, between, cat, behind = tree["branches"][0]["messages"][1]["content"]
    assert (dog["label"], cat["label"], between["text"], behind["text"]) == (
        "a dog",
        "a cat",
        " and ",
        " play",
    )
    assert dog["points"] == [{"x": 0.25, "y": 0.25, "box": [0.0, 0.0, 0.5, 0.5]}]
    assert "frame" not in cat, "norm1 is our fraction"


def test_ms_swift_boxes_stand_on_their_image(tmp_path):
    row = {
        "messages": [user("<image><image>Where?"), bot("<ref-object><bbox><bbox>")],
        "images": ["1.jpg", "2.jpg"],
        "objects": {"ref": ["it"], "bbox": [[1, 2], [3, 4]], "image_id": [1, 0]},
    }
    (tree,) = converted(tmp_path, row)
    (part,) = tree["branches"][0]["messages"][1]["content"]
    assert [point["image"] for point in part["points"]] == [2, 1]


def test_ms_swift_weights_and_rivals(tmp_path):
    turns = [user("<image>q"), bot("a") | {"loss": False}, user("r"), bot("b") | {"loss_scale": 0.5}]
    (tree,) = converted(tmp_path, {"messages": turns, "images": ["1.jpg"], "rejected_response": "c"})
    (branch,) = tree["branches"]
    assert branch["messages"] == [user("q"), bot("a") | {"weight": 0.0}, user("r")]
    good, bad = branch["branches"]
    assert good == {"rank": 0, "messages": [bot("b") | {"weight": 0.5}]}
    assert bad == {"rank": 1, "messages": [bot("c")]}


def test_boxes_of_a_picture_are_encoded_as_points(tmp_path):
    write_png(tmp_path / "1.jpg", size=(400, 500))
    objects = {"ref": ["sheep"], "bbox": [[100, 150, 140, 250], [360, 480]]}
    converted(tmp_path, SWIFT | {"objects": objects})
    (tree,) = read_trees(tmp_path / "out.trees")
    sequence = tiny_encoder()(tree)
    assert len(sequence.target) > 0
    part = next(p for n in tree.nodes() for m in n.messages for p in m.parts if isinstance(p, Points))
    assert part.label == "sheep"


NATIVE = {"id": "n", "messages": [shown("1.jpg")], "branches": [{"messages": [user("q"), bot("a")]}]}


def test_native_trees_pass_as_they_are(tmp_path):
    rows = [NATIVE, NATIVE | {"id": "m", "weight": 0.5, "task": "qa", "source": "own"}]
    first, second = converted(tmp_path, *rows)
    assert first == NATIVE
    assert second == rows[1]


def test_embedded_images_become_files_named_by_their_content(tmp_path):
    data = write_png(tmp_path / "p.png").read_bytes()
    text = base64.b64encode(data).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text}"}}
    rows = [NATIVE | {"messages": [user([{"type": "image", "data": text}])]}]
    rows += [
        {"messages": [user([part, "q"]), bot("a")]},
        {"messages": [user([{"type": "image", "base64": text}, "q"]), bot("a")]},
    ]
    for row in rows:
        (tree,) = converted(tmp_path, row)
        (path,) = [part["path"] for part in tree["messages"][0]["content"]]
        assert path.startswith("out_media/")
        assert path.endswith(".png")
        assert (tmp_path / path).read_bytes() == data
    assert len(list((tmp_path / "out_media").iterdir())) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"image": "1.jpg", "conversations": said("q", "a")},
            "1 image and 0 <image> in the text; give one tag",
        ),
        ({"conversations": said("<image>q", "a")}, "0 images and 1 or more <image> in the text"),
        (
            {"conversations": [{"from": "tool", "value": "x"}]},
            "a turn is from 'tool'; allowed are human, user, gpt",
        ),
        ({"conversations": [{"from": "human"}]}, "turn 0 is .* a turn has 'from' and 'value'"),
        ({"conversations": []}, "the conversation is empty"),
        ({"image": 3, "conversations": said("<image>q", "a")}, "image: 3 is no path; give a string"),
        ({"conversations": said("q")}, "no answer to learn from; give a message of the assistant"),
        (
            {"image": "http://a/b.jpg", "conversations": said("<image>q", "a")},
            "on the web, nothing is fetched",
        ),
        (
            {"messages": [user([{"type": "audio"}]), bot("a")]},
            "a part has the type 'audio'; allowed: text, image",
        ),
        (
            {"messages": [{"role": "tool", "content": "a"}]},
            "a role is 'tool'; allowed: user, assistant, system",
        ),
        ({"messages": [user(3), bot("a")]}, "a content is 3; give a text or a list of parts"),
        ({"messages": [user([{"type": "image"}]), bot("a")]}, "0 images and 1 or more <image>"),
        ({"prompt": 3, "completion": "a"}, "prompt: int is no conversation; give a text or a list"),
        ({"prompt": "q", "completion": "a", "label": True}, "without its rival cannot be ranked"),
        (
            {"chosen": [user("q")], "rejected": [user("q")]},
            "must answer a prompt, and otherwise than 'rejected'",
        ),
        (
            SWIFT | {"objects": {"ref": ["a"], "bbox": [[1, 2]]}},
            "objects.bbox: 1 are given and the text has more",
        ),
        (
            SWIFT | {"objects": {"ref": ["a", "b"], "bbox": [[1, 2]] * 2}},
            "objects.ref: 2 are given .* tags for 1",
        ),
        (
            SWIFT | {"objects": {"bbox": [[1, 2]] * 2}},
            "objects.ref: 0 are given and the text has more <ref-object>",
        ),
        (
            SWIFT | {"objects": {"ref": ["a"], "bbox": [[1, 2, 3]] * 2}},
            "has 3 numbers; give x, y or x0, y0, x1, y1",
        ),
        (
            SWIFT | {"objects": {"bbox_type": "real2"}},
            "objects.bbox_type: 'real2' is unknown; allowed: real, norm1",
        ),
        (
            {"messages": [user("q")], "rejected_response": "a"},
            "the last message is no answer to compare it with",
        ),
        (
            {"messages": [user("<image>"), bot("a") | {"loss_scale": -1.0}], "images": ["1.jpg"]},
            "greater than or equal",
        ),
        (
            NATIVE | {"messages": [{"role": "robot", "content": "q"}]},
            "role: .*'user', 'system' or 'assistant'|role:",
        ),
        ({"conversations": said("q \ud800", "a")}, "half a character"),
        ({"messages": [user([{"type": "image", "url": "data:image/png,x"}]), bot("a")]}, "no embedded file"),
    ],
)
def test_a_bad_row_is_told_with_its_place(tmp_path, row, message):
    good = {key: NATIVE[key] for key in NATIVE} if "id" in row else None
    rows = [row] if good is None else [good, row]
    with pytest.raises(DataError, match=rf"rows\.jsonl:{len(rows)}: .*(?:{message})") as told:
        converted(tmp_path, *rows)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out.trees").exists(), "nothing stands half written"
    assert not list(tmp_path.glob("*.part"))


def test_a_format_can_be_named(tmp_path):
    row = ROW | {"id": "x"}
    assert "llava" in formats()
    assert converted(tmp_path, row, format="trl")[0]["id"] == "x"
    with pytest.raises(DataError, match=r"rows\.jsonl:1: conversations: None is no list"):
        converted(tmp_path, row, format="llava")
    with pytest.raises(RecipeError, match=r"format 'lava' is unknown; .* hedgerow, llava, ms-swift, trl"):
        converted(tmp_path, row, format="lava")
