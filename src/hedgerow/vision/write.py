"""Writes videos: the only place that encodes."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import av
import numpy as np

from hedgerow.errors import DataError
from hedgerow.sequence import Array

_OPTIONS = {"crf": "14", "preset": "ultrafast", "threads": "1"}  # more threads would change the bytes


def write_video(path: Path, frames: Iterable[Array], *, rate: int) -> None:
    """Write frames as an h264 mp4; the same frames give the same file.

    Args:
        path: where to.
        frames: uint8 [H, W, 3] each, all of one size, H and W even; taken one after another.
        rate: frames a second.

    Raises:
        DataError: there is no frame, one has odd sides, or is of another size than the first.
    """
    write_planes(path, (_planes(path, frame) for frame in frames), rate=rate)


def write_planes(path: Path, frames: Iterable[Array], *, rate: int) -> None:
    """Write frames whose colours are already separate from brightness (see `to_yuv`).

    Args:
        path: where to.
        frames: uint8 [3 H / 2, W] each, as PyAV lays out yuv420p; taken one after another.
        rate: frames a second.

    Raises:
        DataError: there is no frame, or one is of another size than the first.
    """
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        raise DataError(f"{path}: no frame to write; a video needs at least one")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = first.shape[1], 2 * first.shape[0] // 3, "yuv420p"
        stream.options = dict(_OPTIONS)
        for planes in _alike(path, first, rest):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))


def to_yuv(colours: Array) -> tuple[Array, Array, Array]:
    """Return uint8 [..., 3] as brightness and two colour differences, uint8 [...] each.

    BT.601, limited range: what decoders assume of a small untagged video.
    """
    luma = _luma(colours)
    red, blue = colours[..., 0] / 255.0, colours[..., 2] / 255.0
    return _bytes(16 + 219 * luma), *_chroma(red, blue, luma)


def _alike(path: Path, first: Array, rest: Iterator[Array]) -> Iterator[Array]:
    for number, planes in enumerate(chain([first], rest)):
        if planes.shape != first.shape:
            raise DataError(
                f"{path}: frame {number} is of another size than the first; give frames of one size"
            )
        yield planes


def _planes(path: Path, frame: Array) -> Array:
    """One frame as uint8 [3 H / 2, W]; its colour is that of the mean of 2 x 2 pixels."""
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        raise DataError(f"{path}: a frame of {width} x {height} pixels; h264 needs even sides, cut it")
    luma = _luma(frame)
    red, blue, mean = (_halved(plane) for plane in (frame[..., 0] / 255.0, frame[..., 2] / 255.0, luma))
    planes = (_bytes(16 + 219 * luma), *_chroma(red, blue, mean))
    return np.concatenate([plane.ravel() for plane in planes]).reshape(-1, width)


def _luma(colours: Array) -> Array:
    red, green, blue = (colours[..., band] / 255.0 for band in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _chroma(red: Array, blue: Array, luma: Array) -> tuple[Array, Array]:
    return _bytes(128 + 224 * (blue - luma) / 1.772), _bytes(128 + 224 * (red - luma) / 1.402)


def _halved(plane: Array) -> Array:
    rows = plane[0::2] + plane[1::2]
    return (rows[:, 0::2] + rows[:, 1::2]) / 4


def _bytes(plane: Array) -> Array:
    return np.rint(plane).astype(np.uint8)
