"""Reading videos and images as Molmo2 sees them: CPU time against bare decoding, peak memory, tiles a second.

    python benchmarks/media.py [--json] [--seconds 30] [--repeats 5]

The files are made first: a clip of 1280 x 720, H.264, 25 frames a second, key frames 250 apart, in which a
textured scene moves with the camera and things move in it; and JPEG photos of such a texture. `ours` is
`Molmo2Processor.visual`: at 2 frames a second for the clip, with the layout at hand. `bare` is PyAV decoding
all frames of the clip in one thread, converting none. Both take turns in one process, and the medians of
their CPU seconds are compared: at most 1.1. Tiles of 378 pixels (the view of the whole image among them)
count the reading of the file: at least 150 a CPU second. `Pillow alone` is what opening and decoding the same
file takes. Peaks are of a process of its own, above what it held once `hedgerow.vision` was imported: at most
200 MB for the clip. They need Linux.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image

from hedgerow.content import Image, Media, Video
from hedgerow.vision import Molmo2Processor, probe

WIDTH, HEIGHT, RATE, KEYS = 1280, 720, 25, 250
PHOTOS, CROPS = ((1024, 768), (4000, 3000)), (8, 24)
GRAIN = 4.0  # standard deviation of brightness from frame to frame
HUGE = 10_000  # side of the greatest photo
PROCESSOR = Molmo2Processor()
Result = tuple[str, str, float, str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the clip")
    parser.add_argument("--repeats", type=int, default=5, help="figures are medians of this many runs")
    parser.add_argument("--huge", type=int, default=HUGE, help="side of the greatest photo in pixels")
    parser.add_argument("--peak", help="print the peak of reading that file in MB and nothing else")
    options = parser.parse_args()
    if options.peak:
        print(peak(media_of(options.peak)))
        return
    with tempfile.TemporaryDirectory() as folder:
        results = [*videos(Path(folder), options), *images(Path(folder), options)]
    if options.json:
        keys = ("case", "metric", "value", "unit")
        print(json.dumps({"results": [dict(zip(keys, result, strict=True)) for result in results]}))
        return
    for name, metric, value, unit in results:
        print(f"{name:44} {metric:24} {value:10.4g} {unit}")


def videos(folder: Path, options: argparse.Namespace) -> list[Result]:
    path = write_clip(folder / "clip.mp4", options.seconds)
    video = Video(path)
    layout = PROCESSOR.layout(video, probe(video))
    ours, bare, look = alternate(
        options.repeats,
        lambda: PROCESSOR.visual(video, layout),
        lambda: decode_all(path),
        lambda: probe(video),
    )
    case = f"video {options.seconds:g} s 720p h264 at 2 fps"
    return [
        (case, "ours", ours, "s"),
        (case, "bare PyAV", bare, "s"),
        (case, "ours / bare PyAV", ours / bare, "ratio"),
        (case, "probing", look, "s"),
        (case, "peak above import", in_a_process(path), "MB"),
        (case, "bit rate", Path(path).stat().st_size * 8e-6 / options.seconds, "Mbit/s"),
    ]


def images(folder: Path, options: argparse.Namespace) -> list[Result]:
    results: list[Result] = []
    for width, height in PHOTOS:
        path = write_photo(folder / f"{width}.jpg", width, height)
        for most in CROPS:
            case = f"image {width} x {height} JPEG, {most} crops at most"
            results += [
                (case, *figure) for figure in tiles(Image(path, max_crops=most), path, options.repeats)
            ]
    huge = write_photo(folder / "huge.jpg", options.huge, options.huge)
    case = f"image {options.huge} x {options.huge} JPEG"
    return [*results, (case, "peak above import", in_a_process(huge), "MB")]


def tiles(image: Image, path: str, repeats: int) -> list[tuple[str, float, str]]:
    layout = PROCESSOR.layout(image, probe(image))
    ours, alone = alternate(repeats, lambda: PROCESSOR.visual(image, layout), lambda: decode(path))
    return [
        ("tiles", layout.crops, "tiles"),
        ("tiles a CPU second", layout.crops / ours, "tiles/s"),
        ("ours", ours, "s"),
        ("Pillow alone", alone, "s"),
    ]


def alternate(repeats: int, *ways: Callable[[], object]) -> list[float]:
    """Return the median CPU seconds of each way; they take turns, and run once before the clock does."""
    found: list[list[float]] = [[] for _ in ways]
    for turn in range(repeats + 1):
        for seconds, way in zip(found, ways, strict=True):
            begin = time.process_time()
            way()
            if turn:
                seconds.append(time.process_time() - begin)
    return [statistics.median(seconds) for seconds in found]


def decode_all(path: str) -> int:
    """Decode every frame in one thread, keep none."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def decode(path: str) -> None:
    with PIL.Image.open(path) as picture:
        picture.load()


def in_a_process(path: str) -> float:
    command = [sys.executable, __file__, "--peak", path]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def peak(media: Media) -> float:
    """Return the peak of probing and reading a file in MB, above what was there before."""
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
    PROCESSOR.visual(media, PROCESSOR.layout(media, probe(media)))
    return memory("VmHWM") - before


def memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


def media_of(path: str) -> Media:
    return Video(path) if path.endswith(".mp4") else Image(path)


def texture(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    """Noise at every size of detail, mostly of brightness, and a little grain: as large a file as a photo."""
    rng = np.random.default_rng(seed)
    total = rng.normal(0, 2, (height, width, 3)).astype(np.float32)
    for size in (2, 4, 8, 16, 32, 64, 128):
        shape = height // size + 2, width // size + 2
        coarse = rng.integers(0, 192, (*shape, 1)) + rng.integers(0, 64, (*shape, 3))
        fine = PIL.Image.fromarray(coarse.astype(np.uint8)).resize(
            (width, height), PIL.Image.Resampling.BICUBIC
        )
        total += (np.asarray(fine, np.float32) - 128) * (size / 128) ** 0.4
    return PIL.Image.fromarray(np.clip(128 + 0.6 * total, 0, 255).astype(np.uint8))


def write_photo(path: Path, width: int, height: int) -> str:
    side = min(width, 2000)
    photo, piece = PIL.Image.new("RGB", (width, height)), texture(side, side)
    for x in range(0, width, side):
        for y in range(0, height, side):
            photo.paste(piece, (x, y))
    photo.save(path, quality=90)
    return str(path)


def write_clip(path: Path, seconds: float) -> str:
    """Write a grainy scene seen by a moving camera, in which textured things move in circles."""
    ground = texture(WIDTH + 256, HEIGHT + 256)
    things = [texture(size, size, seed=size) for size in (60, 90, 120, 160, 200)]
    rng = np.random.default_rng(0)
    grains = [rng.normal(0, GRAIN, (HEIGHT, WIDTH, 1)).astype(np.int16) for _ in range(5)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", KEYS
        for moment in range(round(seconds * RATE) + 1):
            turn = moment / RATE
            x, y = 128 + 120 * np.sin(0.4 * turn), 128 + 120 * np.sin(0.3 * turn)
            picture = ground.crop((round(x), round(y), round(x) + WIDTH, round(y) + HEIGHT))
            for number, thing in enumerate(things):
                angle = turn * (0.5 + 0.3 * number)
                place = 560 + 400 * np.cos(angle + number), 260 + 220 * np.sin(angle * 1.3 + number)
                picture.paste(thing, (round(place[0]), round(place[1])))
            pixels = np.clip(np.asarray(picture) + grains[moment % 5], 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


if __name__ == "__main__":
    main()
