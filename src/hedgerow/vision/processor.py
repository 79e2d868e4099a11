"""How a model sees media: tokens from facts alone, pixels later.

The protocol that data workers receive, and Molmo2's. Everything here can be pickled and uses numpy only.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from hedgerow.content import Image, Media, Sampling, Subtitle, Video
from hedgerow.errors import MediaError, RecipeError
from hedgerow.grounding.points import printed_time
from hedgerow.sequence import Array, VisionInput
from hedgerow.vision.facts import Facts, VideoFacts
from hedgerow.vision.image import Resize, Tiler, load_image, resized
from hedgerow.vision.pooling import stitch, windows
from hedgerow.vision.sampling import filled, sample
from hedgerow.vision.source import Damaged, accept
from hedgerow.vision.subtitles import lines_of
from hedgerow.vision.video import decode_frames

PATCH = "<im_patch>"
Groups = Literal["message", "per_image", "runs", "none"]
Placement = Literal["before", "inside"]
Grid = tuple[int, int, int]

_NEAR = 1.0  # seconds between a subtitle and a frame


@dataclass(frozen=True, slots=True)
class Marks:
    """A run of special tokens, by name; those called `patch` are slots. They form a bidirectional group.

    `position` int [A, tokens] are their rotary positions along A axes from the start of the run; what follows
    goes on behind the greatest. None counts the tokens.
    """

    names: tuple[str, ...]
    patch: str = PATCH
    position: Array | None = dataclasses.field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class MediaLayout:
    """All tokens of one image or video, and what its pixels will be; made without reading a pixel.

    Attributes:
        pieces: in order; a plain string is text and stays causal.
        crops: number of ViT inputs.
        times: of a video, the time of each sampled frame in seconds from the start of the clip.
        step: seconds that frames are meant to lie apart; what is annotated within half of it is seen.
        grids: frames, rows and columns of slots of each view, in slot order.
        size: (width, height) of the upright source in pixels.
    """

    pieces: tuple[str | Marks, ...]
    crops: int
    times: tuple[float, ...]
    step: float
    grids: tuple[Grid, ...]
    size: tuple[int, int]

    @property
    def slots(self) -> int:
        """Number of tokens that receive a visual feature."""
        return sum(piece.names.count(piece.patch) for piece in self.pieces if isinstance(piece, Marks))


class VisionProcessor(Protocol):
    """Turns media into tokens and pixels for one model."""

    @property
    def groups(self) -> Groups:
        """Which marks see each other in both directions.

        Those of one message; of one image or video; the slots of each unbroken run, marks around them not;
        or none beyond causality.
        """
        ...

    @property
    def axes(self) -> int:
        """How many numbers the rotary position of a token has: 1 or 3."""
        ...

    @property
    def placement(self) -> Placement:
        """Where the media of a user's message stand: before the header of its turn, or inside the turn."""
        ...

    def filled(self, media: Media, *, several: bool = False) -> Media:
        """Return the media with this processor's settings where it has none of its own.

        Args:
            media: what stands in the message.
            several: whether the message shows several images.
        """
        ...

    def layout(self, media: Media, facts: Facts, *, label: str | None) -> MediaLayout:
        """Write down the tokens of one image or video.

        Args:
            media: what stands in the message, filled.
            facts: what `hedgerow.vision.facts.probe` says of its file.
            label: text to put before it, such as "Image 2".

        Raises:
            MediaError: the clip lies outside the file.
        """
        ...

    def visual(self, media: Media, layout: MediaLayout) -> VisionInput:
        """Read the pixels: one pooling row for each slot of the layout.

        Raises:
            MediaError: the file cannot be read, or is not what the layout was made from.
        """
        ...


