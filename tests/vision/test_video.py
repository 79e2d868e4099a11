import struct
from bisect import bisect_right
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path

import av
import numpy as np
import pytest

from hedgerow.content import Video
from hedgerow.errors import MediaError
from hedgerow.vision.container import VideoFile, open_video
from hedgerow.vision.facts import VideoFacts, probe
from hedgerow.vision.sampling import clip, frame_times
from hedgerow.vision.video import decode_frames

MILLI = Fraction(1, 1000)
CONSTANT = [100 * number for number in range(40)]
NO_FRAME = struct.pack(">I", 40) + bytes([10]) + b"\xff" * 38 + b"\x80"  # H.264 end of sequence
VARIABLE = list(np.cumsum([0, *np.random.default_rng(1).choice([1, 7, 40, 90, 250, 700], 39)]).tolist())
OFFSET = [1234 + moment for moment in VARIABLE]


# Frames by time


def moments(pts, base=MILLI):
    """Times in seconds from the first frame: of each frame, amid each gap, and just before the next."""
    seconds = [float((moment - pts[0]) * base) for moment in pts]
    gaps = list(pairwise(seconds))
    return sorted(
        seconds + [a + 0.6 * (b - a) for a, b in gaps] + [b - min(0.0006, (b - a) * 0.6) for a, b in gaps]
    )


def shown(pts, times, base=MILLI):
    """The number of the frame shown at each time, looked up in what was written."""
    starts = [float((moment - pts[0]) * base) for moment in pts]
    return [bisect_right(starts, time + 1e-7) - 1 for time in times]


@pytest.mark.parametrize("gop", [5, 250])
@pytest.mark.parametrize("pts", [CONSTANT, VARIABLE, OFFSET], ids=["constant", "variable", "offset"])
def test_the_frame_shown_at_a_time_is_the_last_that_has_started(tmp_path, media, pts, gop):
    path = media.write_video(tmp_path / "v.mp4", pts, gop=gop)
    facts, duration = probe(Video(path)), (pts[-1] - pts[0]) / 1000
    start, rate = pytest.approx(pts[0] / 1000), pytest.approx((len(pts) - 1) / duration)
    assert facts == VideoFacts(path, 64, 48, start, pytest.approx(duration), rate)
    times = moments(pts)
    assert media.numbers(decode_frames(Video(path), times, size=(48, 64))) == shown(pts, times)


@pytest.mark.parametrize(
    ("name", "codec", "base"),
    [
        ("v.mkv", "libx264", MILLI),
        ("v.ts", "libx264", Fraction(1, 90000)),
        ("v.avi", "mpeg4", Fraction(1, 10)),
        ("v.webm", "libvpx", MILLI),
        ("v.webm", "libvpx-vp9", MILLI),
        ("v.mov", "mjpeg", Fraction(1, 600)),
    ],
)
def test_times_hold_in_other_containers_and_codecs(tmp_path, media, name, codec, base):
    pts = [int(Fraction(number, 10) / base) for number in range(12)]
    pictures = [media.picture(number) for number in range(12)]
    path = media.write_video(tmp_path / name, pts, codec=codec, base=base, bframes=2, pictures=pictures)
    assert probe(Video(path)).duration == pytest.approx(1.1)
    times = [number / 10 for number in range(12)] + [0.06, 0.96]
    expected = [*range(12), 0, 9]
    assert media.numbers(decode_frames(Video(path), times, size=(48, 64))) == expected


def test_times_may_repeat_and_come_in_any_order_and_each_frame_is_converted_once(
    tmp_path, media, monkeypatch
):
    path = media.write_video(tmp_path / "v.mp4", CONSTANT)
    converted = []

    def count(pixels, size, *, resize):
        converted.append(size)
        return pixels

    monkeypatch.setattr("hedgerow.vision.video.resized", count)
    found = decode_frames(Video(path), [1.0, 0.0, 1.0, 0.04, 3.9, 1.05], size=(48, 64))
    assert media.numbers(found) == [10, 0, 10, 0, 39, 10]
    assert len(converted) == 3


@pytest.mark.parametrize("start", [0.0, 0.35, 1.0, 2.1, 3.9])
@pytest.mark.parametrize("gop", [7, 250])
@pytest.mark.parametrize("first", [0, 777])
def test_a_clip_shows_the_frames_of_its_own_time(tmp_path, media, gop, start, first):
    path = media.write_video(tmp_path / "v.mp4", [first + moment for moment in CONSTANT], gop=gop)
    begin, end = clip(Video(path, start, 3.75), 3.9) if start < 3.75 else (start, 3.9)
    times = frame_times(end - begin, fps=4)
    expected = shown(CONSTANT, [begin + time for time in times])
    assert media.numbers(decode_frames(Video(path, start, end), times, size=(48, 64))) == expected


