"""Damaged media files: small seeds of many kinds, written at test time, and reproducible damage to them."""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image

_PNG = b"\x89PNG\r\n\x1a\n"
Random = np.random.Generator
FRAMES, WIDTH, HEIGHT = 24, 64, 48
VIDEOS = (  # name, encoder, pixel format, B-frames
    ("h264.mp4", "libx264", "yuv420p", 2),
    ("h264.mkv", "libx264", "yuv420p", 2),
    ("h264.mov", "libx264", "yuv420p", 0),
    ("h264.ts", "libx264", "yuv420p", 2),
    ("h264.flv", "libx264", "yuv420p", 0),
    ("vp9.webm", "libvpx-vp9", "yuv420p", 0),
    ("vp8.webm", "libvpx", "yuv420p", 0),
    ("mpeg4.mkv", "mpeg4", "yuv420p", 0),
    ("mpeg4.avi", "mpeg4", "yuv420p", 0),
    ("mjpeg.avi", "mjpeg", "yuvj420p", 0),
    ("mjpeg.mov", "mjpeg", "yuvj420p", 0),
    ("mpeg2.mpg", "mpeg2video", "yuv420p", 0),
    ("video.gif", "gif", "rgb8", 0),
    ("ffv1.mkv", "ffv1", "yuv420p", 0),
)
VIDEO_NAMES = {name for name, *_ in VIDEOS}
SOUNDS = (("aac.mp4", "aac"), ("opus.webm", "libopus"), ("pcm.wav", "pcm_s16le"))
STILLS = (  # name, mode, what Pillow is told
    ("rgb.jpg", "RGB", {"quality": 90}),
    ("progressive.jpg", "RGB", {"progressive": True}),
    ("cmyk.jpg", "CMYK", {}),
    ("rgb.png", "RGB", {}),
    ("rgba.png", "RGBA", {}),
    ("palette.png", "P", {}),
    ("rgb.webp", "RGB", {"quality": 80}),
    ("rgba.webp", "RGBA", {"lossless": True}),
    ("rgb.tiff", "RGB", {}),
    ("deflate.tiff", "RGB", {"compression": "tiff_deflate"}),
    ("rgb.bmp", "RGB", {}),
    ("rgb.gif", "RGB", {}),
    ("rgb.jp2", "RGB", {}),
)
MOVING = (("moving.webp", {"lossless": True}), ("moving.png", {}), ("moving.gif", {}))


@dataclass(frozen=True, slots=True)
class Seed:
    """A whole file: the ending of its name, and its bytes."""

    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Mutant:
    """A damaged file: the number by which it can be made again, what it was, what was done, and its bytes."""

    number: int
    kind: str
    damage: str
    name: str
    data: bytes


