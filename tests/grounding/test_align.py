import itertools
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hedgerow.content import Point, Points, Tracks
from hedgerow.errors import DataError
from hedgerow.grounding import align, format_points, format_tracks

TIMES = st.lists(st.floats(0, 30), min_size=1, max_size=8)


def printed(text):
    """Return the times a text prints."""
    return set(re.findall(r"(?<![0-9])[0-9]+\.[0-9]", text))


@settings(max_examples=150, deadline=None)
@given(TIMES, st.lists(st.floats(0, 1), max_size=6))
def test_law_14_points_print_only_times_of_sampled_frames(times, places):
    low, high = min(times), max(times)
    points = tuple(Point(0.5, 0.5, time=low + place * (high - low)) for place in places)
    text = format_points(align(Points("ball", points), times))
    assert printed(text) <= {f"{time:.1f}" for time in times}
    assert text.count("500 500") == len(points)


@settings(max_examples=150, deadline=None)
@given(TIMES, st.sets(st.tuples(st.floats(0, 30), st.integers(1, 3)), max_size=12))
def test_law_14_tracks_print_only_times_of_sampled_frames(times, seen):
    part = Tracks("car", tuple(Point(0.5, 0.5, id=name, time=time) for time, name in seen))
    assume(any(min(times) <= time <= max(times) for time, _ in seen))
    text = format_tracks(align(part, times))
    assert printed(text) <= {f"{time:.1f}" for time in times}
    assert text.count("500 500") >= 1


@settings(max_examples=150, deadline=None)
@given(TIMES, st.sets(st.tuples(st.floats(0, 30), st.integers(1, 3)), min_size=1, max_size=12))
def test_tracks_keep_the_nearest_annotation_of_each_frame(times, seen):
    times = sorted(times)
    part = Tracks(
        "car", tuple(Point(number / 20, 0, id=name, time=time) for number, (time, name) in enumerate(seen))
    )
    gaps = [after - before for before, after in itertools.pairwise(times) if after > before]
    reach = max(gaps) / 2 if gaps else 0.5
    # slow and obvious: every annotation to its nearest frame, then the best of each frame and object
    expected = {}
    for point in part.points:
        frame = min(times, key=lambda time: (abs(time - point.time), time))
        apart = abs(frame - point.time)
        if apart <= reach + 1e-6:
            expected.setdefault((f"{frame:.1f}", point.id), []).append((apart, point.x))
    if not expected:
        return
    found = {(f"{p.time:.1f}", p.id): p.x for p in align(part, times).points}
    assert found.keys() == expected.keys()
    for key, candidates in expected.items():
        least = min(apart for apart, _ in candidates)
        assert found[key] in [x for apart, x in candidates if apart == least]


def test_a_point_moves_to_the_nearest_frame():
    part = align(
        Points("ball", (Point(0, 0, time=0.7), Point(0, 0, time=0.8), Point(0, 0, time=1.2))), [0, 0.5, 1]
    )
    assert [p.time for p in part.points] == [0.5, 1.0, 1.0]


def test_sampled_times_are_printed_with_one_decimal():
    # 63 s in 127 steps: the second frame stands at 0.496 s and prints 0.5
    part = align(Points("ball", (Point(0, 0, time=0.4),)), [63 * n / 127 for n in range(128)])
    assert part.points[0].time == 0.5


def test_annotations_between_the_frames_of_a_track_are_left_out():
    # annotated at 6 a second, sampled at 2 a second: 0, 0.5 and 1.0 s remain
    part = Tracks("car", tuple(Point(n / 10, 0, id=1, time=n / 6) for n in range(7)))
    found = align(part, [0.0, 0.5, 1.0])
    assert [(p.time, p.x) for p in found.points] == [(0.0, 0.0), (0.5, 0.3), (1.0, 0.6)]


def test_frames_that_print_one_time_are_one_frame():
    part = Tracks("car", (Point(0.1, 0, id=1, time=0.50), Point(0.2, 0, id=1, time=0.54)))
    found = align(part, [0.50, 0.54])
    assert [(p.time, p.x) for p in found.points] == [(0.5, 0.1)]


def test_images_stay_as_they_are():
    part = align(Points("cat", (Point(0, 0, image=2), Point(0, 0, image=1))), (), images=2)
    assert [p.image for p in part.points] == [2, 1]
    assert align(Points("cat", (Point(0, 0),)), (), images=1).points[0].image == 1


def test_no_points_need_no_media():
    assert align(Points("cat"), ()) == Points("cat")
    assert align(Tracks("cat"), ()) == Tracks("cat")


@pytest.mark.parametrize(
    ("part", "times", "images", "words"),
    [
        (
            Points("ball", (Point(0, 0, time=1.3),)),
            [0, 0.5, 1],
            0,
            "a point at 1.3 s lie farther than 0.25 s",
        ),
        (Points("ball", (Point(0, 0, time=1.6),)), [1.0], 0, "farther than 0.50 s"),
        (Tracks("car", (Point(0, 0, id=1, time=90),)), [0, 0.5], 0, "all its points lie farther"),
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
        align(part, times, images=images)
    assert part.label in str(error.value)
