"""Video files read with PyAV (FFmpeg): the library's `VideoSource`."""

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from hedgerow.errors import MediaError
from hedgerow.sequence import Array
from hedgerow.vision.mistaken import HEAD, mistaken
from hedgerow.vision.packets import Stretch, stretches
from hedgerow.vision.source import SLACK, Damaged, VideoFacts, warn

_REPEAT = 8  # bytes; a packet no larger may say "as before" and give no frame (MPEG-4, AVI)
_UNTIMED = ("avi", "mpeg")  # formats whose packets need not say when they are shown: FFmpeg fills that in
MOST_PIXELS = 8192 * 4352  # of a frame; what a small file claims may take all memory


class PyAVSource:
    """Decodes in one thread, and of a file no more than what is needed for the frames asked for.

    A file is read from the key frame before the first moment to the last one. What is left out on the way is
    described in `hedgerow.vision.packets`; where a file turns out to be other than its container says, it is
    read again from its beginning and all of it is decoded.
    """

    def facts(self, path: str) -> VideoFacts:
        """Look a file up; see `VideoSource`. All packets are read; the first frame carries the rotation."""
        with open_video(path, damaged="keep") as file:
            times = file.times()
            width, height = _upright_size(file.first)
            last = max(times, default=file.origin)
            return VideoFacts(
                path,
                width,
                height,
                start=file.origin * file.tick,
                duration=file.seconds(last),
                rate=(len(times) - 1) / file.seconds(last) if last > file.origin else 0.0,
                damage=file.damage,
            )

    def shown(self, path: str, moments: Sequence[float], *, damaged: Damaged) -> Iterator[Array]:
        """Give the frame shown at each of some rising moments; see `VideoSource`."""
        held = pixels = None
        for frame in _shown(path, moments, damaged):
            if frame is not held:
                held, pixels = frame, upright(frame)
            assert pixels is not None
            yield pixels

    def every(self, path: str, size: tuple[int, int]) -> Iterator[tuple[float, Array]]:
        """Give the time of every good frame and a small picture of it, not turned; see `VideoSource`."""
        with open_video(path, damaged="keep") as file:
            small = VideoReformatter()
            for frame in file.frames():
                picture = small.reformat(frame, size[1], size[0], "rgb24", interpolation="AREA", threads=1)
                yield file.seconds(frame.pts), picture.to_ndarray()


def upright(frame: Any) -> Array:
    """Return a decoded frame as uint8 [H, W, 3], turned and mirrored as its display matrix says."""
    # `frame.to_ndarray` would leave threads behind until the frame is collected, and a forked data worker
    # that collects it waits for them for ever.
    pixels = VideoReformatter().reformat(frame, format="rgb24", threads=1).to_ndarray()
    (a, b), (c, d) = _display(frame)
    if abs(b) > abs(a):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


