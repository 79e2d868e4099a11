"""The knobs of synthetic scenes do what they say, and impossible ones are refused."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hedgerow.data.synthetic import Scenes, make_scene, render, truth
from hedgerow.errors import RecipeError
from hedgerow.testing import write_png

SMALL = Scenes(look="shapes", size=(96, 64), seconds=0.5, extent=(0.25, 0.5), speed=0.5)
COARSE = Scenes(look="shapes", size=(96, 72), rate=6, seconds=4.0)


def measure(measured, count=6, **knobs):
    """A figure of scenes with some knobs, the mean of several."""
    made = dataclasses.replace(COARSE, **knobs)
    return np.mean([measured(truth(make_scene(made, seed=7, number=number))) for number in range(count)])


def test_faster_is_faster():
    speeds = [measure(lambda known: known.speed, speed=speed) for speed in (0.0, 0.1, 0.2, 0.4)]
    assert speeds == pytest.approx([0.0, 0.1, 0.2, 0.4], rel=0.15)


def test_more_occlusion_hides_more():
    shares = [measure(lambda known: known.occlusion, 10, occlusion=share) for share in (0.0, 0.1, 0.2)]
    assert all(more > less + 0.03 for less, more in pairwise(shares))
    assert shares[1] == pytest.approx(0.1, abs=0.03)


def test_objects_leave_and_return_as_often_as_asked():
    def returning(known):
        return np.mean([known.returns(id + 1) for id in range(len(known.labels))])

    shares = [measure(returning, leaving=share) for share in (0.0, 0.5, 1.0)]
    assert shares[0] == 0
    assert all(more > less + 0.1 for less, more in pairwise(shares))


def test_numbers_of_objects_kinds_and_distractors_are_those_asked_for():
    counts, kinds = set(), set()
    for number in range(20):
        knobs = dataclasses.replace(COARSE, objects=(2, 4), kinds=(1, 2), distractors=3, seconds=0.5)
        scene = make_scene(knobs, seed=0, number=number)
        counts.add(sum(actor.asked for actor in scene.actors))
        kinds.add(len(scene.asked))
        others = {actor.kind for actor in scene.actors if not actor.asked}
        assert sum(not actor.asked for actor in scene.actors) == 3
        assert not others & set(scene.asked)
        assert not set(scene.absent) & {actor.kind for actor in scene.actors}
        looks = {(kind.colour, kind.shape) for kind in scene.asked}
        assert all(any(o.colour == c or o.shape == s for c, s in looks) for o in others)  # look-alikes
        assert sorted(actor.depth for actor in scene.actors) == list(range(len(scene.actors)))
    assert (counts, kinds) == ({2, 3, 4}, {1, 2})


def test_length_rate_and_size_are_those_asked_for():
    knobs = dataclasses.replace(COARSE, seconds=2.4, rate=10, sample=5, size=(64, 48), extent=(0.3, 0.5))
    scene = make_scene(knobs, seed=0)
    known = truth(scene)
    assert render(scene).shape == (25, 48, 64, 3)
    assert [known.time(frame) for frame in known.frames][:3] == [0.0, 0.2, 0.4]
    assert known.time(known.frames[-1]) == 2.4


def test_another_seed_or_number_is_another_scene():
    drawn = [make_scene(SMALL, seed=seed, number=n) for seed, n in ((0, 0), (0, 0), (0, 1), (1, 0))]
    one, same, *others = (render(scene) for scene in drawn)
    assert np.array_equal(one, same)
    assert all(not np.array_equal(one, other) for other in others)


def test_photos_stand_behind_the_objects(tmp_path):
    write_png(tmp_path / "noise.png", size=(300, 100))
    knobs = dataclasses.replace(SMALL, backgrounds=tmp_path)
    scene = make_scene(knobs, seed=0)
    assert scene.background.shape == (64, 96, 3)
    assert scene.background.std() > 20
    assert np.array_equal(scene.background, make_scene(knobs, seed=0).background)
    (tmp_path / "noise.png").unlink()
    with pytest.raises(RecipeError, match="has no image"):
        make_scene(knobs, seed=0)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"objects": (3, 2)}, r"objects=\(3, 2\): give two numbers, the least and the most"),
        ({"objects": (0, 2)}, "objects=0: it may be a whole number from 1 to 100"),
        ({"kinds": (1, 21)}, "kinds=21: it may be a whole number from 1 to 20"),
        ({"distractors": 1.5}, "distractors=1.5: it may be a whole number"),
        ({"occlusion": 0.7}, "occlusion=0.7: it may be a number from 0.0 to 0.3"),
        ({"speed": float("nan")}, "speed=nan"),
        ({"leaving": -0.1}, "leaving=-0.1"),
        ({"seconds": 0.7}, r"seconds=0.7 is not a positive multiple of 1/sample = 0.5"),
        ({"seconds": 0.0}, "seconds=0.0"),
        ({"rate": 7}, "rate=7 is no multiple of sample=2"),
        ({"sample": 4}, "sample=4; times are printed in tenths: choose 1, 2, 5 or 10"),
        ({"size": (321, 240)}, "video needs even sides"),
        ({"size": (320,)}, r"give \(width, height\)"),
        ({"size": (64, 48), "extent": (0.1, 0.2)}, "at least 8 are needed; give a larger extent or size"),
        ({"look": "cartoon"}, "choose auto, shapes or cutouts"),
        ({"cutouts": Path("nowhere")}, "cutouts=nowhere: no such folder"),
        ({"backgrounds": Path("nowhere")}, "backgrounds=nowhere: no such folder"),
        ({"name": "a/b"}, "name='a/b'"),
    ],
)
def test_impossible_knobs_are_refused(knobs, message):
    with pytest.raises(RecipeError, match=message):
        Scenes(**knobs)


def test_a_negative_seed_is_refused():
    with pytest.raises(RecipeError, match="seed=-1, number=0: give 0 or more"):
        make_scene(SMALL, seed=-1)