@pytest.mark.parametrize("first", [0, 1777])
def test_reading_starts_at_the_key_frame_before_the_clip(tmp_path, media, monkeypatch, first):
    path = media.write_video(tmp_path / "v.mp4", [first + moment for moment in CONSTANT], gop=10)
    honest, found = VideoFile.seek, []

    def seek(self, pts):
        result = honest(self, pts)
        found.append((result, round(self.seconds(self.first.pts), 3)))
        return result

    monkeypatch.setattr(VideoFile, "seek", seek)
    decode_frames(Video(path, 2.5, 3.5), [0.25, 1.0], size=(8, 8))
    assert found == [(True, 2.0)]


def test_a_seek_that_leads_past_the_clip_is_not_trusted(tmp_path, media, monkeypatch):
    path = media.write_video(tmp_path / "v.mp4", CONSTANT, gop=10)
    honest, results = VideoFile.seek, []

    def seek(self, pts):
        honest(self, pts + round(1.5 / self.tick))
        results.append(self.first.pts <= pts)
        return results[-1]

    monkeypatch.setattr(VideoFile, "seek", seek)
    found = decode_frames(Video(path, 1.2, 2.0), [0.0, 0.8], size=(48, 64))
    assert media.numbers(found) == [12, 20]
    assert results == [False]


def test_a_video_of_one_frame(tmp_path, media):
    path = media.write_video(tmp_path / "v.mp4", [40], pictures=[media.picture(9)])
    assert probe(Video(path)) == VideoFacts(path, 64, 48, pytest.approx(0.04), 0.0)
    assert media.numbers(decode_frames(Video(path), frame_times(0.0), size=(48, 64))) == [9]


def test_area_keeps_a_small_ball_that_bilinear_may_lose(tmp_path, media):
    pictures = [np.zeros((160, 210, 3), np.uint8) for _ in range(10)]
    for number, pixels in enumerate(pictures):
        pixels[80:82, 100 + number : 102 + number] = 255
    path = media.write_video(tmp_path / "v.mp4", CONSTANT[:10], pictures=pictures)
    peak = {
        way: decode_frames(Video(path), [number / 10 for number in range(10)], size=(42, 42), resize=way)
        .max((1, 2, 3))
        .min()
        for way in ("area", "bilinear")
    }
    assert peak["area"] > 20
    assert peak["bilinear"] < 10


# Rotation


