"""Alignment against a slow reference in exact fractions, and the cases that decide what may be claimed."""

import itertools
import re
import statistics
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Point, Points, Tracks
from hedgerow.errors import DataError
from hedgerow.grounding import format_points, format_tracks, parse
from hedgerow.grounding.align import Frames, align
from hedgerow.vision import frame_times

TICK = Fraction(1, 200)  # seconds; also what "written in hundredths" may be off by
HALF = Fraction(1, 2)


def printed(text):
    """Return the times a text prints."""
    return set(re.findall(r"(?<![0-9])[0-9]+\.[0-9]", text))


def said(time):
    """Return a time as text prints it, exactly."""
    return Fraction(f"{float(time):.1f}")


# --- slow and obvious: every rule as it is told, in exact fractions


def nearest(frames, time):
    return min(frames, key=lambda frame: (abs(frame - time), frame))


def slow_points(keys, frames, step):
    """For each time the printed time of its frame, or None where it is lost."""
    near = [nearest(frames, time) for time in keys]
    return [said(f) if abs(f - time) <= step / 2 else None for f, time in zip(near, keys, strict=True)]


class Slow:
    """Tracks as {object: {time: x}}, and when the clip was annotated."""

    def __init__(self, tracks, frames, step, rate):
        self.tracks, self.frames, self.step = tracks, frames, step
        times = sorted(time for own in tracks.values() for time in own)
        self.known = None if rate else set(times)
        gaps = [b - a for a, b in itertools.pairwise(times) if b - a > TICK]
        self.every = 1 / rate if rate else statistics.median(gaps) if gaps else Fraction(10**6)
        self.gap = self.every * 3 / 2 if rate else min(self.every * 3 / 2, step)
        self.same = min(Fraction(1, 20), self.every / 2)

    def annotated(self, low, high):
        """Times at which the clip is known to have been looked at, both ends included."""
        return {time for time in self.known or () if low <= time <= high}

    def absent_between(self, a, b):
        inner = {t for t in self.annotated(a, b) if t - a > self.same and b - t > self.same}
        return b - a > self.gap or bool(inner)

    def absent_beside(self, key, frame):
        low, high = sorted((key, frame))
        seen = self.annotated(low - self.same, high + self.same)
        beyond = {t for t in seen if (t < key) == (frame < key) and abs(t - key) > self.same}
        return abs(key - frame) >= self.every - self.same or bool(beyond)

    def on(self, own, frame):
        """What an object is on a frame: (distance, x, keyframes it is made from), or None."""
        before = max((k for k in own if k < frame), default=None)
        after = min((k for k in own if k >= frame), default=None)
        beside = sorted((k for k in (before, after) if k is not None), key=lambda k: abs(k - frame))
        for key in beside:
            if abs(key - frame) <= TICK or key == said(frame):
                return abs(key - frame), own[key], {key}
        if len(beside) == 2 and not self.absent_between(before, after):
            share = (frame - before) / (after - before)
            x = own[before] + share * (own[after] - own[before])
            return abs(beside[0] - frame), x, {before, after}
        for key in beside:
            mine = nearest(self.frames, key) == frame and abs(key - frame) <= self.step / 2
            if mine and not self.absent_beside(key, frame):
                return abs(key - frame), own[key], {key}
        return None

    def __call__(self):
        """Return {(printed time, object): x}, and how many keyframes are lost."""
        found, lost = {}, 0
        for name, own in self.tracks.items():
            best = {}
            for frame in self.frames:
                placed = self.on(own, frame)
                if placed and (said(frame) not in best or placed[0] < best[said(frame)][0]):
                    best[said(frame)] = placed
            found |= {(time, name): x for time, (_, x, _) in best.items()}
            used = {key for _, _, keys in best.values() for key in keys}
            for key in own:
                near = [f for f in self.frames if abs(f - key) <= self.step / 2]
                lost += key not in used and not (near and best)
        return found, lost


