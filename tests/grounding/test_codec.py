import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Point, Points, Tracks
from hedgerow.errors import DataError
from hedgerow.grounding import format_points, format_tracks, parse
from hedgerow.grounding.reader import LISTED

UNIT = st.floats(0, 1)
TIME = st.floats(0, 9000)
PLACES = st.one_of(
    st.builds(Point, UNIT, UNIT, time=TIME), st.builds(Point, UNIT, UNIT, image=st.none() | st.integers(1, 9))
)
LABELS = st.text(max_size=8) | st.text(alphabet="<&>;/\"'=apoints lm", max_size=20)
POINTS = st.builds(Points, LABELS, st.lists(PLACES, max_size=6).map(tuple))
SEEN = st.dictionaries(st.tuples(st.integers(0, 50), st.integers(1, 4)), st.tuples(UNIT, UNIT), max_size=8)
TRACKS = st.builds(
    lambda label, seen: Tracks(
        label, tuple(Point(x, y, id=name, time=time / 10 + 0.01) for (time, name), (x, y) in seen.items())
    ),
    LABELS,
    SEEN,
)


def text_of(part):
    return format_points(part) if isinstance(part, Points) else format_tracks(part)


def test_points_are_written_as_molmo2_writes_them():
    part = Points(
        "red ball", (Point(0.7, 1.0, time=3.5), Point(0.0124, 0.63, time=3.5), Point(0.5, 0.5, time=0.96))
    )
    expected = '<points coords="1.0 1 500 500;3.5 2 012 630 3 700 1000">red ball</points>'
    assert format_points(part) == expected


def test_points_on_images_name_the_image():
    part = Points("cat", (Point(0.5, 0.5, image=2), Point(0.1, 0.1)))
    assert format_points(part) == '<points coords="1 1 100 100;2 2 500 500">cat</points>'


def test_tracks_leave_out_who_is_away():
    part = Tracks(
        "car", (Point(0.9, 0.9, id=8, time=0), Point(0.1, 0.1, id=4, time=0), Point(0.2, 0.2, id=8, time=0.5))
    )
    assert format_tracks(part) == '<tracks coords="0.0 1 100 100 2 900 900;0.5 2 200 200">car</tracks>'


def test_nothing_is_written_as_a_sentence():
    assert (format_points(Points("x")), format_tracks(Tracks("x"))) == (
        "There are none.",
        "No tracks available.",
    )


@pytest.mark.parametrize("label", ["R&D", "a > b", 'say "hi"', "caf\u00e9", "x;y", "fish & chips"])
def test_common_labels_stand_as_they_are(label):
    assert format_points(Points(label, (Point(0, 0),))).endswith(f">{label}</points>")


@settings(max_examples=150, deadline=None)
@given(POINTS)
def test_law_10_points_come_back_at_thousandths_and_tenths(part):
    # slow and obvious: round everything, sort, number
    rows = sorted(
        (
            0 if p.time is not None else p.image or 1,
            round(p.time or 0, 1),
            round(p.x * 1000),
            round(p.y * 1000),
        )
        for p in part.points
    )
    expected = tuple(
        Point(x / 1000, y / 1000, id=number, time=None if image else time, image=image or None)
        for number, (image, time, x, y) in enumerate(rows, 1)
    )
    (found,) = parse(text_of(part), strict=True).parts
    assert found == Points(part.label if part.points else "", expected)


@settings(max_examples=150, deadline=None)
@given(TRACKS)
def test_law_10_tracks_come_back_with_who_is_who(part):
    def paths(points):
        names = {p.id for p in points}
        return sorted(
            sorted((round(p.time, 1), round(p.x * 1000), round(p.y * 1000)) for p in points if p.id == name)
            for name in names
        )

    (found,) = parse(text_of(part), strict=True).parts
    assert isinstance(found, Tracks)
    assert found.label == (part.label if part.points else "")
    assert paths(found.points) == paths(part.points)
    assert text_of(found) == text_of(part)


@settings(max_examples=50, deadline=None)
@given(st.lists(POINTS | TRACKS, max_size=3), st.sampled_from(["", " and ", "Counting the "]))
def test_several_parts_in_one_text_come_back_in_order(parts, between):
    found = parse(between.join(text_of(part) for part in parts), strict=True)
    assert [type(part) for part in found.parts] == [type(part) for part in parts]
    assert [text_of(part) for part in found.parts] == [text_of(part) for part in parts]


