"""Recorded clips show what their answers say, and the same seed records the same files."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hedgerow.errors import HedgerowError, RecipeError
from hedgerow.experiments.demo import record as recorder
from hedgerow.experiments.demo.annotate import Scene, clip_branches, clip_caption, frame_caption
from hedgerow.experiments.demo.games import BREAKOUT, FREEWAY, GAMES, HEIGHT, PONG, TENNIS, WIDTH
from hedgerow.experiments.demo.record import Recording, record
from hedgerow.tree import read_trees

SCALE = 2
COLOURS = {
    "green paddle": (92, 186, 92),
    "orange paddle": (213, 130, 74),
    "white boxer": (214, 214, 214),
    "black boxer": (0, 0, 0),
    "paddle": (200, 72, 72),
    "pink player": (240, 128, 128),
    "blue player": (117, 128, 240),
    "maroon car": (167, 26, 26),
    "yellow car": (210, 210, 64),
}
PLAYED = ("pong", "boxing", "tennis", "freeway")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    pytest.importorskip("ale_py")
    return record(tmp_path_factory.mktemp("clips"), games=PLAYED, train_clips=3, heldout_clips=1)


def trees(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def decode(path: Path) -> dict[float, np.ndarray]:
    """Frames by time, in pixels of the console."""
    with av.open(str(path)) as container:
        frames = {frame.time: frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)}
    return {time: image[::SCALE, ::SCALE] for time, image in frames.items() if time is not None}


def pointed(recording: Recording) -> Iterator[tuple[np.ndarray, str, list[int]]]:
    """Image, label and box in pixels of every point that the single frames ask for."""
    for tree in trees(recording.frames):
        video = tree["messages"][0]["content"][0]
        image = decode(recording.frames.parent / video["path"])[video["start"]]
        for branch in tree["branches"]:
            if branch["task"] == "pointing":
                part = branch["messages"][1]["content"][0]
                left, top, right, bottom = part["points"][0]["box"]
                box = [left * WIDTH, top * HEIGHT, right * WIDTH, bottom * HEIGHT]
                yield image, part["label"], [round(edge) for edge in box]


def overlap(one: list[int], other: list[int]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    area = max(width, 0) * max(height, 0)
    whole = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return area / (whole - area)


def extent(image: np.ndarray, colour: tuple[int, ...], box: list[int], around: int = 4) -> list[int]:
    """Bounding box of the colour near a box; empty at the box's corner where there is none."""
    left, top = max(0, box[0] - around), max(0, box[1] - around)
    near = image[top : box[3] + around, left : box[2] + around].astype(int)
    rows, columns = np.nonzero(np.abs(near - colour).max(-1) < 40)
    if not rows.size:
        return [box[0], box[1], box[0], box[1]]
    return [left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1]


def test_boxes_are_where_the_pixels_are(recording: Recording) -> None:
    found: dict[str, list[float]] = {}
    for image, label, box in pointed(recording):
        if label in COLOURS:
            found.setdefault(label, []).append(overlap(extent(image, COLOURS[label], box), box))
    assert len(found) == len(COLOURS) - 1  # no Breakout here
    for label, overlaps in found.items():
        assert np.median(overlaps) > 0.9, label
        assert min(overlaps) > 0.4, label


def test_trees_are_valid_and_complete(recording: Recording) -> None:
    assert (recording.train_trees, recording.frame_trees, recording.heldout_trees) == (12, 48, 4)
    for path in (recording.train, recording.frames, recording.heldout):
        assert all(read_trees(path))
    for tree in trees(recording.train) + trees(recording.heldout):
        tasks = [branch["task"] for branch in tree["branches"]]
        assert {"pointing", "counting", "tracking", "multiple_choice", "video_caption"} == set(tasks)
        assert len(tasks) >= 6


def test_clips_are_sampled_exactly(recording: Recording) -> None:
    for tree in trees(recording.heldout):
        times = sorted(decode(recording.heldout.parent / tree["messages"][0]["content"][0]["path"]))
        assert times[-1] - times[0] == pytest.approx(1.5)
        assert {0.0, 0.5, 1.0, 1.5} <= set(times)


def test_heldout_clips_are_other_clips(recording: Recording) -> None:
    videos = [path.read_bytes() for path in sorted((recording.train.parent / "videos").iterdir())]
    assert len(videos) == len(set(videos)) == 16


