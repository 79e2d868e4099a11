"""From a recipe to the loss of a row."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

import torch
from torch import Tensor, nn

from hedgerow.errors import RecipeError
from hedgerow.recipe import Loss
from hedgerow.sequence import Row
from hedgerow.train.chunks import predict
from hedgerow.train.loss import RowLoss, weighted_loss
from hedgerow.train.preference import Transport, preference_loss


class Model(Protocol):
    """A `torch.nn.Module` that gives hidden states of rows; N tokens, D channels."""

    def __call__(self, row: Row) -> Tensor:
        """Return the last hidden states [N, D] of a row of tensors."""
        ...

    @property
    def head(self) -> nn.Linear:
        """The layer from hidden states to logits."""
        ...


_LOG = logging.getLogger("hedgerow")
Objective = Callable[[Model, Row], RowLoss]


def objective_of(loss: Loss, model: Model, *, whole_rows: bool = True) -> Objective:
    """Return the loss that a recipe asks for.

    Args:
        loss: the recipe's.
        model: as it is before training; with `reference: model` a frozen copy of it is kept.
        whole_rows: whether a process has all targets of its rows; not so with context parallelism.

    Raises:
        RecipeError: the loss compares targets, and a process has only some of them.
    """
    compares = loss.preference is not None or (loss.dynamic is not None and loss.dynamic.compares)
    if compares and not whole_rows:
        raise RecipeError(
            "preference losses and the dynamic weight 'top' compare the targets of a sample, which context "
            "parallelism spreads over processes; set context: 1"
        )
    if loss.needs_reference and loss.reference == "model":
        return Referenced(_Objective(loss), model, chunk=loss.chunk)
    return _Objective(loss)


@dataclass(frozen=True, slots=True)
class _Objective:
    loss: Loss

    def __call__(self, model: Model, row: Row) -> RowLoss:
        loss, hidden = self.loss, model(row)
        if loss.preference is None:
            for source in {sample.source for sample in row.samples if sample.rank}:
                _name_lower(source)
            return weighted_loss(
                hidden, row, model.head, dynamic=loss.dynamic, z_loss=loss.z_loss, chunk=loss.chunk
            )
        chosen = loss.preference
        transport = Transport(chosen.entropy, chosen.marginal) if chosen.name == "otpo" else None
        return preference_loss(
            hidden,
            row,
            model.head,
            beta=chosen.beta,
            smoothing=chosen.smoothing,
            transport=transport,
            chunk=loss.chunk,
        )


@cache
def _name_lower(source: str) -> None:
    _LOG.warning(
        "data set '%s' has answers of rank 1 and beyond, the worse ones; without loss.preference they are "
        "trained as if they were true: give loss.preference, or leave them out",
        source,
    )


class Referenced:
    """An objective whose reference log-probabilities a frozen copy of the model computes, each step anew.

    Args:
        objective: is given rows with a `reference`.
        model: copied as it is now.
        chunk: most positions for which logits exist at once.
    """

    def __init__(self, objective: Objective, model: Model, *, chunk: int = 256) -> None:
        self._objective = objective
        self._frozen = copy.deepcopy(model)
        assert isinstance(self._frozen, nn.Module)
        self._frozen.eval().requires_grad_(False)
        self._chunk = chunk

    def __call__(self, model: Model, row: Row) -> RowLoss:
        """Return the loss of a row of tensors."""
        return self._objective(model, replace(row, reference=self.logps(row)))

    def logps(self, row: Row) -> Tensor:
        """Return the log-probabilities of the targets of a row of tensors, [M]."""
        return reference_logps(self._frozen, row, chunk=self._chunk)


@torch.no_grad()
def reference_logps(model: Model, row: Row, *, chunk: int = 256) -> Tensor:
    """Return log p of the targets of a row under a model, [M], in fp32 or better.

    Args:
        model: in evaluation mode.
        row: a row of tensors.
        chunk: most positions for which logits exist at once.
    """
    picked = model(row).index_select(0, row.source)
    return -predict(picked, row.target, model.head, chunk=chunk).ce
