"""Record the demo's data: play games in another process, write videos and message trees with exact points."""

import json
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hedgerow.errors import HedgerowError, RecipeError
from hedgerow.experiments.demo.annotate import Record, Scene, clip_branches, frame_branches
from hedgerow.experiments.demo.games import GAMES, HEIGHT, WIDTH, Box, Game
from hedgerow.vision.write import to_yuv, write_planes

EVERY = 5
RATE = 60 // EVERY  # frames a second; a multiple of SAMPLE, so that sampled times are exact
SAMPLE = 2
SCALE = 2
PROCESSES = 2
CLIPS_A_PLAY = 8
TRAIN_POLICIES = ("roam", "follow", "mash")
HELDOUT_POLICIES = ("chase", "wander")


@dataclass(frozen=True, slots=True)
class Recording:
    """Files of a recording: training clips, single frames of these, held-out clips; and numbers of trees."""

    train: Path
    frames: Path
    heldout: Path
    train_trees: int
    frame_trees: int
    heldout_trees: int


@dataclass(frozen=True, slots=True)
class _Job:
    """The clips of one game on one side of the split."""

    game: Game
    games: tuple[str, ...]
    split: str
    clips: int
    seed: int
    seconds: float
    out: Path

    @property
    def policies(self) -> tuple[str, ...]:
        return TRAIN_POLICIES if self.split == "train" else HELDOUT_POLICIES

    @property
    def frames(self) -> int:
        return round(self.seconds * RATE) + 1

    @property
    def sampled(self) -> tuple[int, ...]:
        return tuple(range(0, self.frames, RATE // SAMPLE))


def record(
    out: Path,
    *,
    games: Sequence[str],
    train_clips: int,
    heldout_clips: int,
    seed: int = 0,
    seconds: float = 1.5,
) -> Recording:
    """Record clips of each game with questions and exact answers.

    Args:
        out: Folder to write to; videos go to `out/videos`.
        games: Names of games, of those in `GAMES`.
        train_clips: Training clips a game.
        heldout_clips: Held-out clips a game, from other seeds and other ways of playing.
        seed: The same seed gives the same files.
        seconds: Time from the first to the last frame of a clip, a multiple of 0.5.

    Returns:
        Where the trees are and how many.

    Raises:
        HedgerowError: ale-py is not installed.
        RecipeError: A game is unknown or `seconds` is not a multiple of 0.5.
    """
    _check(games, seconds)
    (out / "videos").mkdir(parents=True, exist_ok=True)
    jobs = [
        _Job(GAMES[name], tuple(games), split, clips, seed, seconds, out)
        for split, clips in (("train", train_clips), ("heldout", heldout_clips))
        for name in games
    ]
    with ThreadPoolExecutor(max_workers=PROCESSES) as pool:
        done = list(pool.map(_record, jobs))
    train, heldout = done[: len(games)], done[len(games) :]
    clips = [tree for trees, _ in train for tree in trees]
    frames = [tree for _, trees in train for tree in trees]
    unseen = [tree for trees, _ in heldout for tree in trees]
    return Recording(
        train=_write(out / "train.jsonl", clips),
        frames=_write(out / "frames.jsonl", frames),
        heldout=_write(out / "heldout.jsonl", unseen),
        train_trees=len(clips),
        frame_trees=len(frames),
        heldout_trees=len(unseen),
    )


def _write(path: Path, trees: list[Record]) -> Path:
    path.write_text("".join(json.dumps(tree) + "\n" for tree in trees))
    return path


def _check(games: Sequence[str], seconds: float) -> None:
    unknown = [name for name in games if name not in GAMES]
    if unknown or not games:
        raise RecipeError(f"games {list(games)} are not known; choose from {', '.join(GAMES)}")
    if seconds <= 0 or seconds * SAMPLE % 1:
        raise RecipeError(f"seconds={seconds} is not a positive multiple of {1 / SAMPLE}; try 1.5")
    if find_spec("ale_py") is None:
        raise HedgerowError("recording needs ale-py, which is not installed; pip install 'hedgerow[demo]'")


def _record(job: _Job) -> tuple[list[Record], list[Record]]:
    clips, frames = [], []
    for number, (boxes, palette, screens) in enumerate(_play(job)):
        name = f"{job.game.name}-{job.split}-{number:04d}"
        path = Path("videos") / f"{name}.mp4"
        write_planes(job.out / path, _planes(screens, palette), rate=RATE)
        rng = np.random.default_rng([job.seed, zlib.crc32(name.encode())])
        seen = tuple(boxes[index] for index in job.sampled)
        times = tuple(index / RATE for index in job.sampled)
        branches = clip_branches(Scene(job.game, times, seen), job.games, rng)
        clips.append(_tree(job, name, {"path": str(path)}, branches))
        for time, visible in zip(times, seen, strict=True):
            part = {"path": str(path), "start": time, "end": time}
            scene = Scene(job.game, (0.0,), (visible,))
            frames.append(_tree(job, f"{name}-{time:.1f}", part, frame_branches(scene, rng)))
    return clips, frames


def _tree(job: _Job, name: str, video: dict[str, Any], branches: list[Record]) -> Record:
    message = {"role": "user", "content": [{"type": "video", **video}]}
    return {"id": name, "source": job.game.name, "messages": [message], "branches": branches}


def _requests(job: _Job) -> Iterator[dict[str, Any]]:
    first = 10_000 * (2 * job.seed + (job.split == "heldout")) + 1
    for play, done in enumerate(range(0, job.clips, CLIPS_A_PLAY)):
        yield {
            "seed": first + play,
            "policy": job.policies[play % len(job.policies)],
            "clips": min(CLIPS_A_PLAY, job.clips - done),
            "frames": job.frames,
            "every": EVERY,
            "sampled": job.sampled,
        }


def _play(job: _Job) -> Iterator[tuple[list[dict[str, Box]], NDArray[np.uint8], NDArray[np.uint8]]]:
    """Boxes, palette and screens of each clip, from the process that holds the emulator."""
    command = [sys.executable, "-m", "hedgerow.experiments.demo.atari", job.game.name]
    size = job.frames * HEIGHT * WIDTH
    if not job.clips:
        return
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(json.dumps(request) + "\n" for request in _requests(job)).encode())
        process.stdin.close()
        for _ in range(job.clips):
            head = json.loads(process.stdout.readline() or b"{}")
            pixels = process.stdout.read(size)
            if len(pixels) < size:
                raise HedgerowError(f"the emulator of {job.game.name} stopped; its reason stands above")
            screens = np.frombuffer(pixels, np.uint8).reshape(job.frames, HEIGHT, WIDTH)
            boxes = [{label: tuple(box) for label, box in frame.items()} for frame in head["boxes"]]
            yield boxes, np.array(head["palette"], np.uint8).reshape(256, 3), screens


def _planes(screens: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Colour numbers [T, H, W] as the planes of each frame, every pixel as `SCALE` x `SCALE`."""
    luma, *chroma = to_yuv(palette)
    width = screens.shape[2] * SCALE
    for screen in screens:
        # A pixel becomes 2 x 2, so halved chroma is the screen itself: nothing is lost before the codec.
        rows = [luma[screen].repeat(SCALE, 0).repeat(SCALE, 1), *(plane[screen] for plane in chroma)]
        yield np.concatenate([plane.reshape(-1, width) for plane in rows])