@pytest.mark.parametrize(
    "label",
    [
        '<point x="1.0" y="2.0">',
        '[{"point_2d": [1, 2]}]',
        "</points>",
        "<points",
        "a < b",
        "&lt;",
        "&amp;lt;",
        "&&amp;<",
        "&",
        "",
        " ",
        "a\n",
        "There are none.",
    ],
)
def test_law_10_any_label_comes_back(label):
    text = format_points(Points(label, (Point(0, 0),)))
    assert parse(text + text, strict=True).parts == (Points(label, (Point(0, 0, id=1, image=1),)),) * 2


@pytest.mark.parametrize(
    "text", ["{} 1 100 200", "{}.0 1 100 200", "1.{} 1 100 200", "1 {} 100 200", "1 1 100 {}"]
)
def test_law_10_numbers_without_end_are_no_numbers(text):
    parsed = parse(f'<points coords="{text.format("9" * 5000)}">x</points>')
    assert parsed.parts == (Points("x"),)
    assert parsed.problems


def complete(text):
    """Return (end in the text, time or image, id, x, y) of each point of a well-formed text, by splitting."""
    start = text.index('"') + 1
    found, at = [], start
    for group in text[start : text.index('"', start)].split(";"):
        head, *words = group.split(" ")
        at += len(head)
        for name, x, y in zip(words[0::3], words[1::3], words[2::3], strict=True):
            at += len(f" {name} {x} {y}")
            found.append((at, float(head), int(name), int(x), int(y)))
        at += 1
    return found


@settings(max_examples=40, deadline=None)
@given((POINTS | TRACKS).filter(lambda part: part.points), st.data())
def test_law_10_a_truncated_text_keeps_every_complete_point(part, data):
    text = text_of(part)
    cut = data.draw(st.integers(len("<points "), len(text)))
    points = [p for found in parse(text[:cut]).parts for p in found.points]
    told = [(p.image or p.time, p.id, round(p.x * 1000), round(p.y * 1000)) for p in points]
    told = [(float(head), *rest) for head, *rest in told]
    expected = [point for end, *point in complete(text) if end <= cut]
    assert told[: len(expected)] == [tuple(point) for point in expected]
    # "1000" cut after three digits reads as a complete 100: the one thing nobody can tell apart
    assert len(told) == len(expected) or (
        text[cut - 3 : cut + 1] == "1000" and len(told) == len(expected) + 1
    )


ANYTHING = st.text(alphabet=st.characters(codec=None, exclude_categories=()), max_size=60)
PIECES = st.sampled_from(
    ['<points coords="', "<tracks ", "<points/>", "</points>", "</tracks>", 'alt="', '"', ">", "/>", "<", ";",
     "\t", ":", ",", " ", "1.5", "1 ", "0", "012 ", "1000", "1001", "9" * 5000, "There are none.", "\u0663",
     "\ud800", "\n"]
)  # fmt: skip


def assert_sound(parsed):
    for part in parsed.parts:
        for point in part.points:
            assert 0 <= point.x <= 1
            assert 0 <= point.y <= 1
    assert isinstance(parsed.rest, str)


@settings(max_examples=150, deadline=None)
@given(ANYTHING | st.lists(PIECES | st.text(max_size=3), max_size=14).map("".join))
def test_law_10_no_string_makes_the_parser_raise(text):
    parsed = parse(text)
    assert_sound(parsed)
    if parsed.problems:
        with pytest.raises(DataError):
            parse(text, strict=True)
    else:
        assert parse(text, strict=True) == parsed


@settings(max_examples=150, deadline=None)
@given(
    POINTS | TRACKS, st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5), PIECES), min_size=1, max_size=4)
)
def test_law_10_no_damage_makes_the_parser_raise(part, edits):
    text = text_of(part)
    for place, gone, new in edits:
        at = round(place * len(text))
        text = text[:at] + new + text[at + gone :]
    assert_sound(parse(text))


