"""PyAV's part: what is left out is not missed, what headers say is not believed, what is damaged is named."""

import logging
import struct
from bisect import bisect_right
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from hedgerow.content import Video
from hedgerow.errors import MediaError
from hedgerow.vision.container import PyAVSource, VideoFile
from hedgerow.vision.facts import probe
from hedgerow.vision.processor import Molmo2Processor
from hedgerow.vision.video import decode_frames

CONSTANT = [100 * number for number in range(40)]
LONG = [40 * number for number in range(150)]  # 25 frames a second
TINY = Molmo2Processor(crop_size=28, patch_size=7, margins=(1, 1))


def noise(count):
    """Pictures that codecs cannot leave out."""
    return [np.random.default_rng(n).integers(0, 256, (48, 64, 3)).astype(np.uint8) for n in range(count)]


# Every picture is a little noisier than the one before: codecs make no key frames of their own.
GREYS = [
    np.clip(noise(1)[0] // 4 + noise(number + 2)[-1] // 16 + 2 * number, 0, 255).astype(np.uint8)
    for number in range(30)
]


def every_frame(path):
    """Every frame of a file, decoded by the shortest way there is: times in seconds, and pixels."""
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    start = frames[0].pts
    times = [float((frame.pts - start) * frame.time_base) for frame in frames]
    return times, [frame.to_ndarray(format="rgb24") for frame in frames]


@pytest.fixture
def decoded(monkeypatch):
    """The presentation times of the frames that came out of the decoder."""
    found, honest = [], VideoFile._frames_of

    def counted(self, packet, *, spare=False):
        for frame in honest(self, packet, spare=spare):
            found.append(frame.pts)
            yield frame

    monkeypatch.setattr(VideoFile, "_frames_of", counted)
    return found


# What is left out


@pytest.mark.parametrize(
    ("name", "codec", "gop", "bframes"),
    [
        ("v.mp4", "libx264", 250, 3),
        ("v.mp4", "libx264", 12, 3),
        ("v.mp4", "libx264", 12, 0),
        ("v.mkv", "libx264", 30, 2),
        ("v.ts", "libx264", 12, 2),
        ("v.mp4", "libx265", 12, 3),
        ("v.mp4", "libsvtav1", 12, 0),
        ("v.webm", "libvpx-vp9", 12, 0),
        ("v.webm", "libvpx", 12, 0),
        ("v.mp4", "mpeg4", 12, 2),
        ("v.mpg", "mpeg2video", 12, 2),
        ("v.mov", "mjpeg", 1, 0),
    ],
)
def test_frames_equal_those_of_decoding_everything(tmp_path, media, name, codec, gop, bframes):
    base = Fraction(1, 25) if codec in ("mpeg4", "mpeg2video") else Fraction(1, 90000)
    if name.endswith((".mkv", ".webm")):
        base = Fraction(1, 1000)
    pts = [round(Fraction(number, 25) / base) for number in range(60)]
    pictures = [np.roll(media.picture(number % 32), number, axis=1) for number in range(60)]
    path = media.write_video(
        tmp_path / name, pts, codec=codec, base=base, gop=gop, bframes=bframes, pictures=pictures
    )
    starts, pixels = every_frame(path)
    random = np.random.default_rng(0)
    for count in (1, 3, 12):
        for _ in range(3):
            moments = sorted((random.choice(starts[:-1], count) + random.uniform(0, 0.03, count)).tolist())
            found = list(PyAVSource().shown(path, moments, damaged="refuse"))
            for moment, picture in zip(moments, found, strict=True):
                np.testing.assert_array_equal(picture, pixels[bisect_right(starts, moment + 1e-6) - 1])


def test_groups_without_a_wanted_frame_are_not_decoded(tmp_path, media, decoded):
    path = media.write_video(tmp_path / "v.mp4", LONG, gop=15, bframes=2, pictures=noise(150))
    found = media_times(decoded, path, [0.0, 2.5, 5.5])
    assert found[0] == 0
    assert all(time < 0.6 or 2.4 <= time < 3.0 or 5.4 <= time < 6.0 for time in found)
    assert len(found) < 30


def media_times(decoded, path, times):
    """The seconds of the frames that are decoded to show some times."""
    decode_frames(Video(path), times, size=(8, 8))
    with av.open(path) as container:
        return [float(pts * container.streams.video[0].time_base) for pts in decoded]


def test_nothing_is_decoded_behind_the_last_wanted_frame(tmp_path, media, decoded):
    path = media.write_video(tmp_path / "v.mp4", LONG, gop=50, bframes=0, pictures=noise(150))
    assert max(media_times(decoded, path, [0.0, 0.4])) <= 0.6


def test_frames_that_no_other_needs_are_not_decoded(tmp_path, media, decoded):
    path = media.write_video(tmp_path / "v.mp4", LONG, gop=250, bframes=3)
    found = media_times(decoded, path, [0.0, 5.9])
    assert 5.88 in [round(time, 2) for time in found]
    assert len(found) < 120  # of 148


def test_open_groups_are_entered_behind_what_refers_to_the_group_before(tmp_path, decoded):
    path = str(tmp_path / "v.mkv")
    pictures = noise(60)
    with av.open(path, "w") as container:
        options = {"x264-params": "open-gop=1:keyint=10:min-keyint=10:scenecut=0:bframes=3:b-adapt=0"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(path) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = [place for place, packet in enumerate(packets) if packet.is_keyframe]
    leading = [place for place in keys[1:] if packets[place + 1].pts < packets[place].pts]
    assert leading, "the file has open groups"
    starts, pixels = every_frame(path)
    for number in (2, 9, 19, 28, 31, 39, 40, 47, 59):
        for moments in ([starts[number]], [0.0, starts[number]]):
            *_, found = PyAVSource().shown(path, moments, damaged="refuse")
            np.testing.assert_array_equal(found, pixels[number])
    decoded.clear()
    assert len(media_times(decoded, path, [0.0, starts[57]])) < 20


def test_a_file_that_calls_every_frame_a_key_frame_is_decoded_whole(tmp_path, media):
    source = media.write_video(
        tmp_path / "whole.mov", CONSTANT, codec="mpeg4", base=Fraction(1, 1000), bframes=0
    )
    path = str(tmp_path / "v.mov")
    with av.open(source) as old, av.open(path, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.is_keyframe, packet.stream = True, stream
                new.mux(packet)
    with av.open(path) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    _, pixels = every_frame(source)
    for moments in ([0.0, 1.7, 3.1], [3.1], [0.5, 3.9]):
        found = PyAVSource().shown(path, moments, damaged="refuse")
        for moment, picture in zip(moments, found, strict=True):
            np.testing.assert_array_equal(picture, pixels[round(moment * 10)])


# Facts


def test_the_rate_is_that_of_the_frames_not_of_the_header(tmp_path, media):
    steady = probe(Video(media.write_video(tmp_path / "a.mp4", [40 * n for n in range(50)])))
    assert steady.rate == pytest.approx(25)
    uneven = probe(Video(media.write_video(tmp_path / "b.mp4", [0, 100, 200, 300, 2000])))
    assert uneven.rate == pytest.approx(2)
    ntsc = [round(number * 1001 / 30) for number in range(90)]
    assert probe(Video(media.write_video(tmp_path / "c.mkv", ntsc))).rate == pytest.approx(29.97, rel=5e-4)
    assert probe(Video(media.write_video(tmp_path / "d.mp4", [40]))).rate == 0.0


def test_frames_that_are_never_shown_do_not_count(tmp_path, media):
    source = media.write_video(tmp_path / "whole.webm", CONSTANT[:20], codec="libvpx")
    assert probe(Video(source)).rate == pytest.approx(10)

    def hide(number, data):
        return bytes([data[0] & ~0x10]) + data[1:] if number % 2 and number < 19 else data

    hidden = probe(Video(media.rewrite_packets(source, tmp_path / "v.webm", hide)))
    assert (hidden.duration, hidden.rate) == (pytest.approx(1.9), pytest.approx(10 / 1.9))


def test_no_moment_shows_no_frame(tmp_path, media):
    path = media.write_video(tmp_path / "v.mp4", CONSTANT, gop=5)
    assert decode_frames(Video(path), [], size=(8, 9)).shape == (0, 8, 9, 3)


@pytest.mark.parametrize("claimed", [0, 1, 0xFFFFFFF0])
def test_the_duration_a_header_claims_is_not_believed(tmp_path, media, claimed):
    path = tmp_path / "v.mp4"
    media.write_video(path, CONSTANT[:20])
    data = bytearray(path.read_bytes())
    for box, place in ((b"mvhd", 20), (b"mdhd", 20)):
        found = data.index(box) + place
        data[found : found + 4] = struct.pack(">I", claimed)
    path.write_bytes(data)
    facts = probe(Video(str(path)))
    assert (facts.duration, facts.rate) == (pytest.approx(1.9), pytest.approx(10))
    assert facts.damage is None
    assert media.numbers(decode_frames(Video(str(path)), [0.0, 1.9], size=(48, 64))) == [0, 19]


@pytest.mark.parametrize("name", ["v.mkv", "v.webm"])
def test_a_live_recording_says_no_duration_and_has_one(tmp_path, media, name):
    path = media.write_video(
        tmp_path / name, CONSTANT[:20], codec="libx264" if name == "v.mkv" else "libvpx", live="1"
    )
    with av.open(path) as container:
        assert container.duration is None or container.streams.video[0].frames == 0
    facts = probe(Video(path))
    assert (facts.duration, facts.rate) == (pytest.approx(1.9), pytest.approx(10))


def test_a_stream_that_ends_before_the_sound_does_ends_there(tmp_path, media):
    path = str(tmp_path / "v.mp4")
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(media.picture(number), "rgb24")))
        container.mux(video.encode(None))
        for number in range(80):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, 1024 * number
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(path) as container:
        assert container.duration > 4e6
    facts = probe(Video(path))
    assert (facts.duration, facts.damage) == (pytest.approx(0.9), None)
    layout = TINY.layout(Video(path), facts)
    assert media.numbers(decode_frames(Video(path), layout.times, size=(48, 64))) == [0, 5, 9]


# Damage


@pytest.fixture
def cut_off(tmp_path, media):
    """A video of 20 frames whose file ends within the 14th."""
    source = media.write_video(
        tmp_path / "whole.mp4",
        CONSTANT[:20],
        gop=10,
        bframes=0,
        pictures=[media.picture(n) for n in range(10)] + noise(10),
        movflags="faststart",
    )
    with av.open(source) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][13]
    path = tmp_path / "v.mp4"
    path.write_bytes(Path(source).read_bytes()[: packet.pos + packet.size // 2])
    return str(path)


@pytest.fixture
def damaged(tmp_path, media):
    """A video of 40 frames; 20 to 24 hold nothing that can be decoded, and up to 29 all refers to them."""
    path = tmp_path / "v.mp4"
    pictures = [media.picture(number) for number in range(20)] + noise(6)
    pictures += [media.picture(number) for number in range(26, 40)]
    media.write_video(path, CONSTANT, gop=10, bframes=0, pictures=pictures)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for packet in packets[20:25]:
        data[packet.pos + 4 : packet.pos + packet.size] = bytes(packet.size - 4)
    path.write_bytes(data)
    return str(path)


def test_facts_of_a_file_that_is_cut_off_are_those_of_what_can_be_seen(cut_off, media):
    facts = probe(Video(cut_off))
    assert facts.duration == pytest.approx(1.2)
    assert facts.damage == "1.30 s: the file ends within a frame"
    with pytest.raises(
        MediaError, match=r"v\.mp4, 1\.30 s: the file ends within a frame; .* vision\.damaged"
    ):
        TINY.layout(Video(cut_off), facts)
    kept = Molmo2Processor(crop_size=28, patch_size=7, margins=(1, 1), damaged="keep", fps=10.0)
    layout = kept.layout(Video(cut_off), facts)
    assert layout.times == pytest.approx([number / 10 for number in range(13)])
    assert media.numbers(kept.visual(Video(cut_off), layout).crops)[:10] == list(range(10))


def test_a_file_cut_between_two_frames_is_no_longer_than_what_is_there(cut_off, media):
    with av.open(cut_off) as container:
        packets = []
        for packet in container.demux(video=0):
            if packet.is_corrupt or not packet.size:
                break
            packets.append(packet)
    data = Path(cut_off).read_bytes()
    Path(cut_off).write_bytes(data[: packets[-1].pos + packets[-1].size])
    facts = probe(Video(cut_off))
    assert facts.duration == pytest.approx(1.2)
    layout = TINY.layout(Video(cut_off), facts)
    assert media.numbers(TINY.visual(Video(cut_off), layout).crops)[:2] == [0, 5]


def test_the_nearest_good_frame_before_stands_in_and_one_warning_says_so(damaged, media, caplog):
    times = [0.0, 1.9, 2.0, 2.4, 2.7, 3.0, 3.9]
    with pytest.raises(MediaError, match=r"v\.mp4, 2\.\d\d s: "):
        decode_frames(Video(damaged), times, size=(48, 64))
    with caplog.at_level(logging.WARNING, "hedgerow"):
        found = decode_frames(Video(damaged), times, size=(48, 64), damaged="keep")
        clip = decode_frames(Video(damaged, start=2.2), [0.0, 0.5, 1.0], size=(48, 64), damaged="keep")
    assert media.numbers(found) == [0, 19, 19, 19, 19, 30, 39]
    assert media.numbers(clip) == [19, 19, 32]
    (record,) = caplog.records
    assert record.name == "hedgerow"
    assert f"{damaged}, 2.00 s: " in record.message
    assert "the frame of 1.90 s is shown" in record.message


def test_what_refers_to_a_damaged_frame_is_not_shown(tmp_path, media):
    path = tmp_path / "v.mp4"
    media.write_video(
        path, list(range(30)), codec="mpeg4", base=Fraction(1, 10), gop=10, bframes=0, pictures=GREYS
    )
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [place for place, packet in enumerate(packets) if packet.is_keyframe] == [0, 10, 20]
    middle = packets[13].pos + packets[13].size // 2
    data = bytearray(path.read_bytes())
    data[middle : middle + 3] = bytes(byte ^ 0x5A for byte in data[middle : middle + 3])
    path.write_bytes(data)
    found = decode_frames(Video(str(path)), [1.1, 1.3, 1.6, 2.0], size=(48, 64), damaged="keep")
    _, pixels = every_frame(str(path))
    for picture, number in zip(found, (11, 12, 12, 20), strict=True):
        np.testing.assert_array_equal(picture, pixels[number])


def test_good_files_are_the_same_under_both_policies_and_warn_of_nothing(tmp_path, media, caplog):
    path = media.write_video(tmp_path / "v.mp4", CONSTANT, gop=10)
    times = [0.0, 0.75, 2.2, 3.9]
    refused = decode_frames(Video(path), times, size=(48, 64))
    np.testing.assert_array_equal(decode_frames(Video(path), times, size=(48, 64), damaged="keep"), refused)
    assert not caplog.records


def test_where_the_beginning_is_damaged_the_first_good_frame_stands_in(tmp_path, media, caplog):
    path = tmp_path / "v.mp4"
    pictures = noise(10) + [media.picture(number) for number in range(10, 20)]
    media.write_video(path, CONSTANT[:20], gop=10, bframes=0, pictures=pictures)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for packet in packets[:10]:
        data[packet.pos + 800 : packet.pos + packet.size] = bytes(packet.size - 800)
    path.write_bytes(data)
    facts = probe(Video(str(path)))
    assert facts.damage is not None
    assert facts.damage.startswith("0.00 s: ")
    assert facts.duration == pytest.approx(1.9), "frames keep their places in time"
    found = decode_frames(Video(str(path)), [0.0, 0.5, 1.0, 1.9], size=(48, 64), damaged="keep")
    assert media.numbers(found) == [10, 10, 10, 19]
    assert len(caplog.records) == 1
    with pytest.raises(MediaError, match=r"v\.mp4, 0\.00 s: "):
        decode_frames(Video(str(path)), [0.0], size=(48, 64))


def test_a_file_without_a_frame_that_can_be_decoded_is_an_error_always(tmp_path, media):
    source = media.write_video(tmp_path / "whole.mp4", CONSTANT[:10])
    path = media.rewrite_packets(source, tmp_path / "v.mp4", lambda _, data: data[:4] + bytes(len(data) - 4))
    with pytest.raises(MediaError, match="no frame that can be decoded"):
        probe(Video(path))
    for policy in ("refuse", "keep"):
        with pytest.raises(MediaError, match=r"v\.mp4"):
            decode_frames(Video(path), [0.0], size=(8, 8), damaged=policy)
