import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Point, Tracks
from hedgerow.errors import DataError
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