class VideoFile:
    """The video stream of an open file. Times are in ticks of its clock (`tick` seconds each).

    Attributes:
        first: the first frame, of the file or after `seek` of the place found.
        timed: whether packets say when they are shown; otherwise only decoding from the beginning tells.
        slack: ticks by which a frame may be late and still count as shown.
        origin: presentation time of the file's first frame.
        wanted: rising times whose frames will be asked for, so that others may be left out; None: all.
        pending: presentation times of packets decoded, whose frames are still to come.
        reached: the greatest presentation time of any packet read.
        damage: time and kind of the first damage met, where it is not raised.
    """

    def __init__(self, path: str, container: Any, stream: Any, *, damaged: Damaged) -> None:
        self.path, self.policy = path, damaged
        self.timed = container.format.name not in _UNTIMED
        self.tick = float(stream.time_base)
        self.slack = min(0.5, SLACK / self.tick)
        self.wanted: Sequence[float] | None = None
        self.pending: list[int] = []
        self.damage: str | None = None
        self.origin = self.reached = self._sent = stream.start_time or 0  # until the first frame is seen
        self._container, self._stream, self._codec = container, stream, stream.codec_context
        self._codec.thread_count = 1  # data workers are the parallelism
        self._times: list[int] = []
        self._began = math.inf  # presentation time of the first packet decoded
        self._cut = self._broken = self._running = False
        self._proven = True
        self._packets = self._read()
        self._decoded = self._decode()
        self.first = next(self._decoded, None)
        if self.first is None:
            raise _no_video(path, "the video has no frame that can be decoded; leave it out or copy it again")
        # What is lost of the beginning keeps its place in time.
        self.origin = min(self._began, self.first.pts)
        if self.origin < self.first.pts:
            self._fault(self.origin, "the first frame is missing")

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
        self._broken = self._running = self._proven = False
        self._packets = self._read()
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
            if frame.pts >= last:
                last = frame.pts
                yield frame
            else:
                self._fault(last, "its times go backwards")
            frame = next(self._decoded, None)

    def times(self) -> list[int]:
        """Return the presentation times of all frames, reading packets to the end without decoding them.

        What the file ends within is noted as `damage` and left out.
        """
        for _ in self._packets:
            pass
        whole = self._times[:-1] if self._cut else self._times
        if self._cut:
            self._fault(self.reached, "the file ends within a frame")
        return [pts for pts in whole if pts >= self.origin]

    def ticks(self, moments: Sequence[float]) -> list[float]:
        """Return the latest presentation time of a frame that is shown at each of some times in seconds."""
        return [self.origin + moment / self.tick + self.slack for moment in moments]

    def stand_in(self, frame: Any, tick: float, what: str) -> None:
        """Raise what is wrong at a time, or name once the frame that is shown there instead."""
        if self.policy == "refuse":
            raise self.error(tick, what)
        why = f" ({self.damage})" if self.damage else ""
        warn(
            self.path,
            f"{self.seconds(tick):.2f} s: {what}{why}; the frame of {self.seconds(frame.pts):.2f} s is shown "
            "in its place, and so on in this file",
        )

    def error(self, pts: float, what: str) -> MediaError:
        """Return the error for a file that cannot be trusted around a time."""
        return MediaError(f"{self.path}, {self.seconds(pts):.2f} s: {what}; copy or encode the video again")

    def _decode(self) -> Generator[Any, None, None]:
        """Decode from the next key frame on; a frame before it may lack what it refers to."""
        for stretch in stretches(self._packets):
            if self.wanted is not None and self.wanted[-1] < stretch.low:
                break
            if self._running or stretch.key:
                yield from self._decode_stretch(stretch)
        yield from self._rest()

    def _decode_stretch(self, stretch: Stretch) -> Iterator[Any]:
        last = None
        for place, packet in enumerate(stretch.packets):
            spare = False
            if self.wanted is not None:  # known once the first frame is
                last = stretch.last(self.wanted) if last is None else last
                if place > last:
                    yield from self._rest()
                    return
                # FFmpeg knows a frame that none refers to for certain in H.264 alone.
                h264 = self._codec.name == "h264"
                spare = h264 and not stretch.shows(packet, self.wanted)
            self._running = True
            yield from self._frames_of(packet, spare=spare)

    def _rest(self) -> Iterator[Any]:
        """Give the frames that the decoder still holds, and make it ready to begin anew."""
        if self._running:
            yield from self._frames_of(None)
            self._codec.flush_buffers()
        self._running = self._proven = False

    def _frames_of(self, packet: Any | None, *, spare: bool = False) -> Iterator[Any]:
        """Decode a packet, None for what the decoder still holds, and give the good frames."""
        if packet is not None and packet.pts is not None and not packet.is_discard:
            self._began = packet.pts if self._began == math.inf else self._began
            self._sent = max(self._sent, packet.pts)
            if not spare and _gives_frame(packet, self._codec.name):
                self.pending.append(packet.pts)
        self._codec.skip_frame = "NONREF" if spare else "DEFAULT"
        try:
            frames = self._codec.decode(packet)
        except av.FFmpegError as error:
            self._lose(self._sent, f"it cannot be decoded ({error.strerror})")
            return
        for frame in frames:
            if frame.pts is None:
                self._lose(self._sent, "a frame has no time")
            elif frame.is_corrupt:
                self._lose(frame.pts, "the frame is damaged")
            elif not self._broken or frame.key_frame:
                if not (self._proven or frame.key_frame):
                    raise _Astray
                self._broken, self._proven = False, True
                yield frame

    def _lose(self, pts: float, what: str) -> None:
        """Raise what is wrong with a frame, or go on from the next key frame: others may refer to it."""
        if self.policy == "refuse" and not self._proven:
            raise _Astray
        self._fault(pts, what)
        self._broken = True

    def _fault(self, pts: float, what: str) -> None:
        """Raise what is wrong around a time, or note it."""
        if self.policy == "refuse":
            raise self.error(pts, what)
        self.damage = self.damage or f"{self.seconds(pts):.2f} s: {what}"

    def _read(self) -> Generator[Any, None, None]:
        """Read packets that hold something, noting their times."""
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    self._cut = packet.is_corrupt and packet.pts is not None and not packet.is_discard
                    if packet.pts is not None and not packet.is_discard:
                        self.reached = max(self.reached, packet.pts)
                        if not _hidden(packet, self._codec.name):
                            self._times.append(packet.pts)
                    yield packet
        except av.FFmpegError as error:
            self._fault(self.reached, f"the file cannot be read on ({error.strerror})")
        except IndexError:
            pass  # PyAV, after the last packet, where streams came up behind the header

    def close(self) -> None:
        """Let go of the frames, which would wait for the garbage collector: they refer to this and back."""
        self._decoded.close()
        self._packets.close()
        self.first = None


