"""The training loop.

A step takes `rows_per_step` rows over all processes, or what is left of the epoch. Each row is a micro-batch:
its summed loss is backpropagated as it is. Then gradients, losses and divisors are added up over all
processes, the gradients are divided and clipped, and the optimisers step. So how targets are spread over
rows, micro-batches and processes changes nothing, and a run that is cut off and resumed computes what it
would have computed.

What is random in the model (dropout) is seeded by (seed, epoch, row): the same on any number of processes,
and no state to save.
"""

import logging
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from hedgerow.attention.ulysses import Context
from hedgerow.errors import RecipeError
from hedgerow.packing.loader import Loaded
from hedgerow.recipe import Recipe
from hedgerow.sequence import Budget, Cost, Row
from hedgerow.train import checkpoint, parallel
from hedgerow.train import objective as objectives
from hedgerow.train.log import Callback, MetricsFile, Run, Step, peak_memory, reporter
from hedgerow.train.loss import Key, RowLoss, Sums, by_task, merged
from hedgerow.train.objective import Objective, objective_of
from hedgerow.train.optim import Grouped, Optimizers

_LOG = logging.getLogger("hedgerow")
_deterministic: Any = torch.utils.deterministic  # a module whose attributes are properties


class Model(Grouped, objectives.Model, Protocol):
    """A `torch.nn.Module` that can be trained on rows."""


class Loader(Protocol):
    """Where rows come from, such as `RowLoader`. All processes get equally many in an epoch."""

    def __iter__(self) -> Iterator[Loaded]:
        """Yield the rest of the current epoch; the next time, the next epoch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return where it is, the same on every process, as plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go there."""
        ...


def train(
    recipe: Recipe,
    model: nn.Module,
    loader: Loader,
    *,
    callbacks: Sequence[Callback] = (),
    objective: Objective | None = None,
    context: Context | None = None,
    fresh: bool = False,
) -> Path:
    """Train a model, from its checkpoint in `recipe.out` if there is one; return the folder of the last one.

    Where the model comes from (`recipe.init`) is settled by who builds it.

    Args:
        recipe: the run.
        model: satisfies `Model`; on the device it is trained on, in fp32.
        loader: rows of this process.
        callbacks: go along.
        objective: from model and row to the row's loss; None takes what the recipe says.
        context: the processes that share each row of this one; the model must know it too.
        fresh: start over, and remove the checkpoints in `recipe.out`.

    Raises:
        RecipeError: the loss is not finite, `out` holds another run, or the rows do not divide among the
            processes.
    """
    groups = parallel.world() // (context.size if context else 1)
    if recipe.rows_per_step % groups:
        raise RecipeError(
            f"rows_per_step {recipe.rows_per_step} is no multiple of {groups} (groups of) processes; give one"
        )
    with ExitStack() as stack:
        stack.enter_context(_settings(recipe, _device(model)))
        optimizers = Optimizers(cast(Grouped, model), recipe)
        parallel.share_first(model.state_dict().values())
        # Before a checkpoint is read: a reference model is the one that training began with.
        chosen = objective or objective_of(recipe.loss, cast(Model, model), whole_rows=context is None)
        done, folder, frozen = _restore(recipe, model, optimizers, loader, fresh=fresh)
        trainer = stack.enter_context(
            closing(Trainer(recipe, model, optimizers, loader, objective=chosen, context=context))
        )
        listeners = (*_reports(recipe, stack, after=done), *callbacks)
        for listener in listeners:
            listener.on_start(Run(recipe, model, done))
        for number in range(done + 1, recipe.steps + 1):
            step = trainer.step(number)
            for listener in listeners:
                listener.on_step(step)
            if number == recipe.steps or (recipe.save_every and number % recipe.save_every == 0):
                state = checkpoint.State(number, optimizers.state_dict(), loader.state_dict(), frozen)
                folder = _save(recipe, model, state)
                for listener in listeners:
                    listener.on_save(folder)
        for listener in listeners:
            listener.on_end()
    assert folder is not None
    return folder


