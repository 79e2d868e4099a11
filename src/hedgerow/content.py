"""The parts of a message: text, images, videos, points and tracks. Plain frozen data, as users write it."""

import base64
import binascii
import hashlib
import os
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Frame = Literal["fraction", "pixels", "percent", "thousandths"]
Sampling = Literal["uniform_last_frame", "fps", "scene"]
Box = tuple[float, float, float, float]
MOST = 1e6  # of one weight; the product of several must stay within float32


def _moderate(weight: float) -> float:
    if weight > MOST:
        raise ValueError(f"a weight may be {MOST:,.0f} at most, or the loss overflows; give a smaller one")
    return weight


Weight = Annotated[float, Field(ge=0.0, strict=True), AfterValidator(_moderate)]


def _from_base64(data: object) -> object:
    if not isinstance(data, str):
        return data
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64 ({error}); encode the bytes of the file so, or give its path") from None


Bytes = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]


def _as_text(path: object) -> object:
    return os.fspath(path) if isinstance(path, os.PathLike) else path


FilePath = Annotated[str, BeforeValidator(_as_text)]  # a `pathlib.Path` is kept as text


@dataclass(frozen=True, slots=True, config=STRICT)
class Span:
    """Characters `start` to `end` of a text, counted from 0, `end` not included.

    `weight` multiplies the loss weight of their tokens. By its `name` a recipe finds the span: `answer` is
    what a reply comes to, other names are free.
    """

    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=1)]
    weight: Weight | None = None
    name: Annotated[str, Field(min_length=1)] | None = None

    def __post_init__(self) -> None:
        """Refuse a span without a character."""
        if self.end <= self.start:
            raise ValueError(f"a span from {self.start} to {self.end} has no character; let it end later")


@dataclass(frozen=True, slots=True, config=STRICT)
class Text:
    """A piece of text. `weight` multiplies the loss weight of its tokens, `spans` that of some of them.

    Spans may overlap: their weights multiply.
    """

    text: str
    weight: Weight | None = None
    spans: tuple[Span, ...] = ()
    type: Literal["text"] = "text"

    def __post_init__(self) -> None:
        """Refuse a span that leaves the text."""
        for span in self.spans:
            if span.end > len(self.text):
                raise ValueError(
                    f"a span from {span.start} to {span.end} leaves its text of {len(self.text)} characters"
                )


@dataclass(frozen=True, slots=True, config=STRICT)
class Image:
    """An image, seen upright (EXIF orientation applied): the `path` of its file, or its bytes as `data`.

    `max_crops` is the most overlapping crops of it; None: the processor's.
    """

    path: FilePath | None = None
    max_crops: int | None = Field(default=None, ge=1)
    data: Bytes | None = Field(default=None, repr=False)
    type: Literal["image"] = "image"

    def __post_init__(self) -> None:
        """Refuse an image that is nowhere, or in two places."""
        if (self.path is None) == (self.data is None):
            given = "neither path nor data" if self.path is None else "both path and data"
            raise ValueError(f"an image has {given}; give one of them")

    @property
    def name(self) -> str:
        """What messages call it: its path, or the first digits of the SHA-256 of its bytes."""
        return self.path or f"image {hashlib.sha256(self.data or b'').hexdigest()[:12]}"


@dataclass(frozen=True, slots=True, config=STRICT)
class Subtitle:
    """A line spoken from `start` to `end`, in seconds from the start of the clip."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True, config=STRICT)
class Video:
    """A video file, or the clip of it from `start` to `end` (seconds of the file; both ends are included).

    A clip with `start == end` is one frame. All times elsewhere in the tree count from the start of the clip,
    those of an SRT or VTT file named as `subtitles` from the start of the video.
    `sampling` names the rule by which frames are chosen, see `hedgerow.vision.sampling`: about `fps` frames a
    second, `max_frames` at most; None: the processor's. Its tracks were annotated `annotation_fps` times a
    second, if that is known: an object without a point at one of these times was not visible then.
    """

    path: FilePath
    start: float | None = None
    end: float | None = None
    subtitles: tuple[Subtitle, ...] | FilePath = ()
    fps: float | None = Field(default=None, gt=0.0)
    max_frames: int | None = Field(default=None, ge=1)
    sampling: Sampling | None = None
    annotation_fps: float | None = Field(default=None, gt=0.0)
    type: Literal["video"] = "video"

    def __post_init__(self) -> None:
        """Refuse a clip that ends before it starts."""
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError(f"clip ends at {self.end} s before it starts at {self.start} s; swap them")

    @property
    def name(self) -> str:
        """What messages call it: its path."""
        return self.path


@dataclass(frozen=True, slots=True, config=STRICT)
class Point:
    """One place: `x`, `y` in the part's `frame`; `time` in seconds of the clip, or `image` from 1.

    `id` tells objects apart and stays with an object through time. `box` (x0, y0, x1, y1, same units) is the
    object's true extent: evaluation scores hits with it, the model is never shown it.
    """

    x: float
    y: float
    id: int | None = Field(default=None, ge=1)
    time: float | None = Field(default=None, ge=0.0)
    image: int | None = Field(default=None, ge=1)
    box: Box | None = None


@dataclass(frozen=True, slots=True, config=STRICT)
class Points:
    """Each instance of `label`, once. `frame` names the unit of x and y (fractions of width and height)."""

    label: str
    points: tuple[Point, ...] = ()
    frame: Frame = "fraction"
    weight: Weight | None = None
    type: Literal["points"] = "points"


@dataclass(frozen=True, slots=True, config=STRICT)
class Tracks:
    """Instances of `label` through time: a point for each time an object is visible, its id stable."""

    label: str
    points: tuple[Point, ...] = ()
    frame: Frame = "fraction"
    weight: Weight | None = None
    type: Literal["tracks"] = "tracks"

    def __post_init__(self) -> None:
        """Refuse a track point without a time or an id, and an object seen twice at one time."""
        seen: set[tuple[float, int]] = set()
        for point in self.points:
            if point.time is None or point.id is None:
                raise ValueError(
                    f"a track point needs a time and an id, got time={point.time}, id={point.id}; give both, "
                    "or points in place of tracks"
                )
            if (point.time, point.id) in seen:
                raise ValueError(f"object {point.id} stands twice at {point.time} s; keep one point of it")
            seen.add((point.time, point.id))


Part = Annotated[Text | Image | Video | Points | Tracks, Field(discriminator="type")]
Media = Image | Video
Grounding = Points | Tracks
