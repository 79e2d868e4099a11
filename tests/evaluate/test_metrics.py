import itertools
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Point, Points, Tracks
from hedgerow.errors import DataError
from hedgerow.evaluate.metrics import (
    Score,
    choice_of,
    exact_match,
    interval,
    matches,
    pointing_scores,
    token_f1,
    track_scores,
)
from hedgerow.grounding import count_of, parse

# In all cases the frame is 1000 x 500 pixels, so the least side of a box is 0.04 x 500 = 20 pixels.
SIZE = (1000, 500)


def at(x, y, **more):
    """Return a point at a pixel."""
    return Point(x / 1000, y / 500, **more)


def points(*given):
    return Points("ball", tuple(given))


def box(left, top, right, bottom):
    return (left / 1000, top / 500, right / 1000, bottom / 500)


@pytest.mark.parametrize(
    ("x", "y", "hit"),
    [
        (500, 250, True),
        (509.9, 250, True),
        (510.1, 250, False),
        (500, 259.9, True),
        (500, 260.1, False),
        (490.1, 240.1, True),
    ],
)
def test_without_a_box_a_hit_is_within_two_percent_of_the_height(x, y, hit):
    # half of 20 pixels to each side, in both directions alike although the frame is twice as wide as high
    score = pointing_scores(points(at(x, y)), points(at(500, 250)), size=SIZE)
    assert score == Score(hit, hit, hit)


@pytest.mark.parametrize(
    ("x", "y", "hit"),
    [
        (449, 250, True),  # the box is 100 pixels wide, 400 to 500: not grown
        (399, 250, False),
        (501, 250, False),
        (450, 259, True),  # it is 4 pixels high, 248 to 252, grown by 8 on both sides to 240 to 260
        (450, 261, False),
        (450, 241, True),
        (450, 239, False),
    ],
)
def test_a_small_box_is_grown_about_its_centre(x, y, hit):
    # the annotated point stands at the edge of the box: the centre of the box counts
    true = points(at(401, 251, box=box(400, 248, 500, 252)))
    assert pointing_scores(points(at(x, y)), true, size=SIZE).f1 == hit


def test_precision_and_recall_are_counted_over_the_query():
    true = points(at(100, 100), at(300, 100), at(500, 100), at(700, 100))
    found = points(at(101, 101), at(300, 99), at(900, 400))
    # 2 hits of 3 predicted and of 4 true; f1 = 2 x 2 / (3 + 4)
    assert pointing_scores(found, true, size=SIZE) == Score(2 / 3, 2 / 4, 4 / 7)


def test_one_instance_is_hit_once():
    # 1 hit of 2 predicted, 1 true; f1 = 2 x 1 / (2 + 1)
    assert pointing_scores(points(at(100, 100), at(102, 100)), points(at(100, 100)), size=SIZE) == Score(
        0.5, 1, 2 / 3
    )


def test_the_time_must_be_the_printed_one():
    true = points(at(100, 100, time=1.5), at(100, 100, time=2.0))
    # 1.52 prints 1.5, so it hits; 3.0 is another time: 1 hit of 2 and 2
    found = points(at(100, 100, time=1.52), at(100, 100, time=3.0))
    assert pointing_scores(found, true, size=SIZE) == Score(0.5, 0.5, 0.5)


def test_a_time_is_not_an_image():
    assert pointing_scores(points(at(100, 100, image=1)), points(at(100, 100, time=1.0)), size=SIZE).f1 == 0


def test_images_have_their_own_sizes():
    true = points(Point(0.5, 0.5, image=1), Point(0.5, 0.5, image=2))
    # 0.03 of the width is 30 pixels on image 1 and 3 on image 2; both are 500 high, so 10 are allowed
    found = points(Point(0.53, 0.5, image=1), Point(0.53, 0.5, image=2), Point(0.5, 0.5, image=7))
    score = pointing_scores(found, true, size=[(1000, 500), (100, 500)])
    # 1 hit of 3 predicted and of 2 true; f1 = 2 x 1 / (3 + 2)
    assert score == Score(1 / 3, 1 / 2, 2 / 5)


def test_truth_in_pixels_is_understood():
    true = Points("ball", (Point(500, 250, box=(400, 200, 600, 300)),), frame="pixels")
    assert pointing_scores(points(at(420, 210)), true, size=SIZE).f1 == 1


def test_truth_on_an_image_without_a_size_is_refused():
    with pytest.raises(DataError, match="image 2, but 1 are shown"):
        pointing_scores(points(at(1, 1, image=2)), points(at(1, 1, image=2)), size=[SIZE])


