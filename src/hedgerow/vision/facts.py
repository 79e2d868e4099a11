"""What a media file is, without its pixels: the facts from which costs and layouts follow."""

from dataclasses import dataclass

from hedgerow.content import Image, Media
from hedgerow.vision.image import image_size
from hedgerow.vision.video import open_video, upright_size


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image file; `width` and `height` in pixels, seen upright."""

    path: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """A whole video file, whatever clip of it is used.

    `width` and `height` in pixels, seen upright; `start` is the presentation time of the first frame,
    `duration` the time from it to that of the last, both in seconds.
    """

    path: str
    width: int
    height: int
    start: float
    duration: float


Facts = ImageFacts | VideoFacts


def probe(media: Media) -> Facts:
    """Look a media file up.

    Of an image the header is read. Of a video all packets are read and the first frame is decoded (it alone
    carries the rotation); headers are not trusted for times.

    Raises:
        MediaError: the file is missing, is not what it should be, is cut off, or has no frame.
    """
    if isinstance(media, Image):
        width, height = image_size(media.path)
        return ImageFacts(media.path, width, height)
    with open_video(media.path) as file:
        width, height = upright_size(file.first)
        start = file.origin * file.tick
        return VideoFacts(media.path, width, height, start=start, duration=file.seconds(file.last()))
