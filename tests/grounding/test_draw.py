"""What is drawn stands where the points are, in the colours of their ids; trails only where objects were."""

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageColor

from hedgerow.content import Point, Points, Tracks
from hedgerow.errors import DataError
from hedgerow.grounding import parse
from hedgerow.grounding.draw import colour_of, contact_sheet, draw, draw_frames


def rgb(id):
    return ImageColor.getrgb(colour_of(Point(0, 0, id=id)))


def near(picture, x, y, colour, *, reach=4, within=60):
    """How many pixels about a place (in fractions) have nearly a colour."""
    pixels = np.asarray(picture).astype(int)
    row, column = round(y * picture.height), round(x * picture.width)
    part = pixels[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
    return int((np.abs(part - colour).max(-1) <= within).sum())


def test_the_picture_given_stays_and_the_copy_is_marked():
    picture = Image.new("L", (200, 100), 128)
    marked = draw(picture, true=[Point(0.25, 0.5, id=1)])
    assert (marked.mode, marked.size) == ("RGB", (200, 100))
    assert picture.getextrema() == (128, 128)
    assert draw(picture).getextrema() == ((128, 128),) * 3


def test_truth_is_a_ring_and_prediction_a_cross():
    point = Point(0.5, 0.5, id=2)
    centre = (100, 50)
    ring = draw(Image.new("RGB", (200, 100)), true=[point])
    cross = draw(Image.new("RGB", (200, 100)), predicted=[point])
    # the radius is 4 pixels here
    assert ring.getpixel(centre) == (0, 0, 0)
    assert ring.getpixel((96, 50)) == rgb(2)
    assert cross.getpixel(centre) == rgb(2)


def test_a_box_is_drawn_where_it_is_known():
    point = Point(0.5, 0.5, id=1, box=(0.25, 0.2, 0.75, 0.8))
    marked = draw(Image.new("RGB", (200, 100)), true=[point])
    assert marked.getpixel((50, 50)) == rgb(1)


@pytest.mark.parametrize("ground", [*(rgb(id) for id in range(1, 11)), (0, 0, 0), (128,) * 3, (255,) * 3])
@pytest.mark.parametrize("kind", ["true", "predicted"])
def test_marks_stand_out_against_any_ground(ground, kind):
    for id in range(1, 11):
        point = Point(0.5, 0.5, id=id, box=(0.3, 0.3, 0.7, 0.7) if kind == "true" else None)
        marked = np.asarray(draw(Image.new("RGB", (120, 120), ground), **{kind: [point]})).astype(int)
        assert np.abs(marked - ground).sum(-1).max() > 200


def test_marks_grow_with_the_picture():
    def ring(side):
        drawn = draw(Image.new("RGB", (side, side)), true=[Point(0.5, 0.5, id=1)])
        columns = np.flatnonzero((np.asarray(drawn) == rgb(1)).all(-1).any(0))
        rows = np.asarray(drawn)[side // 2].sum(-1) / sum(rgb(1))
        return np.ptp(columns) + 1, rows.sum() / 2  # in the middle the ring is crossed twice

    (small, thin), (large, thick) = ring(400), ring(1600)
    assert small == pytest.approx(16, abs=1)
    assert thin == pytest.approx(2, abs=0.5)
    assert large == pytest.approx(4 * small, abs=2)
    assert thick == pytest.approx(4 * thin, abs=2)


def test_a_colour_belongs_to_an_id():
    assert colour_of(Point(0, 0, id=1)) == colour_of(Point(1, 1, id=1)) != colour_of(Point(0, 0, id=2))
    assert len({colour_of(Point(0, 0, id=n)) for n in range(1, 11)}) == 10


TIMES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
BLACK = np.zeros((6, 200, 300, 3), np.uint8)
# Object 1 goes right along y = 0.3 and is away at 1.0 s; object 2 goes right along y = 0.7.
AWAY = Tracks(
    "ball",
    (
        *(Point(0.1 + 0.15 * n, 0.3, id=1, time=time) for n, time in enumerate(TIMES) if time != 1.0),
        *(Point(0.1 + 0.15 * n, 0.7, id=2, time=time) for n, time in enumerate(TIMES)),
    ),
)


def test_a_track_trails_where_its_object_was_and_not_across_an_absence():
    *_, last = draw_frames(BLACK, TIMES, true=[AWAY], trail=10)
    halfway = [0.175, 0.325, 0.475, 0.625, 0.775]  # between two frames each
    assert [near(last, x, 0.3, rgb(1)) > 5 for x in halfway] == [True, False, False, True, True]
    assert [near(last, x, 0.7, rgb(2)) > 5 for x in halfway] == [True] * 5
    assert not any(near(last, x, 0.3, rgb(2)) or near(last, x, 0.7, rgb(1)) for x in halfway)


def test_a_frame_without_the_only_object_is_an_absence():
    alone = dataclasses.replace(AWAY, points=tuple(point for point in AWAY.points if point.id == 1))
    *_, last = draw_frames(BLACK, TIMES, true=[alone], trail=10)
    assert not near(last, 0.4, 0.3, rgb(1))
    *_, unseen = draw_frames(BLACK[[0, 1, 3, 4, 5]], (0.0, 0.5, 1.5, 2.0, 2.5), true=[alone], trail=10)
    assert near(unseen, 0.4, 0.3, rgb(1))  # nobody looked at 1.0 s


def test_a_trail_is_the_past_alone_and_fades():
    first, _, third, *_, last = draw_frames(BLACK, TIMES, true=[AWAY], trail=10)
    assert not near(first, 0.175, 0.7, rgb(2))
    assert near(third, 0.325, 0.7, rgb(2))
    assert not near(third, 0.475, 0.7, rgb(2))
    shown = np.asarray(draw_frames(BLACK, TIMES, true=[AWAY], trail=2.5)[-1])[140, :, 1]
    brightness = [int(shown[round(300 * x)]) for x in (0.175, 0.325, 0.475, 0.625)]
    assert brightness == sorted(brightness)
    assert brightness[0] < brightness[-1] / 2
    assert last.getpixel((187, 140))[1] > brightness[-1]  # a longer trail fades later


def test_a_trail_is_as_long_as_asked():
    def left(trail):
        shown = np.asarray(draw_frames(BLACK, TIMES, true=[AWAY], trail=trail)[-1])[140]
        return np.flatnonzero(shown.any(-1)).min() / 300

    assert left(0) > 0.8
    assert left(1) == pytest.approx(0.55, abs=0.015)  # 0.15 each half second, from 0.85
    assert left(0.75) == pytest.approx(0.625, abs=0.015)  # it ends between two frames


def test_an_object_that_is_away_is_not_marked_but_its_trail_stays():
    drawn = draw_frames(BLACK, TIMES, true=[AWAY])
    assert not near(drawn[2], 0.4, 0.3, rgb(1), reach=8)
    assert near(drawn[2], 0.175, 0.3, rgb(1), within=160)


def test_who_is_seen_once_between_absences_leaves_a_dot():
    seen = dataclasses.replace(AWAY, points=(*AWAY.points[5:], Point(0.5, 0.3, id=1, time=1.0)))
    drawn = draw_frames(BLACK, TIMES, true=[seen])[3]
    assert near(drawn, 0.5, 0.3, rgb(1), within=120)


def test_times_agree_as_they_are_printed():
    part = Points("ball", (Point(0.5, 0.5, id=3, time=0.333),))
    (drawn,) = draw_frames(BLACK[:1], [1 / 3 + 0.01], true=[part])
    assert near(drawn, 0.5, 0.5, rgb(3), reach=6)


def test_points_leave_no_trail_and_stay_on_their_frame():
    part = Points("ball", (Point(0.2, 0.5, id=1, time=0.0), Point(0.8, 0.5, id=1, time=0.5)))
    first, second = draw_frames(BLACK[:2], TIMES[:2], true=[part])
    assert near(first, 0.2, 0.5, rgb(1), reach=6)
    assert not near(second, 0.2, 0.5, rgb(1), reach=6, within=200)
    assert not near(second, 0.5, 0.5, rgb(1), reach=6)


def test_a_reply_is_drawn_as_crosses_and_what_stands_on_no_frame_is_left_out():
    reply = parse('<tracks coords="0.0 1 500 500;0.5 1 600 500;9.0 1 700 500">ball</tracks> and then')
    drawn = draw_frames([Image.fromarray(frame) for frame in BLACK], TIMES, predicted=reply.parts)
    assert drawn[0].getpixel((150, 100)) == rgb(1)
    assert near(drawn[1], 0.55, 0.5, rgb(1))
    late = parse('<points coords="9.0 1 500 500">ball</points>').parts
    assert np.array_equal(draw_frames(BLACK[:1], [0.0], predicted=late)[0], BLACK[0])


@pytest.mark.parametrize("box", [None, (0.0, 0.0, 0.3, 0.2), (0.7, 0.85, 1.0, 1.0)])
@pytest.mark.parametrize("place", [(0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (1.0, 0.0)])
def test_the_name_beside_a_mark_is_whole(place, box):
    """Its plate of the id's colour with letters on it stands within the picture."""
    part = Points("ball", (Point(*place, id=1, time=0.0, box=box),))
    bare = dataclasses.replace(part, points=(dataclasses.replace(part.points[0], id=None),))
    named, plain = (np.asarray(draw_frames(BLACK[:1], [0.0], true=[one])[0]) for one in (part, bare))
    rows, columns = np.nonzero((named != plain).any(-1))
    assert 10 <= np.ptp(rows) <= 16
    assert 5 <= np.ptp(columns) <= 12
    plate = named[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (plate == rgb(1)).all(-1).sum() > 20
    assert (plate == 255).all(-1).sum() > 30  # its border, and the letters


def test_names_tell_labels_where_there_are_several_and_keep_apart():
    crowd = [
        Points(label, (Point(0.5, 0.5, id=id, time=0.0),)) for id, label in enumerate(("cup", "saucer"), 1)
    ]
    alone, both = (draw_frames(BLACK[:1], [0.0], true=parts)[0] for parts in (crowd[:1], crowd))
    plates = [
        sum((np.asarray(picture) == rgb(id)).all(-1).sum() for id in (1, 2)) for picture in (alone, both)
    ]
    assert plates[1] > 4 * plates[0]  # words, and neither over the other
    for id in (1, 2):
        assert (np.asarray(both) == rgb(id)).all(-1).sum() > 100


def test_frames_and_times_go_together():
    with pytest.raises(DataError, match="6 frames, 5 times; give one time in seconds for each"):
        draw_frames(BLACK, TIMES[:5], true=[AWAY])


def test_true_points_that_stand_on_no_frame_are_an_error():
    late = Points("ball", (Point(0.5, 0.5, time=9.0),))
    with pytest.raises(
        DataError, match=r"'ball': none of 1 points is at .* \(0.0, 0.5, .*; give the frames' times"
    ):
        draw_frames(BLACK, TIMES, true=[late])
    assert len(draw_frames(BLACK, TIMES, true=[Points("ball")])) == 6


@pytest.mark.parametrize("kind", ["true", "predicted"])
def test_only_fractions_are_drawn(kind):
    part = Points("ball", (Point(30, 40, time=0.0),), frame="pixels")
    with pytest.raises(DataError, match=r"points 'ball' are in pixels, .*; give to_fractions\(part, size="):
        draw_frames(BLACK, TIMES, **{kind: [part]})


def test_a_sheet_holds_every_picture_in_its_place_with_a_caption():
    pictures = [Image.new("RGB", (40, 20), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    sheet = contact_sheet(pictures, ["one", "two", "a caption of several words"], columns=2, width=80)
    places = {sheet.getpixel((x, y)): (x, y) for x in range(sheet.width) for y in range(sheet.height)}
    red, green, blue = (places[picture.getpixel((0, 0))] for picture in pictures)  # lower right corners
    assert red[1] == green[1] < blue[1]
    assert red[0] == blue[0] == green[0] - 88
    assert red == (87, 47)  # 80 x 40 pixels, 8 from the edges
    below = sheet.crop((8, 48, 88, blue[1] - 40))
    assert below.getextrema()[0][0] < 128  # black letters
    alone = contact_sheet(pictures[:1], ["one"], columns=4, width=80)
    assert alone.width == 96  # no place for what is not there


def test_a_long_caption_takes_more_lines_and_none_is_lost():
    picture = Image.new("RGB", (100, 50))
    short, long = (
        contact_sheet([picture], [text], columns=1, width=100) for text in ("red star", "red star " * 9)
    )
    assert long.height >= short.height + 3 * 16
    assert short.getpixel((107, 70)) == long.getpixel((107, 70)) == (255, 255, 255)


@pytest.mark.parametrize("captions", [[], ["a", "b"]])
def test_a_sheet_needs_a_caption_for_each_picture(captions):
    with pytest.raises(ValueError, match="give one caption for each"):
        contact_sheet([Image.new("RGB", (9, 9))] if captions else [], captions, columns=1, width=9)


def test_an_array_is_drawn_on_as_its_picture_is():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    before = pixels.copy()
    drawn = draw(pixels, true=[Point(0.5, 0.5)])
    assert drawn.tobytes() == draw(Image.fromarray(pixels), true=[Point(0.5, 0.5)]).tobytes()
    assert drawn.tobytes() != before.tobytes()
    assert (pixels == before).all()
