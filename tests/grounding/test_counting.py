import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Point, Points, Text
from hedgerow.encode import written
from hedgerow.errors import DataError
from hedgerow.grounding import count_of, counted, parse

STYLES = ["point_then_count", "count_then_point", "count"]
BALLS = Points("ball", (Point(0.1, 0.2), Point(0.3, 0.4), Point(0.5, 0.6)))


def text_of(parts):
    return "".join(written(part) for part in parts)


def test_sentences_are_those_of_molmo2():
    tag = '<points coords="1 1 100 200 2 300 400 3 500 600">ball</points>'
    assert [text_of(counted(BALLS, style)) for style in STYLES] == [
        f"Counting the {tag} shows a total of 3.",
        f"There are 3 {tag}.",
        "3",
    ]


@pytest.mark.parametrize("style", STYLES)
def test_nothing_is_said_to_be_none(style):
    assert counted(Points("ball"), style) == (Text("There are none."),)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.sampled_from(STYLES), st.sampled_from(["ball", "3 of 7", "two cats", "none"]))
def test_what_is_written_is_read_whatever_the_label(number, style, label):
    part = Points(label, tuple(Point(n / 50, 0.5) for n in range(number)))
    text = text_of(counted(part, style))
    assert count_of(text) == number
    found = [p for p in parse(text, strict=True).parts if p.points]
    assert sum(len(p.points) for p in found) == (0 if style == "count" else number)


def test_points_that_cannot_be_written_are_not_counted_either():
    with pytest.raises(DataError, match="stands 2 times"):
        counted(Points("ball", (Point(0.1, 0.2, id=1), Point(0.3, 0.4, id=1))), "count")
    with pytest.raises(DataError, match="outside"):
        counted(Points("ball", (Point(10, 20),)), "count_then_point")
    assert counted(Points("ball", (Point(10, 20),), frame="pixels"), "count") == (Text("1"),)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("7", 7),
        ("There are seven cats.", 7),
        ("There are no cats.", 0),
        ("There are none.", 0),
        ("No tracks available.", 0),
        ("A total of 3 of the 5.", 3),
        ("Of 9, there are 4.", 4),
        ("There are 9 shown, in all a total of 3.", 3),
        ("Three or 4.", None),
        ("Many.", None),
        ('<points coords="1 1 100 200 2 300 400">9 balls</points>', 2),
        ('<tracks coords="0.0 1 100 200;0.5 1 300 400 2 500 600">cars</tracks>', 2),
        ('<points x1="10.0" y1="20.0" x2="30.0" y2="40.0">cats</points>', 2),
        ('<points x1="284" y1="504" x2="300" y2="400">cats</points>', 2),
        ('[{"point_2d": [1, 2], "label": "a"}, {"bbox_2d": [10, 20, 1900, 30], "label": "b"}]', 2),
        ('[{"point_2d": [1, 2], "label": "a"}, {"point_2d": [3, 4', 1),
    ],
)
def test_counts_are_read_from_every_form(text, count):
    assert count_of(text) == count
