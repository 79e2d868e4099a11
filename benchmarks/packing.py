"""How full packing makes rows, how long an example waits, how fast it is, and what others make of it.

    python benchmarks/packing.py [PART ...] [--json]

Parts: `streaming` and `offline` with peers on the same examples, `random` (rows on mixes drawn at random,
against the fixed-weight knapsack), `windows` (of an epoch, and how far they move examples from their place in
the shuffle) and `balance` (of ranks); all of them without a name. `--large` plans ten
million examples instead. Mixes are those of `mixes.py`, peers those of `peers.py`.

`share_of_bound` is the volume of the scarcest budget over the rows: 1 cannot be beaten. For streams it is
that of the rows that left before the end, `share_with_flush` that of all. Of several seeds the run with the
median share is shown, whole: its share, wait and speed belong together. `longest_wait_packs` counts the rows
that left while an example waited, its own included. Speed is CPU time of one core; everything has run before.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np

import peers
from hedgerow.flops import MOLMO2_8B
from hedgerow.packing.balance import arrange, excess, per_row, spread
from hedgerow.packing.plan import plan_epoch, plan_rows
from hedgerow.packing.pool import Packer
from hedgerow.sequence import Budget, Costs
from mixes import BOTH, MIXES, Mix, random_mix

Rows = list[list[int]]
POOL = 48
RANKS = (8, 64, 512)
WINDOWS = (256, 1_024, 4_096, 16_384)
UNITS = {
    "share_of_bound": "share",
    "share_with_flush": "share",
    "rows": "rows",
    "rows_over_budget": "share",
    "longest_wait_packs": "packs",
    "examples_per_cpu_second": "examples/s",
    "padding": "share",
}


@dataclass(frozen=True, slots=True)
class Found:
    """Figures of one case, by metric."""

    case: str
    values: dict[str, float]
    units: dict[str, str] = field(default_factory=lambda: UNITS)

    def results(self) -> list[dict[str, Any]]:
        """Return one plain object a figure."""
        return [
            {"case": self.case, "metric": metric, "value": value, "unit": self.units[metric]}
            for metric, value in self.values.items()
        ]


def volume(costs: Costs, budget: Budget, rows: Rows) -> float:
    """Rows' worth of the scarcest budget that these rows hold."""
    held = costs.amounts(*budget)[[number for row in rows for number in row]]
    return float((held.sum(0) / np.array(list(budget.values()))).max())


def over_budget(costs: Costs, budget: Budget, rows: Rows) -> float:
    sizes, most = costs.amounts(*budget), np.array(list(budget.values()))
    return statistics.fmean(bool((sizes[row].sum(0) > most).any()) for row in rows)


def checked(count: int, rows: Rows) -> Rows:
    if sorted(number for row in rows for number in row) != list(range(count)):
        raise AssertionError("an example is missing from the rows, or there twice")
    return rows


