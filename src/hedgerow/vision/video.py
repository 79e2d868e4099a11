"""Videos: the frame that is shown at each moment, found by its timestamp."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from hedgerow.content import Video
from hedgerow.errors import MediaError
from hedgerow.sequence import Array
from hedgerow.vision.image import Resize, resized

SLACK = 5e-4  # seconds; frames later by less count as shown, for times written with three decimals
_REPEAT = 8  # bytes; a packet no larger may say "as before" and give no frame (MPEG-4, AVI)


def decode_frames(
    video: Video, times: Sequence[float], *, size: tuple[int, int], resize: Resize = "bilinear"
) -> Array:
    """Decode the frames that are shown at given times.

    The frame shown at a time is the last one that starts no later than it (within half a tick of the file's
    clock). Frames are upright (display rotation applied). The file is read from the key frame before the
    clip to the last time asked for, in one thread; a frame asked for twice is converted once.

    Args:
        video: the file, or a clip of it.
        times: seconds from the start of the clip, in any order.
        size: (height, width) of the result; the aspect ratio is not kept.
        resize: see `hedgerow.vision.image.resized`.

    Returns:
        uint8 [F, height, width, 3], one for each time.

    Raises:
        MediaError: the file is missing or no video, or a frame that is needed is missing or damaged.
    """
    found = np.empty((len(times), *size, 3), np.uint8)
    order = np.argsort(times, kind="stable")
    moments = [(video.start or 0.0) + times[place] for place in order]
    held = None
    for place, frame in zip(order, _shown(video, moments), strict=True):
        if frame is not held:
            held, pixels = frame, resized(upright(frame), size, resize=resize)
        found[place] = pixels
    return found


def upright(frame: Any) -> Array:
    """Return a decoded frame as uint8 [H, W, 3], turned and mirrored as its display matrix says."""
    # `frame.to_ndarray` would leave threads behind until the frame is collected, and a forked data worker
    # that collects it waits for them for ever.
    pixels = VideoReformatter().reformat(frame, format="rgb24", threads=1).to_ndarray()
    (a, b), (c, d) = _display(frame)
    if abs(b) > abs(a):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def upright_size(frame: Any) -> tuple[int, int]:
    """Return (width, height) of a decoded frame as it is displayed."""
    (a, b), _ = _display(frame)
    return (frame.height, frame.width) if abs(b) > abs(a) else (frame.width, frame.height)


class VideoFile:
    """The video stream of an open file. Times are in ticks of its clock (`tick` seconds each).

    Attributes:
        first: the first frame, of the file or after `seek` of the place found.
        origin: presentation time of the file's first frame.
        pending: presentation times of packets read, whose frames are still to come.
        reached: the greatest presentation time of any packet read.
    """

    def __init__(self, path: str, container: Any, stream: Any) -> None:
        self.path = path
        self.tick = float(stream.time_base)
        self.pending: list[int] = []
        self.origin = self.reached = stream.start_time or 0  # until the first frame is seen
        self._container, self._stream = container, stream
        stream.codec_context.thread_count = 1  # data workers are the parallelism
        self._decoded = self._decode()
        self.first = next(self._decoded, None)
        if self.first is None:
            raise MediaError(
                f"{path}: the video has no frame that can be decoded; leave it out or copy it again"
            )
        self.origin = self.first.pts

    def seconds(self, pts: float) -> float:
        """Return a presentation time in seconds from the first frame."""
        return float(pts - self.origin) * self.tick

    def seek(self, pts: int) -> bool:
        """Go to the key frame at or before a time; False if the file led elsewhere."""
        try:
            self._container.seek(pts, stream=self._stream)
        except av.FFmpegError:
            return False
        self.pending, self.reached = [], self.origin
        self._decoded = self._decode()
        self.first = next(self._decoded, None)
        return self.first is not None and self.first.pts <= pts

    def frames(self) -> Iterator[Any]:
        """Give decoded frames in the order of display.

        Raises:
            MediaError: a frame is damaged, or has no time or one before that of the frame before.
        """
        frame, last = self.first, -math.inf
        while frame is not None:
            if frame.pts < last:
                raise self.damaged(last, "its times go backwards")
            last = frame.pts
            yield frame
            frame = next(self._decoded, None)

    def last(self) -> int:
        """Return the presentation time of the last frame, reading packets to the end without decoding them.

        Raises:
            MediaError: the file ends within a frame.
        """
        cut = False
        for packet in self._packets():
            cut = packet.is_corrupt if packet.size else cut
        if cut:
            raise self.damaged(self.reached, "the file ends within a frame")
        return self.reached

    def damaged(self, pts: float, what: str) -> MediaError:
        """Return the error for a file that cannot be trusted around a time."""
        return MediaError(f"{self.path}, {self.seconds(pts):.2f} s: {what}; copy or encode the video again")

    def _decode(self) -> Iterator[Any]:
        """Decode from the next key frame on; a frame before it may lack what it refers to."""
        started = False
        for packet in self._packets():
            started = started or packet.is_keyframe
            if not started:
                continue
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                raise self.damaged(self.reached, f"it cannot be decoded ({error.strerror})") from None
            for frame in frames:
                if frame.pts is None:
                    raise self.damaged(self.reached, "a frame has no time")
                if frame.is_corrupt:
                    raise self.damaged(frame.pts, "the frame is damaged")
                yield frame

    def _packets(self) -> Iterator[Any]:
        """Read packets, noting their times; the last one is empty and empties the decoder."""
        try:
            for packet in self._container.demux(self._stream):
                if packet.pts is not None and not packet.is_discard:
                    self.reached = max(self.reached, packet.pts)
                    if _gives_frame(packet, self._stream.codec_context.name):
                        self.pending.append(packet.pts)
                yield packet
        except av.FFmpegError as error:
            raise self.damaged(self.reached, f"the file cannot be read on ({error.strerror})") from None


@contextmanager
def open_video(path: str) -> Iterator[VideoFile]:
    """Open the first video stream of a file; pictures attached to music do not count.

    Raises:
        MediaError: the file is missing, damaged at its beginning, or without video or frames.
    """
    if not Path(path).is_file():
        raise MediaError(f"{path}: no such file; correct the path or put the video there")
    try:
        container = av.open(path, metadata_errors="ignore")
    except av.FFmpegError as error:
        raise MediaError(
            f"{path}: no video, or cut off ({error.strerror}); give a whole MP4, WebM or MKV file"
        ) from None
    with container:
        # FFmpeg reads any text as a picture of text.
        streams = [] if container.format.name == "tty" else container.streams.video
        stream = next((stream for stream in streams if _is_video(stream)), None)
        if stream is None:
            raise MediaError(f"{path}: no video stream that can be decoded; give a file with video")
        yield VideoFile(path, container, stream)


def _is_video(stream: Any) -> bool:
    return stream.codec_context is not None and not stream.disposition & Disposition.attached_pic


def _shown(video: Video, moments: Sequence[float]) -> Iterator[Any]:
    """Give the frame shown at each of some rising times in seconds of the file."""
    if video.start:
        with open_video(video.path) as file:
            if file.seek(file.origin + math.floor(moments[0] / file.tick)):
                yield from _pick(file, moments)
                return
    with open_video(video.path) as file:
        yield from _pick(file, moments)


def _pick(file: VideoFile, moments: Sequence[float]) -> Iterator[Any]:
    slack = min(0.5, SLACK / file.tick)
    frames = file.frames()
    held, ahead = next(frames), next(frames, None)
    for moment in moments:
        tick = file.origin + moment / file.tick + slack
        while ahead is not None and ahead.pts <= tick:
            held, ahead = ahead, next(frames, None)
        file.pending = [pts for pts in file.pending if pts > held.pts]
        if held.pts > tick or min(file.pending, default=math.inf) <= tick:
            raise file.damaged(tick, "the frame shown there is missing")
        if ahead is None and tick > max(held.pts, file.reached) + 2 * slack:
            raise file.damaged(tick, f"the last frame is at {file.seconds(held.pts):.2f} s")
        yield held


def _gives_frame(packet: Any, codec: str) -> bool:
    """Say whether a packet must give a frame; VP8 marks hidden ones in the first byte (RFC 6386, 9.1)."""
    if packet.size <= _REPEAT:
        return False
    return codec != "vp8" or bool(bytes(packet)[0] & 0x10)


def _display(frame: Any) -> Array:
    """The 2x2 part of the display matrix: x' = a x + c y, y' = b x + d y, rows (a, b) and (c, d)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    matrix = np.eye(3) if data is None else np.frombuffer(data, np.int32).reshape(3, 3)
    return matrix[:2, :2]
