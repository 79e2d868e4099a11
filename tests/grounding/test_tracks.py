import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Point, Points, Tracks
from hedgerow.errors import DataError
from hedgerow.grounding import first_and_last, format_tracks, of_object, visible_point
from hedgerow.grounding.tracks import canonical


def told(part):
    return [(p.time, p.id, p.x) for p in canonical(part).points]


def test_ids_count_from_one_by_first_appearance_then_place():
    part = Tracks(
        "car", (Point(0.9, 0, id=7, time=1), Point(0.1, 0, id=9, time=1), Point(0.5, 0, id=3, time=2))
    )
    assert told(part) == [(1.0, 1, 0.1), (1.0, 2, 0.9), (2.0, 3, 0.5)]


def test_an_object_that_leaves_and_returns_keeps_its_id():
    seen = [(0, 5, 0.2), (0, 6, 0.8), (1, 6, 0.7), (2, 5, 0.9), (2, 6, 0.6)]
    part = Tracks("car", tuple(Point(x, 0, id=name, time=time) for time, name, x in seen))
    # object 5 (now 1) is away at 1 s; at 2 s it stands right of object 6 (now 2), and is still listed first
    assert told(part) == [(0.0, 1, 0.2), (0.0, 2, 0.8), (1.0, 2, 0.7), (2.0, 1, 0.9), (2.0, 2, 0.6)]


def test_an_object_twice_in_a_tenth_of_a_second_is_refused():
    part = Tracks("car", (Point(0, 0, id=1, time=0.51), Point(0, 0, id=1, time=0.49)))
    with pytest.raises(DataError, match=r"object 1 stands twice at 0.5 s .* align"):
        canonical(part)


SEEN = st.dictionaries(
    st.tuples(st.integers(0, 4), st.integers(1, 4)), st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=10
)


@settings(max_examples=80, deadline=None)
@given(SEEN)
def test_renumbering_keeps_who_is_who(seen):
    part = Tracks("car", tuple(Point(x, y, id=name, time=time) for (time, name), (x, y) in seen.items()))
    found = canonical(part)
    assert (
        paths(found)
        == paths(canonical(found))
        == sorted(
            sorted(
                (float(t), round(x * 1000) / 1000, round(y * 1000) / 1000)
                for (t, n), (x, y) in seen.items()
                if n == name
            )
            for name in {name for _, name in seen}
        )
    )
    starts = [min((p.time, p.x, p.y) for p in found.points if p.id == name) for name in ids(found)]
    assert starts == sorted(starts)
    assert ids(found) == list(range(1, len(ids(found)) + 1))
    assert [(p.time, p.id) for p in found.points] == sorted((p.time, p.id) for p in found.points)


def ids(part):
    return sorted({p.id for p in part.points})


def paths(part):
    return sorted(sorted((p.time, p.x, p.y) for p in part.points if p.id == name) for name in ids(part))


CARS = Tracks(
    "car",
    tuple(
        Point(time / 10, 0.5, id=name, time=float(time))
        for name, times in ((4, (1, 2, 7)), (2, (3,)), (9, (0, 7)))
        for time in times
    ),
)


def test_first_and_last_keep_the_ends_of_each_object():
    kept = [(p.id, p.time) for p in first_and_last(CARS).points]
    assert kept == [(4, 1.0), (4, 7.0), (2, 3.0), (9, 0.0), (9, 7.0)]


def test_first_and_last_of_an_object_that_leaves_are_where_it_was_seen():
    part = first_and_last(CARS)
    assert format_tracks(part) == (
        '<tracks coords="0.0 1 000 500;1.0 2 100 500;3.0 3 300 500;7.0 1 700 500 2 700 500">car</tracks>'
    )


def test_one_object_is_taken_out_under_its_id():
    assert [(p.id, p.time) for p in of_object(CARS, 4).points] == [(4, 1.0), (4, 2.0), (4, 7.0)]
    with pytest.raises(DataError, match=re.escape("have no object 3; its ids are 2, 4, 9")):
        of_object(CARS, 3)
    with pytest.raises(DataError, match="its ids are none"):
        of_object(Tracks("x"), 1)


def test_a_point_to_track_from_is_the_first_unless_another_is_named():
    assert visible_point(CARS, 4) == Points("car", (Point(0.1, 0.5, id=4, time=1.0),))
    assert visible_point(CARS, 4, 2).points[0].time == 7.0
    backwards = dataclasses.replace(CARS, points=CARS.points[::-1], frame="percent")
    assert visible_point(backwards, 4) == Points("car", (Point(0.1, 0.5, id=4, time=1.0),), frame="percent")


@pytest.mark.parametrize("number", [3, -1])
def test_a_point_that_is_not_there_is_refused(number):
    with pytest.raises(DataError, match=f"visible 3 times, so its points are 0 to 2; got {number}"):
        visible_point(CARS, 4, number)
