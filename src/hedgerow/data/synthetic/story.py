"""What there is to say of a scene: who is seen when and where, who covers whom; from the truth alone."""

from dataclasses import dataclass

import numpy as np

from hedgerow.content import Point
from hedgerow.data.synthetic.kinds import Kind
from hedgerow.data.synthetic.scene import Scene
from hedgerow.data.synthetic.truths import VISIBLE, Truth
from hedgerow.grounding.points import printed_time

CLEAR = 0.5  # the share of an object that must be seen for it to be clearly seen
COVERED = 0.3  # the part of an object inside the frame that another must hide to be said to cover it
_BORDERS = (0.0, 1 / 3, 2 / 3, 1.0)  # of the ninths of the frame
_CLOSE = 0.04  # of the frame: a centre that is closer to a border has no plain place
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")


@dataclass(frozen=True, slots=True)
class Cover:
    """Object `front` hides a part of object `back` at an annotated frame."""

    frame: int
    front: int
    back: int


@dataclass(frozen=True, slots=True, eq=False)
class Story:
    """A scene and its truth; everything here speaks of annotated frames."""

    scene: Scene
    truth: Truth

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.scene.scenes.size

    @property
    def frames(self) -> list[int]:
        """The annotated frames."""
        return self.truth.frames

    def when(self, frame: int) -> str:
        """Return a frame's time as texts print it."""
        return printed_time(self.truth.time(frame))

    def seen(self, id: int) -> list[int]:
        """Return the frames at which an object is visible."""
        return [frame for frame in self.frames if self.truth.visible[frame, id - 1]]

    def appearing(self, kind: Kind) -> list[int]:
        """Return the ids of a kind's objects that are ever visible."""
        return [id for id in self.scene.ids(kind) if self.seen(id)]

    def visible(self, kind: Kind, frame: int) -> list[int]:
        """Return the ids of a kind's objects that are visible at a frame."""
        return [id for id in self.scene.ids(kind) if self.truth.visible[frame, id - 1]]

    def plain(self, kind: Kind) -> list[int]:
        """Return the frames at which each of a kind's objects is visible or not seen at all."""
        places = [id - 1 for id in self.scene.ids(kind)]
        share = self.truth.share[:, places]
        doubtful = ((share > 0) & (share < VISIBLE)).any(1)
        return [frame for frame in self.frames if not doubtful[frame]]

    def first_clear(self, id: int) -> int:
        """Return the first frame at which an object is clearly seen, or else that at which most of it is."""
        shares = self.truth.share[self.frames, id - 1]
        clear = np.flatnonzero(shares >= CLEAR)
        return self.frames[int(clear[0] if len(clear) else np.argmax(shares))]

    def single(self) -> list[tuple[Kind, int]]:
        """Return the asked kinds with only one object in the scene, and its id, if it is ever visible."""
        pairs = [(kind, self.scene.ids(kind)) for kind in self.scene.asked]
        return [(kind, ids[0]) for kind, ids in pairs if len(ids) == 1 and self.seen(ids[0])]

    def point(self, frame: int, id: int) -> Point:
        """Return the point of an object at a frame, with the box of what is seen of it."""
        x, y = self.truth.point(frame, id)
        box = self.truth.box(frame, id)
        left, top, right, bottom = (round(edge, 5) for edge in box)
        place = (round(x, 5), round(y, 5))
        return Point(*place, id=id, time=self.truth.time(frame), box=(left, top, right, bottom))

    def place(self, frame: int, id: int) -> str | None:
        """Name the ninth of the frame in which both the point and the centre of an object lie.

        None where they lie in two, and where the centre is close to a border of ninths or out of the frame.
        """
        x, y = self.truth.point(frame, id)
        right, down = (float(value) for value in self.truth.centre[frame, id - 1] / self.size)
        is_close = any(abs(value - border) < _CLOSE for value in (right, down) for border in _BORDERS)
        if is_close or (int(right * 3), int(down * 3)) != (int(x * 3), int(y * 3)):
            return None
        return f"{_ROWS[int(y * 3)]} {_COLUMNS[int(x * 3)]}".strip() or "middle"

    def stays_in(self, id: int) -> bool:
        """Say whether at least half of an object is inside the frame at every frame of the video."""
        return bool((self.truth.inside[:, id - 1] >= CLEAR).all())

    def away(self, id: int) -> tuple[int, int] | None:
        """Return a frame at which an object that was visible is away, and the one at which it is back."""
        seen = self.seen(id)
        for frame in self.frames:
            if seen and seen[0] < frame < seen[-1] and self.truth.inside[frame, id - 1] == 0:
                return frame, next(later for later in seen if later > frame)
        return None

    def covers(self) -> list[Cover]:
        """Return who hides a part of whom that is visible, of each pair when most is hidden, by time."""
        found: dict[tuple[int, int], tuple[float, Cover]] = {}
        for frame in self.frames:
            shown = self.truth.shown[frame]
            inside = shown.sum(1)
            for back, front in zip(*np.nonzero(shown), strict=True):
                part = shown[back, front] / inside[back]
                pair = (int(front) + 1, int(back) + 1)
                is_clear = back != front and part >= COVERED and self.truth.visible[frame, back]
                if is_clear and part > found.get(pair, (0.0, None))[0]:
                    found[pair] = (part, Cover(frame, *pair))
        return sorted((cover for _, cover in found.values()), key=lambda cover: cover.frame)
