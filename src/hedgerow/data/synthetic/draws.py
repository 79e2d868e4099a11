"""Random choices that stay the same: with every version of numpy, in every process, for ever."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from hedgerow.sequence import Array

T = TypeVar("T")


class Draws:
    """Choices from the raw stream of PCG64.

    numpy promises that stream and its seeding; what its `Generator` makes of them may change.

    Args:
        key: whole numbers of 0 or more; another key gives other choices.
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(list(key)))

    def uniforms(self, count: int) -> Array:
        """Return float64 [count], each from 0 up to 1."""
        return (self._bits.random_raw(count) >> np.uint64(11)) * 2.0**-53

    def uniform(self, low: float, high: float) -> float:
        """Return a number from `low` up to `high`."""
        return low + (high - low) * float(self.uniforms(1)[0])

    def chance(self, share: float) -> bool:
        """Say yes in a share of all cases."""
        return self.uniform(0.0, 1.0) < share

    def between(self, least: int, most: int) -> int:
        """Return a whole number from `least` to `most`, both included."""
        return least + int(self.uniform(0.0, most + 1 - least))

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self.between(0, len(items) - 1)]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in another order."""
        return [items[int(place)] for place in np.argsort(self.uniforms(len(items)), kind="stable")]