def turned(path, matrix):
    """Write a display matrix (a, b, c, d) into the track header of an MP4."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def displayed_by_hand(pixels, matrix):
    """Move each pixel to (a x + c y, b x + d y), shifted into the picture."""
    a, b, c, d = matrix
    moved = {(b * x + d * y, a * x + c * y): pixels[y, x] for y, x in product(*map(range, pixels.shape[:2]))}
    top, left = min(y for y, _ in moved), min(x for _, x in moved)
    height, width = max(y for y, _ in moved) - top + 1, max(x for _, x in moved) - left + 1
    return np.array([[moved[y + top, x + left] for x in range(width)] for y in range(height)])


STRAIGHT = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)]
SWAPPED = [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


@pytest.mark.parametrize("matrix", STRAIGHT + SWAPPED)
def test_frames_and_facts_are_upright(tmp_path, media, matrix):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :16], pixels[:8, 16:], pixels[8:, :16] = 60, 120, 240
    path = tmp_path / "v.mp4"
    media.write_video(path, [0, 100], pictures=[pixels, pixels])
    turned(path, matrix)
    expected = displayed_by_hand(pixels, matrix)
    facts = probe(Video(str(path)))
    assert (facts.height, facts.width) == expected.shape[:2]
    found = decode_frames(Video(str(path)), [0.0], size=expected.shape[:2])[0]
    assert np.abs(found.astype(int) - expected).mean() < 8


def test_rotation_written_by_pyav_turns_counterclockwise(tmp_path, media):
    path = tmp_path / "v.mp4"
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, 16:] = 200
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        stream.set_display_rotation(90)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))
    found = decode_frames(Video(str(path)), [0.0], size=(32, 16))[0]
    assert found[:14].mean() > 180
    assert found[18:].mean() < 20


# What cannot be read


def test_decoding_uses_one_thread(tmp_path, media):
    with open_video(media.write_video(tmp_path / "v.mp4", CONSTANT[:2])) as file:
        assert file._stream.codec_context.thread_count == 1


def header_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()


def audio_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_unreadable_videos_are_named_with_a_remedy(tmp_path, media):
    noise = [
        np.random.default_rng(number).integers(0, 256, (48, 64, 3)).astype(np.uint8) for number in range(20)
    ]
    late = media.write_video(tmp_path / "late.mp4", CONSTANT[:20], pictures=noise)
    data = Path(late).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    (tmp_path / "text.mp4").write_text("no video\n" * 40)
    (tmp_path / "notes.txt").write_text("no video\n" * 400)
    (tmp_path / "empty.mp4").write_bytes(b"")
    header_only(tmp_path / "header.mkv")
    media.rewrite_packets(late, tmp_path / "hollow.mp4", lambda *_: NO_FRAME)
    header_only(tmp_path / "header.mp4")
    audio_only(tmp_path / "sound.mp4")
    for name, why in [
        ("none.mp4", "no such file"),
        ("", "no such file"),
        ("cut.mp4", "cut off"),
        ("text.mp4", "a text file, not a video"),
        ("notes.txt", "a text file, not a video"),
        ("empty.mp4", "the file is empty"),
        ("header.mkv", "no video"),
        ("header.mp4", "no video"),
        ("hollow.mp4", "no frame that can be decoded"),
        ("sound.mp4", "no video stream"),
    ]:
        path = str(tmp_path / name)
        with pytest.raises(MediaError, match=why) as error:
            probe(Video(path))
        assert path in str(error.value)
        assert "\n" not in str(error.value)
        with pytest.raises(MediaError):
            decode_frames(Video(path), [0.0, 1.9], size=(8, 8))


def test_the_cover_of_a_song_is_no_video(tmp_path, media):
    path = str(tmp_path / "song.mp3")
    with av.open(path, "w") as container:
        sound = container.add_stream("libmp3lame", rate=16000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(
            cover.encode(av.VideoFrame.from_ndarray(media.picture(1, width=16, height=16), "rgb24"))
        )
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(path) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(MediaError, match="no video stream"):
        probe(Video(path))


def test_a_damaged_tail_is_an_error_that_names_file_and_time_and_the_rest_is_read(tmp_path, media):
    path = tmp_path / "v.mp4"
    noise = [
        np.random.default_rng(number).integers(0, 256, (48, 64, 3)).astype(np.uint8) for number in range(30)
    ]
    pictures = [media.picture(number) for number in range(10)] + noise
    media.write_video(path, CONSTANT, gop=10, bframes=0, pictures=pictures)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
        place, end = packets[30].pos, packets[-1].pos + packets[-1].size
    data = bytearray(path.read_bytes())
    data[place:end] = bytes(end - place)
    path.write_bytes(data)
    assert probe(Video(str(path))).duration == pytest.approx(3.9)
    assert media.numbers(decode_frames(Video(str(path)), [0.0, 0.9], size=(48, 64))) == [0, 9]
    with pytest.raises(MediaError, match=r"v\.mp4, 3\.\d+ s: "):
        decode_frames(Video(str(path)), [0.0, 3.5], size=(48, 64))
    with pytest.raises(MediaError, match=r"v\.mp4, 3\.\d+ s: "):
        decode_frames(Video(str(path), start=3.2), [0.0, 0.7], size=(48, 64))


@pytest.mark.parametrize("lost", [7, 19])
def test_a_frame_that_the_decoder_leaves_out_is_an_error(tmp_path, media, lost):
    source = media.write_video(tmp_path / "whole.mp4", CONSTANT[:20], gop=1)
    path = media.rewrite_packets(
        source, tmp_path / "v.mp4", lambda number, data: NO_FRAME if number == lost else data
    )
    others = [number for number in range(20) if number != lost]
    found = decode_frames(Video(path), [number / 10 for number in others], size=(48, 64))
    assert media.numbers(found) == others
    with pytest.raises(MediaError, match=rf"v\.mp4, {lost / 10:.2f} s: the frame shown there is missing"):
        decode_frames(Video(path), [lost / 10], size=(48, 64))


@pytest.mark.parametrize("hidden", [3, 7])
def test_a_frame_that_vp8_hides_leaves_the_one_before_on_the_screen(tmp_path, media, hidden):
    source = media.write_video(tmp_path / "whole.webm", CONSTANT[:8], codec="libvpx")

    def hide(number, data):
        return bytes([data[0] & ~0x10]) + data[1:] if number == hidden else data

    path = media.rewrite_packets(source, tmp_path / "v.webm", hide)
    found = decode_frames(Video(path), [number / 10 for number in range(8)], size=(48, 64))
    assert media.numbers(found) == [number - (number == hidden) for number in range(8)]


def test_a_frame_that_the_decoder_had_to_guess_is_an_error(tmp_path, media):
    path = tmp_path / "v.mp4"
    pictures = [
        np.random.default_rng(number).integers(0, 256, (48, 64, 3)).astype(np.uint8) for number in range(20)
    ]
    media.write_video(
        path, list(range(20)), codec="mpeg4", base=Fraction(1, 10), gop=10, bframes=0, pictures=pictures
    )
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(container.streams.video[0]) if packet.size][13]
    data = bytearray(path.read_bytes())
    middle = packet.pos + packet.size // 2
    data[middle : middle + 3] = bytes(byte ^ 0x5A for byte in data[middle : middle + 3])
    path.write_bytes(data)
    assert decode_frames(Video(str(path)), [0.0, 1.1], size=(8, 8)).shape == (2, 8, 8, 3)
    with pytest.raises(MediaError, match=r"v\.mp4, 1\.30 s: the frame is damaged"):
        decode_frames(Video(str(path)), [0.0, 1.3], size=(8, 8))


@pytest.mark.parametrize("times", [[0.3], [0.0, 2.2, 5.0], [4.6], [0.6, 3.0], [3.2, 3.6, 4.1]])
def test_times_that_go_backwards_are_an_error(tmp_path, media, times):
    path = media.write_video(tmp_path / "v.avi", list(range(60)), base=Fraction(1, 10), gop=5)
    with pytest.raises(
        MediaError, match=r"v\.avi, .* s: its times go backwards; copy or encode the video again"
    ):
        decode_frames(Video(path), times, size=(48, 64))


def test_a_packet_that_repeats_the_picture_is_no_missing_frame(tmp_path, media):
    skipped = bytes.fromhex("000001b6539f")  # MPEG-4: a picture that is not coded
    for lost in (3, 7):
        source = media.write_video(
            tmp_path / "whole.avi", list(range(8)), codec="mpeg4", base=Fraction(1, 10), gop=1, bframes=0
        )
        path = media.rewrite_packets(
            source, tmp_path / "v.avi", lambda number, data, lost=lost: skipped if number == lost else data
        )
        assert probe(Video(path)).duration == pytest.approx(0.7)
        expected = [number - (number == lost) for number in range(8)]
        found = decode_frames(Video(path), [number / 10 for number in range(8)], size=(48, 64))
        assert media.numbers(found) == expected


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_a_file_that_begins_amid_a_group_begins_at_its_first_key_frame(tmp_path, media, codec):
    source = media.write_video(tmp_path / "whole.mkv", CONSTANT, codec=codec, gop=10, bframes=0)
    path = str(tmp_path / "v.mkv")
    with av.open(source) as old, av.open(path, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(old.streams.video[0])):
            if packet.size and number >= 7:
                packet.stream = stream
                new.mux(packet)
    facts = probe(Video(path))
    assert (facts.start, facts.duration) == (pytest.approx(1.0), pytest.approx(2.9))
    assert media.numbers(decode_frames(Video(path), [0.0, 0.5, 2.9], size=(48, 64))) == [10, 15, 39]


def test_frames_behind_the_end_of_an_edit_list_do_not_exist(tmp_path, media):
    path = tmp_path / "v.mp4"
    media.write_video(path, CONSTANT, gop=10)
    data = bytearray(path.read_bytes())
    length = data.index(b"elst") + 12
    assert struct.unpack(">I", data[length : length + 4]) == (4000,)
    data[length : length + 4] = struct.pack(">I", 2000)
    path.write_bytes(data)
    assert probe(Video(str(path))).duration == pytest.approx(1.9)
    assert media.numbers(decode_frames(Video(str(path)), [0.5, 1.9], size=(48, 64))) == [5, 19]


def test_frames_cut_off_by_an_edit_list_do_not_exist(tmp_path, media):
    path = str(tmp_path / "v.mp4")
    source = media.write_video(tmp_path / "whole.mp4", CONSTANT, gop=10)
    with av.open(source) as old, av.open(path, "w", options={"use_editlist": "1"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                shift = round(1.35 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                new.mux(packet)
    assert probe(Video(path)).duration == pytest.approx(2.5)
    assert media.numbers(decode_frames(Video(path), [0.0, 0.1, 2.5], size=(48, 64))) == [14, 15, 39]
    assert media.numbers(decode_frames(Video(path, start=0.8), [0.0, 0.3], size=(48, 64))) == [22, 25]


def test_a_time_after_the_last_frame_is_an_error(tmp_path, media):
    path = media.write_video(tmp_path / "v.mp4", CONSTANT[:10])
    with pytest.raises(MediaError, match=r"v\.mp4, 1\.00 s: the last frame is at 0\.90 s"):
        decode_frames(Video(path), [0.0, 1.0], size=(48, 64))
    with pytest.raises(MediaError, match=r"the last frame is at 0\.90 s"):
        decode_frames(Video(path, start=5.0), [0.0], size=(48, 64))