def test_damage_in_one_group_leaves_the_others():
    text = '<points coords="1.0 1 100 200;1.5 2 1xx 400 3 500 600;2.0 4 700 800">ball</points>'
    parsed = parse(text)
    assert [p.id for p in parsed.parts[0].points] == [1, 3, 4]
    at = text.index("2 1xx")
    assert [str(problem) for problem in parsed.problems] == [
        f"character {at}: expected an id, then x and y in three digits, found '2 1xx 400 3 500 '",
    ]


@pytest.mark.parametrize("separator", [";", "\t", ":", ",", " ; ", ";;"])
def test_groups_are_parted_by_any_known_separator(separator):
    text = f'<points coords="1.0 1 100 200{separator}2.0 2 300 400">ball</points>'
    points = parse(text, strict=True).parts[0].points
    assert [(p.time, p.id) for p in points] == [(1.0, 1), (2.0, 2)]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('<points alt="a > b" coords="1 1 100 200">ball</points>', "ball"),
        ('<points coords="1 1 100 200" alt="a ball"/>', "a ball"),
        ('<points coords="1 1 100 200" />', ""),
        ('<points\ncoords="1 1 100 200" >a\nball</points>', "a\nball"),
    ],
)
def test_other_writers_of_tags_are_understood(text, label):
    (part,) = parse(text, strict=True).parts
    assert (part.label, len(part.points)) == (label, 1)


TELL = "points by time or image, then x, then y, their ids upward"
BY_TIME = "points by time, then id"


