"""What the loader takes beside decoding, and what a second worker brings.

    python benchmarks/loader.py [--clips 64] [--width 640] [--height 360] [--json]

Clips of moving noise, 24 frames a second, are encoded first (16 files, each in several trees), then loaded by
`RowLoader` with Molmo2's processor (378 pixels, 2 frames a second) under the default budget. `decoding` is
CPU time inside the encoder, `beside` all other CPU time of both processes with one worker: starting it,
planning, joining rows and moving them to the main process; it should be at most .05 of decoding. Throughput
is wall time of an epoch after the first row, so that starting workers does not count: read it on an idle
machine.
"""

import argparse
import dataclasses
import json
import resource
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from hedgerow.content import Video
from hedgerow.encode import Encoder
from hedgerow.packing.loader import Fixed, RowLoader
from hedgerow.sequence import Budget, Costs, Sequence
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.vision.processor import Molmo2Processor

FPS, FILES = 24, 16
BUDGET = Budget(tokens=16384, crops=128)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--width", type=int, default=640, help="of a clip, in pixels")
    parser.add_argument("--height", type=int, default=360, help="of a clip, in pixels")
    parser.add_argument("--repeats", type=int, default=3, help="throughput is the median of this many epochs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = [clip(Path(folder) / f"{number}.mp4", options, number) for number in range(FILES)]
        trees = [tree(files[number % FILES], number) for number in range(options.clips)]
        figures = {**beside(trees), **throughput(trees, options.repeats)}
    case = f"{options.clips} clips of {options.width} x {options.height}"
    if options.json:
        units = {name: "seconds" if "seconds" in name else "ratio" for name in figures}
        units |= {name: "clips/s" for name in figures if "clips_per_second" in name}
        results = [
            {"case": case, "metric": name, "value": value, "unit": units[name]}
            for name, value in figures.items()
        ]
        print(json.dumps({"results": results}))
    else:
        print(case)
        for name, value in figures.items():
            print(f"  {name:36}{value:>10.4f}")


def clip(path: Path, options: argparse.Namespace, seed: int) -> Path:
    """Write a clip of 6 to 20 seconds in which noise moves, and changes a little from frame to frame."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 256, (options.height, options.width, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = options.width, options.height, "yuv420p"
        for moment in range(int(rng.integers(6 * FPS, 20 * FPS))):
            moved = np.roll(texture, (2 * moment, 3 * moment), (0, 1)) // 2 + moment % 128
            frame = av.VideoFrame.from_ndarray(moved.astype(np.uint8), "rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def tree(path: Path, number: int) -> MessageTree:
    branches = [
        Branch((Message("user", f"What moves in part {part}?"), Message("assistant", "Noise does, " * 20)))
        for part in range(3)
    ]
    return MessageTree(
        id=f"clip-{number}", messages=(Message("user", (Video(str(path)),)),), branches=tuple(branches)
    )


@dataclasses.dataclass(frozen=True)
class Timed:
    """Encodes trees, and adds up the CPU seconds that it takes in memory that workers share."""

    trees: list[MessageTree]
    encoder: Encoder
    spent: torch.Tensor

    def __call__(self, number: int) -> Sequence:
        """Encode tree `number`."""
        begin = time.process_time()
        try:
            return self.encoder(self.trees[number])
        finally:
            self.spent.add_(time.process_time() - begin)


def loader(trees: list[MessageTree], workers: int) -> tuple[RowLoader, Timed]:
    encoder = Encoder(ChatFormat(load_tokenizer("tiny")), Molmo2Processor())
    timed = Timed(trees, encoder, torch.zeros(1, dtype=torch.float64).share_memory_())
    costs = Costs.of([encoder.measure(tree) for tree in trees])
    return RowLoader(Fixed(timed, costs), BUDGET, seed=0, workers=workers), timed


def cpu_seconds() -> float:
    """What this process and the workers that have ended took."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def beside(trees: list[MessageTree]) -> dict[str, float]:
    loader(trees, workers=0)[0].plan(0)  # compiles what planning needs
    rows, timed = loader(trees, workers=1)
    begin, waited = cpu_seconds(), time.process_time()
    count = sum(1 for _ in rows)
    whole, waited = cpu_seconds() - begin, time.process_time() - waited
    decoding = float(timed.spent)
    return {
        "rows": float(count),
        "decoding_cpu_seconds": decoding,
        "beside_cpu_seconds": whole - decoding,
        "beside_in_main_process_cpu_seconds": waited,
        "beside_share_of_decoding": (whole - decoding) / decoding,
    }


def throughput(trees: list[MessageTree], repeats: int) -> dict[str, float]:
    """Alternate between one worker and two, so that both meet the same machine."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for workers, rates in found.items():
            running = iter(loader(trees, workers)[0])
            next(running)
            begin = time.perf_counter()
            rates.append(sum(len(loaded.row.examples) for loaded in running) / (time.perf_counter() - begin))
    one, two = (statistics.median(rates) for rates in found.values())
    return {
        "clips_per_second_1_worker": one,
        "clips_per_second_2_workers": two,
        "speed_of_2_workers_over_1": two / one,
    }


if __name__ == "__main__":
    main()