MOMENTS = st.integers(0, 1200).map(lambda n: n * TICK) | st.integers(0, 60).map(lambda n: Fraction(n, 10))
STEPS = st.sampled_from([Fraction(1, 20), Fraction(1, 4), HALF, HALF, Fraction(1)])
RATES = st.sampled_from([None, None, None, *map(Fraction, (1, 2, 3, 6, 10, 30)), Fraction(1, 4)])


@st.composite
def sampled(draw):
    """Frames and their step: as sampled, under a cap, or anywhere."""
    step = draw(STEPS)
    times = draw(st.lists(MOMENTS, min_size=1, max_size=12, unique=True).map(sorted))
    if draw(st.booleans()):
        most = draw(st.integers(1, 14))
        whole = int(times[-1] / step)
        times = [n * step for n in range(whole + 1)] + [times[-1]]
        if len(set(times)) > most:
            times = [Fraction(n) * times[-1] / (most - 1) for n in range(most)] if most > 1 else [Fraction(0)]
    return sorted(set(times)), step


@st.composite
def annotated(draw):
    """Tracks of one to three objects: at a rate with pieces missing, or at any times."""
    if draw(st.booleans()):
        return {
            name: dict(draw(st.dictionaries(MOMENTS, COORDINATE, min_size=1, max_size=8)))
            for name in range(1, draw(st.integers(1, 3)) + 1)
        }
    every = draw(st.sampled_from([Fraction(1, 30), Fraction(1, 10), Fraction(1, 6), Fraction(1, 3), HALF, 1]))
    tracks = {}
    for name in range(1, draw(st.integers(1, 3)) + 1):
        first = draw(st.integers(0, 5))
        there = draw(st.lists(st.booleans(), min_size=1, max_size=24))
        own = {(first + n) * every: draw(COORDINATE) for n, shown in enumerate(there) if shown}
        tracks |= {name: own} if own else {}
    return tracks


COORDINATE = st.integers(0, 1000).map(lambda n: Fraction(n, 1000))


@settings(max_examples=250, deadline=None)
@given(sampled(), annotated(), RATES)
def test_tracks_are_those_of_the_reference_and_so_are_the_losses(frames, tracks, rate):
    times, step = frames
    points = [
        Point(float(x), 0.5, id=name, time=float(t)) for name, own in tracks.items() for t, x in own.items()
    ]
    given_frames = Frames([float(t) for t in times], float(step), None if rate is None else float(rate))
    found = align(Tracks("car", tuple(points)), given_frames)
    wanted, lost = Slow(tracks, times, step, rate)()
    assert (found.points, found.lost) == (len(points), lost)
    assert found.gone == (lost > 0 and not wanted) == (lost == len(points) > 0)
    held = {(Fraction(f"{p.time:.1f}"), p.id): p.x for p in found.part.points}
    assert held.keys() == wanted.keys()
    assert len(held) == len(found.part.points)
    assert all(abs(x - wanted[key]) < 1e-5 for key, x in held.items())
    text = format_tracks(found.part)
    assert printed(text) <= {f"{float(time):.1f}" for time in times}  # law 14
    read = [p for part in parse(text, strict=True).parts for p in part.points]
    assert len(read) == len(held)  # law 10
    assert {p.time for p in read} == {p.time for p in found.part.points}


@settings(max_examples=150, deadline=None)
@given(sampled(), st.lists(MOMENTS, max_size=8))
def test_points_are_those_of_the_reference(frames, keys):
    times, step = frames
    part = Points("ball", tuple(Point(n / 10, 0.5, time=float(time)) for n, time in enumerate(keys)))
    found = align(part, Frames([float(t) for t in times], float(step)))
    wanted = slow_points(keys, times, step)
    assert (found.points, found.lost) == (len(keys), wanted.count(None))
    assert found.gone == (bool(keys) and not any(time is not None for time in wanted))
    kept = {n / 10: float(time) for n, time in enumerate(wanted) if time is not None}
    assert {point.x: point.time for point in found.part.points} == kept
    assert printed(format_points(found.part)) <= {f"{float(time):.1f}" for time in times}  # law 14


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 40), st.sampled_from([0.5, 1.0, 2.0, 3.0, 5.0]), st.integers(1, 40), st.data())
def test_what_is_annotated_on_the_sampled_frames_stays_as_it_is(duration, fps, most, data):
    """No object is made up on a frame where it was not, the last frame's shorter step included."""
    times = frame_times(duration, fps=fps, max_frames=most)
    if len({f"{time:.1f}" for time in times}) < len(times):
        times = times[:-1]
    seen = data.draw(st.lists(st.tuples(st.sampled_from(times), st.integers(1, 3)), min_size=1, unique=True))
    points = tuple(Point(n / len(seen), 0.5, id=name, time=time) for n, (time, name) in enumerate(seen))
    found = align(Tracks("car", points), Frames(times, 1 / fps))
    assert found.lost == 0
    assert {(p.id, p.x, f"{p.time:.1f}") for p in points} == {
        (p.id, p.x, str(p.time)) for p in found.part.points
    }
    assert align(found.part, Frames(times, 1 / fps)).part == found.part  # read back from text it stays so


