"""Paints scenes frame by frame, from the farthest object to the nearest, and notes what covers what."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hedgerow.data.synthetic.scene import Actor, Scene
from hedgerow.sequence import Array

SOLID = 128  # alpha from which on a pixel belongs to an object


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What is seen where: `owner` uint8 [H, W] holds the id of the object seen at a pixel, or 0.

    `shown[b, a]` counts pixels of object b's own outline inside the frame at which object a is seen, and
    `whole[b]` all pixels of the outline, those outside the frame too (K objects, in the order of ids).
    """

    owner: Array
    shown: Array
    whole: Array


@dataclass(frozen=True, slots=True, eq=False)
class Painted:
    """One frame: `picture` uint8 [H, W, 3], and what is seen on it."""

    picture: Array
    sight: Sight


@dataclass(frozen=True, slots=True, eq=False)
class _Patch:
    """An object's pixels, uint8 [h, w, 4] with colours multiplied by alpha; its corner in the frame."""

    left: int
    top: int
    pixels: Array


def play(scene: Scene) -> Iterator[Painted]:
    """Paint the frames of a scene, one after another."""
    pictures = [
        Image.frombuffer("RGBa", actor.picture.shape[1::-1], actor.picture.tobytes())
        for actor in scene.actors
    ]
    for frame in range(scene.scenes.frames):
        yield _paint(scene, frame, pictures)


def render(scene: Scene) -> Array:
    """Return the frames of a scene, uint8 [T, H, W, 3]."""
    return np.stack([painted.picture for painted in play(scene)])


def _paint(scene: Scene, frame: int, pictures: list[Image.Image]) -> Painted:
    height, width = scene.background.shape[:2]
    picture, owner = scene.background.copy(), np.zeros((height, width), np.uint8)
    outlines = {}
    for actor in sorted(scene.actors, key=lambda actor: actor.depth):
        patch = _patch(actor, pictures[actor.id - 1], frame)
        where, part = _inside(patch, width, height)
        alpha = part[:, :, 3:].astype(np.uint16)
        picture[where] = part[:, :, :3] + ((255 - alpha) * picture[where] + 127) // 255
        outline = part[:, :, 3] >= SOLID
        owner[where][outline] = actor.id
        outlines[actor.id] = (where, outline, int((patch.pixels[:, :, 3] >= SOLID).sum()))
    found = [outlines[actor.id] for actor in scene.actors]
    counts = [np.bincount(owner[where][outline], minlength=len(found) + 1) for where, outline, _ in found]
    whole = np.array([pixels for *_, pixels in found], np.int32)
    return Painted(picture, Sight(owner, np.stack(counts)[:, 1:].astype(np.int32), whole))


def _patch(actor: Actor, picture: Image.Image, frame: int) -> _Patch:
    """The object's picture, scaled, turned and moved; neighbouring pixels are mixed."""
    (x, y), scale, angle = (
        actor.motion.centre[frame], actor.motion.scale[frame], actor.motion.angle[frame],
    )  # fmt: skip
    reach = math.ceil(0.5 * scale * math.hypot(*picture.size)) + 1
    left, top = math.floor(x) - reach, math.floor(y) - reach
    along, across = math.cos(angle) / scale, math.sin(angle) / scale
    # From a place in the patch back to one in the picture.
    right, down = left - x, top - y
    back = (
        along, across, picture.width / 2 + along * right + across * down,
        -across, along, picture.height / 2 - across * right + along * down,
    )  # fmt: skip
    size = (2 * reach + 1, 2 * reach + 1)
    moved = picture.transform(size, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
    return _Patch(left, top, np.asarray(moved))


def _inside(patch: _Patch, width: int, height: int) -> tuple[tuple[slice, slice], Array]:
    """Where in the frame a patch lies, and the pixels of it that do."""
    side = len(patch.pixels)
    rows = slice(min(max(patch.top, 0), height), min(max(patch.top + side, 0), height))
    columns = slice(min(max(patch.left, 0), width), min(max(patch.left + side, 0), width))
    part = patch.pixels[
        rows.start - patch.top : rows.stop - patch.top, columns.start - patch.left : columns.stop - patch.left
    ]
    return (rows, columns), part
