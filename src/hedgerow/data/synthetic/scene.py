"""A scene: who is in it and where everybody goes; drawn from the knobs and a seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hedgerow.data.synthetic import motion
from hedgerow.data.synthetic.backgrounds import photo, texture
from hedgerow.data.synthetic.cutouts import read_cutouts
from hedgerow.data.synthetic.draws import Draws
from hedgerow.data.synthetic.kinds import Kind, Library, Shapes
from hedgerow.data.synthetic.motion import Anchor, Motion
from hedgerow.data.synthetic.settings import Scenes
from hedgerow.errors import RecipeError
from hedgerow.sequence import Array

_PLANS = 16  # ways to move that are compared by how much they hide
_CELLS = 30  # of the grid on which they are compared, across the frame's height
_CLEAR = 0.6  # the share of an object that must be seen at some annotated time
_FILLED = 0.8  # a disc of this share of the radius stands for an object


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """One object: `id` from 1, `depth` 0 for the farthest, `asked` unless it is a distractor.

    `picture` is uint8 [h, w, 4], its colours multiplied by alpha, at scale 1.
    """

    id: int
    kind: Kind
    asked: bool
    depth: int
    picture: Array
    motion: Motion


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Everything that decides a video and the answers about it.

    `actors` in the order of their ids; `background` uint8 [H, W, 3]; `absent` are kinds that are not there,
    to ask for in vain; `key` seeds the wording of questions.
    """

    id: str
    scenes: Scenes
    background: Array
    actors: tuple[Actor, ...]
    absent: tuple[Kind, ...]
    key: tuple[int, int]

    @property
    def asked(self) -> tuple[Kind, ...]:
        """The kinds that questions are about, each once."""
        return tuple(dict.fromkeys(actor.kind for actor in self.actors if actor.asked))

    def ids(self, kind: Kind) -> list[int]:
        """Return the ids of a kind's objects."""
        return [actor.id for actor in self.actors if actor.kind == kind]


def make_scene(scenes: Scenes, *, seed: int, number: int = 0) -> Scene:
    """Draw a scene; the same knobs, pictures, seed and number give the same one.

    Args:
        scenes: the knobs.
        seed: 0 or more.
        number: which scene of the seed, 0 or more.

    Raises:
        RecipeError: there are no cut-outs or photos where the knobs say, or a number is negative.
    """
    if seed < 0 or number < 0:
        raise RecipeError(f"seed={seed}, number={number}: give 0 or more")
    draws = Draws(seed, number)
    library: Library = Shapes() if scenes.folder is None else read_cutouts(scenes.folder)
    count = draws.between(*scenes.objects)
    cast = library.cast(draws, asked=min(count, draws.between(*scenes.kinds)), others=scenes.distractors)
    surplus = [draws.pick(cast.asked) for _ in range(count - len(cast.asked))]
    kinds = [*draws.shuffled([*cast.asked, *surplus]), *cast.others]
    sides = [draws.uniform(*scenes.extent) * scenes.size[1] for _ in kinds]
    depths = draws.shuffled(range(len(kinds)))
    motions = _motions(scenes, [side / 2 for side in sides], depths, draws)
    pictures = [
        _framed(library.picture(kind, draws, side=round(side)))
        for kind, side in zip(kinds, sides, strict=True)
    ]
    actors = [
        Actor(place + 1, kind, place < count, depth, picture, path)
        for place, (kind, depth, picture, path) in enumerate(
            zip(kinds, depths, pictures, motions, strict=True)
        )
    ]
    folder = scenes.backgrounds
    background = texture(scenes.size, draws) if folder is None else photo(folder, scenes.size, draws)
    return Scene(
        f"{scenes.name}-{seed}-{number:05d}", scenes, background, tuple(actors), cast.absent, (seed, number)
    )


def _framed(picture: Array) -> Array:
    """The picture with a transparent rim: pixels on its border, too, are mixed with something."""
    return np.pad(picture, ((1, 1), (1, 1), (0, 0)))


def _motions(
    scenes: Scenes, radii: Sequence[float], depths: Sequence[int], draws: Draws
) -> tuple[Motion, ...]:
    """Draw several plans, with none to all of the objects meeting another, and return the one that fits."""
    best: tuple[float, tuple[Motion, ...]] | None = None
    for plan in range(_PLANS):
        motions = _plan(scenes, radii, plan / (_PLANS - 1), draws)
        hidden, unseen = _estimate(scenes, radii, depths, motions)
        misses = abs(hidden - scenes.occlusion) + unseen
        if best is None or misses < best[0]:
            best = (misses, motions)
    assert best is not None
    return best[1]


def _plan(scenes: Scenes, radii: Sequence[float], meeting: float, draws: Draws) -> tuple[Motion, ...]:
    """Draw all paths; `meeting` is the share of objects that meet another one."""
    motions: list[Motion] = []
    for radius in radii:
        anchor = _away(scenes, radius, draws) if draws.chance(scenes.leaving) else None
        if anchor is None and motions and draws.chance(meeting):
            anchor = motion.beside(scenes, draws.pick(motions), radius=radius, draws=draws)
        anchor = anchor or motion.inside(scenes, radius=radius, draws=draws)
        motions.append(motion.wander(scenes, anchor, radius=radius, draws=draws))
    return tuple(motions)


def _away(scenes: Scenes, radius: float, draws: Draws) -> Anchor | None:
    """Draw where and when an object is out of the frame, on its way or at an end; None without the time."""
    last = scenes.frames - 1
    frame = draws.pick([draws.between(last // 3, last - last // 3)] * 3 + [0, last])
    if not motion.can_leave(scenes, frame=frame, radius=radius):
        return None
    return motion.outside(scenes, frame=frame, radius=radius, draws=draws)


def _estimate(
    scenes: Scenes, radii: Sequence[float], depths: Sequence[int], motions: Sequence[Motion]
) -> tuple[float, int]:
    """Return the hidden share, and how many objects are never clearly seen, taking objects for discs."""
    order = np.argsort(depths)[::-1]  # the nearest first
    every = scenes.rate // scenes.sample
    cell = scenes.size[1] / _CELLS
    x = (np.arange(math.ceil(scenes.size[0] / cell)) + 0.5) * cell
    y = (np.arange(_CELLS) + 0.5) * cell
    taken = np.zeros((len(motions[0].centre[::every]), len(y), len(x)), bool)
    shares, unseen = [], 0
    for place in order:
        radius = _FILLED * radii[place] * motions[place].scale[::every, None, None]
        centre = motions[place].centre[::every, :, None, None]
        disc = (x - centre[:, 0]) ** 2 + (y[:, None] - centre[:, 1]) ** 2 <= radius**2
        inside, seen = disc.sum((1, 2)), (disc & ~taken).sum((1, 2))
        shares += list(1 - seen[inside > 0] / inside[inside > 0])
        whole = np.pi * (radius[:, 0, 0] / cell) ** 2
        unseen += not (seen >= _CLEAR * whole).any()
        taken |= disc
    return float(np.mean(shares)) if shares else 0.0, unseen
