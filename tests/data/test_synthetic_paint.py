"""What a scene shows is what its truth says, to the pixel: against a second painter, slow and obvious."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.data.synthetic import VISIBLE, Scenes, Truth, make_scene, render, truth
from hedgerow.errors import DataError

SMALL = Scenes(look="shapes", size=(96, 64), seconds=1.0, extent=(0.25, 0.5), speed=0.5, occlusion=0.2)
MARGIN = 60  # pixels around the frame; no object of the tests reaches farther


def mixed(picture, across, down):
    """Pixels of a picture at places between them, transparent around it."""
    height, width = picture.shape[:2]
    padded = np.zeros((height + 2, width + 2, 4))
    padded[1:-1, 1:-1] = picture
    left, top = np.floor(across).astype(int), np.floor(down).astype(int)
    x, y = (across - left)[:, :, None], (down - top)[:, :, None]

    def at(row, column):
        return padded[np.clip(row + 1, 0, height + 1), np.clip(column + 1, 0, width + 1)]

    above = at(top, left) * (1 - x) + at(top, left + 1) * x
    below = at(top + 1, left) * (1 - x) + at(top + 1, left + 1) * x
    return np.floor(above * (1 - y) + below * y)


def place(actor, frame, size):
    """An object alone on the larger canvas, [H + 2 MARGIN, W + 2 MARGIN, 4]."""
    x, y = np.meshgrid(*(np.arange(-MARGIN, side + MARGIN) + 0.5 for side in size))
    (right, down), scale, angle = (
        actor.motion.centre[frame],
        actor.motion.scale[frame],
        actor.motion.angle[frame],
    )
    x, y = x - right, y - down
    height, width = actor.picture.shape[:2]
    across = (math.cos(angle) * x + math.sin(angle) * y) / scale + width / 2 - 0.5
    along = (math.cos(angle) * y - math.sin(angle) * x) / scale + height / 2 - 0.5
    return mixed(actor.picture, across, along)


def paint(scene, frame):
    """Return the picture, the owner of each pixel, and each object's whole outline on the larger canvas."""
    height, width = scene.background.shape[:2]
    picture, owner, outlines = scene.background.astype(float), np.zeros((height, width), int), {}
    for actor in sorted(scene.actors, key=lambda actor: actor.depth):
        pixels = place(actor, frame, (width, height))
        outlines[actor.id] = pixels[:, :, 3] >= 128
        inside = pixels[MARGIN:-MARGIN, MARGIN:-MARGIN]
        picture = inside[:, :, :3] + (1 - inside[:, :, 3:] / 255) * picture
        owner[inside[:, :, 3] >= 128] = actor.id
    return picture, owner, outlines


def depths(mask):
    """How many steps across pixel sides lead from each pixel out of the mask, by widening what is outside."""
    found, outside, steps = np.zeros(mask.shape, int), np.pad(~mask, 1, constant_values=True), 0
    while not outside.all():
        steps += 1
        wider = outside.copy()
        for axis in (0, 1):
            for way in (1, -1):
                wider |= np.roll(outside, way, axis)
        found[(wider & ~outside)[1:-1, 1:-1]] = steps
        outside = wider
    return found


def ids(known):
    return range(1, len(known.labels) + 1)


@pytest.fixture(scope="module")
def scenes():
    made = [make_scene(SMALL, seed=1, number=number) for number in range(6)]
    return [(scene, truth(scene)) for scene in made]


def test_masks_and_pictures_are_those_of_a_slow_painter(scenes):
    for scene, known in scenes:
        frames = render(scene)
        for frame in range(0, len(frames), 4):
            picture, owner, outlines = paint(scene, frame)
            assert np.array_equal(known.owner[frame], owner)
            assert np.abs(frames[frame] - picture).max() < 3  # rounded once an object
            for id, outline in outlines.items():
                inside = outline[MARGIN:-MARGIN, MARGIN:-MARGIN]
                assert known.whole[frame, id - 1] == outline.sum()
                counts = [(inside & (owner == other)).sum() for other in ids(known)]
                assert known.shown[frame, id - 1].tolist() == counts


