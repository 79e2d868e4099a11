"""Pools and windows that suit data, found by trying; and what packing and trees save on it."""

from collections.abc import Iterator
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np

from hedgerow.flops import FlopModel
from hedgerow.packing.balance import arrange, per_row, spread
from hedgerow.packing.plan import Plan, plan_epoch, plan_rows
from hedgerow.report.lengths import Look
from hedgerow.sequence import Array, Budget, Cost, Costs

POOLS = (16, 32, 48, 64, 128)
WINDOWS = (256, 1024, 4096, 16384)
_NEAR = 0.001  # a pool with at most this share of rows more than the best is as good


@dataclass(frozen=True, slots=True)
class Trial:
    """Rows planned one way: from a pool of `size` waiting examples, or `size` at once."""

    way: Literal["pool", "window"]
    size: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class Saving:
    """How many times as much is computed without packing, or without trees; None where there are no crops."""

    against: str
    tokens: float
    crops: float | None
    flops: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the slowest row of a step takes over the mean of its step, on average over steps."""

    rows: int
    steps: int
    packed: float
    arranged: float


def within(costs: Costs, budget: Budget) -> Array:
    """Return the places of examples that fit a budget, int64 [m]."""
    return np.flatnonzero((costs.amounts(*budget) <= list(budget.values())).all(axis=1))


def try_all(costs: Costs, budget: Budget) -> Iterator[Trial]:
    """Plan an epoch from pools and windows of several sizes, and all at once."""
    for pool in (size for size in POOLS if size < len(costs) or size == POOLS[0]):
        yield Trial("pool", pool, plan_epoch(costs, budget, seed=0, epoch=0, pool=pool))
    for window in (size for size in WINDOWS if size < len(costs)):
        yield Trial("window", window, plan_epoch(costs, budget, seed=0, epoch=0, window=window))
    yield Trial("window", len(costs), plan_rows(costs, budget))


def best_pool(trials: Listing[Trial]) -> int:
    """Return the smallest pool that makes at most 0.1% more rows than the best one, or one row more."""
    rows = {trial.size: len(trial.plan.rows) for trial in trials if trial.way == "pool"}
    best = min(rows.values())
    return min(size for size, count in rows.items() if count - best <= max(_NEAR * best, 1))


def against_padding(costs: Costs, plan: Plan, model: FlopModel) -> Saving:
    """Compare rows with padded batches: as many examples as a row holds on average, drawn in random order.

    All of a batch are filled up to its longest, and to its most crops. Rows are not filled up.
    """
    size = max(round(len(costs) / len(plan.rows)), 1)
    order = np.random.default_rng(0).permutation(len(costs))
    starts = np.arange(0, len(costs), size)
    most = np.maximum.reduceat(costs.amounts("tokens", "crops")[order], starts)
    batched = Costs(("tokens", "crops"), np.repeat(most, np.diff(starts, append=len(costs)), axis=0))
    return _saving(f"padded batches of {size}", batched, costs, model)


def against_repeats(looks: Listing[Look], model: FlopModel) -> Saving:
    """Compare trees with one conversation for each annotation, media and all above it repeated."""
    apart = Costs.of(chain.from_iterable(one.apart for one in looks))
    return _saving("one example an annotation", apart, Costs.of([one.cost for one in looks]), model)


def waiting(costs: Costs, tasks: Costs, plan: Plan, model: FlopModel, step: int) -> Waiting | None:
    """Compare steps of rows as packed with arranged ones; None with one row a step, or for less than a step.

    Args:
        costs: of the planned examples.
        tasks: their samples by task.
        plan: of these examples.
        model: tells what a row takes.
        step: rows of a step, each on a rank of its own.
    """
    if step < 2 or len(plan.rows) < step:
        return None
    flops = per_row(plan.rows, model(costs))
    samples = per_row(plan.rows, tasks.amounts(*tasks.names))
    packed = spread(flops, step)
    arranged = spread(flops[arrange(flops, samples, step, seed=0, epoch=0)], step)
    return Waiting(step, len(packed), float(packed.mean()), float(arranged.mean()))


def _saving(against: str, more: Costs, less: Costs, model: FlopModel) -> Saving:
    large, small = more.total(), less.total()
    crops = _ratio(large, small, "crops") if small.get("crops", 0) else None
    flops = float(model(more).sum() / model(less).sum())
    return Saving(against, _ratio(large, small, "tokens"), crops, flops)


def _ratio(large: Cost, small: Cost, name: str) -> float:
    return large.get(name, 0) / small[name]
