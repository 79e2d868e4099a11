"""Law 10 on strings that nobody would write: nothing raises, and time grows no faster than length."""

import os
import random
import sys
import time
from collections.abc import Callable

import pytest

from hedgerow.content import Point, Points, Tracks
from hedgerow.grounding import count_of, degenerate, format_points, format_tracks, parse

SECONDS = float(os.environ.get("HEDGEROW_FUZZ_SECONDS", "60"))
STRINGS = int(os.environ.get("HEDGEROW_FUZZ_STRINGS", "10_000_000"))

# Each makes a hostile string of about so many characters.
HOSTILE: dict[str, Callable[[int], str]] = {
    "open tags": lambda n: "<points " * (n // 8),
    "open tracks and angles": lambda n: "<tracks <" * (n // 9),
    "angles": lambda n: "<" * n,
    "closing tags": lambda n: '<points coords="1 1 100 200">' + "</point" * (n // 7),
    "labels without end": lambda n: '<points coords="1 1 100 200">a' * (n // 30),
    "quotes": lambda n: '<points a="' + '"' * n,
    "values that hold tags": lambda n: '<points a="<points a=" ' * (n // 23),
    "tags in one value": lambda n: '<points a="' + "<points b=" * (n // 10),
    "attributes": lambda n: "<points" + ' a="1"' * (n // 6),
    "strays": lambda n: "<points " + "coords=" * (n // 7),
    "letters": lambda n: "<points " + "a" * n,
    "spaces": lambda n: "<points" + " " * n + "<points" + " " * n,
    "slashes": lambda n: "<points " + "/" * n,
    "digits": lambda n: '<points coords="' + "1" * n,
    "short numbers": lambda n: '<points coords="' + "1 " * (n // 2),
    "unpadded": lambda n: '<points coords="1 ' + "1 50 60 " * (n // 8),
    "almost points": lambda n: '<points coords="1 ' + "1 100 x " * (n // 8),
    "separators": lambda n: '<points coords="' + ";\t:," * (n // 4),
    "groups": lambda n: '<points coords="' + "1 1 100 200;" * (n // 12),
    "one object": lambda n: '<tracks coords="' + "1.0 1 100 200;" * (n // 14),
    "points of one id": lambda n: '<points coords="1 ' + "1 100 200 " * (n // 10) + '">x</points>',
    "frames of a track": lambda n: '<tracks coords="' + "".join(f"{i}.5 1 100 200;" for i in range(n // 16)),
    "entities": lambda n: '<points coords="1 1 100 200">' + "&amp;" * (n // 5) + "</points>",
    "sentences": lambda n: "There are none." * (n // 15),
    "half sentences": lambda n: "There are " * (n // 10),
    "attribute points": lambda n: "<points " + 'x1="1.0" y1="2.0" ' * (n // 18),
    "attributes without end": lambda n: "<points " + 'x1="' * (n // 4),
    "bare attributes": lambda n: "<points " + "x1=1 " * (n // 5),
    "frames": lambda n: "<points t1=1.5 x1=1.0 y1=2.0/>" * (n // 30),
    "names": lambda n: "<points " + "x1 " * (n // 3),
    "triples": lambda n: "<points a\tb\t" + "1 12.3 45.6 " * (n // 12),
    "tabs": lambda n: "<points " + "\t" * n,
    "braces": lambda n: '"point_2d":' + "{[" * (n // 2),
    "brackets": lambda n: '"point_2d":' + "[" * n,
    "objects": lambda n: '{"point_2d": [1, 2]},' * (n // 21),
    "labels": lambda n: "".join(f'{{"point_2d": [1, 2], "label": "{i}"}}' for i in range(n // 36)),
    "keys": lambda n: '"point_2d":' * (n // 11),
    "lists without end": lambda n: '"point_2d": [' + "1," * (n // 2),
    "many lists without end": lambda n: '"bbox_2d": [1,1,1' * (n // 17),
    "backslashes": lambda n: '"point_2d":"' + "\\" * n,
    "escaped quotes": lambda n: '"point_2d":"' + '\\"' * (n // 2),
    "open strings": lambda n: '"point_2d":' + '"a\n' * (n // 3),
    "spaces of JSON": lambda n: '"point_2d":' + '"a" ' * (n // 8) + " " * (n // 2),
    "words": lambda n: "one two " * (n // 8),
    "one word": lambda n: "a" * n,
}  # fmt: skip


def calls(text: str) -> int:
    """Count the calls of functions, C functions too, that reading a text takes."""
    count = 0

    def counted(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        parse(text, frame="thousandths")
        degenerate(text)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("shape", HOSTILE)
def test_twice_the_text_takes_twice_the_steps(shape):
    few, many = calls(HOSTILE[shape](1000)), calls(HOSTILE[shape](2000))
    assert many <= 2.2 * few + 50


PIECES = (
    "<points", "<point", "<tracks", "</points>", "</point>", "</tracks>", ' coords="', ' alt="', '"', ">",
    "/>", "<", " ", ";", "\t", ":", ",", ".", "=", "1", "0.5", "12", "012", "345", "1000", "1001", "99.9",
    "-1", "9" * 40, " 1 100 200", " 2 50 60", ' x="1.0"', ' y="2.0"', " x1=3", ' y1="4', "t1=2.5", "\tcat\t",
    "There are none.", "No tracks available.", "There are 3 ", "Counting the ", " a total of 2.", '{"',
    '"point_2d"', '"bbox_2d"', '"label"', '"time"', ": [", "]", "}", "{", "\\", "\\u00", '\\"', "```json\n",
    "[1, 2]", "[1, 2, 3, 4]", "\n", "&lt;", "&amp;", "\u0663", "\ud800", "\x00", "\u65e5", "cat",
)  # fmt: skip


def grammar(draw: random.Random) -> str:
    """Return pieces of all formats in any order."""
    return "".join(draw.choices(PIECES, k=draw.randrange(1, 16)))


def valid(draw: random.Random) -> str:
    """Return a text that one of the formats allows."""
    many = range(draw.randrange(1, 4))
    points = tuple(Point(draw.random(), draw.random(), id=n + 1, time=n / 2) for n in many)
    form = draw.randrange(4)
    if form == 0:
        return format_points(Points("a<b", points))
    if form == 1:
        return format_tracks(Tracks("c", points))
    if form == 2:
        shown = " ".join(f'x{p.id}="{100 * p.x:.1f}" y{p.id}="{100 * p.y:.1f}"' for p in points)
        return f'<points {shown} alt="d">d</points>'
    objects = (f'{{"point_2d": [{1000 * p.x:.0f}, {1000 * p.y:.0f}], "label": "e"}}' for p in points)
    return f"```json\n[{', '.join(objects)}]\n```"


def damaged(draw: random.Random) -> str:
    """Return a valid text with some of it cut, doubled or replaced."""
    text = valid(draw)
    for _ in range(draw.randrange(1, 4)):
        start = draw.randrange(len(text) + 1)
        end = min(len(text), start + draw.randrange(6))
        text = text[:start] + draw.choice(("", text[start:end] * 2, draw.choice(PIECES))) + text[end:]
    return text if draw.random() < 0.5 else text[: draw.randrange(len(text) + 1)]


def anything(draw: random.Random) -> str:
    """Return characters of all planes."""
    return "".join(chr(draw.randrange(draw.choice((128, 0x110000)))) for _ in range(draw.randrange(24)))


def assert_sound(text: str, frame: str) -> None:
    parsed = parse(text, frame=frame)
    for part, places in zip(parsed.parts, parsed.places, strict=True):
        assert len(places) == len(part.points)
        for point in part.points:
            assert min(point.x, point.y) >= 0
            assert part.frame == "pixels" or max(point.x, point.y) <= 1
    assert len(parsed.rest) == len(text) - sum(end - start for start, end in parsed.spans)
    degenerate(text, parsed=parsed)


def seconds_of(text: str, frame: str) -> float:
    start = time.process_time()
    assert_sound(text, frame)
    return time.process_time() - start


def fuzz(seed: int, strings: int, seconds: float) -> tuple[int, float]:
    """Read strings until one of both is used up; return how many, and the longest CPU seconds of one."""
    draw = random.Random(seed)
    made, longest, until = 0, 0.0, time.monotonic() + seconds
    while made < strings and time.monotonic() < until:
        for make in (grammar, damaged, damaged, anything):
            text, frame = make(draw), draw.choice(("thousandths", "pixels", "percent"))
            took = seconds_of(text, frame)
            if took > longest:  # once more, for another process may have been in the way
                longest = max(longest, min(took, seconds_of(text, frame)))
            made += 1
        count_of(text)
    return made, longest


def test_no_string_of_a_short_run_makes_the_parser_raise():
    made, _ = fuzz(7, 4000, 60.0)
    assert made == 4000


@pytest.mark.slow
def test_no_string_of_a_long_run_makes_the_parser_raise(capsys):
    made, longest = fuzz(int(os.environ.get("HEDGEROW_FUZZ_SEED", "1")), STRINGS, SECONDS)
    with capsys.disabled():
        print(f"\n{made:,} strings in at most {SECONDS:g} s, the longest took {1000 * longest:.1f} ms")
    assert made > 1000


@pytest.mark.slow
def test_a_hostile_megabyte_is_read_at_once(capsys):
    took = {}
    for shape, make in HOSTILE.items():
        text = make(1_000_000)
        start = time.process_time()
        parse(text, frame="thousandths")
        took[shape] = time.process_time() - start
    worst = max(took, key=lambda shape: took[shape])
    with capsys.disabled():
        print(f"\n1 MB of {len(took)} shapes: at most {took[worst]:.2f} s ({worst})")
    assert took[worst] < 10  # quadratic time would take minutes; a busy machine does not
