"""How tensors of one checkpoint become those of another: rules, checked both ways before anything is read.

Names are those of `state_dict`. A shape is a tuple of sizes.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from hedgerow.errors import DataError

Shape = tuple[int, ...]
_SHOWN = 3  # names in an error


class Transform(Protocol):
    """What is done to the source tensors of a rule."""

    def shape(self, *given: Shape) -> Shape | None:
        """Return the shape that comes out, None if such tensors cannot be taken."""
        ...

    def __call__(self, *given: Tensor) -> Tensor:
        """Make the target tensor."""
        ...

    def __str__(self) -> str:
        """Return what is done in a few words; an empty string for nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Copy:
    """The tensor as it is."""

    def shape(self, *given: Shape) -> Shape | None:
        """Return the same shape."""
        return given[0]

    def __call__(self, *given: Tensor) -> Tensor:
        """Return the same tensor."""
        return given[0]

    def __str__(self) -> str:
        """Return nothing, for nothing is done."""
        return ""


@dataclass(frozen=True, slots=True)
class Join:
    """Several tensors one below the other."""

    def shape(self, *given: Shape) -> Shape | None:
        """Return the shape of all rows; None if widths differ."""
        return (sum(one[0] for one in given), *given[0][1:]) if len({one[1:] for one in given}) == 1 else None

    def __call__(self, *given: Tensor) -> Tensor:
        """Return all rows."""
        return torch.cat(given)

    def __str__(self) -> str:
        """Return what is done."""
        return "joined"


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows from `start` up to `stop`."""

    start: int
    stop: int

    def shape(self, *given: Shape) -> Shape | None:
        """Return the shape of these rows; None if there are fewer."""
        return (self.stop - self.start, *given[0][1:]) if self.stop <= given[0][0] else None

    def __call__(self, *given: Tensor) -> Tensor:
        """Return these rows."""
        return given[0][self.start : self.stop]

    def __str__(self) -> str:
        """Return what is done."""
        return f"rows {self.start} to {self.stop - 1}"


@dataclass(frozen=True, slots=True)
class Unfold:
    """The weight of a convolution [D, channels, P, P] as that of a linear layer [D, P * P * channels]."""

    def shape(self, *given: Shape) -> Shape | None:
        """Return the shape of the linear layer; None if it is no convolution."""
        return (given[0][0], math.prod(given[0][1:])) if len(given[0]) == 4 else None

    def __call__(self, *given: Tensor) -> Tensor:
        """Return the linear layer's weight: one line of a patch after another, channels innermost."""
        return given[0].permute(0, 2, 3, 1).flatten(1)

    def __str__(self) -> str:
        """Return what is done."""
        return "convolution to linear"


@dataclass(frozen=True, slots=True)
class Resize:
    """A table of positions [side * side, D] for another grid, as the source model itself resizes it."""

    side: int
    mode: Literal["bilinear", "bicubic"]
    antialias: bool

    def shape(self, *given: Shape) -> Shape | None:
        """Return the new shape; None if the table is of no square grid."""
        square = math.isqrt(given[0][0]) ** 2 == given[0][0]
        return (self.side**2, given[0][1]) if square else None

    def __call__(self, *given: Tensor) -> Tensor:
        """Return the resized table; of the same side, the table itself."""
        side = math.isqrt(len(given[0]))
        if side == self.side:
            return given[0]
        grid = given[0].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        resized = functional.interpolate(
            grid, size=(self.side, self.side), mode=self.mode, align_corners=False, antialias=self.antialias
        )
        return resized.flatten(2)[0].T.to(given[0].dtype)

    def __str__(self) -> str:
        """Return what is done."""
        return f"resized to {self.side}x{self.side}, {self.mode}{' antialiased' if self.antialias else ''}"


@dataclass(frozen=True, slots=True)
class Extend:
    """A table with `rows` more rows, drawn with the mean and deviation of each column."""

    rows: int

    def shape(self, *given: Shape) -> Shape | None:
        """Return the shape of the longer table."""
        return (given[0][0] + self.rows, *given[0][1:])

    def __call__(self, *given: Tensor) -> Tensor:
        """Return the table and rows from torch's random state."""
        table = given[0]
        deviation, mean = torch.std_mean(table.float(), dim=0, correction=0)
        fresh = mean + deviation * torch.randn(self.rows, table.shape[1])
        return torch.cat([table, fresh.to(table.dtype)])

    def __str__(self) -> str:
        """Return what is done."""
        return f"{self.rows} rows more, initialised"


@dataclass(frozen=True, slots=True)
class Rule:
    """One target tensor made of source tensors."""

    target: str
    sources: tuple[str, ...]
    transform: Transform = field(default_factory=Copy)


@dataclass(frozen=True, slots=True)
class TensorMap:
    """Rules from one checkpoint, and its tensors that are left out, with the reason for each."""

    rules: tuple[Rule, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def targets(self) -> set[str]:
        """Names of the tensors it makes."""
        return {rule.target for rule in self.rules}

    def check(self, sources: Mapping[str, Shape], targets: Mapping[str, Shape], *, where: str) -> None:
        """Hold that every source tensor is used or left out, and every target tensor made once and fits.

        Args:
            sources: shapes in the checkpoint, by name.
            targets: shapes in the model, by name, of all that this map is to make.
            where: name of the checkpoint, for the message.

        Raises:
            DataError: one line with what is missing, surplus, made twice or never, or of another shape.
        """
        used = [name for rule in self.rules for name in rule.sources]
        missing = [name for name in dict.fromkeys(used) if name not in sources]
        surplus = [name for name in sources if name not in used and name not in self.left_out]
        twice = [name for name, times in Counter(rule.target for rule in self.rules).items() if times > 1]
        unmade = [name for name in targets if name not in self.targets]
        unknown = [name for name in self.targets if name not in targets]
        whole = [rule for rule in self.rules if rule.target in targets and not set(rule.sources) - {*sources}]
        wrong = [line for rule in whole if (line := _misfit(rule, sources, targets[rule.target]))]
        problems = [
            _told("missing", missing),
            _told("surplus", surplus),
            _told("made twice", twice),
            _told("not made", unmade if not missing else []),
            _told("unknown to the model", unknown),
            _told("of another shape", wrong),
        ]
        if any(problems):
            raise DataError(f"{where}: tensors {'; '.join(filter(None, problems))}")

    def make(self, read: Callable[[str], Tensor]) -> Iterable[tuple[str, Tensor]]:
        """Make the target tensors one by one; `read` gives a source tensor by its name."""
        for rule in self.rules:
            yield rule.target, rule.transform(*map(read, rule.sources))


def _misfit(rule: Rule, sources: Mapping[str, Shape], expected: Shape) -> str:
    given = [tuple(sources[name]) for name in rule.sources]
    found = rule.transform.shape(*given)
    if found == tuple(expected):
        return ""
    shapes = " and ".join(str(list(shape)) for shape in given)
    return f"{' and '.join(rule.sources)} {shapes} for {rule.target} {list(expected)}"


def _told(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" ({len(names)} in all)" if len(names) > _SHOWN else ""
    return f"{what}: {', '.join(names[:_SHOWN])}{more}"
