"""How dark the weight of a token is shown."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hedgerow.sequence import Array

_RANGE = 10, 1000  # times that the greatest weight is the one that is shaded as lightly as can be seen
_LIGHTEST = 0.12


@dataclass(frozen=True, slots=True)
class Shades:
    """How dark a weight is shown: by its logarithm; 0 is shown in another way.

    Attributes:
        low: the size shown lightest: the smallest there is, if that is neither nearly the greatest nor tiny.
        high: the size of the greatest, shown darkest.
        below: whether some are below 0.
    """

    low: float
    high: float
    below: bool = False

    @classmethod
    def of(cls, weights: Iterable[Array]) -> "Shades":
        """Return those for all weights of some sequences, an array of each."""
        known = np.concatenate([np.zeros(0), *weights])
        sizes = np.abs(known[known != 0])
        high = float(sizes.max(initial=0.0)) or 1.0
        low = float(np.clip(sizes.min(initial=high), high / _RANGE[1], high / _RANGE[0]))
        return cls(low, high, bool((known < 0).any()))

    def __call__(self, weight: float) -> float:
        """Return 0 for 0, and for others from `_LIGHTEST` to 1, with the sign of the weight."""
        if not weight:
            return 0.0
        size = min(max(abs(weight), self.low), self.high)
        share = math.log(size / self.low) / math.log(self.high / self.low)
        return math.copysign(_LIGHTEST + (1 - _LIGHTEST) * share, weight)

    def scale(self) -> list[float]:
        """Return weights that explain the shades: 0, and some that are equally far apart in shade."""
        weights = [0.0, *np.geomspace(self.low, self.high, 5).tolist()]
        return weights + ([-self.high] if self.below else [])
