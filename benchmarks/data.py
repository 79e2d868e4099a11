"""Data before training: checking, converting, showing, making and aligning them, in time and memory.

    python benchmarks/data.py [PART ...] [--json] [--rows 2000] [--hashes 1000000]
                              [--scenes 24] [--trees 2000]

Parts, all of them by default; CPU seconds are of all processes, memory needs Linux:

check       `hedgerow data check` on `--rows` rows, as a command: five branches a row, 40 rows an image.
            `largest process` is the most that any one of its processes held, imports included.
duplicates  What is kept of `--hashes` rows to find those that stand twice, above the imports.
convert     Rows of two formats, `--rows` of each in a file, above the imports.
view        Pages of `hedgerow data view`: of `--scenes` synthetic scenes, of as many photos with a question
            each, and of `--trees` trees of five nodes without media.
synthetic   The making of scenes of 6 s, and what is asked for against what is there: means over `--scenes`.
align       `hedgerow.grounding.align` on tracks of five objects with 3,600 keyframes each, at 128 frames.

With `check --rows 100000`, `duplicates --hashes 10000000`, `convert --rows 200000` and `view --scenes 200
--trees 10000` the figures are those of large data.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from figures import Result, peak_of, tell
from hedgerow.content import Point, Tracks
from hedgerow.data.adapters import convert
from hedgerow.data.check_duplicates import Duplicates
from hedgerow.data.synthetic import Scenes, Truth, make_scene, truth, write_scenes
from hedgerow.grounding.align import Frames, align
from media import texture

SHARED = 40  # rows about one image
BATCH = 256  # rows whose hashes are looked up at once
KNOBS = (
    *(("occlusion", share) for share in (0.0, 0.05, 0.1, 0.2, 0.3)),
    *(("speed", widths) for widths in (0.05, 0.15, 0.4)),
    *(("objects", count) for count in (1, 3, 6, 12)),
)
MEASURED: dict[str, tuple[Callable[[Truth], float], str]] = {
    "occlusion": (lambda known: known.occlusion, "share"),
    "speed": (lambda known: known.speed, "widths/s"),
    "objects": (lambda known: float(known.asked.sum()), "objects"),
}
OBJECTS, KEYFRAMES, SAMPLED = 5, 3600, 128
WORDS = ("a", "small", "red", "cup", "stands", "behind", "the", "old", "bowl", "and", "nobody", "sees", "it")
# Says of a command what it took: seconds, CPU seconds and KB of its largest process. Small itself, since a
# process begins with the peak of the one that starts it.
RUN = """
import json, os, subprocess, sys, time
begin = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(child.pid, 0)
spent = time.perf_counter() - begin
print(json.dumps([os.waitstatus_to_exitcode(status), spent, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


def check(folder: Path, options: argparse.Namespace) -> list[Result]:
    path = write_rows(folder / "rows.jsonl", checked_rows(folder, options.rows))
    _, spent, used, largest = hedgerow("data", "check", str(path))
    case = f"check, {options.rows:,} rows"
    return [
        (case, "size of a row", path.stat().st_size / options.rows / 1e3, "KB"),
        (case, "wall", spent, "s"),
        (case, "CPU", used, "s"),
        (case, "CPU of a row", 1e3 * used / options.rows, "ms"),
        (case, "largest process", largest * 1024 / 1e6, "MB"),
    ]


def duplicates(_: Path, options: argparse.Namespace) -> list[Result]:
    case = f"duplicates, {options.hashes:,} rows"
    peak, used = in_a_process("--remember", str(options.hashes))
    return [
        (case, "peak above import", peak, "MB"),
        (case, "peak over rows", 1e6 * peak / options.hashes, "bytes"),
        (case, "CPU of a row", 1e6 * used / options.hashes, "us"),
    ]


def remember(rows: int) -> None:
    """Look ids and contents of rows up as `data check` does; all of them are new."""
    rng, tables = np.random.default_rng(0), (Duplicates(), Duplicates())
    for first in range(0, rows, BATCH):
        numbers = np.arange(first, min(first + BATCH, rows), dtype=np.uint32)
        for table in tables:
            found = table.add(rng.integers(0, 2**64, len(numbers), np.uint64), numbers)
            assert (found < 0).all()


def conversions(folder: Path, options: argparse.Namespace) -> list[Result]:
    results: list[Result] = []
    for name, row in FORMATS.items():
        path = write_rows(folder / f"{name}.jsonl", (row(number) for number in range(options.rows)))
        peak, used = in_a_process("--convert", str(path))
        case = f"convert {name}, {options.rows:,} rows"
        results += [
            (case, "CPU of a row", 1e3 * used / options.rows, "ms"),
            (case, "peak above import", peak, "MB"),
            (case, "peak over rows", 1e6 * peak / options.rows, "bytes"),
        ]
    return results


def views(folder: Path, options: argparse.Namespace) -> list[Result]:
    made = write_scenes(folder / "scenes", Scenes(look="shapes"), options.scenes, seed=0)
    kinds = {
        f"{options.scenes:,} scenes": (made.trees, options.scenes),
        f"{options.scenes:,} photos": (photos(folder, options.scenes), options.scenes),
        f"{options.trees:,} trees of five nodes": (texts(folder, options.trees), options.trees),
    }
    results: list[Result] = []
    for name, (path, count) in kinds.items():
        page = folder / "page.html"
        _, _, used, _ = hedgerow("data", "view", str(path), "--out", str(page), "--trees", str(count))
        case = f"view, {name}"
        results += [(case, "page", page.stat().st_size / 1e6, "MB"), (case, "CPU", used, "s")]
    return results


def synthetic(folder: Path, options: argparse.Namespace) -> list[Result]:
    begin = time.process_time()
    made = write_scenes(folder / "made", Scenes(look="shapes"), options.scenes, seed=0)
    used = (time.process_time() - begin) / options.scenes
    results = [
        ("synthetic, 6 s at 320 x 240", "CPU of a scene", used, "s"),
        ("synthetic, 6 s at 320 x 240", "branches of a scene", made.branches / options.scenes, "branches"),
    ]
    for knob, asked in KNOBS:
        scenes = replace(Scenes(look="shapes"), **{knob: (asked, asked) if knob == "objects" else asked})
        known = [truth(make_scene(scenes, seed=0, number=number)) for number in range(options.scenes)]
        measured, unit = MEASURED[knob]
        case = f"synthetic, {knob} {asked}, {options.scenes} scenes"
        results.append((case, "measured", float(np.mean([measured(one) for one in known])), unit))
    return results


def aligning(*_: object) -> list[Result]:
    rng = np.random.default_rng(0)
    places = rng.random((KEYFRAMES, OBJECTS, 2)).round(3).tolist()
    points = tuple(
        Point(x, y, id=number + 1, time=moment / 30)
        for moment, row in enumerate(places)
        for number, (x, y) in enumerate(row)
    )
    tracks = Tracks("thing", points)
    end = (KEYFRAMES - 1) / 30
    frames = Frames(tuple(np.linspace(0.0, end, SAMPLED).tolist()), end / (SAMPLED - 1))
    spent = []
    for _ in range(5):
        begin = time.process_time()
        align(tracks, frames)
        spent.append(time.process_time() - begin)
    case = f"align, {OBJECTS} objects of {KEYFRAMES:,} keyframes, {SAMPLED} frames"
    return [
        (case, "all", 1e3 * min(spent), "ms"),
        (case, "a point", 1e6 * min(spent) / len(points), "us"),
    ]


PARTS = {
    "check": check,
    "duplicates": duplicates,
    "convert": conversions,
    "view": views,
    "synthetic": synthetic,
    "align": aligning,
}


def checked_rows(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        name = f"{number // SHARED}.jpg"
        if number % SHARED == 0:
            texture(160, 120, seed=number).save(folder / name)
        yield {
            "id": f"row-{number}",
            "messages": [{"role": "user", "content": [{"type": "image", "path": name}]}],
            "branches": [branch(number, place) for place in range(5)],
        }


def branch(number: int, place: int) -> dict[str, Any]:
    """A caption, points, and three questions."""
    if place == 0:
        return turn("image_caption", "Describe it.", said(number, 90))
    if place == 1:
        spots = [{"x": (number * 7 + n) % 100 / 100, "y": n / 12, "id": n + 1} for n in range(12)]
        return turn("pointing", "Point to each cup.", [{"type": "points", "label": "cup", "points": spots}])
    return turn("qa", f"{said(number + place, 8)}?", said(number * place, 25))


def turn(task: str, question: str, answer: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"task": task, "messages": messages}


def said(number: int, words: int) -> str:
    """So many words, other ones for each number."""
    places = ((number * (place + 1) + place) % len(WORDS) for place in range(words))
    return f"{number} {' '.join(WORDS[place] for place in places)}"


def llava(number: int) -> dict[str, Any]:
    asked = {"from": "human", "value": f"<image>\n{said(number, 8)}?"}
    turns = [asked, {"from": "gpt", "value": said(number, 40)}]
    return {"id": f"row-{number}", "image": f"{number // 2}.jpg", "conversations": turns}


def trl(number: int) -> dict[str, Any]:
    shown = [{"type": "image", "path": f"{number // 2}.jpg"}, {"type": "text", "text": f"{said(number, 8)}?"}]
    reply = [{"type": "text", "text": said(number, 40)}]
    return {"messages": [{"role": "user", "content": shown}, {"role": "assistant", "content": reply}]}


FORMATS = {"llava": llava, "trl": trl}


def photos(folder: Path, count: int) -> Path:
    rows = []
    for number in range(count):
        texture(800, 600, seed=number).save(folder / f"photo-{number}.jpg")
        shown = [{"type": "image", "path": f"photo-{number}.jpg"}, {"type": "text", "text": "What is it?"}]
        messages = [{"role": "user", "content": shown}, {"role": "assistant", "content": said(number, 12)}]
        rows.append({"id": f"photo-{number}", "messages": messages})
    return write_rows(folder / "photos.jsonl", iter(rows))


def texts(folder: Path, count: int) -> Path:
    rows = (
        {
            "id": f"text-{number}",
            "messages": [{"role": "user", "content": said(number, 30)}],
            "branches": [turn("qa", f"{said(number + n, 8)}?", said(number * n + n, 12)) for n in range(4)],
        }
        for number in range(count)
    )
    return write_rows(folder / "texts.jsonl", rows)


def write_rows(path: Path, rows: Iterator[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def hedgerow(*words: str) -> tuple[int, float, float, float]:
    """Run a command line; return exit code, seconds, CPU seconds, and KB of the largest process."""
    command = [sys.executable, "-c", RUN, sys.executable, "-m", "hedgerow.cli", *words]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    if found[0]:
        raise RuntimeError(f"hedgerow {' '.join(words)}: exit code {found[0]}")
    return tuple(found)


def in_a_process(*words: str) -> tuple[float, float]:
    """Do a piece of work in a process of its own; return MB above the imports and CPU seconds."""
    command = [sys.executable, __file__, *words]
    peak, used = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return peak, used


def tell_of(work: Callable[[], object]) -> None:
    begin = time.process_time()
    print(json.dumps([peak_of(work), time.process_time() - begin]))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rows", type=int, default=2_000, help="that are checked and converted")
    parser.add_argument("--hashes", type=int, default=1_000_000, help="rows that are looked for twice")
    parser.add_argument("--scenes", type=int, default=24, help="scenes and photos")
    parser.add_argument("--trees", type=int, default=2_000, help="without media, on a page")
    parser.add_argument("--remember", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--convert", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        parser.error(f"no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    return options


def main() -> None:
    options = read_options()
    if options.remember:
        tell_of(lambda: remember(options.remember))
        return
    if options.convert:
        tell_of(lambda: convert([options.convert], options.convert.with_suffix(".trees.jsonl")))
        return
    results: list[Result] = []
    for name in options.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            results += PARTS[name](Path(folder), options)
    tell(results, as_json=options.json)


if __name__ == "__main__":
    main()