@dataclass(frozen=True, slots=True)
class _Part:
    """What rows add to a step. `broken` names the examples of rows whose loss is not finite."""

    epoch: int
    numerator: float = 0.0
    z_term: float = 0.0
    sums: Mapping[Key, Sums] = field(default_factory=dict)
    cost: Cost = Cost()  # noqa: RUF009 - immutable
    budget: Budget = Budget()  # noqa: RUF009 - immutable
    dropped: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    waiting: float = 0.0

    @staticmethod
    def total(parts: Sequence["_Part"]) -> "_Part":
        """Add up, in the given order."""
        return _Part(
            numerator=sum(part.numerator for part in parts),
            z_term=sum(part.z_term for part in parts),
            sums=merged(part.sums for part in parts),
            cost=sum((part.cost for part in parts), Cost()),
            budget=sum((part.budget for part in parts), Budget()),
            epoch=max(part.epoch for part in parts),
            dropped=tuple(reason for part in parts for reason in part.dropped),
            broken=tuple(examples for part in parts for examples in part.broken),
            waiting=sum(part.waiting for part in parts),
        )


class Trainer:
    """Makes the steps of a run, one by one; `train` is made of it.

    Args:
        recipe: the run.
        model: as for `train`; put in training mode.
        optimizers: of the model.
        loader: rows of this process.
        objective: as for `train`.
        context: as for `train`.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        optimizers: Optimizers,
        loader: Loader,
        *,
        objective: Objective | None,
        context: Context | None = None,
    ) -> None:
        self._recipe = recipe
        self._context = context
        self._share = recipe.rows_per_step * (context.size if context else 1) // parallel.world()
        self._model = cast(Model, model.train())
        self._optimizers = optimizers
        self._loader = loader
        self._objective = objective or objective_of(recipe.loss, self._model, whole_rows=context is None)
        self._schedule = recipe.weights.by_step
        self._device = _device(model)
        self._rows: Iterator[Loaded] = iter(())

    def close(self) -> None:
        """End the loader's workers."""
        if isinstance(self._rows, Generator):
            self._rows.close()

    def step(self, number: int) -> Step:
        """Make one step on the next rows and return what happened.

        Args:
            number: of the step, from 1; it decides the learning rates.

        Raises:
            RecipeError: the loss or the gradient is not finite; the weights are still those from before.
        """
        begin = time.perf_counter()
        self._optimizers.zero_grad()
        total = _Part.total(parallel.gather(self._backward(number)))
        if total.broken:
            raise RecipeError(
                f"step {number}: the loss is not finite on the row of {' and that of '.join(total.broken)}; "
                "lower the learning rates, or look at these examples"
            )
        divisor = Sums.total(total.sums.values()).divisor(self._recipe.loss.normalize)
        if total.sums and not divisor:
            _name_weightless(self._recipe.loss.normalize)
        norm = self._update(number, divisor)
        seconds = time.perf_counter() - begin
        return Step(
            number=number,
            epoch=total.epoch,
            loss=total.numerator / divisor if divisor else 0.0,
            z_loss=total.z_term / divisor if divisor else 0.0,
            sums=total.sums,
            cost=total.cost,
            budget=total.budget,
            seconds=seconds,
            waiting=min(total.waiting / parallel.world() / seconds, 1.0),
            grad_norm=norm,
            rates=self._optimizers.rates(number),
            memory=peak_memory(self._device),
            dropped=total.dropped,
        )

    def _backward(self, number: int) -> _Part:
        """Backpropagate the rows of this process."""
        waiting, parts = 0.0, []
        for loaded, seconds in self._take():
            waiting += seconds
            parts.append(self._row(loaded, number))
        return replace(_Part.total(parts), waiting=waiting)

    def _row(self, loaded: Loaded, number: int) -> _Part:
        part = _Part(epoch=loaded.epoch, dropped=tuple(item.message for item in loaded.dropped))
        if loaded.row is None:
            return part
        row = self._scheduled(loaded.row.to(self._device), number)
        torch.manual_seed(_seed(self._recipe.seed, loaded.epoch, loaded.number))
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._recipe.precision == "bf16"):
            loss = self._objective(self._model, self._context.targets(row) if self._context else row)
        loss.numerator.backward()  # type: ignore[no-untyped-call]  # torch's own
        if self._context:
            loss = RowLoss(*self._context.total(loss.numerator, loss.z_term, loss.sums))
            if self._context.rank > 0:  # the first of the group reports the row
                return _Part(epoch=loaded.epoch)
        numerator = float(loss.numerator.detach())
        return replace(
            part,
            numerator=numerator,
            z_term=float(loss.z_term),
            sums=by_task(loss, row.samples),
            cost=row.cost,
            budget=row.budget,
            broken=() if math.isfinite(numerator) else (", ".join(row.examples),),
        )

    def _scheduled(self, row: Row, number: int) -> Row:
        """Multiply the weights of a row by what their tasks have at this step."""
        if not self._schedule:
            return row
        factors = self._schedule.factors((sample.task for sample in row.samples), number)
        return replace(row, weight=row.weight * torch.from_numpy(factors).to(self._device)[row.sample])

    def _take(self) -> Iterator[tuple[Loaded, float]]:
        """Yield the rows of a step, or what is left of the epoch, and the seconds each was waited for."""
        for number in range(self._share):
            begin = time.perf_counter()
            loaded = next(self._rows, None)
            if loaded is None and number == 0:
                self._rows = iter(self._loader)
                loaded = next(self._rows, None)
                if loaded is None:
                    raise RecipeError("the loader has no rows; give it at least one example")
            if loaded is None:
                return
            yield loaded, time.perf_counter() - begin

    def _update(self, number: int, divisor: float) -> float:
        """Make summed gradients those of the loss, clip them, step; return the norm before clipping."""
        parameters = self._optimizers.parameters
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        parallel.sum_in_place(gradients)
        for gradient in gradients:
            gradient.mul_(1.0 / divisor if divisor else 0.0)
        total = get_total_norm(gradients)
        norm = float(total)
        if not math.isfinite(norm):
            raise RecipeError(f"step {number}: the gradient is not finite; lower the learning rates")
        if self._recipe.optimizer.clip is not None:
            clip_grads_with_norm_(parameters, self._recipe.optimizer.clip, total)
        self._optimizers.step(number)
        return norm