def test_shares_follow_from_the_masks(scenes):
    hidden = 0
    for scene, known in scenes:
        for frame in range(len(known.owner)):
            masks = np.stack([known.mask(frame, id) for id in ids(known)])
            assert masks.sum(0).max() <= 1  # disjoint
            assert np.allclose(known.share[frame], masks.sum((1, 2)) / known.whole[frame])
        assert np.array_equal(known.visible, known.share >= VISIBLE)
        assert (known.share <= known.inside).all()
        assert (known.inside <= 1).all()
        nearest = max(scene.actors, key=lambda actor: actor.depth)
        assert np.array_equal(known.share[:, nearest.id - 1], known.inside[:, nearest.id - 1])
        hidden += (known.share < known.inside).sum()
    assert hidden > 50  # there was something to hide


def test_every_point_lies_on_its_object_within_its_box(scenes):
    count = 0
    for _, known in scenes:
        height, width = known.owner.shape[1:]
        for frame in range(len(known.owner)):
            for id in np.flatnonzero(known.share[frame]) + 1:
                x, y = known.point(frame, id)
                assert known.owner[frame, int(y * height), int(x * width)] == id
                rows, columns = np.nonzero(known.mask(frame, id))
                edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                assert np.allclose(np.array(known.box(frame, id)) * [width, height, width, height], edges)
                count += 1
    assert count > 200


@given(seed=st.integers(0, 10**6), size=st.tuples(st.integers(1, 12), st.integers(1, 12)))
@settings(max_examples=60, deadline=None)
def test_a_point_is_deep_and_as_close_to_the_anchor_as_such_a_pixel_can_be(seed, size):
    rng = np.random.default_rng(seed)
    mask = rng.random(size) < rng.uniform(0.3, 1.0)
    mask.flat[rng.integers(mask.size)] = True
    anchor = rng.uniform(-2, 14, (1, 1, 2)).astype(np.float32)
    counts = np.ones((1, 1, 1), np.int32)
    known = Truth(
        rate=2, sample=2, labels=np.array(["ball"]), asked=np.array([True]),
        owner=mask[None].astype(np.uint8), shown=counts, whole=counts[0], centre=anchor, anchor=anchor,
    )  # fmt: skip
    x, y = known.point(0, 1)
    row, column = int(y * size[0]), int(x * size[1])
    deep = depths(mask)
    least = 1 + (deep.max() - 1) // 2
    assert deep[row, column] >= least
    places = np.argwhere(deep >= least) + 0.5
    apart = np.hypot(*(places - anchor[0, 0, ::-1]).T)
    assert np.isclose(np.hypot(*(np.array([row, column]) + 0.5 - anchor[0, 0, ::-1])), apart.min())


def test_a_point_stays_with_its_place_on_the_object():
    free = dataclasses.replace(SMALL, objects=(1, 1), distractors=0, leaving=0.0, size=(160, 120))
    for number in range(4):
        known = truth(make_scene(free, seed=3, number=number))
        places = np.array([known.point(frame, 1) for frame in range(len(known.owner))]) * [160, 120]
        assert np.hypot(*(places - known.anchor[:, 0]).T).max() < 4
        assert (known.share == 1).all()


def test_nothing_is_said_of_what_is_not_seen(scenes):
    _, known = scenes[0]
    blank = dataclasses.replace(known, owner=np.zeros_like(known.owner))
    for ask in (blank.point, blank.box):
        with pytest.raises(ValueError, match="nothing of the object is seen"):
            ask(0, 1)


def test_truth_comes_back_from_its_file_and_nothing_else_does(scenes, tmp_path):
    _, known = scenes[0]
    known.save(tmp_path / "a.npz")
    again = Truth.load(tmp_path / "a.npz")
    for field in dataclasses.fields(Truth):
        assert np.array_equal(getattr(again, field.name), getattr(known, field.name))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:500])
    (tmp_path / "text.npz").write_text("no zip file")
    np.savez(tmp_path / "other.npz", owner=known.owner)
    for name in ("cut", "text", "other", "missing"):
        with pytest.raises(DataError, match=rf"{name}\.npz: no truth of a scene"):
            Truth.load(tmp_path / f"{name}.npz")
