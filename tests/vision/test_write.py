"""Videos that are written come back as they were, and the same frames give the same file."""

import av
import numpy as np
import pytest

from hedgerow.errors import DataError
from hedgerow.vision.write import to_yuv, write_planes, write_video


def smooth(count=5, *, height=48, width=64):
    """Frames of soft colours, which a codec keeps."""
    down, right = np.mgrid[0:height, 0:width] / 64
    waves = [
        np.sin(3 * down + number + band) * np.cos(2 * right + band)
        for number in range(count)
        for band in range(3)
    ]
    return (
        (127 + 100 * np.stack(waves, -1))
        .reshape(height, width, count, 3)
        .transpose(2, 0, 1, 3)
        .astype(np.uint8)
    )


def read(path):
    with av.open(str(path)) as file:
        (stream,) = file.streams.video
        return stream.codec_context.name, {f.time: f.to_ndarray(format="rgb24") for f in file.decode(stream)}


def test_frames_come_back_at_their_times(tmp_path):
    frames = smooth()
    write_video(tmp_path / "a.mp4", iter(frames), rate=4)
    codec, found = read(tmp_path / "a.mp4")
    assert codec == "h264"
    assert list(found) == [0.0, 0.25, 0.5, 0.75, 1.0]
    for frame, shown in zip(frames, found.values(), strict=True):
        assert np.abs(frame.astype(int) - shown).mean() < 2


def test_the_same_frames_give_the_same_bytes(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, smooth(), rate=10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_planes_are_the_frame_with_its_colour_halved(tmp_path):
    small = smooth(height=24, width=32)
    write_video(tmp_path / "a.mp4", (frame.repeat(2, 0).repeat(2, 1) for frame in small), rate=10)
    planes = []
    for frame in small:
        y, u, v = to_yuv(frame)
        planes.append(np.concatenate([part.reshape(-1, 64) for part in (y.repeat(2, 0).repeat(2, 1), u, v)]))
    write_planes(tmp_path / "b.mp4", planes, rate=10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize(
    ("colour", "yuv"),
    [
        ((0, 0, 0), (16, 128, 128)),
        ((255, 255, 255), (235, 128, 128)),
        ((255, 0, 0), (81, 90, 240)),
        ((0, 0, 255), (41, 240, 110)),
        ((0, 255, 0), (145, 54, 34)),
    ],
)
def test_colours_are_those_of_bt_601(colour, yuv):
    found = to_yuv(np.array([[colour]], np.uint8))
    assert tuple(int(plane.item()) for plane in found) == yuv


def test_what_is_no_video_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.mp4: no frame to write"):
        write_video(tmp_path / "a.mp4", [], rate=4)
    with pytest.raises(DataError, match="a frame of 63 x 48 pixels; h264 needs even sides"):
        write_video(tmp_path / "a.mp4", smooth(width=63), rate=4)
    with pytest.raises(DataError, match="frame 2 is of another size than the first"):
        write_video(tmp_path / "a.mp4", [*smooth(2), *smooth(1, width=32)], rate=4)
