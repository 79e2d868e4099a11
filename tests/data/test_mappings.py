"""The shipped mappings on rows of the true columns, and the mixtures that name them."""

import json
from pathlib import Path

import pytest

from hedgerow.content import Tracks, Video
from hedgerow.data.adapters import convert, formats
from hedgerow.data.adapters.mapping import read_mapping
from hedgerow.data.adapters.paths import filled
from hedgerow.data.adapters.registry import MAPPINGS
from hedgerow.data.standins import SAMPLES, kinds
from hedgerow.errors import DataError
from hedgerow.recipe import load_recipe
from hedgerow.testing import tiny_encoder, write_jsonl, write_mp4
from hedgerow.tree import read_trees

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.stem for path in MAPPINGS.glob("*.yaml"))


def user(content):
    return {"role": "user", "content": content}


def bot(content):
    return {"role": "assistant", "content": content}


def branch(task, question, answer):
    return {"task": task, "messages": [user(question), bot(answer)]}


def clip(path, **more):
    return [user([{"type": "video", "path": path, **more}])]


def points(label, *places, kind="points", **more):
    return [{"type": kind, "label": label, "points": list(places), **more}]


def converted(folder, *rows, **options):
    """The trees that rows become, and what was counted."""
    path = write_jsonl(folder / "rows.jsonl", rows)
    result = convert([path], folder / "out", **options)
    return [json.loads(line) for line in (folder / "out").read_text(encoding="utf-8").splitlines()], result


VIDEO_POINT = {
    "video_id": "v", "video_source": "youtube", "video_duration": 20.0, "category": "object", "label": "cat",
    "question": "How many cats?", "count": 2, "points": [[{"x": 10.0, "y": 20.0}], [{"x": 50.5, "y": 60.0}]],
    "two_fps_timestamps": [1.0, 2.5], "raw_timestamps": [1.0, 2.5], "raw_frames": [24, 60],
    "clip_start": None, "clip_end": None, "annotator_unsure": False,
}  # fmt: skip


def test_video_point_groups_short_videos_and_cuts_long_ones(tmp_path):
    none = {"label": "dog", "count": 0, "points": [], "two_fps_timestamps": [], "question": "How many dogs?"}
    long = {"video_id": "w", "video_duration": 100.0}
    rows = [
        VIDEO_POINT,
        VIDEO_POINT | long | {"clip_start": 0.5, "clip_end": 60.0},
        VIDEO_POINT | none,
        VIDEO_POINT | long | {"clip_start": 0.5, "clip_end": 60.0, "label": "rat"},
        VIDEO_POINT | long,
        VIDEO_POINT | {"annotator_unsure": True},
    ]
    (short, first, second), result = converted(tmp_path, *rows)
    assert result.formats == {"molmo2-video-point": 6}
    assert result.left_out == {"molmo2-video-point": 2}, "no clip, and unsure"
    places = [{"x": 10.0, "y": 20.0, "time": 1.0}, {"x": 50.5, "y": 60.0, "time": 2.5}]
    empty = [{"type": "points", "label": "dog", "frame": "percent"}]
    assert short == {
        "id": "rows-1",
        "source": "molmo2-video-point",
        "messages": clip("v_2fps.mp4"),
        "branches": [
            branch("pointing", "Point to cat.", points("cat", *places, frame="percent")),
            branch("counting", "How many cats?", "2"),
            branch("pointing", "Point to dog.", empty),
            branch("counting", "How many dogs?", "0"),
        ],
    }
    assert first["messages"] == clip("w_2fps.mp4", start=0.5, end=60.0)
    (part,) = first["branches"][0]["messages"][1]["content"]
    assert [point["time"] for point in part["points"]] == [0.5, 2.0], "from the start of the clip"
    assert second["branches"][0]["messages"][0] == user("Point to rat."), "one query a tree"


def test_times_before_the_clip_are_refused(tmp_path):
    row = VIDEO_POINT | {"video_duration": 100.0, "clip_start": 1.5, "clip_end": 60.0}
    with pytest.raises(
        DataError, match=r"rows\.jsonl:1: two_fps_timestamps\[\]: 1.0 s lies before the clip, which"
    ):
        converted(tmp_path, row)


