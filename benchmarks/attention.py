"""Attention forward and backward on packed trees: one mask against squares and rectangles, on one CPU core.

    python benchmarks/attention.py [--json] [--cases demo,4k,8k,16k]

Times are CPU seconds of one layer in fp32 (best of the repeats), without making the backend, which happens
once a row. `visible` is the share of all N x N pairs that the row may see.
"""

import argparse
import json
import time
from types import SimpleNamespace

import numpy as np
import torch

from hedgerow import visibility
from hedgerow.attention import Dense, Segmented
from hedgerow.linearize import linearize

# (query heads, key heads, channels), repeats, and trees as (root text, root vision, branch lengths)
CASES = {
    "demo": ((4, 4, 32), 5, [(40, 40, [15, 20, 25, 25, 30, 35])] * 8),
    "4k": ((4, 2, 64), 2, [(160, 1440, [100] * 12), (60, 640, [50] * 8 + [100, 100])]),
    "8k": ((4, 2, 64), 1, [(400, 3600, [150] * 10), (200, 1300, [80] * 8 + [360])]),
    "16k": ((4, 2, 64), 1, [(600, 7400, [200] * 16), (300, 2700, [150] * 8 + [400, 200]), (3, 81, [300])]),
}


def lay_out(trees):
    """Return the integers of a row; half of a root's text stands between vision tokens, as timestamps do."""
    fields = {"order": [], "end": [], "group": [], "position": []}
    start = 0
    for number, (text, vision, branches) in enumerate(trees):
        layout = linearize([-1] + [0] * len(branches), [text + vision, *branches])
        group = np.full(len(layout.order), -1)
        stamps = text // 2
        block = np.full(vision + stamps, number)
        block[np.linspace(0, len(block) - 2, stamps).astype(int)] = -1
        group[: len(block)] = block
        fields["order"].append(layout.order + start)
        fields["end"].append(layout.end + start)
        fields["position"].append(layout.position)
        fields["group"].append(group)
        start += len(layout.order)
    return SimpleNamespace(**{k: torch.from_numpy(np.concatenate(v)).long() for k, v in fields.items()})


def seconds(work, repeats):
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def measure(name):
    (heads, key_heads, width), repeats, trees = CASES[name]
    row = lay_out(trees)
    length = len(row.order)
    shapes = [(1, length, count, width) for count in (heads, key_heads, key_heads, heads)]
    query, key, value, grad = (torch.randn(shape).transpose(1, 2) for shape in shapes)
    leaves = [x.requires_grad_() for x in (query, key, value)]
    pairs = visibility.pairs(*(x.numpy() for x in (row.order, row.end, row.group)))
    results = [(name, "tokens", length, "tokens"), (name, "visible", pairs / length**2, "fraction")]
    found = {}
    for label, backend in (("dense", Dense(row)), ("segmented", Segmented(row))):

        def forward(backend=backend):
            return backend(*leaves, scale=width**-0.5)

        forward()  # makes the mask, warms the kernels
        ahead = seconds(forward, repeats)
        both = seconds(lambda forward=forward: torch.autograd.grad(forward(), leaves, grad), repeats)
        found[label] = both
        results += [(name, f"{label} forward", ahead, "s"), (name, f"{label} forward + backward", both, "s")]
    ratio = found["dense"] / found["segmented"]
    return [*results, (name, "dense / segmented", ratio, "ratio")]


def main():
    parser = argparse.ArgumentParser(description="Dense against segmented attention, CPU seconds.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--cases", default=",".join(CASES), help=f"comma separated, of {', '.join(CASES)}")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = [result for name in given.cases.split(",") for result in measure(name)]
    if given.json:
        keys = ("case", "metric", "value", "unit")
        print(json.dumps({"results": [dict(zip(keys, result, strict=True)) for result in results]}))
        return
    for case, metric, value, unit in results:
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
        print(f"{case:6} {metric:30} {shown:>10} {unit}")


if __name__ == "__main__":
    main()
