"""The weighted loss of a row: cross entropy at its supervised positions, and the sums it is divided by.

Letters as in `hedgerow.sequence`: N tokens, M supervised targets, S samples; D is the width of the model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from hedgerow.errors import DataError
from hedgerow.sequence import Row, Sample
from hedgerow.train.chunks import Seen, Weigh, predict, summed_loss
from hedgerow.weights.dynamic import Dynamic, Prediction

Key = tuple[str, str]  # task and data set


@dataclass(frozen=True, slots=True)
class RowLoss:
    """What a row adds to the loss of a step.

    `numerator` [] is what is summed over rows and then divided, the only field with a gradient; `z_term` []
    its part that comes from z. `sums` float64 [6, S] holds for each sample: sum of w ce, sum of ce, sum of w,
    sum of w^2, number of targets, number of targets with w > 0. A preference loss has three more, [9, S]: of
    the pairs in which the sample is the better answer their number, of how many the margin is above 0, and
    the sum of margins.
    """

    numerator: Tensor
    z_term: Tensor
    sums: Tensor


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over targets: `weighted` of w ce, `nll` of ce, `weight` of w, `squares` of w^2.

    `tokens` are the targets with w > 0, `samples` the samples that have a target; `pairs` are compared,
    `right` of them in the right order, by `margin` in all. What is reported and divided by derives from
    these.
    """

    weighted: float = 0.0
    nll: float = 0.0
    weight: float = 0.0
    squares: float = 0.0
    targets: int = 0
    tokens: int = 0
    samples: int = 0
    pairs: int = 0
    right: int = 0
    margin: float = 0.0

    @staticmethod
    def total(parts: Iterable["Sums"]) -> "Sums":
        """Add up, in the given order."""
        columns = list(zip(*map(astuple, parts), strict=True))
        return Sums(*map(sum, columns)) if columns else Sums()

    @property
    def effective(self) -> float:
        """How many equally weighted targets would average as much: (sum of w)^2 / sum of w^2."""
        return self.weight**2 / self.squares if self.squares else 0.0

    def divisor(self, normalize: Literal["weights", "samples", "tokens"]) -> float:
        """Return what the summed loss is divided by."""
        parts = {"weights": self.weight, "samples": float(self.samples), "tokens": float(self.tokens)}
        return parts[normalize]


def weighted_loss(
    hidden: Tensor,
    row: Row,
    head: nn.Linear,
    *,
    dynamic: Dynamic | None = None,
    z_loss: float = 0.0,
    chunk: int = 256,
) -> RowLoss:
    """Return the loss of a row, sum of w (ce + z lse^2), and the sums it is normalised and reported by.

    Args:
        hidden: last hidden states [N, D].
        row: a row of tensors (`Row.to`); one without targets gives 0.
        head: from hidden states to logits.
        dynamic: a factor on the weights of the row; w is the product.
        z_loss: factor on the squared log of the softmax's denominator, weighted like the cross entropy.
        chunk: most positions for which logits exist at once.

    Raises:
        DataError: the weights need reference log-probabilities and the row has none.
    """
    # index_select: its backward adds in a fixed order, that of indexing in any; branches share sources.
    picked = hidden.index_select(0, row.source)
    total, weight, seen = summed_loss(
        picked,
        row.target,
        head,
        _weigher(picked, row, head, dynamic, chunk=chunk),
        z_loss=z_loss,
        chunk=chunk,
        entropy=dynamic is not None and dynamic.needs_entropy and not dynamic.compares,
    )
    z_term = z_loss * (weight * seen.lse.square()).sum()
    return RowLoss(total, z_term, _sums(seen.ce.double(), weight.double(), row))


def references(row: Row, what: str) -> Tensor:
    """Return the reference log-probabilities of a row, [M].

    Args:
        row: a row of tensors.
        what: what needs them, for the error.

    Raises:
        DataError: some are missing; the message names the examples.
    """
    if row.reference is not None and not row.reference.isnan().any():
        return row.reference  # type: ignore[no-any-return]
    if row.reference is None:
        lacking = set(range(len(row.examples)))
    else:
        lacking = set(trees_of(row)[row.reference.isnan()].tolist())
    names = ", ".join(row.examples[number] for number in sorted(lacking)[:3])
    raise DataError(
        f"{names}{' and others' if len(lacking) > 3 else ''}: no reference log-probabilities, which {what} "
        "needs; name a file of them in data.references, or set loss.reference: model"
    )


def trees_of(row: Row) -> Tensor:
    """Return which tree of a row of tensors each target belongs to, int64 [M]."""
    ends = torch.tensor(row.lengths, device=row.source.device).cumsum(0)
    return torch.searchsorted(ends, row.source, right=True)


def _weigher(picked: Tensor, row: Row, head: nn.Linear, dynamic: Dynamic | None, *, chunk: int) -> Weigh:
    if dynamic is None:
        return lambda part, _: row.weight[part]
    reference = references(row, f"the dynamic weight '{dynamic.name}'") if dynamic.needs_reference else None

    def weigh(part: slice, seen: Seen) -> Tensor:
        given = Prediction(
            ce=seen.ce,
            entropy=seen.entropy,
            reference=None if reference is None else reference[part],
            weight=row.weight[part],
            sample=row.sample[part],
        )
        return row.weight[part] * dynamic(given)  # type: ignore[no-any-return]

    if not dynamic.compares:
        return weigh
    # Targets of a sample may lie in several chunks: look at all of them first.
    whole = weigh(slice(None), predict(picked, row.target, head, chunk=chunk, entropy=dynamic.needs_entropy))
    return lambda part, _: whole[part]


def by_task(loss: RowLoss, samples: Iterable[Sample]) -> dict[Key, Sums]:
    """Return the sums of a row for each task and data set, read from the device."""
    found = []
    columns = loss.sums.T.tolist()
    for sample, column in zip(samples, columns, strict=True):
        weighted, nll, weight, squares, targets, tokens, *compared = column
        sums = Sums(weighted, nll, weight, squares, int(targets), int(tokens), int(targets > 0))
        if compared:
            sums = replace(sums, pairs=int(compared[0]), right=int(compared[1]), margin=compared[2])
        found.append({(sample.task, sample.source): sums})
    return merged(found)


def merged(parts: Iterable[Mapping[Key, Sums]]) -> dict[Key, Sums]:
    """Add up sums key by key, in the given order."""
    columns: dict[Key, list[Sums]] = {}
    for part in parts:
        for key, sums in part.items():
            columns.setdefault(key, []).append(sums)
    return {key: Sums.total(column) for key, column in columns.items()}


def _sums(ce: Tensor, weight: Tensor, row: Row) -> Tensor:
    each = [weight * ce, ce, weight, weight.square(), torch.ones_like(ce), (weight > 0).double()]
    return ce.new_zeros(6, len(row.samples)).index_add_(1, row.sample, torch.stack(each))