@pytest.mark.parametrize(
    ("found", "true", "score"),
    [
        (points(), points(), 1),
        (None, points(), 1),
        (points(at(1, 1)), points(), 0),
        (points(), points(at(1, 1)), 0),
        (None, points(at(1, 1)), 0),
    ],
)
def test_nothing_agrees_only_with_nothing(found, true, score):
    assert pointing_scores(found, true, size=SIZE) == Score(score, score, score)


def test_most_hits_come_before_least_distance():
    # two overlapping boxes, 400 to 500 and 450 to 550; the first point lies in both and nearest to the second
    true = [at(420, 250, box=box(400, 200, 500, 300)), at(480, 250, box=box(450, 200, 550, 300))]
    found = [at(479, 250), at(540, 250)]
    # greedy by distance takes (0, 1) and leaves 540 nothing; both hit when crossed over
    assert matches(found, true, size=SIZE) == ((0, 0), (1, 1))


def test_no_distance_outweighs_one_hit_more():
    # the first point stands on the first instance; both hit only if it takes the second, far away
    true = [at(0, 0, box=(0, 0, 1, 1)), at(1000, 400, box=box(0, 0, 1000, 400))]
    found = [at(0, 0), at(990, 490)]
    assert matches(found, true, size=SIZE) == ((0, 1), (1, 0))


NEAR = st.builds(at, st.integers(0, 40), st.integers(0, 40), time=st.sampled_from([1.0, 2.0]))


@settings(max_examples=80, deadline=None)
@given(st.lists(NEAR, max_size=5), st.lists(NEAR, max_size=5))
def test_matches_are_the_best_of_all_permutations(found, true):
    def apart(p, t):
        return math.hypot((p.x - t.x) * 1000, (p.y - t.y) * 500)

    def hits(p, t):
        reach = 10 + 1e-9
        return p.time == t.time and abs(p.x - t.x) * 1000 <= reach and abs(p.y - t.y) * 500 <= reach

    def value(pairs):
        pairs = [(p, t) for p, t in pairs if hits(p, t)]
        return len(pairs), -sum(apart(p, t) for p, t in pairs)

    short, long = (found, true) if len(found) <= len(true) else (true, found)
    best = (0, 0.0)
    for chosen in itertools.permutations(long, len(short)):
        pairs = zip(short, chosen, strict=True) if short is found else zip(chosen, short, strict=True)
        best = max(best, value(pairs))
    pairs = matches(found, true, size=SIZE)
    assert len({p for p, _ in pairs}) == len({t for _, t in pairs}) == len(pairs)
    got = value([(found[p], true[t]) for p, t in pairs])
    assert got[0] == best[0] == len(pairs)
    assert got[1] == pytest.approx(best[1], abs=1e-6)


def test_tracks_are_scored_frame_by_frame():
    def track(*seen):
        return Tracks("car", tuple(at(x, y, id=name, time=time) for time, name, x, y in seen))

    true = track((0, 1, 100, 100), (0, 2, 300, 100), (1, 1, 110, 100))
    found = track((0, 5, 100, 100), (1, 5, 400, 400), (1, 6, 111, 100), (2, 5, 100, 100))
    # 0 s: 1 hit of 1 and 2, p 1, r 1/2, f 2/3;  1 s: 1 of 2 and 1, p 1/2, r 1, f 2/3;  2 s: nothing true, 0
    score = track_scores(found, true, size=SIZE)
    assert score == pytest.approx(((1 + 0.5 + 0) / 3, (0.5 + 1 + 0) / 3, (2 / 3 + 2 / 3 + 0) / 3))


def test_tracks_do_not_ask_who_is_who():
    true = Tracks("car", (at(100, 100, id=1, time=0.0), at(300, 100, id=2, time=0.0)))
    swapped = Tracks("car", (at(100, 100, id=2, time=0.0), at(300, 100, id=1, time=0.0)))
    assert track_scores(swapped, true, size=SIZE) == Score(1, 1, 1)


def test_no_tracks_agree_only_with_no_tracks():
    true = Tracks("car", (at(100, 100, id=1, time=0.0),))
    assert track_scores(None, Tracks("car"), size=SIZE) == Score(1, 1, 1)
    assert track_scores(None, true, size=SIZE) == Score(0, 0, 0)
    assert track_scores(true, Tracks("car"), size=SIZE) == Score(0, 0, 0)


