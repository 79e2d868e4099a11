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

    Attributes:
        path: of the file.
        width: in pixels, seen upright.
        height: likewise.
        start: presentation time of the first frame in seconds.
        duration: seconds from the first frame to the last.
        rate: frames a second on average; 0 where that is unknown.
        cuts: seconds from the first frame to the first of each further scene; None where nobody looked.
        damage: what is wrong with the file, if it is damaged and not all of it can be seen.
    """

    path: str
    width: int
    height: int
    start: float
    duration: float
    rate: float = 0.0
    cuts: tuple[float, ...] | None = None
    damage: str | None = None


Facts = ImageFacts | VideoFacts


def probe(media: Media) -> Facts:
    """Look a media file up.

    Of an image the header is read. Of a video all packets are read and the first frame is decoded (it alone
    carries the rotation); headers are not trusted for times.

    Raises:
        MediaError: the file is missing, is not what it should be, is cut off, or has no frame.
    """
    if isinstance(media, Image):
        width, height = image_size(media)
        return ImageFacts(media.name, width, height)
    with open_video(media.path) as file:
        width, height = upright_size(file.first)
        start = file.origin * file.tick
        return VideoFacts(media.path, width, height, start=start, duration=file.seconds(file.last()))
