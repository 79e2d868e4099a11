"""What part each data set has in training: its share of examples, samples, tokens and loss weight."""

import dataclasses
from collections.abc import Sequence as Listing
from typing import Any

import numpy as np

from hedgerow.data.measure import Surveys
from hedgerow.data.mixture import DataSet, Mixture
from hedgerow.sequence import Array


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """One data set or group: its size, passes over it in an epoch, and shares of all that is trained on.

    `weight` is the share of the sum of loss weights over all targets: of what the loss is made of.
    """

    name: str
    group: str
    size: int
    passes: float
    examples: float
    samples: float
    tokens: float
    weight: float


@dataclasses.dataclass(frozen=True, slots=True)
class MixtureReport:
    """The effective rates of a mixture: by data set, and by group where there are groups.

    Shares are of what is trained on: examples that are left out count nothing, and `shortened` ones, which
    lack so many `branches`, as much as is left of them.
    """

    draws: int
    sets: tuple[Share, ...]
    groups: tuple[Share, ...]
    shortened: int
    branches: int

    @property
    def cuts(self) -> str:
        """How many trees are shortened, in words; empty where none is."""
        if not self.shortened:
            return ""
        return f"{counted(self.shortened, 'tree')} shortened, {counted(self.branches, 'branch')} left out"

    def to_dict(self) -> dict[str, Any]:
        """Return the shares as plain data."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Show a table, the sets of each group below it, and what is cut off."""
        shown = []
        for group in self.groups:
            inner = [one for one in self.sets if one.group == group.name]
            shown += [(group.name, group), *((f"  {one.name}", one) for one in inner)]
        shown = shown or [(one.name, one) for one in self.sets]
        width = max(len("data set"), *(len(name) for name, _ in shown))
        head = f"{'data set':{width}}{'size':>11}{'passes':>8}"
        columns = ("examples", "samples", "tokens", "weight")
        draws = f"An epoch draws {counted(self.draws, 'example')}."
        lines = [draws, head + "".join(f"{c:>10}" for c in columns)]
        for name, one in shown:
            shares = "".join(f"{getattr(one, column):>10.1%}" for column in columns)
            lines.append(f"{name:{width}}{one.size:>11,}{one.passes:>8.2f}{shares}")
        return "\n".join([*lines, self.cuts] if self.cuts else lines)


def counted(number: int, noun: str) -> str:
    """Say how many: "1 row", "2 rows", "2 branches"."""
    several = noun + ("es" if noun.endswith("ch") else "s")
    return f"{number:,} {noun if number == 1 else several}"


def report(
    sets: Listing[DataSet],
    mixture: Mixture,
    owner: Array,
    surveys: Surveys,
    *,
    draws: Array | None = None,
) -> MixtureReport:
    """Return the effective rates of a mixture.

    Args:
        sets: the data sets.
        mixture: their rates.
        owner: int64 [n], the set of each example that is used.
        surveys: of these examples.
        draws: int64 [sets], how many draws from each set they are what is left of; None: nothing is left out.
    """
    draws = np.bincount(owner, minlength=len(sets)) if draws is None else draws
    samples = surveys.tasks.amounts(*surveys.tasks.names).sum(axis=1)
    tokens = surveys.costs.amounts("tokens")[:, 0]
    sizes, rates = np.array(mixture.sizes), mixture.rates
    columns = [np.ones(len(owner)), samples, tokens, surveys.weight]
    shares = np.array([_shares(column, owner, draws, rates) for column in columns])  # [4, sets]
    names = _names(sets)
    passes = rates * len(mixture) / np.maximum(sizes, 1)
    found = tuple(
        Share(names[n], one.group or "", int(sizes[n]), float(passes[n]), *map(float, shares[:, n]))
        for n, one in enumerate(sets)
    )
    groups = [name for name in dict.fromkeys(one.group for one in found) if name]
    return MixtureReport(
        draws=len(mixture),
        sets=found,
        groups=tuple(_together(name, found) for name in groups),
        shortened=int(np.count_nonzero(surveys.cut)),
        branches=int(surveys.cut.sum()),
    )


def _shares(amounts: Array, owner: Array, draws: Array, rates: Array) -> Array:
    """What a draw from each set brings on average, times its rate, as shares of the sum."""
    brought = np.bincount(owner, amounts, minlength=len(draws)) / np.maximum(draws, 1) * rates
    return brought / (brought.sum() or 1.0)


def _together(group: str, sets: Listing[Share]) -> Share:
    own = [one for one in sets if one.group == group]
    size = sum(one.size for one in own)
    return Share(
        name=group,
        group=group,
        size=size,
        passes=sum(one.passes * one.size for one in own) / size,
        examples=sum(one.examples for one in own),
        samples=sum(one.samples for one in own),
        tokens=sum(one.tokens for one in own),
        weight=sum(one.weight for one in own),
    )


def _names(sets: Listing[DataSet]) -> list[str]:
    """The name of each file; its whole path where that is not enough."""
    stems = [one.path.stem for one in sets]
    return [stem if stems.count(stem) == 1 else str(one.path) for stem, one in zip(stems, sets, strict=True)]
