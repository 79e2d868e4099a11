"""Small data in place of sets that are not there, so that a mixture can be walked before it is fetched.

A stand-in has the rows of its hub set (its columns and kinds of answers, other words), converted by the
shipped mapping, or trees of a kind that no mapping makes. Its media are synthetic scenes: what trees cost in
tokens and crops is true of media of that size and length, which names of files tell (`pond-120s` lasts 120
seconds).
"""

import dataclasses
import itertools
import re
import shutil
from collections.abc import Sequence as Listing
from pathlib import Path

from PIL import Image as Picture

from hedgerow.content import Image, Video
from hedgerow.data.adapters import convert
from hedgerow.data.adapters.native import NATIVE
from hedgerow.data.adapters.registry import MAPPINGS, formats
from hedgerow.data.mixture import DataSet
from hedgerow.data.synthetic import Scenes, make_scene
from hedgerow.data.synthetic.paint import play
from hedgerow.errors import RecipeError
from hedgerow.tree import read_trees, write_trees
from hedgerow.vision.write import write_video

SAMPLES = MAPPINGS / "samples"
_LENGTH = re.compile(r"-(\d+)s")
_SHORTEST = 10  # seconds of a video whose name tells no length
_PHOTOS = ((320, 240), (640, 480), (960, 640))  # width and height in pixels, in turn
_FRAME = (160, 120)  # of a video; each frame is one crop whatever its size
_RATE = 2  # frames a second of stand-in videos: as many as are looked at


def kinds() -> tuple[str, ...]:
    """Return what a data set may be `like`: shipped mappings, and kinds of native trees."""
    return tuple(sorted(path.stem for path in SAMPLES.glob("*.jsonl")))


@dataclasses.dataclass(frozen=True, slots=True)
class Small:
    """A data set in small: `trees` first trees of its own file, or of a stand-in where `like` is given."""

    given: DataSet
    small: DataSet
    trees: int
    like: str | None

    def __str__(self) -> str:
        """Say what it is."""
        source = "its own first" if self.like is None else f"stand-in, like {self.like}:"
        return f"{self.given.path.name}: {source} {self.trees} trees"


def shrink(sets: Listing[DataSet], folder: Path, *, first: int = 16) -> list[Small]:
    """Write each data set in small.

    Args:
        sets: of a mixture; a file that is there gives its first trees.
        folder: for the files, and for the media of stand-ins; a new or empty one.
        first: trees of a file that is there.

    Raises:
        RecipeError: a file is missing and its `like` is not one of `kinds()`.
        DataError: a file that is there cannot be read.
    """
    media = folder / "media"
    media.mkdir(parents=True)
    studio = _Studio(media)
    found = []
    for number, one in enumerate(sets):
        path = folder / f"{number:03d}-{one.path.name}"
        if one.path.is_file():
            trees, like = write_trees(path, itertools.islice(read_trees(one.path), first)), None
        else:
            like = _known(one)
            trees = _stand_in(like, path, studio)
        found.append(Small(one, dataclasses.replace(one, path=path), trees, like))
    return found


def _known(one: DataSet) -> str:
    if one.like in kinds():
        return str(one.like)
    given = "no 'like'" if one.like is None else f"a 'like' that is unknown, '{one.like}'"
    raise RecipeError(
        f"{one.path}: there is no such file, and its entry has {given}; put the file there, or give 'like', "
        f"one of {', '.join(kinds())}"
    )


def _stand_in(like: str, path: Path, studio: "_Studio") -> int:
    """Convert a sample and make the media that its trees show."""
    given = like if like in formats() else NATIVE.name
    convert([SAMPLES / f"{like}.jsonl"], path, format=given, media=str(path.parent))
    count = 0
    for tree in read_trees(path):
        count += 1
        for medium in tree.media:
            assert isinstance(medium.path, str)  # samples embed no files
            studio.make(Path(medium.path), medium)
    return count


class _Studio:
    """Makes media; those of one length or size are painted once and copied.

    Args:
        folder: of the painted ones.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._photos = itertools.cycle(_PHOTOS)

    def make(self, path: Path, medium: Image | Video) -> None:
        """Put a medium where a tree says it is."""
        if path.exists():
            return
        painted = self._photo() if isinstance(medium, Image) else self._clip(path.stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(painted, path)

    def _photo(self) -> Path:
        size = next(self._photos)
        path = self._folder / f"photo-{size[0]}.png"
        if not path.exists():
            scene = make_scene(Scenes(size=size, seconds=1.0, rate=_RATE, name="photo"), seed=0, number=0)
            Picture.fromarray(next(play(scene)).picture).save(path)
        return path

    def _clip(self, name: str) -> Path:
        told = _LENGTH.search(name)
        seconds = int(told[1]) if told else _SHORTEST
        path = self._folder / f"clip-{seconds}.mp4"
        if not path.exists():
            scenes = Scenes(size=_FRAME, seconds=float(seconds), rate=_RATE, name="clip")
            scene = make_scene(scenes, seed=seconds, number=0)
            write_video(path, (painted.picture for painted in play(scene)), rate=_RATE)
        return path