@pytest.mark.parametrize(
    ("text", "ids", "kind", "expected"),
    [
        ('<points coords="1 1 100 200 2 1001 5000 3 200 100">x</points>', [1, 3], "out_of_range", "x and y"),
        ('<points coords="1 1 100 200', [1], "cut_off", 'a closing "'),
        ('<points coords="1 1 100 200 2 300 40', [1], "cut_off", "an id, then x and y in three digits"),
        ('<points coords="1 1 100 200;2', [1], "cut_off", "an id, x and y"),
        ('<points coords="1 1 100 200>x</points>', [1], "malformed", 'a closing "'),
        ('<points coords="1 1 100 200"', [1], "cut_off", ">"),
        ('<points coords="1 1 100 200">x', [1], "cut_off", "</points>"),
        ('<points coords="1 1 100 200">x</poi', [1], "cut_off", "</points>"),
        ('<points coords="1 1 100 200">x</pot', [1], "malformed", "</points>"),
        ('<points coords="1 1 100 200">x</tracks>', [1], "malformed", "</points>"),
        ('<points coords="1 1 100 200" 7>x</points>', [1], "malformed", 'coords="..." or >'),
        ('<points coords="0 1 100 200">x</points>', [], "malformed", "a time or the number of an image"),
        ('<points coords="x 1 100 200;1 2 100 200">x</points>', [2], "malformed", "a time or the number"),
        ('<points coords="">x</points>', [], "malformed", "a time or the number of an image"),
        ('<points coords="1.0">x</points>', [], "malformed", "an id, x and y"),
        ('<points coords="1 0 100 200">x</points>', [], "malformed", "an id, then x and y in three digits"),
        ('<points coords="1 1 10 200">x</points>', [1], "unpadded", "x and y in three digits"),
        ('<points coords="1 1 100 200 2 300 4">x</points>', [1, 2], "unpadded", "x and y in three digits"),
        ('<points coords="1.25 1 100 200">x</points>', [1], "malformed", "seconds with one decimal"),
        ('<tracks coords="3 1 100 200">x</tracks>', [1], "malformed", "seconds with one decimal"),
        ('<tracks coords="3.0 1 100 200 1 300 400">x</tracks>', [1], "duplicate_id", "object 1 once"),
        ('<points coords="1 1 100 200 1 300 400">x</points>', [1, 1], "duplicate_id", "id 1 once"),
        ('<points coords="2 1 100 200;1 2 300 400">x</points>', [1, 2], "bad_order", TELL),
        ('<points coords="1 1 300 200 2 100 400">x</points>', [1, 2], "bad_order", TELL),
        ('<points coords="1 2 100 200 1 300 400">x</points>', [2, 1], "bad_order", TELL),
        ('<tracks coords="3.0 2 100 200 1 300 400">x</tracks>', [2, 1], "bad_order", BY_TIME),
        ('<tracks coords="3.0 1 100 200;2.5 1 300 400">x</tracks>', [1, 1], "bad_order", BY_TIME),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_the_rest_kept(text, ids, kind, expected):
    parsed = parse(text)
    assert [p.id for part in parsed.parts for p in part.points] == ids
    assert [p for p in parsed.problems if p.kind == kind and p.expected.startswith(expected)], parsed.problems
    with pytest.raises(DataError, match=re.escape("expected")) as error:
        parse(text, strict=True)
    assert str(error.value).startswith(f"character {parsed.problems[0].at}: ")


@pytest.mark.parametrize(
    ("coords", "points"),
    [
        ("1 1 50 900 2 100 200", [(1, 50, 900), (2, 100, 200)]),
        ("1 1 5 6 2 7 8 3 9 9", [(1, 5, 6), (2, 7, 8), (3, 9, 9)]),
        ("1 1 2 500 600", [(2, 500, 600)]),  # a doubled id hides no whole point
        ("1 400 3 500 600", [(3, 500, 600)]),
        ("1 1 50 9x 2 100 200", [(2, 100, 200)]),
        ("1 1 20000 5", []),
    ],
)
def test_coordinates_with_too_few_digits_are_read_where_a_point_is_due(coords, points):
    (part,) = parse(f'<points coords="{coords}">x</points>').parts
    assert [(p.id, round(1000 * p.x), round(1000 * p.y)) for p in part.points] == points


def test_a_number_that_may_go_on_after_the_end_is_no_coordinate():
    assert not parse('<points coords="1 1 500 90').parts[0].points
    assert len(parse('<points coords="1 1 500 90 ').parts[0].points) == 1


def test_a_thousand_problems_are_listed_and_no_more():
    text = f'<points coords="1 {"1 100 200 " * 3000}">x</points>'
    parsed = parse(text)
    assert (len(parsed.problems), len(parsed.parts[0].points)) == (LISTED, 3000)


def test_every_point_and_part_has_its_place():
    text = 'A <points coords="1 1 100 200 2 300 400">x</points> and There are none.'
    parsed = parse(text)
    assert [text[at:].split('"')[0] for at in parsed.places[0]] == ["1 100 200 2 300 400", "2 300 400"]
    assert [text[start:end] for start, end in parsed.spans] == [text[2 : text.index(" and")]]
    assert parsed.places[1] == ()


def test_a_tag_without_coordinates_is_no_part():
    parsed = parse("the <points of interest> are few")
    assert (parsed.parts, len(parsed.problems)) == ((), 1)
    assert parsed.rest == "the <points of interest> are few"


def test_an_unclosed_tag_does_not_swallow_the_next():
    text = '<points coords="1 1 100 200"> ball and <tracks coords="1.0 1 300 400">car</tracks>'
    first, second = parse(text).parts
    assert (first.points[0].x, first.label, second.label) == (0.1, " ball and ", "car")


def test_of_two_points_of_an_object_at_one_time_the_first_is_kept():
    (part,) = parse('<tracks coords="3.0 1 100 200;3.0 1 300 400">x</tracks>').parts
    assert [p.x for p in part.points] == [0.1]


def test_the_text_around_the_tags_is_given_back():
    parsed = parse('Counting the <points coords="1 1 100 200">9 balls</points> shows a total of 1.')
    assert parsed.rest == "Counting the  shows a total of 1."


def test_plain_text_holds_nothing():
    assert parse("A ball rolls.") == ((), (), "A ball rolls.", (), ())


def test_a_label_that_cannot_be_stored_is_mended():
    (part,) = parse('<points coords="1 1 100 200">a\ud800</points>').parts
    assert part.label == "a?"


def test_boxes_and_weights_are_not_told():
    plain = Points("ball", (Point(0.5, 0.5),))
    rich = dataclasses.replace(plain, points=(Point(0.5, 0.5, box=(0.4, 0.4, 0.6, 0.6)),), weight=0.5)
    assert format_points(rich) == format_points(plain)


def test_pixels_must_become_fractions_before_they_are_written():
    with pytest.raises(DataError, match="unknown size"):
        format_points(Points("ball", (Point(5, 5),), frame="pixels"))