def test_video_point_eval_has_pixels_of_a_known_size(tmp_path):
    row = VIDEO_POINT | {"points": [{"x": 50, "y": 25}, {"x": 0, "y": 100}], "width": 200, "height": 100}
    (tree,), result = converted(tmp_path, row | {"masks": [[{"frame_id": 2, "rle": {}}]]})
    assert result.formats == {"molmo2-video-point-eval": 1}
    places = [{"x": 0.25, "y": 0.25, "time": 1.0}, {"x": 0.0, "y": 1.0, "time": 2.5}]
    assert tree["branches"] == [branch("pointing", "Point to cat.", points("cat", *places))]


def test_video_count_eval(tmp_path):
    row = {key: VIDEO_POINT[key] for key in ("video_id", "video_source", "label", "question", "count")}
    row |= {"category": "object", "clip_start": 1.0, "clip_end": 9.0, "video_duration": 20.0}
    (tree,), result = converted(tmp_path, row)
    assert result.formats == {"molmo2-video-count-eval": 1}
    assert tree["messages"] == clip("v_2fps.mp4", start=1.0, end=9.0)
    assert tree["branches"] == [branch("counting", "How many cats?", "2")]


def test_cap_brings_its_captions_above_a_score(tmp_path):
    row = {
        "video_id": "v",
        "video_start": 0.0,
        "video_end": 9.0,
        "video_caption": "Short.",
        "annotation_score": 3,
    }
    row |= {"merged_caption": "Long.", "video_frame_merged_caption": None}
    rows = [row, row | {"annotation_score": 2}, row | {"video_id": "a_"}]
    (tree,), result = converted(tmp_path, *rows)
    assert result.left_out == {"molmo2-cap": 2}
    assert [one["messages"][1]["content"] for one in tree["branches"]] == ["Long.", "Short."]
    assert {one["task"] for one in tree["branches"]} == {"video_caption"}


QA = {
    "video_id": "v",
    "Question": "Which?",
    "Answer": "red",
    "NegativeAnswers": ["blue", "green"],
    "Category": "x",
}


def test_choices_are_lettered_and_their_place_is_drawn_from_the_question(tmp_path):
    rows = [QA | {"Question": f"Which {number}?"} for number in range(30)]
    (tree,), result = converted(tmp_path, *rows)
    assert result.formats == {"molmo2-video-cap-qa": 30}
    assert len(tree["branches"]) == 30
    letters = set()
    for number, one in enumerate(tree["branches"]):
        question, answer = (message["content"] for message in one["messages"])
        first, *options = question.split("\n")
        assert first == f"Which {number}?"
        assert sorted(option[3:] for option in options) == ["blue", "green", "red"]
        assert [option[:3] for option in options] == ["A. ", "B. ", "C. "]
        assert answer in options
        assert answer.endswith("red")
        letters.add(answer[0])
    assert letters == {"A", "B", "C"}
    assert converted(tmp_path, *rows)[0] == [tree]


def test_subtitles_stand_at_the_video(tmp_path):
    lines = [{"start": 0.0, "end": 1.5, "text": "Hello."}, {"start": 2.0, "end": 3.0, "text": "Bye."}]
    (tree,), result = converted(
        tmp_path, QA | {"subtitle": lines}, QA | {"subtitle": lines, "Question": "Why?"}
    )
    assert result.formats == {"molmo2-video-subtitle-qa": 2}
    assert tree["messages"] == clip("v.mp4", subtitles=lines)
    assert len(tree["branches"]) == 2


def test_ask_model_anything(tmp_path):
    rows = [{"video_id": "v", "question": " Why? ", "answer": answer} for answer in ("So. ", " ", "Thus.")]
    (tree,), result = converted(tmp_path, *rows)
    assert result.left_out == {"molmo2-ask-model-anything": 1}
    assert tree["branches"] == [branch("qa", "Why?", "So."), branch("qa", "Why?", "Thus.")]


def moment(frame, *seen):
    names = ("7", "3", "9")
    found = [
        {"id": names[n], "point": [10 * frame, 20 * n], "occluded": hidden} for n, hidden in enumerate(seen)
    ]
    return {"frame": frame, "time": frame / 6, "points": found}


