import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Point, Points, Tracks
from hedgerow.grounding import checks, count_of, degenerate, format_points, format_tracks, parse

SEED = st.integers(0, 2**32 - 1)


def kinds(reply, **more):
    return [finding.kind for finding in degenerate(reply, **more)]


def row(number, step, *, jitter=0):
    """Points from the top left on, at even steps on the frame at 3.5 s."""
    return "3.5 " + " ".join(
        f"{n + 1} {100 + n * step[0] + jitter * (n % 2):03d} {100 + n * step[1]:03d}" for n in range(number)
    )


def frames(number, place, *, step=0.5):
    """An object on every frame."""
    return ";".join(f"{n * step:.1f} 1 {place(n)[0]:03d} {place(n)[1]:03d}" for n in range(number))


@pytest.mark.parametrize("step", [(10, 0), (0, 5), (7, 3), (0, 0)])
def test_a_long_row_on_one_frame_is_found(step):
    text = f'Here: <points coords="1.0 1 500 500;{row(checks.ROW, step)}">x</points>'.replace(
        "3.5 1 ", "3.5 2 ", 1
    )
    found = [f for f in degenerate(text) if f.kind == "row"]
    assert [(f.count, f.at) for f in found] == [(checks.ROW, text.index("3.5") + 4)]
    assert "time 3.5" in found[0].message


def test_a_shorter_or_an_uneven_row_is_none():
    assert kinds(f'<points coords="{row(checks.ROW - 1, (10, 0))}">x</points>') == []
    assert kinds(f'<points coords="{row(60, (10, 0), jitter=3)}">x</points>') == []
    assert kinds(f'<points coords="{row(60, (10, 0), jitter=1)}">x</points>') == ["row"]


def test_a_row_is_of_one_frame_alone():
    half = checks.ROW // 2
    first = " ".join(f"{n} {10 * n:03d} 500" for n in range(1, half + 1))
    second = " ".join(f"{n} {10 * n:03d} 500" for n in range(half + 1, 2 * half + 1))
    assert kinds(f'<points coords="1.0 {first};1.5 {second}">x</points>') == []
    assert kinds(f'<points coords="1.0 {first} {second}">x</points>') == ["row"]


def test_rows_of_pixels_and_of_older_forms_are_found():
    shown = ", ".join(f'{{"point_2d": [{10 * n}, 300]}}' for n in range(checks.ROW))
    assert kinds("", parsed=parse(f"[{shown}]", frame="pixels")) == ["row"]
    shown = " ".join(f'x{n}="{n}.0" y{n}="5.0"' for n in range(1, checks.ROW + 1))
    assert kinds(f"<points {shown}>x</points>") == ["row"]


def test_the_same_point_on_every_frame_is_found():
    same = ";".join(f"{n}.0 {n + 1} 400 300" for n in range(checks.POINTED))
    text = f'<points coords="{same}">x</points>'
    (found,) = degenerate(text)
    assert (found.kind, found.at, found.count) == ("same_point", text.index("1 400"), checks.POINTED)
    assert found.message == "the same point (400, 300) 8 times, of 8 frames"
    assert kinds(f'<points coords="{same.rpartition(";")[0]}">x</points>') == []


def fixed(_frame):
    return (400, 300)


def test_a_track_that_never_moves_is_found_only_if_nothing_else_does():
    still = frames(checks.STILL, fixed)
    assert kinds(f'<tracks coords="{still}">x</tracks>') == ["same_point"]
    assert kinds(f'<tracks coords="{still};99.0 2 100 100;99.5 2 110 100">x</tracks>') == []
    assert kinds(f'<tracks coords="{frames(checks.STILL - 1, fixed)}">x</tracks>') == []
    assert kinds(f'<tracks coords="{still}">x</tracks>', frames=checks.STILL + 1) == []


@pytest.mark.parametrize(
    ("coords", "tag", "count"),
    [
        ("1 1 100 200 2 300 400 7 500 600 8 700 700", "points", 1),
        ("1 4 100 200", "points", 1),
        ("1 1 100 200 1 300 400 2 500 600", "points", 1),
        ("0.0 1 100 200 2 300 400;0.5 2 300 400 9 500 600", "tracks", 1),
    ],
)
def test_ids_that_jump_are_found(coords, tag, count):
    (found,) = degenerate(f'<{tag} coords="{coords}">x</{tag}>')
    assert (found.kind, found.count) == ("jumping_ids", count)


def test_impossible_speed_is_found():
    corners = frames(9, lambda n: ((0, 0), (1000, 1000))[n % 2])
    (found,) = degenerate(f'<tracks coords="{corners}">x</tracks>')
    assert (found.kind, found.count, found.at) == (
        "impossible_speed",
        8,
        corners.index(";") + len('<tracks coords="') + 5,
    )
    assert kinds(f'<tracks coords="{frames(4, lambda n: ((0, 0), (1000, 1000))[n % 2])}">x</tracks>') == []
    fast = frames(9, lambda n: (100 + 90 * n, 500), step=0.1)  # 0.9 of a side a second in truth
    assert kinds(f'<tracks coords="{fast}">x</tracks>') == []


