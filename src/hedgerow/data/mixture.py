"""Mixtures: which examples an epoch draws from several data sets.

Without rates every example comes once an epoch (times the `repeat` of its set). With rates an epoch is a
number of draws; each data set is gone through in orders of its own, pass after pass, and has at any time had
its share of all draws, as nearly as whole draws allow. Both are pure functions of (sizes, settings, seed,
epoch).
"""

import dataclasses
import heapq
import math
from collections.abc import Mapping
from collections.abc import Sequence as Listing
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from hedgerow.content import STRICT
from hedgerow.errors import DataError
from hedgerow.sequence import Array

_BITS = 31  # of the share of a branching; draws are counted up to 2**32


@dataclass(frozen=True, slots=True, config=STRICT)
class DataSet:
    """A JSONL file of trees, and its part in the mixture.

    Attributes:
        path: the file.
        repeat: how often each tree is used in an epoch, where no rates are given.
        group: the group of `data.groups` it belongs to.
        cap: counts as its size where it is smaller.
        factor: multiplies its weight within the group.
        like: what stands in for the file in a dry run where it is missing, see `hedgerow.data.standins`.
    """

    path: Path
    repeat: Annotated[int, Field(ge=1)] = 1
    group: str | None = None
    cap: Annotated[int, Field(ge=1)] | None = None
    factor: Annotated[float, Field(gt=0.0)] | None = None
    like: str | None = None


@dataclass(frozen=True, slots=True, config=STRICT)
class Rates:
    """How often the data sets of a mixture are drawn.

    Attributes:
        groups: the rate of each group, brought to a sum of 1; empty: all sets are of one group.
        draws: examples of an epoch; None: as many as there are.
    """

    groups: Mapping[str, Annotated[float, Field(gt=0.0)]] = dataclasses.field(default_factory=dict)
    draws: Annotated[int, Field(ge=1)] | None = None

    def govern(self, sets: Listing[DataSet]) -> bool:
        """Whether there are rates at all; without, every example comes once an epoch.

        Raises:
            ValueError: groups do not match, or a set is repeated where its rate says how often it comes.
        """
        if not (self.groups or self.draws or any(one.cap or one.factor for one in sets)):
            named = next((one for one in sets if one.group is not None), None)
            if named is not None:
                raise ValueError(
                    f"{named.path} is of group '{named.group}', and no group has a rate; give data.groups"
                )
            return False
        for one in sets:
            if one.repeat > 1:
                raise ValueError(f"{one.path}: repeat is for epochs without rates; give a factor instead")
            if self.groups and one.group not in self.groups:
                known = ", ".join(self.groups)
                given = "it has no group" if one.group is None else f"its group is '{one.group}'"
                raise ValueError(f"{one.path}: {given}; give one of data.groups: {known}")
            if not self.groups and one.group is not None:
                raise ValueError(f"{one.path}: group '{one.group}' has no rate; give it one in data.groups")
        idle = [name for name in self.groups if name not in {one.group for one in sets}]
        if idle:
            raise ValueError(f"group '{idle[0]}' has a rate and no data set; name it at one, or remove it")
        return True


@dataclasses.dataclass(frozen=True, slots=True)
class Drawn:
    """The draws of an epoch; an example is never drawn twice in one pass over its set.

    `examples` int64 [n] are their numbers, `turns` int64 [n] the passes they are used in.
    """

    examples: Array
    turns: Array