TRACK = {
    "id": "t-1", "video": "clip", "clip": "clip_0_9", "video_dataset": "mose", "start_frame": 0,
    "end_frame": 9, "expression": "the cats", "mask_id": ["3", "7"],
    "width": 100, "height": 50, "fps": 6, "sampling_fps": 2,
    "frame_trajectories": [moment(0, False), moment(3, True, False, False), moment(6, False, False)],
}  # fmt: skip


def test_tracks_leave_out_who_is_hidden_or_not_meant(tmp_path):
    (tree,), result = converted(tmp_path, TRACK, TRACK | {"fps": 5}, format="molmo2-track")
    assert result.left_out == {"molmo2-track": 1}
    seen = [
        {"x": 0.0, "y": 0.0, "id": 1, "time": 0.0},
        {"x": 0.3, "y": 0.4, "id": 2, "time": 0.5},
        {"x": 0.6, "y": 0.0, "id": 1, "time": 1.0},
        {"x": 0.6, "y": 0.4, "id": 2, "time": 1.0},
    ]
    assert tree["id"] == "t-1"
    assert tree["messages"] == clip("clip_0_9.mp4", annotation_fps=2.0)
    assert tree["branches"] == [
        branch("tracking", "Track the cats.", points("the cats", *seen, kind="tracks"))
    ]


def test_other_configurations_of_tracks(tmp_path):
    row = TRACK | {"frame_trajectories": [moment(n, False) for n in (0, 3, 6)]}
    (ground,), _ = converted(tmp_path, row, format="molmo2-track-ground")
    (part,) = ground["branches"][0]["messages"][1]["content"]
    assert [point["time"] for point in part["points"]] == [0.0, 1.0], "first and last"
    (single,), _ = converted(tmp_path, row, format="molmo2-track-single-point")
    asked, answer = single["branches"][0]["messages"]
    assert [part["type"] for part in asked["content"]] == ["text", "points", "text"]
    first = {"x": 0.0, "y": 0.0, "id": 1, "time": 0.0}
    assert asked["content"][1] == points("the cats", first)[0]
    assert len(answer["content"][0]["points"]) == 3


def test_tracks_of_a_real_video_are_encoded(tmp_path):
    write_mp4(tmp_path / "clip.mp4", frames=13, fps=6)
    for name in ("molmo2-track", "molmo2-track-ground", "molmo2-track-single-point"):
        converted(tmp_path, TRACK, format=name, media=str(tmp_path / "{video}.mp4"))
        (tree,) = read_trees(tmp_path / "out")
        assert isinstance(tree.media[0], Video)
        assert any(isinstance(p, Tracks) for n in tree.nodes() for m in n.messages for p in m.parts)
        assert len(tiny_encoder()(tree).target) > 0


URL = "http://example.com/a.jpg"


def hashed(url):
    return filled("{url:sha256}", {"url": url})


@pytest.mark.parametrize("name", kinds())
def test_every_sample_is_converted_without_a_loss(tmp_path, name):
    known = name in SHIPPED and read_mapping(MAPPINGS / f"{name}.yaml").columns
    given = None if known else name if name in SHIPPED else "hedgerow"
    result = convert([SAMPLES / f"{name}.jsonl"], tmp_path / "out", format=given)
    assert set(result.formats) == {name if name in SHIPPED else "hedgerow"}
    assert not result.left_out
    assert result.trees


def test_pixmo_points_share_an_image_up_to_sixty_points(tmp_path):
    row = {"image_url": URL, "image_sha256": "x", "label": "bee", "collection_method": "counting"}
    rows = [
        row | {"points": [{"x": 100.4, "y": 1.0}] * count, "count": count, "label": f"bee {count}"}
        for count in (40, 20, 1, 90)
    ]
    trees, result = converted(tmp_path, *rows)
    assert result.formats == {"pixmo-points": 4}
    labels = [[one["messages"][0]["content"] for one in tree["branches"]] for tree in trees]
    assert labels == [["Point to bee 40.", "Point to bee 20."], ["Point to bee 1."], ["Point to bee 90."]]
    assert trees[0]["messages"] == [user([{"type": "image", "path": hashed(URL)}])]
    (part,) = trees[1]["branches"][0]["messages"][1]["content"]
    assert part == points("bee 1", {"x": 100.0, "y": 1.0}, frame="percent")[0]