# --- by hand

TWO_A_SECOND = tuple(n / 2 for n in range(7))  # 0 to 3 s


def track(times, *, number=1):
    """One object, x a twentieth of the time."""
    return tuple(Point(time / 20, 0.5, id=number, time=time) for time in times)


def on(points, *, rate=None, times=TWO_A_SECOND, step=0.5):
    """Where each object stands, as {id: [times]}, and how many points are lost."""
    found = align(Tracks("car", tuple(points)), Frames(times, step, rate))
    held = {}
    for point in found.part.points:
        assert point.x == pytest.approx(point.time / 20, abs=0.26 / 20)
        held.setdefault(point.id, []).append(point.time)
    return held, found.lost


def every(rate, *spans):
    """Times at a rate, within some spans, ends included."""
    return [n / rate for n in range(60 * rate + 1) if any(low <= n / rate <= high for low, high in spans)]


def test_a_point_moves_to_the_nearest_frame_within_half_a_step():
    part = Points("ball", tuple(Point(0, 0, time=time) for time in (0.7, 0.8, 1.25, 1.26)))
    found = align(part, Frames([0, 0.5, 1], 0.5))
    assert [p.time for p in found.part.points] == [0.5, 1.0, 1.0]
    assert (found.points, found.lost, found.gone) == (4, 1, False)


def test_half_a_step_is_of_the_step_that_is_meant_not_of_the_spacing_of_a_long_clip():
    times = frame_times(600, fps=2, max_frames=128)  # 4.7 s apart
    part = Points("ball", (Point(0.1, 0, time=4.9), Point(0.2, 0, time=7.0)))
    found = align(part, Frames(times, 0.5))
    assert [(p.x, p.time) for p in found.part.points] == [(0.1, 4.7)]
    assert found.lost == 1


def test_sampled_times_are_printed_with_one_decimal():
    # 63 s in 127 steps: the second frame stands at 0.496 s and prints 0.5
    part = Points("ball", (Point(0, 0, time=0.4),))
    assert align(part, Frames([63 * n / 127 for n in range(128)], 0.5)).part.points[0].time == 0.5


def test_annotations_between_the_frames_of_a_track_are_left_out_and_not_lost():
    # annotated at 6 a second, sampled at 2 a second: 0, 0.5 and 1.0 s remain
    part = Tracks("car", tuple(Point(n / 10, 0, id=1, time=n / 6) for n in range(7)))
    found = align(part, Frames([0.0, 0.5, 1.0], 0.5))
    assert [(p.time, p.x) for p in found.part.points] == [(0.0, 0.0), (0.5, 0.3), (1.0, 0.6)]
    assert found.lost == 0


def test_between_keyframes_place_and_box_are_in_proportion_to_time():
    one = Point(0.1, 0.2, id=4, time=0.4, box=(0.0, 0.1, 0.2, 0.3))
    other = Point(0.3, 0.8, id=4, time=0.8, box=(0.2, 0.7, 0.4, 0.9))
    (found,) = align(Tracks("car", (other, one)), Frames([0.5], 0.5, 3.0)).part.points
    assert (found.id, found.time, found.x, found.y) == (4, 0.5, pytest.approx(0.15), pytest.approx(0.35))
    assert found.box == pytest.approx((0.05, 0.25, 0.25, 0.45))
    (bare,) = align(
        Tracks("car", (one, Point(0.3, 0.8, id=4, time=0.8))), Frames([0.5], 0.5, 3.0)
    ).part.points
    assert bare.box is None


