import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Point, Points, Tracks
from hedgerow.errors import DataError
from hedgerow.grounding import to_fractions
from hedgerow.grounding.points import canonical, head, thousandths


@pytest.mark.parametrize(
    ("frame", "x", "y"),
    [("pixels", 160, 270), ("percent", 25, 75), ("thousandths", 250, 750), ("fraction", 0.25, 0.75)],
)
def test_every_unit_becomes_fractions(frame, x, y):
    # 160 of 640 pixels is 0.25; 270 of 360 is 0.75
    part = to_fractions(Points("ball", (Point(x, y),), frame=frame), size=(640, 360))
    assert (part.points[0].x, part.points[0].y, part.frame) == (0.25, 0.75, "fraction")


def test_boxes_are_converted_with_their_points():
    point = Point(64, 36, box=(32, 18, 96, 54))
    part = to_fractions(Points("ball", (point,), frame="pixels"), size=(640, 360))
    assert part.points[0].box == (32 / 640, 18 / 360, 96 / 640, 54 / 360)


def test_each_image_has_its_own_size():
    part = Points("cat", (Point(50, 50, image=1), Point(50, 50, image=2)), frame="pixels")
    first, second = to_fractions(part, size=[(100, 200), (200, 100)]).points
    assert (first.x, first.y, second.x, second.y) == (0.5, 0.25, 0.25, 0.5)


def test_tracks_stay_tracks():
    part = Tracks("car", (Point(50, 50, id=1, time=0.5),), frame="percent", weight=0.5)
    assert to_fractions(part) == Tracks("car", (Point(0.5, 0.5, id=1, time=0.5),), weight=0.5)


@pytest.mark.parametrize(
    ("part", "size", "words"),
    [
        (Points("ball", (Point(0.1, 0.1), Point(1.2, 0.5))), None, ["'ball'", "point 2 of 2", "'fraction'"]),
        (Points("ball", (Point(0.5, -0.1),)), None, ["lies outside", "correct it"]),
        (Points("ball", (Point(641, 5),), frame="pixels"), (640, 360), ["x 0 to 640", "y 0 to 360"]),
        (Points("ball", (Point(5, 5),), frame="pixels"), None, ["unknown size", "size=(width, height)"]),
        (Points("ball", (Point(5, 5),), frame="pixels"), [], ["unknown size"]),
        (Points("ball", (Point(5, 5, image=3),), frame="pixels"), [(9, 9)] * 2, ["image 3", "2 are shown"]),
        (Points("ball", (Point(5, 5),), frame="pixels"), [(9, 9)] * 2, ["names no image"]),
        (Points("ball", (Point(0.5, 0.5, box=(0.6, 0, 0.4, 1)),)), None, ["corners", "left, top"]),
    ],
)
def test_what_lies_outside_is_refused_by_name(part, size, words):
    with pytest.raises(DataError) as error:
        to_fractions(part, size=size)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_points_are_sorted_after_rounding_and_numbered():
    # 0.1004 and 0.0996 both round to 100 thousandths, so y decides, although 0.1004 > 0.0996
    part = canonical(Points("ball", (Point(0.1004, 0.2), Point(0.0996, 0.3), Point(0.9, 0.9))))
    assert [(p.x, p.y, p.id) for p in part.points] == [(0.1, 0.2, 1), (0.1, 0.3, 2), (0.9, 0.9, 3)]


def test_times_come_before_places():
    part = canonical(
        Points("ball", (Point(0.1, 0.1, time=2.04), Point(0.9, 0.9, time=1.96), Point(0.5, 0.5, time=1)))
    )
    # 2.04 and 1.96 both print 2.0, so x decides between them
    assert [(p.time, p.x) for p in part.points] == [(1.0, 0.5), (2.0, 0.1), (2.0, 0.9)]


def test_a_point_without_a_place_stands_on_the_first_image():
    assert canonical(Points("ball", (Point(0.5, 0.5),))).points[0].image == 1


def test_an_instance_that_stands_twice_is_refused():
    with pytest.raises(DataError, match="id 4 stands 2 times"):
        canonical(Points("ball", (Point(0.1, 0.1, id=4), Point(0.2, 0.2, id=4))))


def test_a_time_and_an_image_exclude_each_other():
    with pytest.raises(DataError, match="on image 2; keep one"):
        canonical(Points("ball", (Point(0.1, 0.1, time=1.0, image=2),)))


def test_rounding_keeps_every_thousandth():
    assert [thousandths(n / 1000) for n in range(1001)] == list(range(1001))


def test_a_head_with_a_point_is_a_time():
    assert [head(Point(0, 0, time=3)), head(Point(0, 0, image=3)), head(Point(0, 0))] == ["3.0", "3", "1"]


UNIT = st.floats(0, 1)
POINTS = st.lists(st.builds(Point, UNIT, UNIT, time=st.floats(0, 9)), max_size=5)


@settings(max_examples=50, deadline=None)
@given(POINTS, st.randoms(use_true_random=False))
def test_the_order_given_does_not_matter(points, random):
    shuffled = random.sample(points, len(points))
    part = canonical(Points("ball", tuple(points)))
    assert canonical(Points("ball", tuple(shuffled))) == part
    assert canonical(part) == part
