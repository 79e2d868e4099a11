"""What a media file is, without its pixels: the facts from which costs and layouts follow."""

import dataclasses
from dataclasses import dataclass

from hedgerow.content import Image, Media
from hedgerow.vision.container import PyAVSource
from hedgerow.vision.image import image_size
from hedgerow.vision.scenes import find_cuts
from hedgerow.vision.source import VideoFacts, VideoSource

__all__ = ["Facts", "ImageFacts", "VideoFacts", "probe"]

_PYAV = PyAVSource()


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image file; `width` and `height` in pixels, seen upright."""

    path: str
    width: int
    height: int


Facts = ImageFacts | VideoFacts


def probe(media: Media, *, source: VideoSource = _PYAV) -> Facts:
    """Look a media file up.

    Of an image the header is read. Of a video all packets are read and the first frame is decoded; headers
    are not trusted for times. Where frames are spread over scenes, all of it is decoded to find them.

    Args:
        media: the file, and by its `sampling` whether its scenes are needed.
        source: what reads videos.

    Raises:
        MediaError: the file is missing, is not what it should be, or has no frame. A video that is damaged
            farther on is none: see `VideoFacts.damage`.
    """
    if isinstance(media, Image):
        width, height = image_size(media)
        return ImageFacts(media.name, width, height)
    facts = source.facts(media.path)
    if media.sampling != "scene":
        return facts
    return dataclasses.replace(facts, cuts=find_cuts(media.path, source=source))