def test_a_parsed_reply_is_scored():
    (reply,) = parse('<points coords="1.5 1 100 200">ball</points>').parts
    assert pointing_scores(reply, points(at(100, 100, time=1.5)), size=SIZE).f1 == 1


TWO = '<points coords="1.0 1 100 200 2 300 400">9 balls</points>'


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("3", 3),
        ("3.", 3),
        (" **3** ", 3),
        ("There are 3.", 3),
        ("There is one ball.", 1),
        ("There are 14 cats within 2 s.", 14),
        ("a total of 3", 3),
        ("Counting 5 frames shows a total of twenty.", 20),
        ("There are none.", 0),
        ("There are no balls.", 0),
        ("None", 0),
        ("Seventeen", 17),
        ("zero", 0),
        (TWO, 2),
        (f"There are 2 {TWO}.", 2),
        (f"Counting the {TWO} shows a total of 5.", 5),
        ('<tracks coords="1.0 1 100 200 2 300 400;2.0 1 100 200">car</tracks>', 2),
        ("No tracks available.", 0),
        ("", None),
        ("I cannot tell.", None),
        ("No idea", None),
        ("3 or 4", None),
        ("3.5", None),
        ("-3", None),
        ("a 3-year-old", None),
        ("1,200", None),
        ("twenty-one", None),
        ("9" * 5000, None),
    ],
)
def test_counts_are_read_from_replies(text, count):
    assert count_of(text) == count


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("B", "B"),
        (" B. ", "B"),
        ("b", "B"),
        ("(b)", "B"),
        ("B. Boxing", "B"),
        ("B: Boxing", "B"),
        ("(B) Boxing", "B"),
        ("B\nHe boxes.", "B"),
        ("Answer: B", "B"),
        ("answer: b", "B"),
        ("Answer: **B**", "B"),
        ("Answer: (B) Boxing", "B"),
        ("The answer is B.", "B"),
        ("The correct option is D, as he dances.", "D"),
        ("Answer: option B", "B"),
        ("", None),
        ("A dog runs.", None),
        ("Answer: A dog.", None),
        ("I think so.", None),
        ("Boxing", None),
    ],
)
def test_choices_are_read_from_replies(text, choice):
    assert choice_of(text) == choice


def test_captions_agree_by_the_words_they_share():
    # the, red, ball are shared, "the" once: 3 of 4 predicted and of 5 true words; f1 = 2 x 3 / (4 + 5)
    score = token_f1("The, the red ball!", "a red ball hits the")
    assert score == Score(3 / 4, 3 / 5, 6 / 9)


def test_captions_ignore_case_and_punctuation():
    assert token_f1("It's a well-known BALL.", "it's a well-known ball") == Score(1, 1, 1)
    assert exact_match("A ball.", "a BALL")
    assert not exact_match("ball a", "a ball")


def test_an_empty_caption_agrees_only_with_an_empty_one():
    assert token_f1("", "...").f1 == 1
    assert token_f1("", "ball").f1 == token_f1("ball", "").f1 == 0


def test_an_interval_holds_the_mean_and_repeats():
    values = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    clips = ["a", "a", "b", "b", "c", "d"]
    low, high = interval(values, clips, seed=3)
    assert low < 4 / 6 < high
    assert interval(values, clips, seed=3) == (low, high)


def test_an_interval_is_over_groups_and_not_over_values():
    # all values of a clip agree, so 50 replies to each of 2 clips tell no more than 2 replies:
    # a draw of two clips has mean 0, 0.5 or 1 with probabilities 1/4, 1/2, 1/4
    values, clips = [0.0] * 50 + [1.0] * 50, ["a"] * 50 + ["b"] * 50
    assert interval(values, clips) == (0.0, 1.0)
    assert interval(values, list(range(100)))[0] > 0.3


def test_an_interval_weighs_groups_by_their_size():
    # one group of 3 and one of 1: a draw has mean 1 (a, a), 3/4 or 0 (b, b)
    assert interval([1, 1, 1, 0], list("aaab")) == (0.0, 1.0)
    assert interval([0.25], ["a"]) == (0.25, 0.25)


@pytest.mark.parametrize(("values", "groups"), [([], []), ([1.0], ["a", "b"])])
def test_an_interval_needs_a_group_for_each_value(values, groups):
    with pytest.raises(ValueError, match="one group for each"):
        interval(values, groups)


def test_without_scipy_the_error_says_what_to_install():
    code = "import sys; sys.modules['scipy.optimize'] = None; import hedgerow.evaluate.metrics"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "HedgerowError: scores need scipy" in ran.stderr
    assert "hedgerow[eval]" in ran.stderr
