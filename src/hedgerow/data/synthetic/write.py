"""Writes scenes as training data: videos, trees about them, and the truth beside."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hedgerow.content import Video
from hedgerow.data.synthetic.caption import captioned
from hedgerow.data.synthetic.draws import Draws
from hedgerow.data.synthetic.ground import grounded
from hedgerow.data.synthetic.paint import Sight, play
from hedgerow.data.synthetic.quiz import quiz
from hedgerow.data.synthetic.scene import Scene, make_scene
from hedgerow.data.synthetic.settings import Scenes
from hedgerow.data.synthetic.story import Story
from hedgerow.data.synthetic.truths import Truth, gather
from hedgerow.errors import DataError, RecipeError
from hedgerow.sequence import Array
from hedgerow.tree import Message, MessageTree, write_trees
from hedgerow.vision.write import write_video

_WORDING = 1  # the stream of choices that words questions, apart from the one that draws scenes


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: `trees` is a JSONL file; the tree `id` has `videos/id.mp4` and `truths/id.npz`."""

    trees: Path
    videos: Path
    truths: Path
    count: int
    branches: int


def write_scenes(folder: Path, scenes: Scenes, count: int, *, seed: int) -> Written:
    """Write scenes with questions and exact answers; the same knobs, pictures and seed give the same files.

    Args:
        folder: gets `trees.jsonl`, `videos` and `truths`; made if it is not there.
        scenes: the knobs.
        count: how many scenes, 1 or more.
        seed: 0 or more; another seed gives other scenes.

    Raises:
        RecipeError: `count` or `seed` is too small, or what the knobs ask for is not there.
        DataError: the folder cannot be written to.
    """
    if count < 1:
        raise RecipeError(f"count={count}: give 1 or more")
    videos, truths = folder / "videos", folder / "truths"
    try:
        videos.mkdir(parents=True, exist_ok=True)
        truths.mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to ({error}); give another folder") from None
    trees = []
    for number in range(count):
        scene = make_scene(scenes, seed=seed, number=number)
        truth = _film(videos / f"{scene.id}.mp4", scene)
        truth.save(truths / f"{scene.id}.npz")
        trees.append(annotate(scene, truth, path=f"videos/{scene.id}.mp4"))
    write_trees(folder / "trees.jsonl", trees)
    branches = sum(len(tree.branches) for tree in trees)
    return Written(folder / "trees.jsonl", videos, truths, count, branches)


def annotate(scene: Scene, truth: Truth, *, path: str) -> MessageTree:
    """Return the tree of a scene: its video, and a branch for each question.

    The video part says how often it is sampled and was annotated: models see the frames that were annotated.

    Args:
        scene: what was filmed.
        truth: of that scene.
        path: of the video, relative to the file that the tree will stand in.
    """
    story, draws = Story(scene, truth), Draws(*scene.key, _WORDING)
    branches = [*grounded(story, draws), *quiz(story, draws), captioned(story, draws)]
    fps = float(scene.scenes.sample)
    video = Video(path, fps=fps, max_frames=len(truth.frames), annotation_fps=fps)
    return MessageTree(
        id=scene.id,
        messages=(Message("user", (video,)),),
        branches=tuple(draws.shuffled(branches)),
        source="synthetic",
    )


def _film(path: Path, scene: Scene) -> Truth:
    """Write the video and return the truth, painting each frame once."""
    seen: list[Sight] = []

    def pictures() -> Iterator[Array]:
        for painted in play(scene):
            seen.append(painted.sight)
            yield painted.picture

    write_video(path, pictures(), rate=scene.scenes.rate)
    return gather(scene, seen)