def seconds(make: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    made = make()
    return made, time.process_time() - start


def longest_wait(rows: Rows, came: list[int]) -> int:
    """The most rows that left from when an example came until it left; `came` as of `peers.knapsack`."""
    every = enumerate(rows, start=1)
    return max(number - bisect_right(came, i) for number, row in every for i in row)


def push_all(mix: Mix, costs: list[Any]) -> tuple[Rows, list[int]]:
    packer = Packer(mix.budget, POOL)
    packs = [packer.push(number, cost) for number, cost in enumerate(costs)]
    came = [number for number, pack in enumerate(packs, start=1) if pack]
    return [pack for pack in [*packs, *packer.flush()] if pack], came


def stream(mix: Mix, costs: Costs, run: Callable[[], tuple[Rows, list[int]]]) -> dict[str, float]:
    (rows, came), spent = seconds(run)
    checked(len(costs), rows)
    steady = rows[: len(came)]
    return {
        "share_of_bound": volume(costs, mix.budget, steady) / len(steady),
        "share_with_flush": volume(costs, mix.budget, rows) / len(rows),
        "rows": len(rows),
        "rows_over_budget": over_budget(costs, mix.budget, rows),
        "longest_wait_packs": longest_wait(rows, came),
        "examples_per_cpu_second": len(costs) / spent,
    }


def whole(mix: Mix, costs: Costs, run: Callable[[], Rows]) -> dict[str, float]:
    rows, spent = seconds(run)
    checked(len(costs), rows)
    over = over_budget(costs, mix.budget, rows)
    share = {} if over else {"share_of_bound": volume(costs, mix.budget, rows) / len(rows)}
    speed = {"examples_per_cpu_second": len(costs) / spent}
    return {**share, "rows": len(rows), "rows_over_budget": over, **speed}


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    return sorted(runs, key=lambda run: run["share_of_bound"])[(len(runs) - 1) // 2]


def streaming(options: argparse.Namespace) -> Iterator[Found]:
    """Packer and the peers that take a stream; peers run on the first seed."""
    for mix in MIXES.values():
        draws = [mix.draw(options.examples, seed) for seed in range(options.seeds)]
        runs = [stream(mix, costs, partial(push_all, mix, list(costs))) for costs in draws]
        yield Found(f"{mix.name}, Packer, pool {POOL}", median(runs))
        costs, few = draws[0], draws[0][: options.examples // 10]
        fast = partial(peers.knapsack, costs, mix.budget, POOL, peers.solve_compiled)
        found = stream(mix, costs, fast)
        _, spent = seconds(partial(peers.knapsack, few, mix.budget, POOL, peers.solve_numpy))
        speed = {"examples_per_cpu_second": len(few) / spent}  # of the published form
        yield Found(f"{mix.name}, knapsack of fixed weight, pool {POOL}", found | speed)
        if installed("grain"):
            for kind in ("FirstFit", "BestFit"):
                run = partial(peers.grain, costs, mix.budget, kind)
                yield Found(f"{mix.name}, grain {kind}, {peers.BINS} bins", whole(mix, costs, run))
        padding, rows = peers.padded(costs, mix.budget)
        held = {"share_of_bound": volume(costs, mix.budget, [[*range(len(costs))]]) / rows}
        yield Found(f"{mix.name}, padded batches of {peers.BATCH}", held | {"rows": rows, "padding": padding})


def offline(options: argparse.Namespace) -> Iterator[Found]:
    """`plan_rows` on the whole data set, and beside TRL on fewer: it copies the tokens."""
    for mix in MIXES.values():
        for count in sorted({options.offline, options.examples}, reverse=True):
            draws = [mix.draw(count, seed) for seed in range(options.seeds)]
            runs = [whole(mix, costs, partial(planned, mix, costs)) for costs in draws]
            yield Found(f"{mix.name}, plan_rows, {count:,} examples", median(runs))
        if installed("trl"):
            costs = mix.draw(options.examples, 0)
            for name, batch in (("at once", len(costs)), ("by 1,000", 1000)):
                run = partial(peers.trl, costs, mix.budget, batch)
                yield Found(f"{mix.name}, TRL bfd, tokens only, {name}", whole(mix, costs, run))


def planned(mix: Mix, costs: Costs) -> Rows:
    return plan_rows(costs, mix.budget).rows


@cache
def installed(peer: str) -> bool:
    if find_spec(peer) is None:
        print(f"{peer} is left out; to run it: pip install 'hedgerow[bench]'", file=sys.stderr)
        return False
    return True


def compare(examples: int, seed: int) -> tuple[str, int, int]:
    mix = random_mix(seed)
    costs = mix.draw(examples, seed)
    own, _ = push_all(mix, list(costs))
    other, _ = peers.knapsack(costs, BOTH, POOL, peers.solve_compiled)
    checked(examples, own)
    if over_budget(costs, BOTH, own):
        raise AssertionError(f"{mix}: a row breaks the budget")
    return str(mix), len(own), len(checked(examples, other))


def at_random(options: argparse.Namespace) -> Iterator[Found]:
    """Rows of Packer beside rows of the knapsack, the flush among them, on mixes drawn at random."""
    with ProcessPoolExecutor(options.jobs) as pool:
        runs = list(
            pool.map(partial(compare, options.examples), range(options.first, options.first + options.random))
        )
    change = np.array([own / other - 1.0 for _, own, other in runs]) * 100
    for place in np.argsort(-change)[:3]:
        name, own, other = runs[place]
        print(f"  most rows: {own:,} against {other:,} on {name}", file=sys.stderr)
    counts = {"fewer_rows": change < 0, "as_many_rows": change == 0, "more_rows": change > 0}
    spread = {
        f"change_p{share}": float(np.percentile(change, share)) for share in (0, 5, 25, 50, 75, 95, 100)
    }
    values = {name: float(mask.sum()) for name, mask in counts.items()} | spread
    units = dict.fromkeys(counts, "mixes") | dict.fromkeys(spread, "% of its rows")
    case = f"{len(runs)} random mixes of {options.examples:,}, Packer against knapsack of fixed weight"
    yield Found(case, values, units)


def balance(options: argparse.Namespace) -> Iterator[Found]:
    """Ranks that take one row a step: what the slowest takes over the mean, by the FLOPs of a model of 8B."""
    mix = MIXES["W2"]
    costs, kinds = mix.draw(options.offline, 0), mix.kinds(options.offline, 0)
    rows = plan_epoch(costs, mix.budget, seed=0, epoch=0, pool=POOL).rows
    flops = per_row(rows, MOLMO2_8B(costs))
    samples = per_row(rows, np.eye(len(mix.parts), dtype=np.int64)[kinds])  # a task is a kind of example
    for ranks in (ranks for ranks in RANKS if ranks <= len(rows)):
        order, spent = seconds(partial(arrange, flops, samples, ranks, seed=0, epoch=0))
        for name, placed in (("as packed", np.arange(len(rows))), ("arranged", order)):
            slowest = spread(flops[placed], ranks)
            steps = samples[placed][: len(slowest) * ranks].reshape(len(slowest), ranks, -1).sum(1)
            off = excess(steps, samples.sum(0) / samples.sum())
            values = {"max_over_mean": slowest.mean(), "max_over_mean_p95": np.percentile(slowest, 95)}
            values |= {"max_over_mean_worst": slowest.max(), "steps_off_mixture": (off > 0).mean()}
            values |= {"rows_per_cpu_second": len(rows) / spent} if name == "arranged" else {}
            units = dict.fromkeys(values, "ratio")
            units |= {"steps_off_mixture": "share", "rows_per_cpu_second": "rows/s"}
            case = f"W2, {ranks} ranks, {len(slowest):,} steps, {name}"
            yield Found(case, {metric: float(value) for metric, value in values.items()}, units)


def windows(options: argparse.Namespace) -> Iterator[Found]:
    """An epoch in a pool, in windows and all at once, and how many places examples move from the shuffle."""
    count = options.offline
    alone = Costs(("tokens",), np.ones((count, 1), np.int64))  # one example a row: rows are the shuffle
    shuffled = np.concatenate(plan_epoch(alone, Budget(tokens=1), seed=0, epoch=0).rows)
    place = np.argsort(shuffled)
    units = UNITS | {"median_move": "places", "largest_move": "places"}
    for window in (None, *(size for size in WINDOWS if size < count), count):
        way = f"pool of {POOL}" if window is None else f"window of {window:,}"
        for mix in (MIXES[name] for name in ("W1", "W2", "W2B")):
            costs = mix.draw(count, 0)
            rows = plan_epoch(costs, mix.budget, seed=0, epoch=0, window=window).rows
            moves = np.abs(place[np.concatenate(rows)] - np.arange(count))
            share = volume(costs, mix.budget, [range(count)]) / len(rows)
            values = {"share_of_bound": share, "median_move": float(np.median(moves))}
            yield Found(f"{mix.name}, {way}", values | {"largest_move": float(moves.max())}, units)


def large(options: argparse.Namespace) -> Iterator[Found]:
    """`plan_rows` on millions of examples; memory is the most this process ever held, its data included."""
    costs = MIXES["W2"].draw(options.large, 0)
    start = time.perf_counter()
    plan, spent = seconds(partial(plan_rows, costs, BOTH))
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    values = {"share_of_bound": volume(costs, BOTH, [range(len(costs))]) / len(plan.rows)}
    values |= {"rows": len(plan.rows), "seconds": took, "cpu_seconds": spent, "peak_memory": peak}
    units = {**UNITS, "seconds": "s", "cpu_seconds": "s", "peak_memory": "GiB"}
    yield Found(f"W2, plan_rows, {len(costs):,} examples", values, units)


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Found]]] = {
    "streaming": streaming,
    "offline": offline,
    "random": at_random,
    "windows": windows,
    "balance": balance,
}


