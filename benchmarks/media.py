"""Reading videos and images as Molmo2 sees them: CPU time against bare decoding, peak memory, tiles a second.

    python benchmarks/media.py [--json] [--seconds 30] [--repeats 5] [--films 12]

The files are made first: a clip of 1280 x 720, H.264, 25 frames a second, key frames 250 apart, in which a
textured scene moves with the camera and things move in it; and JPEG photos of such a texture. `ours` is
`Molmo2Processor.visual`: at 2 frames a second for the clip, with the layout at hand. `bare` is PyAV decoding
all frames of the clip in one thread, converting none. Both take turns in one process, and the medians of
their CPU seconds are compared: at most 1.1. Tiles of 378 pixels (the view of the whole image among them)
count the reading of the file: at least 150 a CPU second. `Pillow alone` is what opening and decoding the same
file takes. Peaks are of a process of its own, above what it held once `hedgerow.vision` was imported: at most
200 MB for the clip. They need Linux.

`frames kept` is the clip read again and again through `data.frames`: the first epoch writes what the others
read back; `again in a new process` has to hash the file anew. `scenes` are `--films` films of six shots,
still, panned and shaking: `found` are cuts within half a frame of those that were made, `false` all others.
PySceneDetect (its adaptive detector) is asked too where it is installed.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import PIL.Image

from figures import Result, peak_of, tell
from hedgerow.content import Image, Media, Video
from hedgerow.vision import Molmo2Processor, probe
from hedgerow.vision.cache import FrameCache
from hedgerow.vision.scenes import find_cuts
from hedgerow.vision.write import write_video

WIDTH, HEIGHT, RATE, KEYS = 1280, 720, 25, 250
PHOTOS, CROPS = ((1024, 768), (4000, 3000)), (8, 24)
GRAIN = 4.0  # standard deviation of brightness from frame to frame
FILM = 320, 180  # width and height of the films that are cut
HUGE = 10_000  # side of the greatest photo
PROCESSOR = Molmo2Processor()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the clip")
    parser.add_argument("--repeats", type=int, default=5, help="figures are medians of this many runs")
    parser.add_argument("--huge", type=int, default=HUGE, help="side of the greatest photo in pixels")
    parser.add_argument("--films", type=int, default=12, help="films whose cuts are looked for")
    parser.add_argument("--peak", help="print the peak of reading that file in MB and nothing else")
    options = parser.parse_args()
    if options.peak:
        print(peak(media_of(options.peak)))
        return
    with tempfile.TemporaryDirectory() as folder:
        results = [part(Path(folder), options) for part in (videos, frames_kept, scenes, images)]
    results = [result for part in results for result in part]
    tell(results, as_json=options.json)


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


def frames_kept(folder: Path, options: argparse.Namespace) -> list[Result]:
    video = Video(str(folder / "clip.mp4"))
    layout = PROCESSOR.layout(video, probe(video))

    def opened(name: str = "kept") -> FrameCache:
        return FrameCache(PROCESSOR, folder / name, 10**12)

    def first() -> None:
        cache = opened("emptied")
        cache.visual(video, layout)
        for file in cache.folder.iterdir():
            file.unlink()

    warm = opened()
    warm.visual(video, layout)
    decoding, written, anew, again = alternate(
        options.repeats,
        lambda: PROCESSOR.visual(video, layout),
        first,
        lambda: opened().visual(video, layout),
        lambda: warm.visual(video, layout),
    )
    case = f"frames kept, {len(layout.times)} of 720p"
    return [
        (case, "decoding", decoding, "s"),
        (case, "first epoch", written, "s"),
        (case, "again in a new process", anew, "s"),
        (case, "again", again, "s"),
        (case, "decoding / again in a new process", decoding / anew, "ratio"),
        (case, "decoding / again", decoding / again, "ratio"),
    ]


def scenes(folder: Path, options: argparse.Namespace) -> list[Result]:
    ways = {"ours": find_cuts}
    if find_spec("scenedetect"):
        ways["PySceneDetect"] = their_cuts
    else:
        print("PySceneDetect is not installed: pip install 'hedgerow[scenes]'", file=sys.stderr)
    films = [write_film(folder / f"film-{number}.mp4", number) for number in range(options.films)]
    case = f"scenes, {options.films} films"
    results: list[Result] = [(case, "cuts", sum(len(cuts) for _, cuts in films), "cuts")]
    for name, way in ways.items():
        begin = time.process_time()
        found = [(way(path), cuts) for path, cuts in films]
        used = time.process_time() - begin
        hits = sum(min(abs(cut - made) for made in cuts) < 0.5 / RATE for got, cuts in found for cut in got)
        results += [
            (case, f"{name}, found", hits, "cuts"),
            (case, f"{name}, false", sum(len(got) for got, _ in found) - hits, "cuts"),
            (case, f"{name}, CPU", used, "s"),
        ]
    return results


def their_cuts(path: str) -> list[float]:
    import scenedetect

    found = scenedetect.detect(path, scenedetect.AdaptiveDetector(min_scene_len=10))
    return [start.seconds for start, _ in found[1:]]


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
    return peak_of(lambda: PROCESSOR.visual(media, PROCESSOR.layout(media, probe(media))))


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


def write_film(path: Path, seed: int) -> tuple[str, list[float]]:
    """Write shots of six places, and return the times of the cuts between them."""
    width, height = FILM
    rng = np.random.default_rng(seed)
    frames, cuts = [], []
    for number in range(6):
        place = np.asarray(texture(2 * width, 2 * height, seed=10 * seed + number))
        pan, shake = ((0.0, 0.0), (rng.uniform(1, 5), 0.0), (0.0, 3.0))[rng.integers(3)]
        for moment in range(rng.integers(15, 45)):
            corner = rng.normal(20, shake, 2) + np.array([pan * moment, 0])
            x, y = corner.clip(0, FILM).astype(int)
            view = place[y : y + height, x : x + width] + rng.normal(0, GRAIN, (height, width, 1))
            frames.append(view.clip(0, 255).astype(np.uint8))
        cuts.append(len(frames) / RATE)
    write_video(path, frames, rate=RATE)
    return str(path), cuts[:-1]


if __name__ == "__main__":
    main()
