"""Balance: rows of one step take nearly equal time, so that no rank waits long for the slowest.

A step ends when its slowest rank does. In each window of a few steps rows are grouped by their FLOPs. Sorting
alone would gather tasks that take long in steps of their own, so rows are exchanged until every step has its
share of every task again, each exchange the one that costs the least balance for what it mends.
"""

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence as Listing

import numpy as np

from hedgerow.sequence import Array

_SIGMAS = 3.0  # binomial standard deviations that a step's share of a task may be off
_TRIED = 24  # rows of each step that an exchange is sought among
_FREE = 1e-4  # of a mean row: least price of an exchange, so that those that cost nothing differ too
_STREAM = 0x62616C  # keeps these draws apart from all others of the same seed


def arrange(flops: Array, samples: Array, step: int, *, seed: int, epoch: int, window: int = 8) -> Array:
    """Order the rows of a plan so that the rows of each step take nearly equal FLOPs.

    Rows stay within their window of `window` steps. A step's share of a task is within 3 binomial standard
    deviations of its share of all rows, where exchanges within the window can bring it there; otherwise as
    near as single exchanges bring it. Steps come in random order within the window. Within a step the
    lightest row and the heaviest go to places half a step apart, and so on: with an even number of rows a
    rank, a rank has both. Rows that make no whole step at the end are drawn at random and come last.

    A pure function of its arguments: the same for any number of ranks and workers.

    Args:
        flops: of each row in the order of the plan, float64 [R].
        samples: supervised samples of each row by task, int64 [R, T]; T may be 0.
        step: rows of a global step, over all ranks.
        seed: not negative.
        epoch: not negative.
        window: steps whose rows are arranged together.

    Returns:
        Indices of rows in their new order, int64 [R].

    Raises:
        ValueError: shapes do not match, or a step has no row.
    """
    flops, samples = np.asarray(flops, np.float64), np.asarray(samples, np.int64)
    if flops.ndim != 1 or samples.ndim != 2 or len(samples) != len(flops) or step < 1 or window < 1:
        raise ValueError(
            f"flops {flops.shape}, samples {samples.shape}, step={step}, window={window}: give [R], "
            "[R, tasks], and at least 1 of both"
        )
    share = samples.sum(axis=0) / max(int(samples.sum()), 1)
    starts = range(0, len(flops), step * window)
    parts = [np.zeros(0, np.int64)]
    for number, start in enumerate(starts):
        draws = _Draws(np.random.PCG64(np.random.SeedSequence([seed, epoch, number, _STREAM])))
        rows = np.arange(start, min(start + step * window, len(flops)))
        last = rows[draws.shuffled(len(rows))[: len(rows) % step]]
        whole = np.setdiff1d(rows, last)
        if len(whole):
            steps = _Steps.of(whole, flops, samples, share, step)
            steps.mend(draws)
            parts += [_placed(steps.rows[place], flops, draws) for place in draws.shuffled(len(steps.rows))]
        parts.append(last)
    return np.concatenate(parts)


def per_row(rows: Listing[Listing[int]], amounts: Array) -> Array:
    """Add up what the examples of each row have: [n, ...] of examples to [R, ...] of rows.

    Raises:
        TypeError: a row is no list of indices.
    """
    if len(rows) and np.ndim(rows[0]) != 1:
        raise TypeError(f"rows={rows!r:.80}: give a list of indices for each row, such as the rows of a plan")
    amounts = np.asarray(amounts)
    flat = np.fromiter((index for row in rows for index in row), np.int64)
    owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    found = np.zeros((len(rows), *amounts.shape[1:]), amounts.dtype)
    np.add.at(found, owner, amounts[flat])
    return found


