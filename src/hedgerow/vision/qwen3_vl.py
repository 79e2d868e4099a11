"""Qwen3-VL's images and videos: patches at their own resolution, merged by fours, with three-axis positions.

Everything here can be pickled and uses numpy only.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import PIL.Image

from hedgerow.content import Image, Media, Sampling, Video
from hedgerow.errors import MediaError, RecipeError
from hedgerow.grounding.points import printed_time
from hedgerow.sequence import Array, VisionInput
from hedgerow.vision.container import PyAVSource
from hedgerow.vision.facts import Facts, VideoFacts
from hedgerow.vision.image import load_image
from hedgerow.vision.processor import Grid, Groups, Marks, MediaLayout, Placement, subtitles_near
from hedgerow.vision.sampling import Sampled, clip, filled, sample
from hedgerow.vision.source import Damaged, accept
from hedgerow.vision.subtitles import lines_of

START, END = "<|vision_start|>", "<|vision_end|>"
IMAGE_PATCH, VIDEO_PATCH = "<|image_pad|>", "<|video_pad|>"
_LONGEST = 200  # times the shorter side

_PYAV = PyAVSource()


@dataclass(frozen=True, slots=True)
class Qwen3VLProcessor:
    """Qwen3-VL's images and videos (arXiv 2511.21631, and `transformers` from 5.10 on).

    Media are resized, bicubic, such that each side is a multiple of `patch_size * merge_size`, and cut into
    patches. Frames of a video are taken in groups of `temporal_patch_size` after the mean of their times; an
    image is repeated. `merge_size` squared patches make one feature. A "crop" is one patch here.

    Attributes:
        patch_size: side of a patch in pixels.
        merge_size: patches along each side of what becomes one feature.
        temporal_patch_size: frames of a patch.
        min_pixels: fewest pixels of an image; smaller ones are enlarged.
        max_pixels: most pixels of an image.
        video_min_pixels: fewest pixels of a video, all its frames together.
        video_max_pixels: the same, most.
        fps: frames a second of a video that does not say its own.
        min_frames: fewest frames of a video that has so many.
        max_frames: most frames of a video that does not say its own.
        sampling: by which rule of `hedgerow.vision.sampling` frames are chosen; None: Qwen3-VL's own, which
            spreads `fps` times the seconds of the clip evenly over its frames, from the first to the last.
        damaged: what becomes of a damaged video, see `Molmo2Processor`.
        family: what a recipe calls this processor.

    Raises:
        RecipeError: the numbers do not fit together.
    """

    patch_size: int = 16
    merge_size: int = 2
    temporal_patch_size: int = 2
    min_pixels: int = 65_536
    max_pixels: int = 16_777_216
    video_min_pixels: int = 4_096
    video_max_pixels: int = 25_165_824
    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 768
    sampling: Sampling | None = None
    damaged: Damaged = "refuse"
    family: Literal["qwen3_vl"] = "qwen3_vl"

    def __post_init__(self) -> None:
        """Refuse numbers that do not fit together."""
        counts = (self.patch_size, self.merge_size, self.temporal_patch_size, self.min_frames)
        if min(*counts, self.min_pixels, self.video_min_pixels) < 1 or self.fps <= 0:
            raise RecipeError(f"{self}: sizes, counts and fps are above 0; correct the one that is not")
        for least, most in (
            ("min_pixels", "max_pixels"),
            ("video_min_pixels", "video_max_pixels"),
            ("min_frames", "max_frames"),
        ):
            if getattr(self, least) > getattr(self, most):
                raise RecipeError(
                    f"{least} {getattr(self, least)} is more than {most} {getattr(self, most)}; swap them"
                )

    @property
    def groups(self) -> Groups:
        """Visual tokens are causal, as text is."""
        return "none"

    @property
    def axes(self) -> int:
        """Tokens are numbered by time, height and width."""
        return 3

    @property
    def placement(self) -> Placement:
        """Media stand inside the user's turn, where the message has them."""
        return "inside"

    @property
    def _factor(self) -> int:
        return self.patch_size * self.merge_size

    def filled(self, media: Media, *, several: bool = False) -> Media:  # noqa: ARG002  # of the protocol
        """Return the media with this processor's settings where it has none of its own.

        An image has none: `max_crops` says nothing here.
        """
        if isinstance(media, Image):
            return media
        return filled(media, fps=self.fps, max_frames=self.max_frames, sampling=self.sampling)

    def layout(self, media: Media, facts: Facts, *, label: str | None = None) -> MediaLayout:  # noqa: ARG002
        """Write down the tokens of one image or video; images are not labelled. See `VisionProcessor`."""
        media = self.filled(media)
        if isinstance(media, Image):
            return self._image_layout(media, (facts.width, facts.height))
        if not isinstance(facts, VideoFacts):
            raise ValueError(f"{media.name} is a video, got {facts}")
        accept(facts, damaged=self.damaged)
        return self._video_layout(media, facts)

    def visual(self, media: Media, layout: MediaLayout) -> VisionInput:
        """Read the pixels of one image or video; see `VisionProcessor`."""
        (_, rows, columns), side = layout.grids[0], self._factor
        size = (rows * side, columns * side)
        if isinstance(media, Image):
            frames = self._image(media, layout, size)
        else:
            frames = self._frames(media, layout.times, size)
        patches = self._patches(frames)
        assert len(patches) == layout.crops
        return VisionInput(
            crops=patches,
            pooling=np.arange(len(patches), dtype=np.int32).reshape(-1, self.merge_size**2),
            grids=np.array(layout.grids, np.int32),
            patches=1,
        )

    def _image_layout(self, image: Image, size: tuple[int, int]) -> MediaLayout:
        _check_shape(image.name, size)
        width, height = size
        new = self._fitted(height, width, volume=height * width, least=self.min_pixels, most=self.max_pixels)
        grid = (1, new[0] // self._factor, new[1] // self._factor)
        return MediaLayout(
            pieces=(_marks(grid, IMAGE_PATCH),),
            crops=math.prod(grid) * self.merge_size**2,
            times=(),
            step=0.0,
            grids=(grid,),
            size=size,
        )

    def _video_layout(self, video: Video, facts: VideoFacts) -> MediaLayout:
        sampled = sample(video, facts) if video.sampling else self._sample(video, facts)
        size, times = (facts.width, facts.height), sampled.times
        _check_shape(video.name, size)
        rows, columns = self._frame_grid(facts.height, facts.width, len(times))
        groups = self._grouped(np.array(times))
        frame = _marks((1, rows, columns), VIDEO_PATCH)
        pieces: list[str | Marks] = [_one(START)]
        for group in groups:
            pieces += [f"<{printed_time((group[0] + group[-1]) / 2)} seconds>", frame]
        subtitles = subtitles_near(lines_of(video), times)
        pieces += [_one(END), subtitles] if subtitles else [_one(END)]
        return MediaLayout(
            pieces=tuple(pieces),
            crops=len(groups) * rows * columns * self.merge_size**2,
            times=times,
            step=sampled.step,
            grids=((len(groups), rows, columns),),
            size=size,
        )

    def _sample(self, video: Video, facts: VideoFacts) -> Sampled:
        assert video.fps is not None
        assert video.max_frames is not None
        start, end = clip(video, facts.duration)
        rate = facts.rate or video.fps
        frames = round((end - start) * rate) + 1
        count = min(max(int(frames / rate * video.fps), self.min_frames), video.max_frames, frames)
        chosen = np.linspace(0, frames - 1, count).round()
        return Sampled(tuple(min(float(frame) / rate, end - start) for frame in chosen), 1 / video.fps)

    def _frame_grid(self, height: int, width: int, frames: int) -> tuple[int, int]:
        """Rows and columns of features of a frame; the pixels of all frames count together."""
        if min(height, width) < self._factor:
            scale = max(self._factor / height, self._factor / width)
            height, width = int(height * scale), int(width * scale)
        frames = max(frames, self.temporal_patch_size)
        limits = {"least": self.video_min_pixels, "most": self.video_max_pixels}
        counted = round(frames / self.temporal_patch_size) * self.temporal_patch_size
        new = self._fitted(height, width, volume=frames * height * width, counted=counted, **limits)
        return new[0] // self._factor, new[1] // self._factor

    def _fitted(
        self, height: int, width: int, *, volume: int, least: int, most: int, counted: int = 1
    ) -> tuple[int, int]:
        """The multiples of the factor next to height and width, within limits, at about the same aspect.

        `volume` is the pixels as they are, `counted` the frames that count in the result.
        """
        factor = self._factor
        near = (round(height / factor) * factor, round(width / factor) * factor)
        pixels = counted * near[0] * near[1]
        if least <= pixels <= most:
            return near
        if pixels > most:
            shrink = math.sqrt(volume / most)
            down = (math.floor(side / shrink / factor) * factor for side in (height, width))
            high, wide = (max(factor, side) for side in down)
        else:
            grow = math.sqrt(least / volume)
            high, wide = (math.ceil(side * grow / factor) * factor for side in (height, width))
        return high, wide

    def _image(self, image: Image, layout: MediaLayout, size: tuple[int, int]) -> Array:
        pixels = load_image(image)
        found = (pixels.shape[1], pixels.shape[0])
        if found != layout.size:
            raise MediaError(
                f"{image.name}: now {found} pixels, {layout.size} when measured; index the data again"
            )
        return _resized(np.asarray(pixels), size)[None]

    def _frames(self, video: Video, times: tuple[float, ...], size: tuple[int, int]) -> Array:
        moments = [(video.start or 0.0) + time for time in times]
        found = np.empty((len(times), *size, 3), np.uint8)
        held = None
        for place, frame in enumerate(_PYAV.shown(video.path, moments, damaged=self.damaged)):
            if frame is not held:
                held, pixels = frame, _resized(frame, size)
            found[place] = pixels
        return found

    def _patches(self, frames: Array) -> Array:
        """Cut uint8 [F, H, W, 3] into patches [P, 3 * T * S * S], those of one feature side by side."""
        side, merge, frames = self.patch_size, self.merge_size, self._grouped(frames)
        groups, times, height, width, channels = frames.shape
        rows, columns = height // side // merge, width // side // merge
        cut = frames.reshape(groups, times, rows, merge, side, columns, merge, side, channels)
        return cut.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(-1, channels * times * side * side)

    def _grouped(self, frames: Array) -> Array:
        """Put [F, ...] into groups [G, T, ...] of frames of a patch; the last one fills the last group."""
        size = self.temporal_patch_size
        missing = np.repeat(frames[-1:], -len(frames) % size, axis=0)
        return np.concatenate([frames, missing]).reshape(-1, size, *frames.shape[1:])


def _one(name: str) -> Marks:
    return Marks((name,), position=np.zeros((3, 1), np.int64))


def _marks(grid: Grid, patch: str) -> Marks:
    """A frame between its start and its end: patches at one time, numbered by row and column."""
    _, rows, columns = grid
    row, column = np.divmod(np.arange(rows * columns), columns)
    position = np.zeros((3, rows * columns + 2), np.int64)
    position[:, 1:-1] = 1 + np.stack([np.zeros_like(row), row, column])
    position[:, -1] = 1 + max(rows, columns)
    return Marks((START, *[patch] * len(row), END), patch=patch, position=position)


def _resized(pixels: Array, size: tuple[int, int]) -> Array:
    """Resize uint8 [H, W, 3] to (height, width) with Pillow's bicubic filter, which skips no pixel."""
    picture = PIL.Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize(size[::-1], PIL.Image.Resampling.BICUBIC))


def _check_shape(name: str, size: tuple[int, int]) -> None:
    if max(size) > _LONGEST * min(size):
        raise MediaError(
            f"{name}: {size[0]} x {size[1]} pixels; one side may be {_LONGEST} times the other, cut it"
        )