class Mixture(Protocol):
    """Which examples each epoch draws; they are numbered set after set."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many examples each data set has."""
        ...

    @property
    def rates(self) -> Array:
        """The share of all draws that each data set has, float64 [sets]."""
        ...

    def __len__(self) -> int:
        """How many draws an epoch has."""
        ...

    def draw(self, epoch: int) -> Drawn:
        """Return the draws of an epoch."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Whole:
    """Every example `repeats` times an epoch. `sizes` and `repeats` are those of the data sets."""

    sizes: tuple[int, ...]
    repeats: tuple[int, ...]

    @property
    def rates(self) -> Array:
        """The share of all draws that each data set has, float64 [sets]."""
        return np.array(self.sizes) * self.repeats / len(self)

    def __len__(self) -> int:
        return sum(size * repeat for size, repeat in zip(self.sizes, self.repeats, strict=True))

    def draw(self, epoch: int) -> Drawn:
        """Return the draws of an epoch: in the order of the examples, copies side by side."""
        copies = np.repeat(self.repeats, self.sizes)
        examples = np.repeat(np.arange(len(copies)), copies)
        copy = np.arange(len(examples)) - np.repeat(np.cumsum(copies) - copies, copies)
        return Drawn(examples, epoch * copies[examples] + copy)


@dataclasses.dataclass(frozen=True, slots=True)
class Endless:
    """A fixed number of draws an epoch, shared out by rates; each set is shuffled anew in each pass.

    After k draws a set of rate r has had k x r of them, less than 2 more or fewer: draws are shared out along
    a binary tree over the sets, at each fork by rounding, so that an epoch needs no earlier one.

    Attributes:
        sizes: of the data sets.
        rates: of the data sets, float64 [sets], with a sum of 1.
        draws: of an epoch.
        seed: of the orders.
    """

    sizes: tuple[int, ...]
    rates: Array
    draws: int
    seed: int

    def __len__(self) -> int:
        return self.draws

    def draw(self, epoch: int) -> Drawn:
        """Return the draws of an epoch, in the order in which they are shared out.

        Raises:
            DataError: more draws than can be counted.
        """
        if (epoch + 1) * self.draws >= 2**32:
            raise DataError(f"epoch {epoch} of {self.draws:,} draws is beyond 2**32 draws; lower data.epoch")
        examples, turns = np.empty(self.draws, np.int64), np.empty(self.draws, np.int64)
        starts = np.cumsum((0, *self.sizes))
        for number, (places, first) in self._shared(epoch).items():
            turn, rank = np.divmod(first + np.arange(len(places)), self.sizes[number])
            turns[places] = turn
            for one in np.unique(turn).tolist():
                here = turn == one
                order = _order(self.sizes[number], self.seed, number, one)
                examples[places[here]] = starts[number] + order[rank[here]]
        return Drawn(examples, turns)

    def _shared(self, epoch: int) -> dict[int, tuple[Array, int]]:
        """Return for each set the places of its draws in the epoch, and how many it had before."""
        found: dict[int, tuple[Array, int]] = {}
        waiting = [(_forks(self.rates), np.arange(self.draws), epoch * self.draws)]
        while waiting:
            fork, places, before = waiting.pop()
            if isinstance(fork, int):
                found[fork] = (places, before)
                continue
            taken = _half_up((before + np.arange(len(places) + 1)) * fork.share)
            left = np.diff(taken) > 0
            waiting.append((fork.left, places[left], int(taken[0])))
            waiting.append((fork.right, places[~left], before - int(taken[0])))
        return found


def mixture(sets: Listing[DataSet], rates: Rates, sizes: Listing[int], *, seed: int) -> Mixture:
    """Make the mixture of data sets.

    Within a group a set weighs the square root of its size, or of its cap where that is smaller, times its
    factor (arXiv 2601.10611, section 3.2, and its public code).

    Args:
        sets: the data sets.
        rates: of groups.
        sizes: how many usable examples each set has.
        seed: of the orders in which sets are gone through.

    Raises:
        DataError: a set with a rate has no usable example.
        ValueError: the groups of sets and rates do not match.
    """
    if not rates.govern(sets):
        return Whole(tuple(sizes), tuple(one.repeat for one in sets))
    for one, size in zip(sets, sizes, strict=True):
        if not size:
            raise DataError(f"{one.path}: no usable example, but it has a rate; correct or remove it")
    weight = np.array([_weight(one, size) for one, size in zip(sets, sizes, strict=True)])
    names = np.array([one.group or "" for one in sets])
    given = rates.groups or {"": 1.0}
    share = np.zeros(len(sets))
    for name, rate in given.items():
        own = names == name
        share[own] = rate / math.fsum(given.values()) * weight[own] / weight[own].sum()
    return Endless(tuple(sizes), share, rates.draws or sum(sizes), seed)


def _weight(one: DataSet, size: int) -> float:
    return math.sqrt(min(size, one.cap or size)) * (one.factor or 1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class _Fork:
    """Of every 2**31 draws `share` go left; sets are numbers."""

    share: int
    left: "_Fork | int"
    right: "_Fork | int"


def _forks(rates: Array) -> _Fork | int:
    """Join the two smallest, again and again: no share is rounded often before it has become small."""
    heap: list[tuple[float, int, _Fork | int]] = [(rate, n, n) for n, rate in enumerate(rates.tolist())]
    heapq.heapify(heap)
    for number in range(len(heap), 2 * len(heap) - 1):
        one, two = heapq.heappop(heap), heapq.heappop(heap)
        fork = _Fork(round(one[0] / (one[0] + two[0]) * 2**_BITS), one[2], two[2])
        heapq.heappush(heap, (one[0] + two[0], number, fork))
    return heap[0][2]


def _half_up(scaled: Array) -> Array:
    return (scaled + 2 ** (_BITS - 1)) >> _BITS


def _order(size: int, seed: int, number: int, turn: int) -> Array:
    # The raw stream of a bit generator is stable across numpy versions; `Generator.permutation` need not be.
    draws = np.random.PCG64(np.random.SeedSequence([seed, number, turn])).random_raw(size)
    return np.argsort(draws, kind="stable")