def spread(flops: Array, step: int) -> Array:
    """Return what the slowest row of each step takes, over the mean of the step: float64 [steps], at least 1.

    Args:
        flops: of each row, in the order of training, float64 [R]. Rows at the end that make no whole step
            are left out.
        step: rows of a global step, one a rank.
    """
    steps = np.asarray(flops, np.float64)[: len(flops) // step * step].reshape(-1, step)
    mean = steps.mean(axis=1)
    return np.divide(steps.max(axis=1), mean, out=np.ones(len(steps)), where=mean > 0)


def excess(samples: Array, share: Array) -> Array:
    """Say by how many samples steps leave the band of 3 binomial standard deviations, over all tasks.

    Args:
        samples: of each step by task, [..., T].
        share: of all samples, by task, float64 [T].

    Returns:
        float64 [...]; 0 where every task is within.
    """
    count = samples.sum(axis=-1, keepdims=True)
    allowed = _SIGMAS * np.sqrt(count * share * (1 - share))
    off = np.abs(samples - count * share) - allowed
    return np.where(off > 1e-9, off, 0.0).sum(axis=-1)


@dataclasses.dataclass(frozen=True, slots=True)
class _Draws:
    """Draws made of the raw stream of a bit generator, which stays the same across versions of numpy."""

    bits: np.random.PCG64

    def shuffled(self, count: int) -> Array:
        return np.argsort(self.bits.random_raw(count), kind="stable")

    def below(self, most: int, shape: tuple[int, ...]) -> Array:
        found = self.bits.random_raw(int(np.prod(shape))) % np.uint64(most)
        return found.astype(np.int64).reshape(shape)


@dataclasses.dataclass(frozen=True, slots=True)
class _Steps:
    """The steps of a window while rows are exchanged between them. G steps of S rows, T tasks.

    `rows` int64 [G, S] indices; `flops` and `samples` of all rows of the plan; `share` float64 [T]; `held`
    int64 [G, T] samples of each step; `bad` float64 [G] its excess. The arrays are changed in place.
    """

    rows: Array
    flops: Array
    samples: Array
    share: Array
    held: Array
    bad: Array

    @classmethod
    def of(cls, rows: Array, flops: Array, samples: Array, share: Array, step: int) -> "_Steps":
        """Cut rows, sorted by their FLOPs, into steps."""
        steps = rows[np.argsort(flops[rows], kind="stable")].reshape(-1, step)
        held = samples[steps].sum(axis=1)
        return cls(steps, flops, samples, share, held, excess(held, share))

    def mend(self, draws: _Draws) -> None:
        """Exchange rows while any exchange makes the sum of `bad` smaller."""
        if len(self.rows) < 2 or self.rows.shape[1] < 2:
            return  # no other step, or steps of one row: an exchange would only rename them
        while any(self._exchange(step, draws) for step in self._off()):
            pass

    def _off(self) -> Iterator[int]:
        order = np.argsort(-self.bad, kind="stable")
        return (int(step) for step in order if self.bad[step] > 0)

    def _exchange(self, step: int, draws: _Draws) -> bool:
        """Make the best exchange of a row of this step for a row of another, if there is a good one."""
        others = np.delete(np.arange(len(self.rows)), step)
        flops = self.flops[self.rows]
        top = flops.max(axis=1)
        own = self._tried(np.broadcast_to(flops[step], (len(others), flops.shape[1])), top[others], draws)
        their = self._tried(flops[others], np.broadcast_to(top[step], len(others)), draws)
        gain = self._gain(step, others, self.rows[step][own], np.take_along_axis(self.rows[others], their, 1))
        price = self._price(step, others, own, their) / max(float(flops.mean()), 1e-300) + _FREE
        worth = np.where(gain > 1e-9, gain / price, 0.0)
        other, mine, theirs = np.unravel_index(int(worth.argmax()), worth.shape)
        if worth[other, mine, theirs] <= 0:
            return False
        a, b = (step, own[other, mine]), (int(others[other]), their[other, theirs])
        self.rows[a], self.rows[b] = self.rows[b], self.rows[a]
        pair = [a[0], b[0]]
        self.held[pair] = self.samples[self.rows[pair]].sum(axis=1)
        self.bad[pair] = excess(self.held[pair], self.share)
        return True

    @staticmethod
    def _tried(flops: Array, top: Array, draws: _Draws) -> Array:
        """Choose rows to try: [O, S] FLOPs of rows, [O] most in the step they would go to; places [O, tried].

        Half of them are those that raise that most the least, the others any.
        """
        others, count = flops.shape
        if count <= _TRIED:
            return np.broadcast_to(np.arange(count), flops.shape)
        ties = draws.below(2**20, flops.shape) / 2**30 * flops.mean()
        near = np.argsort(np.maximum(flops - top[:, None], 0.0) + ties, axis=1, kind="stable")
        return np.concatenate([near[:, : _TRIED // 2], draws.below(count, (others, _TRIED // 2))], axis=1)

    def _gain(self, step: int, others: Array, own: Array, their: Array) -> Array:
        """How much exchanges mend: rows [O, A] of the step for rows [O, B] of others, float64 [O, A, B]."""
        moved = self.samples[their][:, None] - self.samples[own][:, :, None]
        after = excess(self.held[step] + moved, self.share)
        after = after + excess(self.held[others][:, None, None] - moved, self.share)
        return self.bad[step] + self.bad[others][:, None, None] - after

    def _price(self, step: int, others: Array, own: Array, their: Array) -> Array:
        """How much the most of both steps rises together, float64 [O, A, B]; never below 0."""
        flops = self.flops[self.rows]
        top, rest = flops.max(axis=1), _most_without(flops)
        mine, theirs = flops[step][own], np.take_along_axis(flops[others], their, 1)
        here = np.maximum(rest[step][own][:, :, None], theirs[:, None])
        there = np.maximum(np.take_along_axis(rest[others], their, 1)[:, None], mine[:, :, None])
        return np.maximum(here + there - top[step] - top[others][:, None, None], 0.0)


def _most_without(flops: Array) -> Array:
    """The most of each step [G, S] without each of its rows, [G, S]."""
    second, first = np.sort(flops, axis=1)[:, -2:].T
    return np.where(
        np.arange(flops.shape[1]) == flops.argmax(axis=1)[:, None], second[:, None], first[:, None]
    )


def _placed(rows: Array, flops: Array, draws: _Draws) -> Array:
    """Order the rows of a step: those that make a pair, light and heavy, stand half a step apart."""
    order = rows[np.argsort(flops[rows], kind="stable")]
    half = len(order) // 2
    pairs = np.stack([order[:half], order[::-1][:half]])[:, draws.shuffled(half)]
    turned = draws.below(2, (half,)) == 1
    first, second = np.where(turned, pairs[::-1], pairs)
    return np.concatenate([first, order[half : len(order) - half], second])