def test_a_keyframe_at_the_time_of_a_frame_is_taken_as_it_is():
    keys = (0.33, 0.6, 0.7)  # the second frame prints 0.3, the third 0.7
    part = Tracks("car", tuple(Point(n / 10, 0, id=1, time=time) for n, time in enumerate(keys)))
    found = align(part, Frames([0.0, 1 / 3, 2 / 3], 1 / 3, 10.0)).part
    assert [(p.time, p.x) for p in found.points] == [(0.3, 0.0), (0.7, 0.2)]


def test_an_object_that_leaves_and_returns_between_frames_is_not_on_the_frame_between():
    for rate in (None, 10.0):
        away = every(10, (0, 0.7), (1.3, 3))
        assert on(track(away), rate=rate) == ({1: [0.0, 0.5, 1.5, 2.0, 2.5, 3.0]}, 0)
    # gone for less than it takes to be missed: only the rate tells that 1.0 was looked at
    short = (0.0, 0.25, 0.5, 0.75, 1.2, 1.5, 1.75, 2.0)
    assert on(track(short), rate=4.0)[0] == {1: [0.0, 0.5, 1.5, 2.0]}


def test_another_object_tells_when_the_clip_was_looked_at():
    one, other = every(5, (0.2, 3)), [0.4, 0.6, 1.4, 1.6]
    held, lost = on(track(one) + track(other, number=2))
    assert held == {1: [0.5, 1.0, 1.5, 2.0, 2.5, 3.0], 2: [0.5, 1.5]}
    assert lost == 0
    # between two keyframes that nothing else tells to be too far apart
    assert on(track([0.5, 2.0, 3.0]) + track([0.3, 0.7], number=2)) == ({1: [0.5, 2.0, 3.0]}, 2)
    assert on(track([2.0, 3.0]) + track([0.3, 0.7], number=2)) == ({1: [2.0, 3.0], 2: [0.5]}, 0)
    # alone, 0.6 s and 1.4 s are neighbours too far apart to be joined, and near to frames of their own
    assert on(track(other))[0] == {1: [0.5, 1.5]}
    # looked at in between, and the other was there
    held, _ = on(track([0.9, 1.0, 1.1]) + track([0.9, 1.1], number=2), times=[1.0])
    assert held == {1: [1.0]}


def test_the_first_and_the_last_keyframe_reach_no_farther_than_a_step_of_annotation():
    inside = every(10, (0.7, 2.3))
    for rate in (None, 10.0):
        assert on(track(inside), rate=rate) == ({1: [1.0, 1.5, 2.0]}, 0)
    # once a second: nothing is known of 0.5 s and 2.5 s
    assert on(track([0.7, 1.7, 2.3]), rate=1.0) == ({1: [0.5, 1.0, 1.5, 2.0, 2.5]}, 0)


def test_sparse_keyframes_are_joined_only_if_their_rate_is_declared():
    sparse = track([0.0, 5.0, 12.0])
    times = [n / 2 for n in range(25)]
    assert on(sparse, times=times) == ({1: [0.0, 5.0, 12.0]}, 0)
    assert on(sparse, times=times, rate=1 / 7) == ({1: times}, 0)
    assert on(sparse, times=times, rate=1 / 4)[0] == {
        1: [n / 2 for n in range(11)] + [12.0]
    }  # 7 s are too long
    few = [0.0, 4.0, 8.0, 12.0]
    assert on(sparse, times=few) == ({1: [0.0, 12.0]}, 1)
    assert on(sparse, times=few, rate=1 / 7) == ({1: few}, 0)


