"""How full packing makes rows, how long an example waits, and how fast it is.

    python benchmarks/packing.py [--examples 10000] [--seeds 3] [--json]

Synthetic mixes under a budget of 16,384 tokens (and 128 crops): W1 short texts, W1L long texts, W2 text,
images and video bound by crops, W2B the same bound by both, W2T bound by tokens. `eff` is the volume of the
scarcest budget over the rows: 1 cannot be beaten; the rows of the flush count, in `steady` they do not.
Waits are the most examples that came, and the most rows that left, while one example
waited. Speed is CPU time of one core.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hedgerow.packing.plan import plan_rows
from hedgerow.packing.pool import Packer
from hedgerow.sequence import Budget, Cost

Rows = list[list[int]]
Pushes = list[Any]  # what each push returned; empty where nothing is pushed
Found = dict[str, float]
UNITS = {
    "eff": "share",
    "steady": "share",
    "wait examples": "examples",
    "wait rows": "rows",
    "speed": "examples/s",
}
POOL = 48
TEXT, BOTH = Budget(tokens=16384), Budget(tokens=16384, crops=128)


def texts(median: float, spread: float) -> Callable[[int, int], list[Cost]]:
    def make(count: int, seed: int) -> list[Cost]:
        lengths = np.random.default_rng(seed).lognormal(np.log(median), spread, count)
        return [Cost(tokens=int(length)) for length in np.clip(lengths, 16, TEXT["tokens"])]

    return make


def mix(*shares: float) -> Callable[[int, int], list[Cost]]:
    """Text, single images, several images and videos in these shares."""

    def make(count: int, seed: int) -> list[Cost]:
        rng = np.random.default_rng(seed)
        kinds = (text, image, images, video)
        drawn = [kinds[kind](rng) for kind in rng.choice(4, count, p=shares)]
        return [Cost(tokens=min(int(tokens), BOTH["tokens"]), crops=int(crops)) for tokens, crops in drawn]

    return make


def text(rng: Any) -> tuple[int, int]:
    return rng.integers(200, 2001), 0


def image(rng: Any) -> tuple[int, int]:
    return rng.integers(300, 1501), rng.integers(1, 26)


def images(rng: Any) -> tuple[int, int]:
    count = rng.integers(2, 6)
    return rng.integers(300, 1501, count).sum(), rng.integers(1, 10, count).sum()


def video(rng: Any) -> tuple[int, int]:
    frames = rng.integers(16, 129)
    return 83 * frames + rng.integers(50, 4001), frames


CASES = {
    "W1": (TEXT, texts(700, 1.1)),
    "W1L": (TEXT, texts(3500, 0.9)),
    "W2": (BOTH, mix(0.10, 0.35, 0.10, 0.45)),
    "W2B": (BOTH, mix(0.35, 0.30, 0.10, 0.25)),
    "W2T": (BOTH, mix(0.50, 0.25, 0.05, 0.20)),
}


def first_fit_decreasing(costs: list[Cost], indices: list[int], budget: Budget) -> Rows:
    """The simple reference: the largest share of any budget first, into the first row with room."""
    names = list(budget)
    sizes = {i: np.array([costs[i].get(name, 0) / budget[name] for name in names]) for i in indices}
    room = np.ones((len(indices), len(names)))
    rows: Rows = []
    for i in sorted(indices, key=lambda i: -sizes[i].max()):
        row = int((room >= sizes[i] - 1e-9).all(axis=1).argmax())
        if row == len(rows):
            rows.append([])
        rows[row].append(i)
        room[row] -= sizes[i]
    return rows


def packed(costs: list[Cost], budget: Budget) -> tuple[Rows, Pushes]:
    packer = Packer(budget, POOL)
    pushes = [packer.push(key, cost) for key, cost in enumerate(costs)]
    rows = [pack for pack in pushes if pack] + packer.flush()
    return [[int(key) for key in row] for row in rows], pushes


def windows(costs: list[Cost], budget: Budget) -> tuple[Rows, Pushes]:
    """First-fit-decreasing over one window after another."""
    rows: Rows = []
    for start in range(0, len(costs), POOL):
        rows += first_fit_decreasing(costs, list(range(start, min(start + POOL, len(costs)))), budget)
    return rows, []


def whole_reference(costs: list[Cost], budget: Budget) -> tuple[Rows, Pushes]:
    return first_fit_decreasing(costs, list(range(len(costs))), budget), []


def whole(costs: list[Cost], budget: Budget) -> tuple[Rows, Pushes]:
    return plan_rows(costs, budget).rows, []


METHODS = {
    "Packer, pool 48": packed,
    "first-fit-decreasing, windows of 48": windows,
    "plan_rows": whole,
    "first-fit-decreasing, all at once": whole_reference,
}


def efficiency(costs: list[Cost], budget: Budget, rows: Rows) -> float:
    held = [costs[i] for row in rows for i in row]
    return float(
        max(sum(cost.get(name, 0) for cost in held) / most for name, most in budget.items()) / len(rows)
    )


def waits(rows: Rows, pushes: Pushes) -> Found:
    """The longest waits, from which push gave which row."""
    out = list(itertools.accumulate(bool(pack) for pack in pushes))  # rows that had left after each push
    came = [0, *out[:-1]]  # and before it, when the example came
    left = [
        key for key, pack in enumerate(pushes) if pack
    ]  # the push that gave each row; flushed rows follow
    return {
        "wait examples": max(push - i for push, row in zip(left, rows, strict=False) for i in row),
        "wait rows": max(number - came[i] for number, row in enumerate(rows, start=1) for i in row),
    }


def measure(case: str, method: str, count: int, seed: int) -> Found:
    budget, make = CASES[case]
    costs = make(count, seed)
    start = time.process_time()
    rows, pushes = METHODS[method](costs, budget)
    spent = time.process_time() - start
    assert sorted(i for row in rows for i in row) == list(range(count))
    found = {"eff": efficiency(costs, budget, rows), "speed": count / spent}
    if pushes:
        steady = rows[: sum(map(bool, pushes))]
        found |= {"steady": efficiency(costs, budget, steady), **waits(rows, pushes)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3, help="figures are medians over this many")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = []
    if not options.json:
        print(f"{'case':5}{'method':38}" + "".join(f"{metric:>15}" for metric in UNITS))
    for case in CASES:
        for method in METHODS:
            runs = [measure(case, method, options.examples, seed) for seed in range(options.seeds)]
            found = {name: statistics.median(run[name] for run in runs) for name in UNITS if name in runs[0]}
            results += [
                {"case": f"{case}, {method}", "metric": name, "value": value, "unit": UNITS[name]}
                for name, value in found.items()
            ]
            if not options.json:
                print(f"{case:5}{method:38}" + "".join(f"{shown(found.get(name)):>15}" for name in UNITS))
    if options.json:
        print(json.dumps({"results": results}))


def shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if value <= 1 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
