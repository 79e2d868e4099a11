import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Point, Points
from hedgerow.errors import DataError
from hedgerow.grounding import parse, to_fractions

NUMBER = st.integers(0, 1000)
LABELS = st.text(max_size=6) | st.sampled_from(
    ['say "hi"', "a{b", "[c]", "\\", "d\n", "point_2d", "\U0001f600"]
)
POINT = st.fixed_dictionaries({"point_2d": st.lists(NUMBER, min_size=2, max_size=2), "label": LABELS})
CORNERS = st.tuples(*[NUMBER] * 4).map(lambda b: [*map(min, b[:2], b[2:]), *map(max, b[:2], b[2:])])
TIMES = st.floats(0, 999).map(lambda time: round(time, 2))
BOX = st.fixed_dictionaries({"bbox_2d": CORNERS}, optional={"label": LABELS, "time": TIMES})
REPLIES = st.lists(POINT | BOX, min_size=1, max_size=5)
DUMPS = st.sampled_from(
    [json.dumps, lambda x: json.dumps(x, indent=1), lambda x: json.dumps(x, ensure_ascii=False)]
)


def expected(objects):
    """Slow and obvious: per label, in order, the centre and the box in thousandths."""
    found = {}
    for item in objects:
        box = item.get("bbox_2d")
        x, y = item.get("point_2d") or ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        found.setdefault(item.get("label", ""), []).append((x, y, box, item.get("time")))
    return found


def told(parsed, scale=1000):
    return {
        part.label: [
            (
                pytest.approx(p.x * scale),
                pytest.approx(p.y * scale),
                None if p.box is None else pytest.approx([edge * scale for edge in p.box]),
                p.time,
            )
            for p in part.points
        ]
        for part in parsed.parts
    }


@settings(max_examples=100, deadline=None)
@given(REPLIES, DUMPS, st.sampled_from(["{}", "```json\n{}\n```", 'A 5" ball:\n{} as asked.']))
def test_law_10_every_object_gives_its_point(objects, dumps, around):
    text = around.replace("{}", dumps(objects))
    parsed = parse(text, frame="thousandths", strict=True)
    assert expected(objects) == told(parsed)
    assert parsed.rest.replace("[", "").startswith(around[: around.index("{")])


@settings(max_examples=60, deadline=None)
@given(st.lists(POINT, min_size=1, max_size=4), DUMPS)
def test_law_10_truncated_json_keeps_every_complete_point(objects, dumps):
    text = dumps(objects)
    whole = [tuple(item["point_2d"]) for item in objects]
    ends = []
    at = 0
    for _ in objects:
        at = text.index("]", text.index('"point_2d": [', at)) + 1
        ends.append(at)
    for cut in range(len(text)):
        parsed = parse(text[:cut], frame="pixels")
        found = sorted((p.x, p.y) for part in parsed.parts for p in part.points)
        assert found == sorted(place for place, end in zip(whole, ends, strict=True) if end <= cut)


def test_a_text_without_its_unit_is_not_guessed_at():
    text = '[{"point_2d": [320, 480], "label": "ball"}]'
    parsed = parse(text)
    assert (parsed.parts, [problem.kind for problem in parsed.problems]) == ((), ["no_frame"])
    with pytest.raises(DataError, match='character 2: expected frame="thousandths" or "pixels"'):
        parse(text, strict=True)


def test_pixels_stay_pixels_until_their_size_is_known():
    text = '[{"bbox_2d": [100, 50, 300, 150], "label": "bat"}]'
    (part,) = parse(text, frame="pixels", strict=True).parts
    assert part == Points("bat", (Point(200, 100, box=(100, 50, 300, 150)),), frame="pixels")
    (point,) = to_fractions(part, size=(400, 200)).points
    assert (point.x, point.y, point.box) == (0.5, 0.5, (0.25, 0.25, 0.75, 0.75))


def test_an_object_with_point_and_box_is_one_point():
    text = '{"point_2d": [150, 250], "bbox_2d": [100, 200, 300, 400], "label": "cat"}'
    (part,) = parse(text, frame="thousandths", strict=True).parts
    assert part == Points("cat", (Point(0.15, 0.25, box=(0.1, 0.2, 0.3, 0.4)),))


@pytest.mark.parametrize(
    ("text", "points", "kind"),
    [
        ('[{"point_2d": [320, 480', 0, "cut_off"),
        ('[{"point_2d": [320, 480], "label": "b', 1, "cut_off"),
        ('[{"point_2d": [320], "label": "b"}]', 0, "malformed"),
        ('[{"point_2d": "left", "label": "b"}]', 0, "malformed"),
        ('[{"bbox_2d": [1, 2, 3], "label": "b"}, {"point_2d": [1, 2]}]', 1, "malformed"),
        ('[{"point_2d": [1, 1001]}]', 0, "out_of_range"),
        ('[{"point_2d": [-1, 1]}]', 0, "out_of_range"),
        ('[{"bbox_2d": [1, 2, 3, 4000]}]', 0, "out_of_range"),
        ('[{"bbox_2d": [30, 20, 10, 40]}]', 1, "bad_order"),
        ('[{"point_2d": [1, 2], "point_2d": [3, 4]}]', 2, "malformed"),
    ],
)
def test_what_is_wrong_with_json_is_named(text, points, kind):
    parsed = parse(text, frame="thousandths")
    assert sum(len(part.points) for part in parsed.parts) == points
    assert kind in {problem.kind for problem in parsed.problems}
    with pytest.raises(DataError, match="character"):
        parse(text, frame="thousandths", strict=True)


def test_corners_in_the_wrong_order_are_the_same_box():
    (part,) = parse('[{"bbox_2d": [30, 20, 10, 40]}]', frame="pixels").parts
    assert part.points[0].box == (10, 20, 30, 40)


def test_labels_of_unknown_escapes_stay_as_they_are():
    (part,) = parse(r'[{"point_2d": [1, 2], "label": "a\qb"}]', frame="thousandths").parts
    assert part.label == r"a\qb"


def test_tags_come_before_json():
    tag = '<points coords="1 1 100 200">x</points>'
    text = f'{tag} [{{"point_2d": [1, 2]}}]'
    parsed = parse(text, frame="thousandths", strict=True)
    assert parsed.parts == parse(tag).parts
    assert "point_2d" in parsed.rest
