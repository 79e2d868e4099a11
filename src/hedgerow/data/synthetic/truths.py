"""What is true of a scene, frame by frame and object by object, to the pixel."""

import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hedgerow.content import Box
from hedgerow.data.synthetic.paint import SOLID, Sight, play
from hedgerow.data.synthetic.scene import Actor, Scene
from hedgerow.errors import DataError
from hedgerow.sequence import Array

VISIBLE = 0.2  # the share of an object that must be seen for it to count as visible
_DEEP = 0.5  # of the greatest depth: points stand no closer to a border

_ARRAYS = ("labels", "asked", "owner", "shown", "whole", "centre", "anchor")
_BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What can be seen in T frames of K objects; object `id` has place `id - 1`.

    An object's outline is every pixel it covers by half or more, as if nothing were in front of it and the
    frame had no edge.

    Attributes:
        rate: frames a second.
        sample: annotated times a second.
        labels: str [K], the name of each object's kind.
        asked: bool [K], false for distractors.
        owner: uint8 [T, H, W], the id of the object seen at a pixel, 0 for the background.
        shown: int32 [T, K, K]; `shown[t, b, a]` pixels of b's outline in the frame at which a is seen.
        whole: int32 [T, K], pixels of the outline, those outside the frame too.
        centre: float32 [T, K, 2], the middle (x, y) of the object's picture in pixels; may lie outside.
        anchor: float32 [T, K, 2], one place on the object, deep inside its outline; points stay close to it.
    """

    rate: int
    sample: int
    labels: Array
    asked: Array
    owner: Array
    shown: Array
    whole: Array
    centre: Array
    anchor: Array

    @property
    def share(self) -> Array:
        """Visible pixels over all pixels of the outline, float64 [T, K]."""
        return np.asarray(self.seen / self.whole)

    @property
    def seen(self) -> Array:
        """Visible pixels, int32 [T, K]."""
        return np.diagonal(self.shown, axis1=1, axis2=2)

    @property
    def inside(self) -> Array:
        """Pixels of the outline inside the frame over all of them, float64 [T, K]."""
        return np.asarray(self.shown.sum(2) / self.whole)

    @property
    def visible(self) -> Array:
        """Whether a share of `VISIBLE` or more can be seen, bool [T, K]."""
        return self.share >= VISIBLE

    @property
    def frames(self) -> list[int]:
        """The annotated frames."""
        return list(range(0, len(self.owner), self.rate // self.sample))

    def time(self, frame: int) -> float:
        """Return the time of a frame in seconds."""
        return frame / self.rate

    @property
    def occlusion(self) -> float:
        """Hidden pixels over pixels inside the frame: the mean over objects and the frames they are in."""
        inside = self.shown.sum(2)
        hidden = (inside - self.seen)[inside > 0] / inside[inside > 0]
        return float(hidden.mean()) if len(hidden) else 0.0

    @property
    def speed(self) -> float:
        """Mean speed of the objects' centres in frame widths a second."""
        steps = np.linalg.norm(np.diff(self.centre, axis=0), axis=2)
        return float(steps.mean()) * self.rate / float(self.owner.shape[2])

    def returns(self, id: int) -> bool:
        """Say whether an object is visible, then wholly out of the frame, then visible again (annotated)."""
        visible = np.flatnonzero(self.visible[self.frames, id - 1])
        away = np.flatnonzero(self.inside[self.frames, id - 1] == 0)
        return bool(len(visible) and ((visible[0] < away) & (away < visible[-1])).any())

    def mask(self, frame: int, id: int) -> Array:
        """Return where an object is seen in a frame, bool [H, W]."""
        return np.equal(self.owner[frame], id)

    def box(self, frame: int, id: int) -> Box:
        """Return the box (x0, y0, x1, y1) around what is seen of an object, in fractions.

        Raises:
            ValueError: nothing of it is seen.
        """
        rows, columns = _pixels(self.mask(frame, id))
        height, width = self.owner.shape[1:]
        return (
            float(columns.min() / width), float(rows.min() / height),
            float((columns.max() + 1) / width), float((rows.max() + 1) / height),
        )  # fmt: skip

    def point(self, frame: int, id: int) -> tuple[float, float]:
        """Return a place (x, y) in fractions at which an object is seen, not close to a border.

        It is the middle of a pixel at least half as deep inside what is seen of the object as the deepest
        (depth is counted in steps across pixel sides, to any other owner or to the edge of the frame); of
        those, the one nearest to the object's anchor. So the point stays with its place on the object, and
        moves only where that place is hidden or close to a border.

        Raises:
            ValueError: nothing of it is seen.
        """
        height, width = self.owner.shape[1:]
        pixels = _deep(self.mask(frame, id)) + 0.5
        x, y = self.anchor[frame, id - 1]
        row, column = pixels[np.argmin(((pixels - (y, x)) ** 2).sum(1))]
        return float(column / width), float(row / height)

    def save(self, path: Path) -> None:
        """Write everything into one compressed .npz, an array for each attribute."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        np.savez_compressed(path, rate=self.rate, sample=self.sample, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Truth":
        """Read what `save` has written.

        Raises:
            DataError: the file is missing or is no truth of a scene.
        """
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in _ARRAYS}
                return cls(int(file["rate"]), int(file["sample"]), **arrays)
        except _BROKEN as error:
            raise DataError(f"{path}: no truth of a scene ({error}); write the scenes again") from None


def truth(scene: Scene) -> Truth:
    """Return what is true of a scene."""
    return gather(scene, (painted.sight for painted in play(scene)))


def gather(scene: Scene, sights: Iterable[Sight]) -> Truth:
    """Return what is true of a scene whose frames were painted already.

    Args:
        scene: what was painted.
        sights: what is seen at each frame, in order.
    """
    owner, shown, whole = zip(*((one.owner, one.shown, one.whole) for one in sights), strict=True)
    return Truth(
        rate=scene.scenes.rate,
        sample=scene.scenes.sample,
        labels=np.array([actor.kind.name for actor in scene.actors]),
        asked=np.array([actor.asked for actor in scene.actors]),
        owner=np.stack(owner),
        shown=np.stack(shown),
        whole=np.stack(whole),
        centre=np.stack([actor.motion.centre for actor in scene.actors], 1).astype(np.float32),
        anchor=np.stack([_anchor(actor) for actor in scene.actors], 1).astype(np.float32),
    )


def _anchor(actor: Actor) -> Array:
    """Where the deepest pixel of the object's picture is at each frame, float64 [T, 2]."""
    pixels = _deep(actor.picture[:, :, 3] >= SOLID, least=1.0) + 0.5
    middle = np.array(actor.picture.shape[:2]) / 2
    down, right = pixels[np.argmin(((pixels - middle) ** 2).sum(1))] - middle
    cos, sin = np.cos(actor.motion.angle), np.sin(actor.motion.angle)
    turned = np.stack([cos * right - sin * down, sin * right + cos * down], 1)
    return np.asarray(actor.motion.centre + actor.motion.scale[:, None] * turned)


def _pixels(mask: Array) -> tuple[Array, Array]:
    rows, columns = np.nonzero(mask)
    if not len(rows):
        raise ValueError("nothing of the object is seen in this frame; ask for its visible share first")
    return rows, columns


def _deep(mask: Array, least: float = _DEEP) -> Array:
    """Pixels (row, column) of a mask at least `least` times as deep inside as the deepest, int64 [P, 2]."""
    rows, columns = _pixels(mask)
    top, left = rows.min(), columns.min()
    cores = [np.pad(mask[top : rows.max() + 1, left : columns.max() + 1], 1)]
    while (core := _eroded(cores[-1])).any():
        cores.append(core)
    return np.argwhere(cores[int(least * (len(cores) - 1))]) - 1 + (top, left)


def _eroded(mask: Array) -> Array:
    core = mask.copy()
    core[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return core
