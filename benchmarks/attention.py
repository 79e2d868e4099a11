"""Attention forward and backward on packed trees, against one dense mask and against what cannot be beaten.

    python benchmarks/attention.py [--cases 2k,4k,...] [--device cpu|cuda] [--report] [--json]

On the CPU: `Segmented` with tokens in logical and in vision-first order, against
`scaled_dot_product_attention` with a bool mask of the same row. Variants take turns in one process; figures
are medians. `seconds` are CPU seconds of one thread, `wall` is that of two. `limit` is causal attention of
the same heads, scaled by pairs of tokens: what the row would cost were nothing lost to its shape (beyond
16,384 tokens scaled from there). `peak_mb` is the memory above the inputs, in a process of its own.

With CUDA: `Flex` in bf16 against a dense bf16 bias, and the rate of causal FlashAttention. `--report` writes
a page into `benchmarks/reports`.
"""

import argparse
import datetime
import json
import platform
import re
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from hedgerow import visibility
from hedgerow.attention import Dense, Flex, Segmented
from hedgerow.linearize import linearize, vision_first

REPORTS = Path(__file__).parent / "reports"
Work = Callable[[], object]
ORDERS = ("logical", "vision first")


@dataclass(frozen=True, slots=True)
class Case:
    """A row and the heads that attend. Trees are (root text, root vision, branch lengths)."""

    trees: tuple[tuple[int, int, tuple[int, ...]], ...]
    heads: tuple[int, int, int] = (4, 2, 64)  # query heads, key heads, channels
    dtype: torch.dtype = torch.float32
    repeats: int = 1
    dense: bool = True


class Result(NamedTuple):
    """One figure."""

    case: str
    metric: str
    value: float
    unit: str


TREES = {
    "2k": ((96, 1000, (75,) * 4), (52, 400, (50,) * 4)),
    "short": ((12, 38, (25,) * 6),) * 10,  # of the size of the demo's
    "4k": ((160, 1440, (100,) * 12), (60, 640, (*(50,) * 8, 100, 96))),
    "8k": ((400, 3600, (150,) * 10), (200, 1300, (*(80,) * 8, 360, 192))),
    "16k": ((600, 7400, (200,) * 16), (300, 2700, (*(150,) * 8, 400, 200)), (3, 81, (300,))),
    "36k": ((900, 8000, (400,) * 16), (700, 8000, (300,) * 10), (600, 6000, (264,) * 11), (60, 300, ())),
}
CPU = {
    "2k": Case(TREES["2k"], repeats=9),
    "short": Case(TREES["short"], heads=(4, 4, 32), repeats=9),
    "4k": Case(TREES["4k"], repeats=5),
    "8k": Case(TREES["8k"], repeats=3),
    "16k": Case(TREES["16k"]),
    "36k": Case(TREES["36k"], dense=False),
    "2k bf16": Case(TREES["2k"], dtype=torch.bfloat16, repeats=9),
    "4k bf16": Case(TREES["4k"], dtype=torch.bfloat16, repeats=5),
    "8k bf16": Case(TREES["8k"], dtype=torch.bfloat16, repeats=3),
    "4k 16/8x128": Case(TREES["4k"], heads=(16, 8, 128)),
    "4k 16/8x128 bf16": Case(TREES["4k"], heads=(16, 8, 128), dtype=torch.bfloat16),
}
CUDA = {n: Case(TREES[n], heads=(32, 8, 128), dtype=torch.bfloat16) for n in ("2k", "16k", "36k")}


class Integers(SimpleNamespace):
    """A row's arrays, int64 [N]; `blocks` is None as in a row that was joined without them."""

    blocks = None

    def of(self, change: Callable[[Any], Any]) -> "Integers":
        """Return the row with each array changed."""
        return Integers(**{name: change(array) for name, array in vars(self).items()})


def lay_out(trees: tuple[tuple[int, int, tuple[int, ...]], ...], order: str) -> Integers:
    """Return a row of numpy arrays; half of a root's text stands between vision tokens, as timestamps do."""
    columns: dict[str, list[Any]] = {name: [] for name in ("order", "end", "group", "position")}
    start = 0
    for number, (text, vision, branches) in enumerate(trees):
        layout = linearize([-1] + [0] * len(branches), [text + vision, *branches])
        group = np.full(len(layout.order), -1)
        stamps = text // 2
        block = np.full(vision + stamps, number)
        block[np.linspace(0, len(block) - 2, stamps).astype(int)] = -1
        group[: len(block)] = block
        owner = np.repeat(np.arange(len(branches) + 1), [text + vision, *branches])
        where = vision_first(owner, group) if order == "vision first" else np.arange(len(group))
        found = (layout.order + start, layout.end + start, group, layout.position)
        for column, array in zip(columns.values(), found, strict=True):
            column.append(array[where])
        start += len(group)
    return Integers(**{name: np.concatenate(arrays).astype(np.int64) for name, arrays in columns.items()})


