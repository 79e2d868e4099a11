"""Subtitles: rows that stand in the data, or a file beside the video."""

from hedgerow.content import Subtitle, Video
from hedgerow.errors import MediaError


def lines_of(video: Video) -> tuple[Subtitle, ...]:
    """Return the subtitles of a clip, their times in seconds from its start.

    Raises:
        MediaError: their file cannot be read.
    """
    if isinstance(video.subtitles, str):
        raise MediaError(f"{video.subtitles}: subtitle files are not read yet; give rows")
    return video.subtitles
