"""A mean over seeds and questions, with an interval that knows of both."""

from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

Scores = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean score or mean difference with its 95 % interval; `n` questions, `by_seed` their means."""

    value: float
    low: float
    high: float
    n: int
    by_seed: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies above or below 0, otherwise 0: nothing can be told."""
        return int(self.low > 0) - int(self.high < 0)


def estimate(scores: Scores, trees: Listing[str], *, least: float) -> Estimate:
    """Return the mean of scores with a t interval over seeds and trees, both taken as drawn at random.

    The squared standard error is the variance of the seeds' means over the number of seeds, plus that of
    the mean over trees, where the questions of a tree count together. So it is never smaller than either
    alone, and somewhat too large, for the part that belongs to neither is in both. Degrees of freedom after
    Welch and Satterthwaite. With one seed it is an interval over trees alone; with one tree nothing is known.

    Args:
        scores: float64 [seeds, questions], 0 to 1, or differences of such.
        trees: of each question, the tree it is about.
        least: the smallest value possible, 0 or -1; an interval ends there, and at 1.
    """
    seeds, questions = scores.shape
    value, by_seed = float(scores.mean()), scores.mean(axis=1)
    numbers = {tree: number for number, tree in enumerate(dict.fromkeys(trees))}
    if len(numbers) < 2:
        return Estimate(value, least, 1.0, questions, tuple(by_seed.tolist()))
    member = [numbers[tree] for tree in trees]
    apart = np.bincount(member, weights=scores.mean(axis=0) - value)
    amount = len(numbers)
    parts = [(amount / (amount - 1) * float(np.square(apart).sum()) / questions**2, amount - 1)]
    if seeds > 1:
        parts.append((float(by_seed.var(ddof=1)) / seeds, seeds - 1))
    total = sum(variance for variance, _ in parts)
    half = 0.0
    if total > 0:
        freedom = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
        half = float(t.ppf((1 + LEVEL) / 2, freedom)) * total**0.5
    low, high = max(value - half, least), min(value + half, 1.0)
    return Estimate(value, low, high, questions, tuple(by_seed.tolist()))
