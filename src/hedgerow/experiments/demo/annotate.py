"""Questions and answers about a clip, from the exact boxes of what is on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from hedgerow.experiments.demo.games import GAMES, HEIGHT, WIDTH, Box, Game, Kind

POINTINGS = 4
COUNTINGS = 1
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scene:
    """What is visible at each of `times` (seconds of the clip)."""

    game: Game
    times: tuple[float, ...]
    boxes: tuple[dict[str, Box], ...]

    def seen(self, label: str) -> list[int]:
        """Indices of the times at which the thing is visible."""
        return [index for index, boxes in enumerate(self.boxes) if label in boxes]

    def leaves_and_returns(self, label: str) -> bool:
        """Whether the thing is visible, then not, then visible again."""
        seen = self.seen(label)
        return bool(seen) and seen[-1] - seen[0] >= len(seen)


def clip_branches(scene: Scene, games: Sequence[str], rng: np.random.Generator) -> list[Record]:
    """One branch or more of each kind about a clip; `games` are what "which game" offers to choose from."""
    return [
        *_pointing(scene, rng),
        *_counting(scene, rng),
        _tracking(scene, rng),
        _which_game(scene.game, games, rng),
        _branch("video_caption", "Describe the video.", clip_caption(scene)),
    ]


def frame_branches(scene: Scene, rng: np.random.Generator) -> list[Record]:
    """Pointing at what a single frame shows, and a caption."""
    caption = _branch("video_caption", "Describe the video.", frame_caption(scene))
    return [*_pointing(scene, rng), caption]


def _branch(task: str, question: str, reply: str | list[Record]) -> Record:
    return {
        "task": task,
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": reply}],
    }


def _point(scene: Scene, label: str, index: int) -> Record:
    left, top, right, bottom = scene.boxes[index][label]
    box = [left / WIDTH, top / HEIGHT, right / WIDTH, bottom / HEIGHT]
    return {
        "time": scene.times[index],
        "id": 1,
        "x": round((box[0] + box[2]) / 2, 5),
        "y": round((box[1] + box[3]) / 2, 5),
        "box": [round(edge, 5) for edge in box],
    }


def _pointing(scene: Scene, rng: np.random.Generator) -> list[Record]:
    """Point to different things, each at one of its times; if too few, to one at another time too."""
    labels = scene.game.labels
    by_label = [[(label, index) for index in rng.permutation(scene.seen(label))] for label in labels]
    turns = zip_longest(*(by_label[place] for place in rng.permutation(len(by_label))))
    asked = [one for turn in turns for one in turn if one is not None][:POINTINGS]
    branches = []
    for label, index in asked:
        part = {"type": "points", "label": label, "points": [_point(scene, label, index)]}
        question = f"Point to the {label} at {scene.times[index]:.1f} seconds."
        branches.append(_branch("pointing", question, [part]))
    return branches


def _inside(point: Record, half: str) -> bool:
    place = point["x"] if half in ("left", "right") else point["y"]
    return bool(place < 0.5) == (half in ("left", "upper"))


def _counting(scene: Scene, rng: np.random.Generator) -> list[Record]:
    """Ask how many are visible, or stand in one half, at different times and of each kind in turn."""
    times = rng.permutation(len(scene.times))[:COUNTINGS]
    kinds = scene.game.kinds
    return [_count(scene, kinds[turn % len(kinds)], int(index), rng) for turn, index in enumerate(times)]


def _count(scene: Scene, kind: Kind, index: int, rng: np.random.Generator) -> Record:
    points = [_point(scene, label, index) for label in kind.labels if label in scene.boxes[index]]
    where = "visible"
    if kind.halves:
        half = str(rng.choice(kind.halves))
        points = [point for point in points if _inside(point, half)]
        where = f"in the {half} half"
    question = f"How many {kind.many} are {where} at {scene.times[index]:.1f} seconds?"
    return _branch("counting", question, str(len(points)))


def _tracking(scene: Scene, rng: np.random.Generator) -> Record:
    labels = [label for label in scene.game.labels if scene.seen(label)]
    returning = [label for label in labels if scene.leaves_and_returns(label)]
    choices = returning if returning and rng.random() < 0.5 else labels
    label = choices[rng.integers(len(choices))]
    points = [_point(scene, label, index) for index in scene.seen(label)]
    return _branch("tracking", f"Track the {label}.", [{"type": "tracks", "label": label, "points": points}])


def _which_game(game: Game, games: Sequence[str], rng: np.random.Generator) -> Record:
    others = [name for name in games if name != game.name]
    names = [game.name, *(others[index] for index in rng.permutation(len(others))[:2])]
    names = [names[index] for index in rng.permutation(len(names))]
    options = [f"{letter}. {GAMES[name].title}" for letter, name in zip("ABC", names, strict=False)]
    question = "\n".join(["Which game is this?", *options])
    return _branch("multiple_choice", question, options[names.index(game.name)])


def _subjects(scene: Scene) -> list[str]:
    """What a caption tells of: not each of ten cars."""
    return [label for kind in scene.game.kinds if len(kind.labels) <= 2 for label in kind.labels]


def clip_caption(scene: Scene) -> str:
    """What each thing does, in a fixed order."""
    sentences = [f"A game of {scene.game.title}."]
    sentences += [f"The {label} {_motion(scene, label)}." for label in _subjects(scene)]
    return " ".join(sentences)


def _motion(scene: Scene, label: str) -> str:
    seen = scene.seen(label)
    if not seen:
        return "is not visible"
    if scene.leaves_and_returns(label):
        return "leaves and returns"
    if len(seen) < len(scene.times):
        return "appears" if seen[-1] == len(scene.times) - 1 else "disappears"
    first, last = _point(scene, label, seen[0]), _point(scene, label, seen[-1])
    dx, dy = last["x"] - first["x"], last["y"] - first["y"]
    if max(abs(dx), abs(dy)) < 0.02:
        return "stays"
    if abs(dx) >= abs(dy):
        return "moves to the right" if dx > 0 else "moves to the left"
    return "goes down" if dy > 0 else "goes up"


def frame_caption(scene: Scene) -> str:
    """Where each visible thing is on a single frame."""
    sentences = [f"A game of {scene.game.title}."]
    for label in _subjects(scene):
        place = _place(_point(scene, label, 0)) if label in scene.boxes[0] else "not visible"
        sentences.append(f"The {label} is {place}.")
    return " ".join(sentences)


def _place(point: Record) -> str:
    across = ("on the left", "in the middle", "on the right")[min(2, int(point["x"] * 3))]
    along = ("at the top", "", "at the bottom")[min(2, int(point["y"] * 3))]
    return f"{along} {across}".strip()