def warm() -> None:
    """Run everything once: what is compiled is compiled, what is imported is there."""
    for mix in MIXES.values():
        costs = mix.draw(500, 0)
        push_all(mix, list(costs))
        planned(mix, costs)
        peers.knapsack(costs, mix.budget, POOL, peers.solve_compiled)
        if find_spec("trl"):
            peers.trl(costs, mix.budget, len(costs))
        if find_spec("grain"):
            peers.grain(costs, mix.budget, "FirstFit")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--examples", type=int, default=20_000, help="of a stream, of a random mix, for TRL")
    parser.add_argument("--offline", type=int, default=100_000, help="examples that are planned at once")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--random", type=int, default=20, help="mixes drawn at random")
    parser.add_argument("--first", type=int, default=0, help="number of the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes for the random mixes")
    parser.add_argument("--large", type=int, nargs="?", const=10_000_000, help="plan this many, nothing else")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        parser.error(f"no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    return options


def main() -> None:
    options = read_options()
    warm()
    parts = [large] if options.large else [PARTS[name] for name in options.parts or PARTS]
    results = []
    for part in parts:
        if not options.json:
            print(f"\n{part.__doc__.splitlines()[0]}")
        for found in part(options):
            results += found.results()
            if not options.json:
                print(line(found), flush=True)
    if options.json:
        print(json.dumps({"results": results}))


def line(found: Found) -> str:
    figures = "  ".join(f"{metric} {shown(value)}" for metric, value in found.values.items())
    return f"{found.case:44}  {figures}"


def shown(value: float) -> str:
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