def test_pixmo_count_stores_points_by_column(tmp_path):
    row = {
        "image_url": URL,
        "image_sha256": "x",
        "count": 2,
        "label": "bee",
        "points": {"x": [1.0, 3.0], "y": [2.0, 4.0]},
    }
    (tree,), result = converted(tmp_path, row, row | {"points": {"x": None, "y": None}, "label": "cow"})
    assert result.formats == {"pixmo-count": 2}
    assert tree["branches"] == [
        branch(
            "pointing",
            "Point to bee.",
            points("bee", {"x": 1.0, "y": 2.0}, {"x": 3.0, "y": 4.0}, frame="pixels"),
        ),
        branch("counting", "How many of these are there: bee?", "2"),
        branch("counting", "How many of these are there: cow?", "2"),
    ]


def test_pixmo_captions_and_questions(tmp_path):
    (tree,), _ = converted(
        tmp_path, {"image_url": URL, "caption": "Long.", "transcripts": ["Uh, a cat.", ""]}
    )
    answers = [one["messages"][1]["content"] for one in tree["branches"]]
    assert answers == ["Long.", "Uh, a cat."]
    row = {"image_url": URL, "question": "Why?", "answer": "So."}
    (tree,), _ = converted(tmp_path, row, row, format="pixmo-ask-model-anything")
    assert tree["branches"] == [branch("qa", "Why?", "So.")] * 2
    row["question"] = "[USER] Who? [ASSISTANT] A cat. [USER] Why? [ASSISTANT]"
    (tree,), _ = converted(tmp_path, row, format="pixmo-cap-qa")
    (one,) = tree["branches"]
    assert one["messages"] == [user("Who?"), bot("A cat."), user("Why?"), bot("So.")]
    for broken in ("Who?", "[USER] Who?", "[USER] Who? [USER] Why? [ASSISTANT]", "[USER] a [ASSISTANT] b"):
        with pytest.raises(DataError, match=r"a dialogue starts with|of a dialogue lacks"):
            converted(tmp_path, row | {"question": broken}, format="pixmo-cap-qa")


def test_several_images_with_columns_of_questions(tmp_path):
    pairs = {"question": ["Same?", "Why?"], "answer": ["No.", "So."]}
    row = {"image_urls": [URL, URL + "2"], "qa_pairs": pairs}
    (tree,), result = converted(tmp_path, row, row | {"image_urls": [URL]})
    assert result.left_out == {"molmo2-multi-image-qa": 1}
    paths = [part["path"] for part in tree["messages"][0]["content"]]
    assert paths == [hashed(URL), hashed(URL + "2")]
    assert tree["branches"] == [branch("qa", "Same?", "No."), branch("qa", "Why?", "So.")]
    with pytest.raises(DataError, match="qa_pairs: its columns differ in length"):
        converted(tmp_path, row | {"qa_pairs": {"question": ["a"], "answer": []}})


def test_every_shipped_mapping_says_where_its_columns_were_read():
    assert len(SHIPPED) == 16
    assert set(SHIPPED) < set(formats())
    assert set(SHIPPED) < set(kinds())
    for name in SHIPPED:
        mapping = read_mapping(MAPPINGS / f"{name}.yaml")
        assert mapping.about.startswith("allenai/")
        assert any(public in mapping.read_in for public in ("github.com/", "huggingface.co/"))


@pytest.mark.parametrize("stage", ["pretrain", "sft", "long"])
def test_the_mixtures_load_and_name_mappings_that_exist(stage):
    path = ROOT / "recipes" / f"molmo2_{stage}.yaml"
    recipe = load_recipe(path)
    assert recipe.data.rates.govern(recipe.data.train)
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "- {path:" in line]
    assert len(lines) == len(recipe.data.train)
    named = {one.like for one in recipe.data.train if one.like in SHIPPED}
    for line, one in zip(lines, recipe.data.train, strict=True):
        assert one.like in kinds()
        assert ("  # no mapping" in line) == (one.like not in named), line
    evaluation = {"molmo2-video-point-eval", "molmo2-video-count-eval"}
    assert stage == "pretrain" or named == set(SHIPPED) - evaluation
    assert sum(recipe.data.groups.values()) == pytest.approx(1.0 if stage == "pretrain" else 1.1)
