"""The demo: the public API run in order. Your own files in place of the recorded ones work unchanged."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hedgerow.build import budget_of, build_encoder, build_model, trained_model
from hedgerow.encode import Encoder
from hedgerow.evaluate.run import REPLIES, by_task, write_replies
from hedgerow.evaluate.runner import Constant, Reply, ask, questions, summary
from hedgerow.experiments.demo.record import Recording, record
from hedgerow.experiments.demo.report import write_report
from hedgerow.experiments.demo.scores import Scores, score_lines, side_by_side
from hedgerow.experiments.speed import Comparison, compare
from hedgerow.recipe import Recipe, load_recipe
from hedgerow.train.run import one_step, run
from hedgerow.tree import MessageTree, read_trees

GAMES = ("pong", "boxing", "breakout", "tennis")
NAMES = {
    "pointing": "pointing_f1",
    "counting": "count_accuracy",
    "multiple_choice": "choice_accuracy",
    "tracking": "tracking_f1",
    "video_caption": "caption_agreement",
}
MAX_NEW_TOKENS = 96


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What the demo measured; `tasks` by task, `kinds` for pointing by kind of object."""

    report: Path
    seconds: float
    parts: Mapping[str, float]
    setup_seconds: float | None
    speed: Comparison
    tasks: Mapping[str, Scores]
    kinds: Mapping[str, Scores]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        found: dict[str, Any] = {
            "annotations": self.speed.annotations,
            "speedup": self.speed.speedup,
            "speedup_bound": self.speed.bound,
            "setup_seconds": self.setup_seconds,
            "seconds": self.seconds,
            "seconds_by_part": dict(self.parts),
            "padded": dataclasses.asdict(self.speed.padded),
            "packed": dataclasses.asdict(self.speed.packed),
        }
        for task, scores in self.tasks.items():
            name = NAMES.get(task, task)
            found[name] = scores.trained.value
            found |= {f"{name}_{key}": value for key, value in scores.to_dict().items() if key != "value"}
        found["pointing_by_kind"] = {kind: scores.to_dict() for kind, scores in self.kinds.items()}
        return found | {"report": str(self.report)}

    def __str__(self) -> str:
        lines = [
            str(self.speed),
            "",
            score_lines("held-out", self.tasks),
            "",
            score_lines("pointing F1", self.kinds),
            "",
        ]
        parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in self.parts.items())
        setup = "" if self.setup_seconds is None else f", after {self.setup_seconds:.0f} s of set-up"
        lines.append(f"{self.seconds:.0f} s ({parts}){setup}; report: {self.report}")
        return "\n".join(lines)


def run_demo(
    out: Path, *, quick: bool = False, setup_seconds: float | None = None, say: Callable[..., None] = print
) -> Result:
    """Record, train in two stages, compare padded with packed, evaluate, report.

    Args:
        out: folder for everything.
        quick: few clips and steps: it shows that all parts run, not what a model learns.
        setup_seconds: told with the other figures.
        say: receives progress lines.

    Raises:
        HedgerowError: a part cannot run; the message says which package is missing, or what is wrong.
    """
    clock = _Clock(say)
    sizes = {"train_clips": 8, "heldout_clips": 2} if quick else {"train_clips": 400, "heldout_clips": 48}
    with clock("record"):
        recording = record(out / "data", games=GAMES, **sizes)
    frames, clips = _recipes(out, recording, quick=quick)
    with clock("train"):
        say(run(frames, fresh=True))
        say(run(clips, fresh=True))
    encoder = build_encoder(clips)
    with clock("compare"):
        speed = _compare(clips, encoder, recording)
    with clock("evaluate"):
        tasks, kinds, replies = _evaluate(clips, frames, encoder, recording)
    write_replies(clips.out / REPLIES, replies)
    with clock("report"):
        report = write_report(
            out / "report.html",
            recipes=(frames, clips),
            encoder=encoder,
            replies=replies,
            speed=speed,
            tasks=tasks,
            kinds=kinds,
        )
    return Result(report, sum(clock.parts.values()), clock.parts, setup_seconds, speed, tasks, kinds)


def recipe_folder() -> Path:
    """Return where the recipes are: beside this file if installed, else at the top of the source checkout."""
    shipped = Path(__file__).parent / "recipes"
    return shipped if shipped.is_dir() else Path(__file__).parents[4] / "recipes"


def _recipes(out: Path, recording: Recording, *, quick: bool) -> tuple[Recipe, Recipe]:
    few = {"steps": "4", "rows_per_step": "1"} if quick else {}
    frames = {"data.train.0.path": recording.frames, "out": out / "frames"}
    clips = {"data.train.0.path": recording.train, "data.evaluate": recording.heldout, "out": out / "clips"}
    both = [
        ("demo_frames.yaml", frames | few),
        ("demo.yaml", clips | few | {"init": out / "frames"}),
    ]
    first, second = (
        load_recipe(recipe_folder() / name, {key: str(value) for key, value in changed.items()})
        for name, changed in both
    )
    return first, second


def _compare(recipe: Recipe, encoder: Encoder, recording: Recording) -> Comparison:
    """The first training clips of all games in turn: 64 annotations of 8 clips, as written for training."""
    by_game: dict[str, list[MessageTree]] = {}
    for tree in read_trees(recording.train):
        by_game.setdefault(tree.source, []).append(tree)
    trees = [tree for group in zip(*by_game.values(), strict=False) for tree in group][:8]
    return compare(trees, encoder, one_step(recipe, build_model(recipe)), budget=budget_of(recipe))


def _evaluate(
    recipe: Recipe, frames: Recipe, encoder: Encoder, recording: Recording
) -> tuple[dict[str, Scores], dict[str, Scores], list[Reply]]:
    asked = questions(read_trees(recording.heldout), encoder)
    constant = Constant(questions(read_trees(recording.train), encoder)).replies(asked)
    trained = ask(trained_model(recipe), encoder, asked, max_new_tokens=MAX_NEW_TOKENS)
    untrained = ask(build_model(frames), encoder, asked, max_new_tokens=MAX_NEW_TOKENS)
    sides = (trained, untrained, constant)
    points = [[reply for reply in side if reply.question.task == "pointing"] for side in sides]
    tasks = side_by_side([by_task(side) for side in sides])
    kinds = side_by_side([summary(side, by=lambda reply: reply.question.kind) for side in points])
    return tasks, kinds, trained


class _Clock:
    """Times the parts of the demo."""

    def __init__(self, say: Callable[..., None]) -> None:
        self.parts: dict[str, float] = {}
        self._say = say

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        self._say(f"-- {part}")
        begin = time.perf_counter()
        yield
        self.parts[part] = time.perf_counter() - begin
        self._say(f"-- {part}: {self.parts[part]:.1f} s")
