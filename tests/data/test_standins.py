"""Small data in place of missing sets: of their kind, with media of the length and size that names tell."""

import json
from pathlib import Path

import pytest

from hedgerow.content import Image, Video
from hedgerow.data.mixture import DataSet
from hedgerow.data.standins import SAMPLES, kinds, shrink
from hedgerow.errors import RecipeError
from hedgerow.testing import TINY_VISION, tiny_encoder, write_jsonl, write_png
from hedgerow.tree import read_trees
from hedgerow.vision.facts import probe
from hedgerow.vision.processor import Molmo2Processor

TASKS = {
    "molmo2-track": {"tracking"},
    "molmo2-video-point": {"pointing", "counting"},
    "pixmo-count": {"pointing", "counting"},
    "multi-image-points": {"pointing"},
    "image-qa": {"qa", "multiple_choice"},
    "text": {None},
}


def stand_ins(folder, *likes):
    return shrink([DataSet(Path(f"/nowhere/{like}.jsonl"), like=like) for like in likes], folder)


def test_stand_ins_have_the_tasks_of_their_sets_and_are_encoded(tmp_path):
    found = stand_ins(tmp_path, *TASKS)
    assert [one.like for one in found] == list(TASKS)
    encoder = tiny_encoder(Molmo2Processor(**{**TINY_VISION, "max_frames": 128}))
    for one in found:
        trees = list(read_trees(one.small.path))
        assert len(trees) == one.trees
        assert {node.task for tree in trees for node in tree.nodes()[1:] or tree.nodes()} == TASKS[one.like]
        assert all(encoder.measure(tree)["tokens"] > 0 for tree in trees)


def test_videos_are_as_long_as_their_names_say(tmp_path):
    (one,) = stand_ins(tmp_path, "video-points")
    videos = [medium for tree in read_trees(one.small.path) for medium in tree.media]
    assert all(isinstance(video, Video) for video in videos)
    assert [probe(video).duration for video in videos] == [20.0, 45.0]


def test_images_come_in_several_sizes(tmp_path):
    (one,) = stand_ins(tmp_path, "multi-image-qa")
    images = [medium for tree in read_trees(one.small.path) for medium in tree.media]
    assert all(isinstance(image, Image) for image in images)
    assert len({(probe(image).width, probe(image).height) for image in images}) == 3


def test_a_set_that_is_there_gives_its_own_first_trees(tmp_path):
    shown = {"type": "image", "path": write_png(tmp_path / "a.png").name}
    said = [{"role": "user", "content": [shown]}, {"role": "assistant", "content": "Noise."}]
    own = write_jsonl(tmp_path / "own.jsonl", [{"id": str(n), "messages": said} for n in range(9)])
    given = DataSet(own, group="a", factor=2.0, like="text")
    (one,) = shrink([given], tmp_path, first=4)
    assert (one.trees, one.like) == (4, None)
    assert [tree.id for tree in read_trees(one.small.path)] == ["0", "1", "2", "3"]
    assert Path(next(read_trees(one.small.path)).media[0].path) == tmp_path / "a.png"
    assert (one.small.group, one.small.factor) == ("a", 2.0)
    assert str(one) == "own.jsonl: its own first 4 trees"


@pytest.mark.parametrize(("like", "said"), [(None, "has no 'like'"), ("tekst", "unknown, 'tekst'")])
def test_a_missing_set_without_a_known_kind_is_an_error(tmp_path, like, said):
    with pytest.raises(RecipeError, match=f"gone.jsonl: there is no such file.*{said}.*video-qa"):
        shrink([DataSet(Path("/nowhere/gone.jsonl"), like=like)], tmp_path)


def test_samples_are_small_and_alone():
    files = list(SAMPLES.iterdir())
    assert {path.name for path in files} == {f"{kind}.jsonl" for kind in kinds()}
    assert sum(path.stat().st_size for path in files) < 100_000
    for path in files:
        assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