def test_a_few_fast_steps_among_many_are_no_finding():
    jumps = (0, 900, 0, 900, 0, 900)
    few = frames(20, lambda n: (jumps[n] if n < len(jumps) else 900, 500), step=0.1)
    assert kinds(f'<tracks coords="{few}">x</tracks>') == []
    many = frames(10, lambda n: (jumps[n] if n < len(jumps) else 900, 500), step=0.1)
    assert kinds(f'<tracks coords="{many}">x</tracks>') == ["impossible_speed"]


def test_with_a_rate_printed_tenths_are_times_of_frames():
    # 8 frames a second print as 0.0, 0.1, 0.2, 0.4, 0.5: most of the steps look shorter than they are
    places = (0, 220, 440, 660, 880, 660, 440, 220)
    coords = ";".join(f"{n / 8:.1f} 1 {places[n % 8]:03d} 500" for n in range(16))
    assert kinds(f'<tracks coords="{coords}">x</tracks>') == ["impossible_speed"]
    assert kinds(f'<tracks coords="{coords}">x</tracks>', fps=8) == []  # 1.76 sides a second


def test_repeated_text_is_found_and_coordinates_are_no_text():
    loop = "the dog runs over the green grass and " * 6
    text = "A sunny park. " + loop
    (found,) = degenerate(text)
    assert (found.kind, found.at) == ("repeated_text", text.index("the"))
    assert found.count >= checks.TIMES
    assert kinds("A sunny park. " + "the dog runs over the green grass and " * 3) == []
    calm = ";".join(f"{n / 2:.1f} 1 100 200 2 300 400 3 500 600 4 700 70{n % 10}" for n in range(40))
    assert kinds(f'<tracks coords="{calm}">three parked cars</tracks>') == []


def honest_points(draw, number, *, timed):
    where = draw.random((number, 2))
    times = draw.integers(0, 40, number) / 2
    return Points(
        "x",
        tuple(Point(x, y, **({"time": t} if timed else {})) for (x, y), t in zip(where, times, strict=True)),
    )


def honest_tracks(draw, objects, times):
    """Objects that walk at random, up to a tenth of the picture a frame, leave and return."""
    points = []
    for name in range(objects):
        walk = np.clip(draw.random(2) + np.cumsum(draw.uniform(-0.1, 0.1, (times, 2)), axis=0), 0, 1)
        seen = draw.random(times) < 0.8
        points += [Point(*map(float, walk[n]), id=name + 1, time=n / 2) for n in range(times) if seen[n]]
    return Tracks("x", tuple(points))


@settings(max_examples=60, deadline=None)
@given(SEED, st.integers(0, 300), st.booleans())
def test_honest_points_are_not_found(seed, number, timed):
    text = format_points(honest_points(np.random.default_rng(seed), number, timed=timed))
    assert degenerate(text) == ()


@settings(max_examples=60, deadline=None)
@given(SEED, st.integers(0, 8), st.integers(1, 60), st.data())
def test_honest_tracks_are_not_found_whole_or_cut(seed, objects, times, data):
    text = format_tracks(honest_tracks(np.random.default_rng(seed), objects, times))
    assert degenerate(text, frames=times, fps=2.0) == ()
    assert degenerate(text[: data.draw(st.integers(0, len(text)))]) == ()


def bounce(distance):
    """A place that goes to and fro between 0 and 1."""
    return 1 - abs(distance % 2 - 1)


def test_what_the_demo_shows_is_not_found():
    bricks = Points("brick", tuple(Point(0.05 + n / 20, 0.3 + m / 40) for n in range(18) for m in range(6)))
    assert degenerate(format_points(bricks)) == ()
    wall = Points("brick", tuple(Point(0.05 + n / 20, 0.3) for n in range(18)))
    assert degenerate(format_points(wall)) == ()
    for fps in (1, 2, 4, 8):
        ball = tuple(
            Point(bounce(0.1 + 1.1 * n / fps), bounce(0.4 + 0.9 * n / fps), id=1, time=n / fps)
            for n in range(24)
        )
        assert degenerate(format_tracks(Tracks("ball", ball)), fps=fps, frames=24) == ()
    caption = "The ball goes up and hits a brick. " * 2 + "The paddle moves left. The ball is lost. " * 2
    assert degenerate(caption) == ()


def test_a_finding_reads_as_where_and_what():
    (found,) = degenerate('<points coords="1 4 100 200">x</points>')
    assert str(found) == "character 18: id 4 where 1 comes next; jumps in all: 1"


def test_plain_replies_hold_nothing():
    assert [degenerate(text) for text in ("", "3", "There are none.", "A ball rolls.")] == [()] * 4
    assert count_of("3") == 3
