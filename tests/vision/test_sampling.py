import math
from dataclasses import replace
from fractions import Fraction
from itertools import count, pairwise, takewhile

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hedgerow.content import Video
from hedgerow.errors import MediaError
from hedgerow.vision.facts import VideoFacts, probe
from hedgerow.vision.sampling import clip, frame_times, sample, spread

WHOLE = Video("v.mp4", fps=2.0, max_frames=128, sampling="uniform_last_frame")


def facts_of(duration, **more):
    return VideoFacts("v.mp4", 64, 48, 0.0, float(duration), **more)


# uniform_last_frame


def times_by_hand(duration, fps, most):
    """The rule in exact numbers."""
    if duration <= Fraction(most - 1) / fps:
        grid = [step / fps for step in range(most) if step / fps < duration]
        return [*grid, duration]
    return [duration * step / max(most - 1, 1) for step in range(most)]


@settings(deadline=None, max_examples=1000)
@given(
    duration=st.fractions(0, 100, max_denominator=30),
    fps=st.sampled_from([Fraction(2), Fraction(1), Fraction(10), Fraction(1, 3), Fraction(30000, 1001)]),
    most=st.integers(1, 130),
)
def test_times_follow_the_rule_in_exact_numbers(duration, fps, most):
    found = frame_times(float(duration), fps=float(fps), max_frames=most)
    expected = times_by_hand(duration, fps, most)
    assert found == pytest.approx([float(time) for time in expected], abs=1e-9)
    assert found[-1] == float(duration) or most == 1
    assert all(before < after for before, after in pairwise(found))


@pytest.mark.parametrize(
    ("duration", "expected"),
    [(0.0, [0.0]), (0.3, [0.0, 0.3]), (1.5, [0.0, 0.5, 1.0, 1.5]), (1.6, [0.0, 0.5, 1.0, 1.5, 1.6])],
)
def test_times_of_short_videos(duration, expected):
    assert frame_times(duration) == expected


def test_float_noise_doubles_no_frame():
    for noisy in (1.5 + 4e-16, 1.5 - 4e-16, 15 * 0.1, 1.1 + 0.4):
        assert frame_times(noisy) == [0.0, 0.5, 1.0, noisy]
    assert frame_times(0.1 + 0.2, fps=10) == [0.0, 0.1, 0.2, 0.1 + 0.2]


def test_at_most_so_many_frames_then_evenly_spread():
    assert frame_times(63.5) == [step / 2 for step in range(128)]
    assert frame_times(63.5 + 1e-9)[-2:] == [63.0, 63.5 + 1e-9]
    longer = frame_times(63.6)
    assert len(longer) == 128
    assert longer == pytest.approx([63.6 * step / 127 for step in range(128)])
    assert frame_times(10, max_frames=1) == [0.0]


@pytest.mark.parametrize("bad", [{"duration": -1}, {"duration": math.nan}, {"duration": 1, "fps": 0}])
def test_impossible_times_are_refused(bad):
    with pytest.raises(ValueError, match="give 0 or more"):
        frame_times(**bad)


def test_a_clip_ends_at_the_last_frame_and_starts_before_it():
    assert clip(Video("v.mp4"), 9.9) == (0.0, 9.9)
    assert clip(Video("v.mp4", 2.0, 30.0), 9.9) == (2.0, 9.9)
    assert clip(Video("v.mp4", 9.9001, 10.0), 9.9) == (9.9, 9.9)
    for start, end in [(10.0, 12.0), (-1.0, 3.0), (None, -0.5)]:
        with pytest.raises(MediaError, match=r"v\.mp4: the clip is .* its frames 0 to 9.9 s"):
            clip(Video("v.mp4", start, end), 9.9)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize(
    ("name", "codec", "base"),
    [
        ("v.mp4", "libx264", Fraction(1, 1000)),
        ("v.mkv", "libx264", Fraction(1, 1000)),
        ("v.ts", "libx264", Fraction(1, 90000)),
        ("v.avi", "mpeg4", Fraction(1, 25)),
        ("v.webm", "libvpx-vp9", Fraction(1, 1000)),
        ("v.mov", "mjpeg", Fraction(1, 600)),
    ],
)
def test_times_of_real_files_follow_the_rule(tmp_path, media, name, codec, base, number):
    pts = [round(Fraction(place, 25) / base) for place in range((7, 13, 38)[number])]
    facts = probe(Video(media.write_video(tmp_path / name, pts, codec=codec, base=base, bframes=0)))
    duration = (pts[-1] - pts[0]) * base
    for fps, most in ((Fraction(2), 128), (Fraction(5), 4), (Fraction(30), 64)):
        video = replace(WHOLE, fps=float(fps), max_frames=most)
        found = sample(video, facts)
        expected = times_by_hand(duration, fps, most)
        assert found.times == pytest.approx([float(time) for time in expected], abs=1e-9)
        assert found.step == float(1 / fps)