@cache
def _name_weightless(normalize: str) -> None:
    _LOG.warning(
        "all targets of a step weigh 0, so with loss.normalize: %s there is nothing to divide by: such steps "
        "train nothing; look at the weights of the data and of the recipe",
        normalize,
    )


def _seed(seed: int, epoch: int, row: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, row]).generate_state(1, np.uint64)[0])


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def _settings(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Set threads and, on a CPU, operations that give the same bits each time; undo it afterwards."""
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    filled = _deterministic.fill_uninitialized_memory
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        _deterministic.fill_uninitialized_memory = False  # finds bugs, at a price for every empty tensor
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        _deterministic.fill_uninitialized_memory = filled


def _restore(
    recipe: Recipe, model: nn.Module, optimizers: Optimizers, loader: Loader, *, fresh: bool
) -> tuple[int, Path | None, str]:
    """Put everything where the last checkpoint was.

    Returns:
        its step and folder, or 0 and None, and the digest of the weights that are not trained.
    """
    if fresh and parallel.rank() == 0:
        checkpoint.discard(recipe.out)
    folder = parallel.gather(checkpoint.newest(recipe.out))[0]
    if folder is None:
        return 0, None, checkpoint.frozen_digest(model)
    state = checkpoint.load_state(folder, recipe)
    frozen = checkpoint.load_weights(folder, model)
    optimizers.load_state_dict(state.optimizers)
    loader.load_state_dict(state.loader)
    return state.step, folder, frozen


def _save(recipe: Recipe, model: nn.Module, state: checkpoint.State) -> Path:
    """Write a checkpoint on rank 0; all processes wait for it."""
    folder = checkpoint.save(recipe.out, model, state, recipe) if parallel.rank() == 0 else None
    found = parallel.gather(folder)[0]
    assert found is not None
    return found


def _reports(recipe: Recipe, stack: ExitStack, *, after: int) -> tuple[Callback, ...]:
    if parallel.rank() > 0:
        return ()
    metrics = stack.enter_context(MetricsFile(recipe, after=after))
    return metrics, stack.enter_context(reporter(recipe.steps))