def pairs_of(row: Integers) -> int:
    return visibility.pairs(row.order, row.end, row.group)


def inputs(case: Case, length: int, device: str = "cpu") -> tuple[list[Tensor], Tensor]:
    """Return query, key and value that want gradients, and a gradient of the output."""
    query, key, width = case.heads
    made = [
        torch.randn(1, length, heads, width, device=device).to(case.dtype).transpose(1, 2)
        for heads in (query, key, key, query)
    ]
    return [x.requires_grad_() for x in made[:3]], made[3]


def both_passes(attend: Callable[..., Tensor], leaves: list[Tensor], grad: Tensor) -> Work:
    return lambda: torch.autograd.grad(attend(*leaves), leaves, grad)


def take_turns(works: dict[str, Work], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Return the median seconds of each."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            begin = clock()
            work()
            found[name].append(clock() - begin)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def cpu_works(case: Case) -> tuple[dict[str, Work], int]:
    """Return the variants of a case, warmed up, and how many pairs causal attention took."""
    rows = {order: lay_out(case.trees, order).of(torch.from_numpy) for order in ORDERS}
    length, scale = len(rows["logical"].order), case.heads[2] ** -0.5
    backends = {f"segmented, {order}": Segmented(row) for order, row in rows.items()}
    if case.dense:
        backends["dense"] = Dense(rows["logical"])
    leaves, grad = inputs(case, length)
    works = {
        name: both_passes(lambda *x, b=backend: b(*x, scale=scale), leaves, grad)
        for name, backend in backends.items()
    }
    for backend in backends.values():
        with torch.no_grad():
            backend(*leaves, scale=scale)  # finds the tiles or makes the mask, once a row
    most = min(length, 16_384)
    works["causal"] = both_passes(
        lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
        *inputs(case, most),
    )
    return works, most * (most + 1) // 2


def measure_cpu(name: str) -> list[Result]:
    case = CPU[name]
    row = lay_out(case.trees, "logical")
    length, pairs = len(row.order), pairs_of(row)
    works, causal_pairs = cpu_works(case)
    torch.set_num_threads(1)
    cpu = take_turns(works, case.repeats, time.process_time)
    torch.set_num_threads(2)
    wall = take_turns(works, 1 if length > 10_000 else case.repeats, time.perf_counter)
    torch.set_num_threads(1)
    limit = cpu["causal"] * pairs / causal_pairs
    results = [Result(name, "tokens", length, "tokens"), Result(name, "visible", pairs / length**2, "share")]
    results.append(Result(name, "limit", limit, "s"))
    for variant in works:
        if variant == "causal":
            continue
        results.append(Result(name, f"seconds, {variant}", cpu[variant], "s"))
        results.append(Result(name, f"wall, {variant}", wall[variant], "s"))
    for order in ORDERS:
        ours = f"segmented, {order}"
        results.append(Result(name, f"over_visible_pairs_limit, {order}", cpu[ours] / limit, "ratio"))
        if case.dense:
            results.append(Result(name, f"speedup_over_dense, {order}", cpu["dense"] / cpu[ours], "ratio"))
            results.append(Result(name, f"wall_speedup, {order}", wall["dense"] / wall[ours], "ratio"))
    if length > 30_000:
        command = [sys.executable, __file__, "--memory", name]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results.append(Result(name, "peak_mb", float(found), "MB"))
    return results


def memory(name: str) -> float:
    """Return the megabytes that one forward and backward pass adds to the process at its peak (Linux)."""
    torch.set_num_threads(1)
    case = CPU[name]
    row = lay_out(case.trees, "logical").of(torch.from_numpy)
    leaves, grad = inputs(case, len(row.order))
    backend = Segmented(row)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    before = resident("VmRSS")
    both_passes(lambda *x: backend(*x, scale=0.125), leaves, grad)()
    return (resident("VmHWM") - before) / 1000


def resident(name: str) -> float:
    """Return a line of the process's status, in kB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (found,) = re.findall(rf"{name}:\s+(\d+) kB", status)
    return 1.024 * int(found)


def measure_blocks(name: str) -> list[Result]:
    """Time the block mask that a data worker makes, and the memory that numpy takes for it."""
    results = []
    for order in ORDERS:
        row = lay_out(TREES[name], order)
        visibility.summary(row)
        work = take_turns({"it": lambda row=row: visibility.summary(row)}, 7, time.perf_counter)
        tracemalloc.start()
        visibility.summary(row)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        case = f"block mask {name}"
        results.append(Result(case, f"time, {order}", 1000 * work["it"], "ms"))
        results.append(Result(case, f"memory, {order}", peak / 1e6, "MB"))
    return results


def measure_cuda(name: str) -> list[Result]:
    """Time Flex, a dense bias and causal FlashAttention in bf16 on the current CUDA device."""
    case = CUDA[name]
    rows = {order: lay_out(case.trees, order) for order in ORDERS}
    length, pairs = len(rows["logical"].order), pairs_of(rows["logical"])
    leaves, grad = inputs(case, length, "cuda")
    scale = case.heads[2] ** -0.5
    results = [Result(name, "tokens", length, "tokens"), Result(name, "visible", pairs / length**2, "share")]
    for order, row in rows.items():
        flex = Flex(row.of(lambda x: torch.from_numpy(x).cuda()))
        work = both_passes(lambda *x, b=flex: b(*x, scale=scale), leaves, grad)
        results += gpu_figures(name, f"flex, {order}", work, case, pairs)
    bias = dense_bias(rows["logical"], case.dtype)
    work = both_passes(partial(attend_with, bias), leaves, grad)
    results += gpu_figures(name, "dense bias", work, case, pairs)
    del bias, work
    flash = both_passes(
        lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True), leaves, grad
    )
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        results += gpu_figures(name, "causal flash", flash, case, length * (length + 1) // 2)
    return results


def dense_bias(row: Integers, dtype: torch.dtype) -> Tensor:
    """Return the additive mask [1, 1, N, N] of a row on the CUDA device."""
    row = row.of(lambda x: torch.from_numpy(x).cuda())
    hidden = visibility.dense(row.order, row.end, row.group).logical_not_()
    bias = torch.zeros(hidden.shape, dtype=dtype, device="cuda")
    return bias.masked_fill_(hidden, torch.finfo(dtype).min)[None, None]


def attend_with(bias: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend through an additive mask, keys and values repeated, as the public Molmo2 code does."""
    times = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(times, 1) for x in (key, value))
    return scaled_dot_product_attention(query, key, value, attn_mask=bias)