def test_what_a_processor_has_not_filled_in_is_refused():
    with pytest.raises(ValueError, match="must be known; take them from the processor"):
        sample(Video("v.mp4"), facts_of(3))


# fps


def rate_by_hand(annotated, frames, duration, most):
    """Multiples of the annotated rate that divide that of the frames, to 10: the largest that spans."""
    multiples = [annotated * number for number in range(1, 21)]
    candidates = [rate for rate in multiples if rate <= 10 and (frames / rate).denominator == 1]
    if not candidates:
        return annotated
    spanning = [rate for rate in candidates if len(steps_by_hand(rate, duration)) <= most]
    return max(spanning) if spanning else min(candidates)


def steps_by_hand(rate, duration):
    return list(takewhile(lambda time: time <= duration, (place / rate for place in count())))


@settings(deadline=None, max_examples=100)
@given(
    annotated=st.sampled_from([Fraction(1, 2), *map(Fraction, (1, 2, 3, 5, 6, 12))]),
    frames=st.sampled_from([Fraction(30000, 1001), *map(Fraction, (6, 10, 12, 15, 24, 25, 30, 50, 60))]),
    number=st.integers(1, 400),
    most=st.integers(1, 130),
)
def test_tracks_are_seen_at_the_rate_of_the_public_rule(annotated, frames, number, most):
    duration = (number - 1) / frames
    video = replace(WHOLE, sampling="fps", annotation_fps=float(annotated), max_frames=most)
    found = sample(video, facts_of(duration, rate=float(frames) if number > 1 else 0.0))
    rate = rate_by_hand(annotated, frames, duration, most) if number > 1 else annotated
    expected = steps_by_hand(rate, duration)[:most]
    assert found.times == pytest.approx([float(time) for time in expected], abs=1e-9)
    assert found.step == pytest.approx(float(1 / rate))


def test_a_rate_of_rounded_times_is_still_recognised(tmp_path, media):
    path = media.write_video(tmp_path / "v.mkv", [round(number * 1000 / 30) for number in range(90)])
    found = sample(replace(WHOLE, sampling="fps", annotation_fps=1.0), probe(Video(path)))
    assert found.step == pytest.approx(0.1)


def test_without_annotations_the_rate_is_the_one_asked_for():
    found = sample(replace(WHOLE, sampling="fps", fps=4.0), facts_of(1.3, rate=30.0))
    assert found.times == (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    assert found.step == 0.25
    assert sample(replace(WHOLE, sampling="fps", max_frames=3), facts_of(60)).times == (0.0, 0.5, 1.0)


# scene

films = st.lists(st.integers(1, 400), min_size=1, max_size=12).map(
    lambda lengths: [sum(lengths[: place + 1]) / 10 for place in range(len(lengths))]
)


@given(ends=films, number=st.integers(1, 60))
def test_frames_are_spread_over_the_scenes(ends, number):
    *cuts, duration = ends
    times = spread(cuts, duration, number)
    scenes = list(pairwise([0.0, *ends]))
    frames = [sum(start <= time < end for time in times) for start, end in scenes]
    assert len(times) == sum(frames) == number
    assert all(before < after for before, after in pairwise(times))
    if number >= len(scenes):
        assert min(frames) >= 1
        for (start, end), own in zip(scenes, frames, strict=True):
            for (other, last), others in zip(scenes, frames, strict=True):
                assert own >= others or end - start < last - other + 1e-9
    else:
        assert max(frames) == 1


@given(ends=films, number=st.integers(1, 60))
def test_frames_of_a_scene_stand_in_the_middle_of_equal_parts(ends, number):
    *cuts, duration = ends
    times = spread(cuts, duration, number)
    for start, end in pairwise([0.0, *ends]):
        own = [time for time in times if start <= time < end]
        parts = [start + (end - start) * (2 * place + 1) / (2 * len(own)) for place in range(len(own))]
        assert own == pytest.approx(parts)


@given(
    start=st.integers(0, 80),
    length=st.integers(0, 80),
    cuts=st.sets(st.integers(1, 99)),
    most=st.integers(1, 9),
)
def test_of_a_clip_only_its_own_scenes_count(start, length, cuts, most):
    assume(start + length <= 100)
    video = replace(WHOLE, sampling="scene", start=start / 10, end=(start + length) / 10, max_frames=most)
    facts = facts_of(10.0, cuts=tuple(cut / 10 for cut in sorted(cuts)))
    found = sample(video, facts)
    assert len(found.times) == len(frame_times(length / 10, fps=2.0, max_frames=most))
    assert all(0 <= time <= length / 10 for time in found.times)
    inner = [cut / 10 for cut in sorted(cuts) if start < cut < start + length]
    for low, high in pairwise([start / 10, *inner, (start + length) / 10]):
        if len(inner) < len(found.times) and length:
            assert any(low <= start / 10 + time <= high for time in found.times)


def test_scenes_nobody_looked_for_are_an_error_of_the_caller():
    with pytest.raises(ValueError, match="cuts are needed"):
        sample(replace(WHOLE, sampling="scene"), facts_of(3.0))
