"""Images and videos of any model whose own `transformers` processor writes placeholder tokens.

Everything here can be pickled; a process that uses it loads the processor once.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hedgerow.content import Image, Media, Sampling, Video
from hedgerow.errors import MediaError, RecipeError
from hedgerow.grounding.points import printed_time
from hedgerow.sequence import Array, VisionInput
from hedgerow.vision.container import PyAVSource
from hedgerow.vision.facts import Facts, VideoFacts
from hedgerow.vision.image import load_image
from hedgerow.vision.plain import ARITHMETIC, Written, model_type, plain, settings_digest, traits, written
from hedgerow.vision.processor import Grid, Groups, Marks, MediaLayout, Placement, subtitles_near
from hedgerow.vision.sampling import filled, sample
from hedgerow.vision.source import Damaged, accept
from hedgerow.vision.subtitles import lines_of

_PYAV = PyAVSource()


@dataclass(frozen=True, slots=True)
class HFProcessor:
    """What the processor of a checkpoint makes of images, each on its own; of a video, its frames.

    The tokens of an image are those the processor puts in place of its placeholder, with what the
    checkpoint's chat template writes around it. A video is its frames, each an image after its time in
    seconds, subtitles behind all of them. A "crop" is what the processor hands to the vision tower as one
    input: a tile or a view of an image, or one patch where images are cut into patches at their own size.

    Attributes:
        folder: of the checkpoint, with the settings of its processor and its tokenizer.
        images: settings of its image processor that replace its own.
        frames: the same for the frames of a video.
        max_frames: the most frames of a video that does not say its own.
        fps: frames a second of shorter videos, likewise.
        sampling: by which rule frames are chosen, likewise; see `hedgerow.vision.sampling`.
        damaged: what becomes of a damaged video, see `Molmo2Processor`.
        family: what a recipe calls this processor.

    Raises:
        RecipeError: `fps` or `max_frames` is not above 0, or `images` and `frames` are rescaled or
            normalised in two ways.
    """

    folder: str
    images: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    frames: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    max_frames: int = 128
    fps: float = 2.0
    sampling: Sampling = "uniform_last_frame"
    damaged: Damaged = "refuse"
    family: Literal["processor"] = "processor"

    def __post_init__(self) -> None:
        """Refuse numbers that make no video, and values that no row could hold side by side."""
        other = [name for name in ARITHMETIC if self.images.get(name) != self.frames.get(name)]
        if other:
            raise RecipeError(
                f"images and frames have another {', '.join(other)}, and a row holds both; give both the same"
            )
        if self.max_frames < 1 or self.fps <= 0:
            raise RecipeError(f"max_frames {self.max_frames}, fps {self.fps}: give numbers above 0")

    def __repr__(self) -> str:
        """Show all settings, those of the folder as a digest: by this a cache of pixels knows them."""
        own = [f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self)]
        return f"HFProcessor({', '.join(own)}, content={settings_digest(self.folder)})"

    @property
    def groups(self) -> Groups:
        """That of the model: `runs` for Gemma 3, `none` for others."""
        return traits(model_type(self.folder))[1]

    @property
    def axes(self) -> int:
        """That of the model: 3 for Qwen2-VL and Qwen2.5-VL, 1 for others."""
        return traits(model_type(self.folder))[0]

    @property
    def placement(self) -> Placement:
        """Media stand inside the user's turn, where the message has them."""
        return "inside"

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
        size = (facts.width, facts.height)
        one = self._written(media, size)
        marks = Marks(one.names, patch=one.patch, position=_position(one) if self.axes == 3 else None)
        if isinstance(media, Image):
            image = tuple(piece for piece in (one.before, marks, one.after) if piece)
            return MediaLayout(image, one.crops, times=(), step=0.0, grids=one.grids, size=size)
        if not isinstance(facts, VideoFacts):
            raise ValueError(f"{media.name} is a video, got {facts}")
        accept(facts, damaged=self.damaged)
        sampled = sample(media, facts)
        pieces: list[str | Marks] = []
        for number, time in enumerate(sampled.times):
            between = f"{one.after} " if number else ""
            pieces += [f"{between}{printed_time(time)} {one.before}", marks]
        last = one.after + subtitles_near(lines_of(media), sampled.times)
        count = len(sampled.times)
        return MediaLayout(
            pieces=(*pieces, last) if last else tuple(pieces),
            crops=one.crops * count,
            times=sampled.times,
            step=sampled.step,
            grids=_repeated(one, count),
            size=size,
        )

    def visual(self, media: Media, layout: MediaLayout) -> VisionInput:
        """Read the pixels of one image or video; see `VisionProcessor`.

        `crops` hold what the processor had before it rescaled and normalised values, `levels` what it then
        makes of each: together they are its `pixel_values`, bit for bit.
        """
        media = self.filled(media)
        settings, one = self._settings(media), self._written(media, layout.size)
        tool = plain(self.folder)
        if isinstance(media, Image):
            pixels = np.asarray(load_image(media))
            _check_size(media, pixels, layout)
            crops = tool.see(pixels, settings)
        else:
            crops = self._frames(media, layout)
        count = max(len(layout.times), 1)
        if len(crops) != layout.crops:
            raise MediaError(f"{media.name}: {len(crops)} crops, {layout.crops} when it was measured")
        window = np.arange(one.slots * one.merged).reshape(-1, one.merged)
        starts = np.arange(count)[:, None, None] * one.crops * one.patches
        told = (one.crops, one.slots, layout.size[1], layout.size[0], one.whole)
        return VisionInput(
            crops=crops,
            pooling=(window + starts).reshape(-1, one.merged).astype(np.int32),
            grids=np.array(layout.grids, np.int32),
            patches=one.patches,
            images=np.tile(np.array(told, np.int32), (count, 1)),
            levels=tool.levels(settings),
        )

    def _settings(self, media: Media) -> Mapping[str, Any]:
        return self.images if isinstance(media, Image) else self.frames

    def _written(self, media: Media, size: tuple[int, int]) -> Written:
        try:
            return written(self.folder, json.dumps(dict(self._settings(media)), sort_keys=True), size)
        except MediaError as error:
            raise MediaError(f"{media.name}: {error}") from error

    def _frames(self, video: Video, layout: MediaLayout) -> Array:
        moments = [(video.start or 0.0) + time for time in layout.times]
        tool, found = plain(self.folder), []
        held = None
        for frame in _PYAV.shown(video.path, moments, damaged=self.damaged):
            if frame is not held:
                held, crops = frame, tool.see(frame, self.frames)
            found.append(crops)
        return np.concatenate(found)


def _check_size(image: Image, pixels: Array, layout: MediaLayout) -> None:
    size = (pixels.shape[1], pixels.shape[0])
    if size != layout.size:
        raise MediaError(
            f"{image.name}: now {size} pixels, {layout.size} when measured; index the data again"
        )


def _repeated(one: Written, count: int) -> tuple[Grid, ...]:
    """The grids of frames that are all alike."""
    if len(one.grids) == 1:
        ((frames, rows, columns),) = one.grids
        return ((frames * count, rows, columns),)
    return ((count, 1, one.slots),)


def _position(one: Written) -> Array:
    """Positions by time, height and width (arXiv 2409.12191, section 2.1): slots in their grid."""
    ((_, rows, columns),) = one.grids
    pieces, reached = [], 0
    for is_slot, run in itertools.groupby(one.names, lambda name: name == one.patch):
        count = len(list(run))
        if is_slot:
            row, column = np.divmod(np.arange(count), columns)
            pieces.append(reached + np.stack([np.zeros_like(row), row, column]))
            reached += max(rows, columns)
        else:
            pieces.append(np.tile(reached + np.arange(count), (3, 1)))
            reached += count
    return np.concatenate(pieces, axis=1)
