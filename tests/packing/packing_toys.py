"""Toy examples, a loader of them, and what a training step sees of a row, as plain values."""

import dataclasses

import numpy as np

from hedgerow.packing.loader import Fixed, RowLoader
from hedgerow.sequence import Budget, Cost, Sample, Sequence, VisionInput

BUDGET = Budget(tokens=24)
COSTS = [Cost(tokens=3 + i * 7 % 11) for i in range(40)]
TASKS = [Cost(**{("qa", "pointing", "tracking")[i % 3]: 1 + i % 2}) for i in range(40)]


def toy(index, tokens, *, first=0):
    """A sequence of `tokens` tokens, all of value `index` but the first."""
    own, none = np.arange(tokens, dtype=np.int32), np.zeros(0, np.int32)
    return Sequence(
        example=f"toy-{index}",
        tokens=np.array([first, *[index] * (tokens - 1)], np.int32),
        position=own,
        order=own,
        end=np.full(tokens, tokens, np.int32),
        group=np.full(tokens, -1, np.int32),
        slot=none,
        source=np.array([0], np.int32),
        target=np.array([index], np.int32),
        weight=np.array([0.5], np.float32),
        sample=np.array([0], np.int32),
        samples=(Sample(f"toy-{index}", "", "toys", "qa", 1, 0.5),),
        cost=Cost(tokens=tokens),
        vision=picture(index) if index % 3 == 0 else None,
    )


def picture(index):
    """A crop of 4 x 4 pixels, all of the same value."""
    crops = np.full((1, 4, 4, 3), index % 256, np.uint8)
    return VisionInput(crops, np.zeros((1, 1), np.int32), np.ones((1, 3), np.int32), patches=1)


@dataclasses.dataclass(frozen=True)
class Encode:
    """Encodes toys; `bad` ones raise, `long` ones hold more than planned."""

    bad: tuple[int, ...] = ()
    error: Exception | None = None
    long: tuple[int, ...] = ()
    more: int = 1

    def __call__(self, index):
        if index in self.bad:
            raise self.error
        tokens = COSTS[index]["tokens"]
        return toy(index, tokens + self.more if index in self.long else tokens)


def loader(encode=None, **options):
    source = Fixed(encode or Encode(), COSTS, TASKS)
    way = {} if options.get("window") else {"pool": 6}
    return RowLoader(source, BUDGET, **{"seed": 5} | way | options)


def facts(loaded):
    """All that a training step could see of it, as plain values."""
    row = loaded.row and {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in loaded.row.to_dict().items()
    }
    return loaded.epoch, loaded.number, row, loaded.dropped


def epoch_of(rows):
    return [facts(loaded) for loaded in rows]