def picture(number: int) -> np.ndarray:
    """A picture with smooth and rough parts, another for each number."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rough = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH // 4))
    pixels = np.stack([x * 4 + number * 9, y * 5, (x + y) * 2 + number * 3], axis=-1) % 256
    pixels[:, : WIDTH // 4, 1] = rough
    return pixels.astype(np.uint8)


def seeds(folder: Path) -> list[Seed]:
    """Write one whole file of each kind and return them."""
    for name, codec, pixels, bframes in VIDEOS:
        _write_video(folder / name, codec, pixels, bframes)
    for name, codec in SOUNDS:
        _write_sound(folder / name, codec)
    for name, mode, settings in STILLS:
        PIL.Image.fromarray(picture(3)).convert(mode).save(folder / name, **settings)
    for name, settings in MOVING:
        frames = [PIL.Image.fromarray(picture(number)) for number in range(6)]
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], duration=100, **settings)
    deep = (picture(3)[..., 1].astype(np.uint16) << 8) + 7
    PIL.Image.fromarray(deep).save(folder / "deep.png")
    names = [row[0] for row in (*VIDEOS, *SOUNDS, *STILLS, *MOVING)] + ["deep.png"]
    return [Seed(name, (folder / name).read_bytes()) for name in names]


def _write_video(path: Path, codec: str, pixels: str, bframes: int) -> None:
    settings = {"bf": str(bframes), "sc_threshold": "0", "threads": "1"} if codec == "libx264" else {}
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=10, options=settings)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.gop_size = stream.codec_context.gop_size = 8
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(number), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_sound(path: Path, codec: str) -> None:
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=48000, layout="mono")
        tone = (8000 * np.sin(np.arange(48_000) * 0.3)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(tone, "s16", "mono")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def mutants(whole: list[Seed], count: int) -> list[Mutant]:
    """Return damaged files, the same at every call: kinds of damage alternate, seeds go round in each."""
    found = []
    for number in range(count):
        damage = list(DAMAGES)[number % len(DAMAGES)]
        seed = whole[number // len(DAMAGES) % len(whole)]
        random = np.random.default_rng([7, number])
        other = whole[int(random.integers(len(whole)))]
        data, ending = seed.data, Path(seed.kind).suffix
        while (data, ending) == (seed.data, Path(seed.kind).suffix):  # zeros, say, may already be there
            data, ending = DAMAGES[damage](random, seed, other)
            other = whole[int(random.integers(len(whole)))]
        found.append(Mutant(number, seed.kind, damage, f"{number:04}{ending}", data))
    return found


def bombs(whole: list[Seed]) -> list[Mutant]:
    """Return small files that say they hold huge pictures, and one that does."""
    empty = zlib.compress(bytes(13_000 * (1 + 13_000 // 8)), 9)
    header = struct.pack(">IIBBBBB", 13_000, 13_000, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", empty), (b"IEND", b"")]
    full = b"".join(struct.pack(">I", len(body)) + name + body + bytes(4) for name, body in chunks)
    found = [Mutant(0, "empty.png", "huge", "empty.png", bytes(_summed(bytearray(_PNG + full))))]
    for side in (13_000, 65_000):
        for seed in whole:
            data = _grown(bytearray(seed.data), side)
            if data != seed.data:
                name = f"{side}-{seed.kind}"
                found.append(Mutant(len(found), seed.kind, "huge", name, bytes(data)))
    return found


def _grown(data: bytearray, side: int) -> bytearray:
    """Write other sizes into the headers of pictures, also into those of the frames of a video."""
    if data.startswith(_PNG):
        struct.pack_into(">II", data, 16, side, side)
    elif data.startswith(b"GIF8"):
        struct.pack_into("<HH", data, 6, side, side)
    elif data.startswith(b"BM"):
        struct.pack_into("<ii", data, 18, side, side)
    else:
        for jpeg in re.finditer(rb"\xff[\xc0\xc2]\x00[\x11\x14]\x08", bytes(data)):
            struct.pack_into(">HH", data, jpeg.end(), side, side)
        for vp8 in re.finditer(rb"\x9d\x01\x2a", bytes(data)):
            struct.pack_into("<HH", data, vp8.end(), min(side, 16_383), min(side, 16_383))
    return _summed(data)


Damage = Callable[[Random, Seed, Seed], tuple[bytes, str]]


def _same_ending(change: Callable[[Random, bytearray], bytes]) -> Damage:
    def run(random: Random, seed: Seed, _other: Seed) -> tuple[bytes, str]:
        return bytes(change(random, bytearray(seed.data))), Path(seed.kind).suffix

    return run


def _flip(data: bytearray, random: Random, end: int, count: int) -> bytearray:
    for place, bit in zip(random.integers(0, end, count), random.integers(0, 8, count), strict=True):
        data[place] ^= 1 << int(bit)
    return data


def _flip_few(random: Random, data: bytearray) -> bytes:
    return _flip(data, random, len(data), int(random.integers(1, 9)))


def _flip_many(random: Random, data: bytearray) -> bytes:
    return _flip(data, random, len(data), max(16, len(data) // 40))


def _flip_head(random: Random, data: bytearray) -> bytes:
    return _summed(_flip(data, random, min(len(data), 400), int(random.integers(1, 13))))


def _flip_tail(random: Random, data: bytearray) -> bytes:
    data.reverse()
    _flip(data, random, min(len(data), 1500), int(random.integers(4, 40)))
    data.reverse()
    return data


def _lie(random: Random, data: bytearray) -> bytes:
    """Numbers of four bytes become huge: sizes, counts and offsets that promise more than there is."""
    for place in random.integers(0, max(min(len(data), 2000) - 4, 1), 6):
        number = int(random.choice([0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFF, 0xFFFF]))
        struct.pack_into(">I", data, int(place), number)
    return _summed(data)


def _summed(data: bytearray) -> bytearray:
    """Correct the check sums of a PNG, so that what it says is believed."""
    place = 8
    while data.startswith(_PNG) and place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return data


def _cut(random: Random, data: bytearray) -> bytes:
    return data[: int(random.integers(1, len(data)))]


def _cut_a_little(random: Random, data: bytearray) -> bytes:
    return data[: -int(random.integers(1, min(64, len(data) - 1)))]


def _head_only(random: Random, data: bytearray) -> bytes:
    return data[: int(random.choice([4, 8, 12, 33, 64, 256, 700]))]


def _beheaded(random: Random, data: bytearray) -> bytes:
    return data[int(random.integers(1, len(data) // 2)) :]


def _span(random: Random, data: bytearray) -> slice:
    length = int(random.integers(1, max(len(data) // 4, 2)))
    start = int(random.integers(0, len(data) - length))
    return slice(start, start + length)


def _zeroed(random: Random, data: bytearray) -> bytes:
    span = _span(random, data)
    data[span] = bytes(span.stop - span.start)
    return data


def _noised(random: Random, data: bytearray) -> bytes:
    span = _span(random, data)
    data[span] = random.bytes(span.stop - span.start)
    return data


def _removed(random: Random, data: bytearray) -> bytes:
    del data[_span(random, data)]
    return data


def _doubled(random: Random, data: bytearray) -> bytes:
    span = _span(random, data)
    data[span.stop : span.stop] = data[span]
    return data


def _swapped(random: Random, data: bytearray) -> bytes:
    a, b, c = sorted(random.integers(0, len(data), 3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _longer(random: Random, data: bytearray) -> bytes:
    return data + random.bytes(int(random.integers(1, 5000)))


def _spliced(random: Random, seed: Seed, other: Seed) -> tuple[bytes, str]:
    half = int(random.integers(1, len(seed.data)))
    return seed.data[:half] + other.data[min(half, len(other.data) // 2) :], Path(seed.kind).suffix


def _renamed(random: Random, seed: Seed, other: Seed) -> tuple[bytes, str]:
    return seed.data, Path(other.kind).suffix


def _no_media(random: Random, seed: Seed, _other: Seed) -> tuple[bytes, str]:
    text = "<html><body>404 Not Found</body></html>\n" * int(random.integers(1, 50))
    contents = [b"", b"\0", b"\n", text.encode(), bytes(4096), random.bytes(3000), b"#EXTM3U\nother.mp4\n"]
    return contents[int(random.integers(len(contents)))], Path(seed.kind).suffix


DAMAGES: dict[str, Damage] = {
    "few bits": _same_ending(_flip_few),
    "many bits": _same_ending(_flip_many),
    "bits of the head": _same_ending(_flip_head),
    "bits of the tail": _same_ending(_flip_tail),
    "huge numbers": _same_ending(_lie),
    "cut": _same_ending(_cut),
    "cut a little": _same_ending(_cut_a_little),
    "head only": _same_ending(_head_only),
    "beheaded": _same_ending(_beheaded),
    "zeroed span": _same_ending(_zeroed),
    "noise span": _same_ending(_noised),
    "removed span": _same_ending(_removed),
    "doubled span": _same_ending(_doubled),
    "swapped spans": _same_ending(_swapped),
    "noise behind": _same_ending(_longer),
    "spliced": _spliced,
    "wrong ending": _renamed,
    "no media": _no_media,
}
