"""Which moments of a video are seen: `uniform_last_frame`, `fps` and `scene`.

`uniform_last_frame` is how Molmo2 sees videos (arXiv 2601.10611, section 3.1). `fps` is a steady rate from
the start on, which for tracks keeps to the times that were annotated, as in its public code. `scene` gives
every scene its share of the frames.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hedgerow.content import Sampling, Video
from hedgerow.errors import MediaError
from hedgerow.vision.facts import VideoFacts
from hedgerow.vision.source import SLACK

_NOISE = 1e-6  # frames; grid times are products of floats
_FASTEST = 10.0  # frames a second of a rate that is chosen for the annotations
_EVEN = 5e-4  # share by which a frame rate may be off: times of some files are whole milliseconds


@dataclass(frozen=True, slots=True)
class Sampled:
    """Sampled `times` in seconds from the start of the clip, and the `step` they are meant to have.

    Where a clip is too long for its most frames, times lie farther apart than a step.
    """

    times: tuple[float, ...]
    step: float


def filled(video: Video, *, fps: float, max_frames: int, sampling: Sampling | None) -> Video:
    """Return a video that says how it is sampled: as given where it does not say it itself."""
    return dataclasses.replace(
        video,
        fps=video.fps or fps,
        max_frames=video.max_frames or max_frames,
        sampling=video.sampling or sampling,
    )


def sample(video: Video, facts: VideoFacts) -> Sampled:
    """Choose the moments of a clip by the rule that its `sampling` names.

    Args:
        video: the clip, with `sampling`, `fps` and `max_frames`.
        facts: of its file; for `scene` with cuts.

    Raises:
        MediaError: the clip starts before the file does or after its last frame.
    """
    start, end = clip(video, facts.duration)
    duration = end - start
    fps, most = video.fps, video.max_frames
    if video.sampling is None or fps is None or most is None:
        raise ValueError(f"{video}: sampling, fps and max_frames must be known; take them from the processor")
    if video.sampling == "fps":
        rate = (
            fps
            if video.annotation_fps is None
            else _aligned_rate(video.annotation_fps, facts, duration, most)
        )
        return Sampled(tuple(step / rate for step in range(min(_steps(duration, rate), most))), 1 / rate)
    times = frame_times(duration, fps=fps, max_frames=most)
    if video.sampling == "scene":
        if facts.cuts is None:
            raise ValueError(f"{facts}: cuts are needed; probe the video with sampling='scene'")
        cuts = [cut - start for cut in facts.cuts if start < cut < end]
        times = spread(cuts, duration, len(times))
    return Sampled(tuple(times), 1 / fps)


def frame_times(duration: float, *, fps: float = 2.0, max_frames: int = 128) -> list[float]:
    """Return the sampled times, the last frame always among them (Molmo2's `uniform_last_frame`).

    A video that needs at most `max_frames` is seen at 0, 1/fps, 2/fps, ... before `duration`, and at
    `duration`. A longer one is seen at `max_frames` times spread evenly from 0 to `duration`, both included
    (with one: at 0).

    Args:
        duration: time of the last frame in seconds, the first being at 0.
        fps: frames a second.
        max_frames: the most frames.

    Example:
        >>> frame_times(1.2)
        [0.0, 0.5, 1.0, 1.2]
    """
    if not (math.isfinite(duration) and duration >= 0 and fps > 0 and max_frames >= 1):
        raise ValueError(
            f"duration={duration}, fps={fps}, max_frames={max_frames}: give 0 or more, more than 0, 1 or more"
        )
    steps = math.ceil(duration * fps - _NOISE)
    if steps <= max_frames - 1:
        return [step / fps for step in range(steps)] + [float(duration)]
    return [float(time) for time in np.linspace(0, duration, max_frames)]


def clip(video: Video, duration: float) -> tuple[float, float]:
    """Return start and end of a clip in seconds of the file, its end no later than the last frame.

    Args:
        video: the clip.
        duration: time of the file's last frame in seconds, its first being at 0.

    Raises:
        MediaError: the clip starts before the file does or after its last frame.
    """
    start = 0.0 if video.start is None else video.start
    end = duration if video.end is None else video.end
    if start < 0 or end < 0 or start > duration + SLACK:
        raise MediaError(
            f"{video.path}: the clip is {start:g} to {end:g} s, its frames 0 to {duration:g} s; correct it"
        )
    return min(start, duration), min(end, duration)


def spread(cuts: Sequence[float], duration: float, count: int) -> list[float]:
    """Spread frames over scenes: each has one, then longer scenes have more; fewer frames skip scenes evenly.

    Frames of a scene stand in the middle of equal parts of it.

    Args:
        cuts: seconds at which the second and each further scene begins, rising, within the clip.
        duration: of the clip in seconds.
        count: how many frames there are.

    Returns:
        `count` rising times in seconds.
    """
    scenes = list(pairwise([0.0, *cuts, duration]))
    if count <= len(scenes):
        chosen = [scenes[int((place + 0.5) * len(scenes) / count)] for place in range(count)]
        return [(start + end) / 2 for start, end in chosen]
    lengths = np.array([end - start for start, end in scenes])
    share = (count - len(scenes)) * lengths / max(duration, _NOISE)
    frames = 1 + np.floor(share + _NOISE).astype(int)
    behind = np.argsort(frames - 1 - share, kind="stable")
    frames[behind[: count - int(frames.sum())]] += 1
    return [
        start + (place + 0.5) * (end - start) / own
        for (start, end), own in zip(scenes, frames.tolist(), strict=True)
        for place in range(own)
    ]


def _aligned_rate(annotated: float, facts: VideoFacts, duration: float, most: int) -> float:
    """The greatest rate that falls on the annotated times and on frames, and needs no more than `most`."""
    multiples = [annotated * n for n in range(1, max(int(_FASTEST / annotated + _NOISE), 1) + 1)]
    on_frames = [rate for rate in multiples if _divides(rate, facts.rate)]
    rates = on_frames or [annotated]
    return max((rate for rate in rates if _steps(duration, rate) <= most), default=rates[0])


def _divides(rate: float, frames: float) -> bool:
    times = round(frames / rate)
    return times >= 1 and abs(frames / rate - times) <= _EVEN * times


def _steps(duration: float, rate: float) -> int:
    return math.floor(duration * rate + _NOISE) + 1