@dataclass(frozen=True, slots=True)
class Molmo2Processor:
    """Molmo2's images and videos (arXiv 2601.10611, section 3.1, and its public code).

    An image is a small view of the whole and overlapping crops of an enlarged one, rows closed by
    `<im_col>`. A video is one crop a frame, each after its time in seconds, subtitles behind all frames.

    Attributes:
        crop_size: side of a ViT input in pixels, a multiple of `patch_size`.
        patch_size: side of a ViT patch in pixels.
        max_crops: the most overlapping crops of an image that does not say its own; the small view not
            counted.
        max_multi_image_crops: the same where a message shows several images; None: as many.
        image_pooling: side of a pooling window in patches, for images.
        video_pooling: the same for videos.
        max_frames: the most frames of a video that does not say its own.
        fps: frames a second of shorter videos, likewise.
        sampling: by which rule frames are chosen, likewise; see `hedgerow.vision.sampling`.
        margins: patches (left and top, right and bottom) of a crop that its neighbours also see.
        resize: see `hedgerow.vision.image.resized`.
        damaged: "refuse" a video that is damaged, or "keep" it: in place of a frame that is missing or
            damaged the nearest good one before is shown, and a warning names the file.
        groups: which marks see each other.
        family: what a recipe calls this processor.

    Raises:
        RecipeError: the numbers do not fit together.
    """

    crop_size: int = 378
    patch_size: int = 14
    max_crops: int = 8
    max_multi_image_crops: int | None = None
    image_pooling: int = 2
    video_pooling: int = 3
    max_frames: int = 128
    fps: float = 2.0
    sampling: Sampling = "uniform_last_frame"
    margins: tuple[int, int] = (4, 4)
    resize: Resize = "bilinear"
    damaged: Damaged = "refuse"
    groups: Groups = "message"
    family: Literal["molmo2"] = "molmo2"

    def __post_init__(self) -> None:
        """Refuse numbers that do not fit together."""
        several = 1 if self.max_multi_image_crops is None else self.max_multi_image_crops
        counts = (self.crop_size, self.patch_size, self.max_crops, several, self.max_frames)
        if min(*counts, self.image_pooling, self.video_pooling) < 1 or self.fps <= 0:
            raise RecipeError(f"{self}: sizes, counts and fps are above 0; correct the one that is not")
        if self.crop_size % self.patch_size:
            raise RecipeError(
                f"crop_size {self.crop_size} is no multiple of patch_size {self.patch_size}; change one"
            )
        if min(self.margins) < 0 or sum(self.margins) >= self._side:
            raise RecipeError(
                f"margins {self.margins} leave nothing of a crop of {self._side} patches a side (crop_size "
                f"{self.crop_size}, patch_size {self.patch_size}); give a smaller patch_size, or lower "
                "margins"
            )

    @property
    def axes(self) -> int:
        """Tokens are numbered in one row."""
        return 1

    @property
    def placement(self) -> Placement:
        """Media stand before the header of the turn."""
        return "before"

    @property
    def _side(self) -> int:
        return self.crop_size // self.patch_size

    def _tiler(self, image: Image) -> Tiler:
        assert image.max_crops is not None
        return Tiler(self.crop_size, self.patch_size, self.margins, image.max_crops)

    def filled(self, media: Media, *, several: bool = False) -> Media:
        """Return the media with this processor's settings where it has none of its own."""
        if isinstance(media, Image):
            most = (self.max_multi_image_crops if several else None) or self.max_crops
            return media if media.max_crops is not None else dataclasses.replace(media, max_crops=most)
        return filled(media, fps=self.fps, max_frames=self.max_frames, sampling=self.sampling)

    def layout(self, media: Media, facts: Facts, *, label: str | None = None) -> MediaLayout:
        """Write down the tokens of one image or video; see `VisionProcessor`."""
        before = () if label is None else (label,)
        media = self.filled(media, several=label is not None)
        if isinstance(media, Image):
            return self._image_layout(media, (facts.width, facts.height), before)
        if not isinstance(facts, VideoFacts):
            raise ValueError(f"{media.name} is a video, got {facts}")
        accept(facts, damaged=self.damaged)
        return self._video_layout(media, facts, before)

    def visual(self, media: Media, layout: MediaLayout) -> VisionInput:
        """Read the pixels of one image or video; see `VisionProcessor`."""
        media = self.filled(media)
        vision = self._image(media, layout) if isinstance(media, Image) else self._video(media, layout)
        assert len(vision.pooling) == layout.slots
        assert len(vision.crops) == layout.crops
        return vision

    def _image_layout(self, image: Image, size: tuple[int, int], before: tuple[str, ...]) -> MediaLayout:
        tiler, shape = self._tiler(image), (size[1], size[0])
        rows, columns = tiler.tiling(shape)
        low = -(-self._side // self.image_pooling)
        high, wide = (-(-length // self.image_pooling) for length in tiler.patch_grid(shape).shape)
        row = (*[PATCH] * wide, "<im_col>")
        small = ("<low_res_im_start>", *[PATCH] * (low * low), "<im_end>")
        return MediaLayout(
            pieces=(*before, Marks((*small, "<im_start>", *row * high, "<im_end>"))),
            crops=1 + rows * columns,
            times=(),
            step=0.0,
            grids=((1, low, low), (1, high, wide)),
            size=size,
        )

    def _video_layout(self, video: Video, facts: VideoFacts, before: tuple[str, ...]) -> MediaLayout:
        sampled = sample(video, facts)
        times = sampled.times
        side = -(-self._side // self.video_pooling)
        frame = Marks(("<frame_start>", *[PATCH] * (side * side), "<frame_end>"))
        pieces: list[str | Marks] = list(before)
        for number, time in enumerate(times):
            pieces += [f"{' ' if number else ''}{printed_time(time)} ", frame]
        subtitles = subtitles_near(lines_of(video), times)
        return MediaLayout(
            pieces=(*pieces, subtitles) if subtitles else tuple(pieces),
            crops=len(times),
            times=times,
            step=sampled.step,
            grids=((len(times), side, side),),
            size=(facts.width, facts.height),
        )

    def _image(self, image: Image, layout: MediaLayout) -> VisionInput:
        pixels = load_image(image)
        size = (pixels.shape[1], pixels.shape[0])
        if size != layout.size:
            raise MediaError(
                f"{image.name}: now {size} pixels, {layout.size} when measured; index the data again"
            )
        tiler = self._tiler(image)
        small = resized(pixels, (self.crop_size, self.crop_size), resize=self.resize)
        low, _ = windows(stitch((1, 1), side=self._side, margins=(0, 0)), pool=self.image_pooling)
        high, _ = windows(tiler.patch_grid(pixels.shape[:2]), pool=self.image_pooling)
        patches = self._side**2
        return VisionInput(
            crops=np.concatenate([small[None], tiler.crops(pixels, resize=self.resize)]),
            pooling=np.concatenate([low, np.where(high < 0, -1, high + patches)]).astype(np.int32),
            grids=np.array(layout.grids, np.int32),
            patches=patches,
        )

    def _video(self, video: Video, layout: MediaLayout) -> VisionInput:
        size = (self.crop_size, self.crop_size)
        one, _ = windows(stitch((1, 1), side=self._side, margins=(0, 0)), pool=self.video_pooling)
        patches = self._side**2
        starts = np.arange(len(layout.times))[:, None, None] * patches
        return VisionInput(
            crops=decode_frames(video, layout.times, size=size, resize=self.resize, damaged=self.damaged),
            pooling=np.where(one < 0, -1, one + starts).reshape(-1, one.shape[1]).astype(np.int32),
            grids=np.array(layout.grids, np.int32),
            patches=patches,
        )


def subtitles_near(lines: Sequence[Subtitle], times: Sequence[float]) -> str:
    """Text of the lines spoken near a sampled frame, empty for none."""
    near = [line for line in lines if any(line.start - _NEAR <= time <= line.end + _NEAR for time in times)]
    spoken = [(line, " ".join(line.text.split())) for line in near]
    shown = [
        f"\n{printed_time(line.start)} - {printed_time(line.end)} {text}" for line, text in spoken if text
    ]
    return "\nSubtitles:" + "".join(shown) if shown else ""