class _Astray(Exception):
    """The file has no key frame where its container says there is one."""


@contextmanager
def open_video(path: str, *, damaged: Damaged = "refuse") -> Iterator[VideoFile]:
    """Open the first video stream of a file; pictures attached to music do not count.

    Raises:
        MediaError: the file is missing, damaged at its beginning, or without video or frames.
    """
    if not Path(path).is_file():
        raise MediaError(f"{path}: no such file; correct the path or put the video there")
    if not Path(path).stat().st_size:
        raise MediaError(f"{path}: the file is empty; copy or download it again")
    try:
        container = av.open(path, metadata_errors="ignore")
    except av.FFmpegError as error:
        why = f"no video, or cut off ({error.strerror}); give a whole MP4, WebM or MKV file"
        raise _no_video(path, why) from None
    with container:
        # FFmpeg reads any text as a picture of text.
        streams = [] if container.format.name == "tty" else container.streams.video
        stream = next((stream for stream in streams if _is_video(stream)), None)
        if stream is None:
            raise _no_video(path, "no video stream that can be decoded; give a file with video")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MOST_PIXELS:
            raise MediaError(
                f"{path}: frames of {width} x {height} pixels, {MOST_PIXELS:,} at most; "
                "make the video smaller"
            )
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        with closing(VideoFile(path, container, stream, damaged=damaged)) as file:
            yield file


def _no_video(path: str, why: str) -> MediaError:
    """Return the error for what FFmpeg finds no video in: by its first bytes it may be known what it is."""
    with Path(path).open("rb") as file:
        found = mistaken(file.read(HEAD))
    return MediaError(f"{path}: {f'{found.what}, not a video; {found.remedy}' if found else why}")


def _is_video(stream: Any) -> bool:
    return stream.codec_context is not None and not stream.disposition & Disposition.attached_pic


def _shown(path: str, moments: Sequence[float], damaged: Damaged) -> Iterator[Any]:
    """Give the frame shown at each of some rising times in seconds.

    First after a seek and with packets left out; where that leads astray, from the beginning; then whole, as
    always where times of packets are guesses.
    """
    if not moments:
        return
    given = 0
    for seeking, sparing in ((moments[0] > 0, True), (False, True), (False, False)):
        try:
            with open_video(path, damaged=damaged) as file:
                if sparing and not file.timed:
                    continue
                ticks = file.ticks(moments[given:])
                file.wanted = ticks if sparing else None
                if seeking and not file.seek(math.floor(ticks[0])):
                    continue
                for frame in _pick(file, ticks):
                    yield frame
                    given += 1
                return
        except _Astray:
            continue


def _pick(file: VideoFile, ticks: Sequence[float]) -> Iterator[Any]:
    frames = file.frames()
    held, ahead = next(frames), next(frames, None)
    for tick in ticks:
        while ahead is not None and ahead.pts <= tick:
            held, ahead = ahead, next(frames, None)
        file.pending = [pts for pts in file.pending if pts > held.pts]
        if held.pts > tick or min(file.pending, default=math.inf) <= tick:
            file.stand_in(held, tick, "the frame shown there is missing")
        elif ahead is None and tick > max(held.pts, file.reached) + 2 * file.slack:
            file.stand_in(held, tick, f"the last frame is at {file.seconds(held.pts):.2f} s")
        yield held
    if file.damage is not None:
        warn(file.path, f"{file.damage}; what is good of it is shown")


def _gives_frame(packet: Any, codec: str) -> bool:
    """Say whether a packet must give a frame of its own."""
    return packet.size > _REPEAT and not _hidden(packet, codec)


def _hidden(packet: Any, codec: str) -> bool:
    """Say whether a frame is never shown; VP8 marks these in the first byte (RFC 6386, 9.1)."""
    return codec == "vp8" and not memoryview(packet)[0] & 0x10


def _upright_size(frame: Any) -> tuple[int, int]:
    """Return (width, height) of a decoded frame as it is displayed."""
    (a, b), _ = _display(frame)
    return (frame.height, frame.width) if abs(b) > abs(a) else (frame.width, frame.height)


def _display(frame: Any) -> Array:
    """The 2x2 part of the display matrix: x' = a x + c y, y' = b x + d y, rows (a, b) and (c, d)."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV gives none where one is of a kind it does not know, such as EXIF
        turn = math.radians(frame.rotation)
        return np.rint([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = np.eye(3) if data is None else np.frombuffer(data, np.int32).reshape(3, 3)
    return matrix[:2, :2]