@pytest.mark.usefixtures("recording")
def test_same_seed_same_files(tmp_path: Path) -> None:
    seeds = {"one": 0, "two": 0, "three": 1}
    for name, seed in seeds.items():
        record(tmp_path / name, games=["pong"], train_clips=1, heldout_clips=0, seed=seed, seconds=0.5)
    names = ("train.jsonl", "frames.jsonl", "videos/pong-train-0000.mp4")
    one, two, three = ([(tmp_path / folder / name).read_bytes() for name in names] for folder in seeds)
    assert one == two
    assert one != three


def test_missing_emulator_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "find_spec", lambda _: None)
    with pytest.raises(HedgerowError, match=r"pip install 'hedgerow\[demo\]'"):
        record(tmp_path, games=["pong"], train_clips=1, heldout_clips=0)


@pytest.mark.parametrize(
    ("games", "seconds"), [(["chess"], 1.5), ([], 1.5), (["pong"], 0.7), (["pong"], 0.0)]
)
def test_bad_choices_are_refused(tmp_path: Path, games: list[str], seconds: float) -> None:
    with pytest.raises(RecipeError):
        record(tmp_path, games=games, train_clips=1, heldout_clips=0, seconds=seconds)


def test_recorder_does_not_import_the_emulator() -> None:
    code = "import sys, hedgerow.experiments.demo.record; sys.exit('ale_py' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


BALL = (80, 100, 82, 104)
PADDLES = {"green paddle": (140, 40, 144, 56), "orange paddle": (16, 150, 20, 166)}


def scene(*balls: tuple[int, int, int, int] | None) -> Scene:
    boxes = tuple({**PADDLES, "ball": ball} if ball else PADDLES for ball in balls)
    return Scene(PONG, tuple(index / 2 for index in range(len(balls))), boxes)


def test_a_thing_that_leaves_and_returns_keeps_its_id() -> None:
    away = scene(BALL, None, None, BALL)
    assert away.leaves_and_returns("ball")
    for seed in range(20):
        (track,) = [
            branch["messages"][1]["content"][0]
            for branch in clip_branches(away, ["pong"], np.random.default_rng(seed))
            if branch["task"] == "tracking"
        ]
        if track["label"] == "ball":
            assert [(point["time"], point["id"]) for point in track["points"]] == [(0.0, 1), (1.5, 1)]
            return
    pytest.fail("the ball was never tracked")


def test_counts_are_exact() -> None:
    expected = {"upper": "1", "lower": "1", "visible": "0"}
    for seed in range(10):
        for branch in clip_branches(scene(None, None), ["pong"], np.random.default_rng(seed)):
            if branch["task"] == "counting":
                question, reply = (message["content"] for message in branch["messages"])
                assert reply == next(count for word, count in expected.items() if word in question)


@pytest.mark.parametrize(
    ("balls", "words"),
    [
        ((BALL, None, BALL), "leaves and returns"),
        ((BALL, BALL, None), "disappears"),
        ((None, BALL, BALL), "appears"),
        ((None, None), "is not visible"),
        ((BALL, BALL), "stays"),
        ((BALL, (20, 100, 22, 104)), "moves to the left"),
        ((BALL, (80, 150, 82, 154)), "goes down"),
    ],
)
def test_captions_tell_what_happens(balls: tuple[Any, ...], words: str) -> None:
    assert clip_caption(scene(*balls)).endswith(f"The ball {words}.")


def test_frame_captions_tell_where() -> None:
    assert "The green paddle is at the top on the right." in frame_caption(scene(BALL))
    assert frame_caption(scene(None)).endswith("The ball is not visible.")


def test_memory_tells_visibility() -> None:
    memory = [0] * 128
    assert "ball" not in PONG.locate(memory, memory)
    assert "orange paddle" not in PONG.locate(memory, memory)
    assert "ball" not in BREAKOUT.locate(memory, memory)
    assert "maroon car" not in FREEWAY.locate([3] * 128, [3] * 128)


def test_tennis_players_change_ends() -> None:
    memory = [60] * 128
    memory[24], memory[25], memory[80] = 100, 20, 0
    other = [*memory[:80], 1, *memory[81:]]
    before, after = TENNIS.locate(memory, memory), TENNIS.locate(other, other)
    assert before["pink player"] == after["blue player"] != before["blue player"]


def test_every_game_has_its_hero() -> None:
    assert all(game.hero in game.labels for game in GAMES.values())
