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
    """The effective rates of a mixture: by data set, and by group where there are groups."""

    draws: int
    sets: tuple[Share, ...]
    groups: tuple[Share, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the shares as plain data."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Show a table, the sets of each group below it."""
        shown = []
        for group in self.groups:
            inner = [one for one in self.sets if one.group == group.name]
            shown += [(group.name, group), *((f"  {one.name}", one) for one in inner)]
        shown = shown or [(one.name, one) for one in self.sets]
        width = max(len("data set"), *(len(name) for name, _ in shown))
        head = f"{'data set':{width}}{'size':>11}{'passes':>8}"
        columns = ("examples", "samples", "tokens", "weight")
        lines = [f"An epoch draws {self.draws:,} examples.", head + "".join(f"{c:>10}" for c in columns)]
        for name, one in shown:
            shares = "".join(f"{getattr(one, column):>10.1%}" for column in columns)
            lines.append(f"{name:{width}}{one.size:>11,}{one.passes:>8.2f}{shares}")
        return "\n".join(lines)


def report(sets: Listing[DataSet], mixture: Mixture, owner: Array, surveys: Surveys) -> MixtureReport:
    """Return the effective rates of a mixture.

    Args:
        sets: the data sets.
        mixture: their rates.
        owner: int64 [n], the set of each example.
        surveys: of the examples.
    """
    samples = surveys.tasks.amounts(*surveys.tasks.names).sum(axis=1)
    tokens = surveys.costs.amounts("tokens")[:, 0]
    sizes = np.bincount(owner, minlength=len(sets))
    rates = mixture.rates
    columns = [np.ones(len(owner)), samples, tokens, surveys.weight]
    shares = np.array([_shares(column, owner, sizes, rates) for column in columns])  # [4, sets]
    names = _names(sets)
    passes = rates * len(mixture) / np.maximum(sizes, 1)
    found = tuple(
        Share(names[n], one.group or "", int(sizes[n]), float(passes[n]), *map(float, shares[:, n]))
        for n, one in enumerate(sets)
    )
    groups = [name for name in dict.fromkeys(one.group for one in found) if name]
    return MixtureReport(len(mixture), found, tuple(_together(name, found, len(mixture)) for name in groups))


def _shares(amounts: Array, owner: Array, sizes: Array, rates: Array) -> Array:
    """What a draw from each set brings on average, times its rate, as shares of the sum."""
    brought = np.bincount(owner, amounts, minlength=len(sizes)) / np.maximum(sizes, 1) * rates
    return brought / (brought.sum() or 1.0)


def _together(group: str, sets: Listing[Share], draws: int) -> Share:
    own = [one for one in sets if one.group == group]
    size, examples = sum(one.size for one in own), sum(one.examples for one in own)
    return Share(
        name=group,
        group=group,
        size=size,
        passes=examples * draws / size,
        examples=examples,
        samples=sum(one.samples for one in own),
        tokens=sum(one.tokens for one in own),
        weight=sum(one.weight for one in own),
    )


def _names(sets: Listing[DataSet]) -> list[str]:
    """The name of each file; its whole path where that is not enough."""
    stems = [one.path.stem for one in sets]
    return [stem if stems.count(stem) == 1 else str(one.path) for stem, one in zip(stems, sets, strict=True)]