def gpu_figures(name: str, variant: str, work: Work, case: Case, pairs: int) -> list[Result]:
    """Return time, memory above the inputs, and the rate on visible pairs: 4 + 10 d heads FLOPs each."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(10):
        begin, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        stop.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(stop))
    milliseconds = statistics.median(times)
    operations = 14 * case.heads[0] * case.heads[2] * pairs
    return [
        Result(name, f"time, {variant}", milliseconds, "ms"),
        Result(name, f"peak_mb, {variant}", (torch.cuda.max_memory_allocated() - before) / 1e6, "MB"),
        Result(name, f"rate, {variant}", operations / milliseconds / 1e9, "TFLOP/s"),
    ]


def hardware(device: str) -> str:
    """Return the name of the processor."""
    if device == "cuda":
        return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    named = Path("/proc/cpuinfo")
    lines = named.read_text(encoding="utf-8").splitlines() if named.exists() else []
    return next((x.split(":")[1].strip() for x in lines if "model name" in x), platform.processor())


def show(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def write_report(results: list[Result], device: str) -> Path:
    """Write a page named after the day and the hardware, and return its path."""
    today, name = datetime.datetime.now(datetime.UTC).date().isoformat(), hardware(device)
    lines = [
        f"# Attention on {name}, {today}", "",
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.system()}. ",
        f"`python benchmarks/attention.py --device {device} --report`; what each figure is stands there.", "",
    ]  # fmt: skip
    lines += ["| case | metric | value | unit |", "|---|---|---|---|"]
    lines += [f"| {x.case} | {x.metric} | {show(x.value)} | {x.unit} |" for x in results]
    if not results:
        lines = [*lines[:5], f"Not run: no {device} device."]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = REPORTS / f"{today}-attention-{slug}.md"
    REPORTS.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def measure(device: str, names: list[str]) -> list[Result]:
    """Return all figures of a device; none where it is missing."""
    if device == "cuda":
        there = torch.cuda.is_available()
        return [x for name in names if there for x in measure_cuda(name)]
    results = [x for name in names for x in measure_cpu(name)]
    return results + [x for name in ("16k", "36k") if name in names for x in measure_blocks(name)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Attention on packed trees: time and memory.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--cases", help=f"comma separated, of {', '.join(CPU)}; on CUDA {', '.join(CUDA)}")
    parser.add_argument("--report", action="store_true", help="write a page into benchmarks/reports")
    parser.add_argument("--memory", help=argparse.SUPPRESS, choices=CPU)
    given = parser.parse_args()
    torch.manual_seed(0)
    if given.memory:
        print(memory(given.memory))
        return
    cases = CUDA if given.device == "cuda" else CPU
    names = given.cases.split(",") if given.cases else list(cases)
    if set(names) - set(cases):
        parser.error(f"no such case: {', '.join(set(names) - set(cases))}; choose of {', '.join(cases)}")
    results = measure(given.device, names)
    if given.json:
        print(json.dumps({"results": [x._asdict() for x in results]}))
    else:
        for x in results:
            print(f"{x.case:18} {x.metric:40} {show(x.value):>10} {x.unit}")
        if not results:
            print(f"not run: no {given.device} device")
    if given.report:
        print(f"wrote {write_report(results, given.device)}", file=sys.stderr)


if __name__ == "__main__":
    main()
