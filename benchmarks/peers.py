"""Other ways to make rows, called as their users would: what `packing.py` sets beside ours.

A pool knapsack with a fixed weight between the budgets, TRL's and grain's packers, and padded batches. Each
takes costs and returns rows of indices. TRL and grain are given examples whose tokens are their own number,
so that what they packed can be read back. `pip install 'hedgerow[bench,fast]'` brings what is needed.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numba import njit

from hedgerow.sequence import Budget, Costs

Array = Any
Rows = list[list[int]]
Solve = Callable[[Array, Array, Array, Array], list[int]]

WEIGHT, CELLS = 30, 512  # value of a crop in tokens; cells that the token budget is cut into
BINS = 64  # of grain: rows that are open at a time
BATCH = 8  # of the padded loader


def knapsack(costs: Costs, budget: Budget, pool: int, solve: Solve) -> tuple[Rows, list[int]]:
    """Pack from a pool by the most valuable subset, a token worth 1 and a crop worth `WEIGHT`.

    The pool is filled; each further example first makes a pack leave. Tokens are rounded up to 1/512 of the
    budget. An example that fills all cells leaves alone at once. Nothing ages: what fits badly stays.

    Returns:
        The rows, and how many examples had come when each of them left, for those that left before the end.
    """
    sizes = costs.amounts("tokens", "crops")
    unit = max(1, budget["tokens"] // CELLS)
    most = (-(-budget["tokens"] // unit), budget.get("crops", 0))
    cells, values = -(-sizes[:, 0] // unit), sizes @ np.array([1, WEIGHT])
    best = np.zeros((pool + 1, most[0] + 1, most[1] + 1), np.int32)
    rows: Rows = []
    came: list[int] = []
    waiting: list[int] = []

    def leave() -> None:
        chosen = solve(cells[waiting], sizes[waiting, 1], values[waiting], best)
        rows.append([waiting[place] for place in sorted(chosen)])
        for place in sorted(chosen, reverse=True):
            del waiting[place]

    for number in range(len(costs)):
        if cells[number] >= most[0]:
            rows.append([number])
            came.append(number + 1)
            continue
        if len(waiting) == pool:
            leave()
            came.append(number)
        waiting.append(number)
    while waiting:
        leave()
    return rows, came


def solve_numpy(tokens: Array, crops: Array, values: Array, best: Array) -> list[int]:
    """Fill the table of all (examples, tokens, crops) in numpy, as the reference does."""
    most_tokens, most_crops = (side - 1 for side in best.shape[1:])
    best[0] = 0
    for item, (t, c, value) in enumerate(zip(tokens, crops, values, strict=True)):
        best[item + 1] = best[item]
        taken = best[item, : most_tokens + 1 - t, : most_crops + 1 - c] + value
        best[item + 1, t:, c:] = np.maximum(best[item + 1, t:, c:], taken)
    return _chosen(tokens, crops, best)


def solve_compiled(tokens: Array, crops: Array, values: Array, best: Array) -> list[int]:
    """Fill the same table in compiled code; the same subset is chosen."""
    _fill(tokens, crops, values, best)
    return _chosen(tokens, crops, best)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _fill(tokens: Array, crops: Array, values: Array, best: Array) -> None:
    best[0] = 0
    for item in range(len(tokens)):
        t, c, value = tokens[item], crops[item], values[item]
        best[item + 1, :t] = best[item, :t]
        for row in range(t, best.shape[1]):
            best[item + 1, row, :c] = best[item, row, :c]
            source, old, new = best[item, row - t], best[item, row, c:], best[item + 1, row, c:]
            for column in range(len(old)):
                taken, left = source[column] + value, old[column]
                new[column] = taken if taken > left else left


def _chosen(tokens: Array, crops: Array, best: Array) -> list[int]:
    row, column = (side - 1 for side in best.shape[1:])
    chosen = []
    for item in reversed(range(len(tokens))):
        if best[item + 1, row, column] != best[item, row, column]:
            chosen.append(item)
            row, column = row - tokens[item], column - crops[item]
    return chosen


def trl(costs: Costs, budget: Budget, batch: int) -> Rows:
    """TRL's best-fit decreasing, which knows tokens alone; `batch` examples at a time."""
    import datasets
    import pyarrow
    from trl.data_utils import pack_dataset

    datasets.disable_progress_bars()
    lengths = costs.amounts("tokens")[:, 0]
    numbers = np.repeat(np.arange(len(costs), dtype=np.int32), lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    table = pyarrow.table({"input_ids": pyarrow.ListArray.from_arrays(offsets, numbers)})
    packed = pack_dataset(
        datasets.Dataset(table), budget["tokens"], strategy="bfd", map_kwargs={"batch_size": batch}
    )
    return list(_read(packed.with_format("arrow")[:]))


def _read(table: Any) -> Iterator[list[int]]:
    """Which examples a packed table holds: the first token of each is its number."""
    for chunk, lengths in zip(table["input_ids"].chunks, table["seq_lengths"].chunks, strict=True):
        sizes = lengths.flatten().to_numpy()
        first = chunk.flatten().to_numpy()[np.cumsum(sizes) - sizes]
        ends = np.cumsum(np.diff(lengths.offsets.to_numpy()))
        yield from (part.tolist() for part in np.split(first, ends[:-1]))


def grain(costs: Costs, budget: Budget, kind: str) -> Rows:
    """Grain's `FirstFit` or `BestFit`, which knows any number of budgets; examples are arrays."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # it warns that there is no jax
    import grain as library
    from grain import experimental

    sizes = costs.amounts(*budget)

    def element(number: int) -> dict[str, Array]:
        lengths = zip(budget, sizes[number], strict=True)
        return {name: np.full(size, number, np.int32) for name, size in lengths} | {
            "number": np.array([number])
        }

    source = library.MapDataset.range(len(costs)).map(element).to_iter_dataset()
    pack = getattr(experimental, f"{kind}PackIterDataset")
    packed = pack(source, length_struct=dict(budget), num_packing_bins=BINS, meta_features=("number",))
    return [[int(number[0]) for number in row["number"]] for row in packed]


def padded(costs: Costs, budget: Budget) -> tuple[float, float]:
    """Batches in the order of the data, padded to the longest and to the most crops.

    Returns:
        The share of tokens that is padding, and how many rows would hold what is computed.
    """
    sizes = costs.amounts(*budget)
    starts = np.arange(0, len(sizes), BATCH)
    counts = np.diff(np.append(starts, len(sizes)))
    computed = np.maximum.reduceat(sizes, starts) * counts[:, None]
    padding = 1.0 - sizes[:, 0].sum() / computed[:, 0].sum()
    return float(padding), float((computed.sum(0) / np.array(list(budget.values()))).max())