def test_a_keyframe_that_made_nothing_is_lost_where_no_frame_is_near():
    long = frame_times(60, fps=2, max_frames=4)  # 20 s apart
    steady = track(every(4, (0, 60)))
    beside = 2 + 3 + 3 + 2  # a frame's own keyframe, and those 0.25 s from it
    assert on(steady, times=long, rate=4.0) == ({1: [0.0, 20.0, 40.0, 60.0]}, 241 - beside)
    # far from the frame, but it is made from both
    assert on(track([19.0, 21.0]), times=[20.2], rate=0.5, step=0.25) == ({1: [20.2]}, 0)
    assert on(track([18.0, 19.0, 21.0]), times=[20.2], rate=0.5, step=0.25) == ({1: [20.2]}, 1)


def test_an_object_seen_only_where_it_was_gone_on_every_frame_is_lost():
    flicker = align(Tracks("spark", track([0.7, 0.8])), Frames([0.5, 1.0], 0.5, 10.0))
    assert (flicker.points, flicker.lost, flicker.gone) == (2, 2, True)
    steady = track(every(10, (0, 2)))
    beside = align(Tracks("spark", steady + track([0.7, 0.8], number=2)), Frames([0.5, 1.0], 0.5, 10.0))
    assert {point.id for point in beside.part.points} == {1}
    assert beside.lost == 3 + 8 + 2  # of the one what is not within half a step, of the other all


def test_frames_that_print_one_time_hold_an_object_once_the_nearest():
    part = Tracks("car", (Point(0.1, 0, id=1, time=0.52), Point(0.2, 0, id=1, time=0.54)))
    found = align(part, Frames([0.50, 0.54], 0.04))
    assert [(p.time, p.x) for p in found.part.points] == [(0.5, 0.2)]
    assert found.lost == 0
    twice = align(Tracks("car", (Point(0.1, 0, id=1, time=0.5), part.points[1])), Frames([0.50, 0.54], 0.04))
    assert [(p.time, p.x) for p in twice.part.points] == [(0.5, 0.1)]
    assert format_tracks(twice.part) == '<tracks coords="0.5 1 100 000">car</tracks>'


def test_an_annotation_belongs_to_its_nearest_frame_alone():
    # the last frame stands 0.2 s behind the one before: who was seen there need not be seen here
    assert on(track(every(2, (0, 1))), times=[0.0, 0.5, 1.0, 1.2]) == ({1: [0.0, 0.5, 1.0]}, 0)


def test_images_stay_as_they_are():
    found = align(Points("cat", (Point(0, 0, image=2), Point(0, 0, image=1))), images=2)
    assert [p.image for p in found.part.points] == [2, 1]
    assert (found.points, found.lost, found.gone) == (0, 0, False)
    assert align(Points("cat", (Point(0, 0),)), images=1).part.points[0].image == 1


def test_no_points_need_no_media():
    for part in (Points("cat"), Tracks("cat")):
        found = align(part)
        assert (found.part, found.points, found.lost, found.gone) == (part, 0, 0, False)
        assert align(part, Frames([0.0], 0.5)).part == part


@pytest.mark.parametrize(
    ("part", "times", "images", "words"),
    [
        (Points("ball", (Point(0, 0, time=1),)), (), 1, "no video is shown"),
        (Tracks("car", (Point(0, 0, id=1, time=1),)), (), 0, "no video is shown"),
        (Points("ball", (Point(0, 0, image=1),)), [0, 0.5], 0, "on image 1, but 0 are shown"),
        (Points("ball", (Point(0, 0, image=3),)), (), 2, "on image 3, but 2 are shown"),
        (Points("ball", (Point(0, 0),)), [0, 0.5], 0, "neither time nor image"),
        (Points("ball", (Point(0, 0),)), (), 2, "neither time nor image"),
        (Points("ball", (Point(0, 0),)), (), 0, "on image 1, but 0 are shown"),
        (Points("ball", (Point(0, 0, time=0.0, image=1),)), [0.0], 1, "keep one of them"),
    ],
)
def test_what_stands_nowhere_is_refused_by_name(part, times, images, words):
    with pytest.raises(DataError, match=re.escape(words)) as error:
        align(part, Frames(times, 0.5) if times else None, images=images)
    assert part.label in str(error.value)
