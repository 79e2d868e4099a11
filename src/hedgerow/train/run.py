"""A whole run: from a recipe to a trained model on disk."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Listing
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.build import (
    MODEL,
    budget_of,
    build_encoder,
    build_model,
    device,
    training_examples,
)
from hedgerow.data.answers import points_note
from hedgerow.data.index import Examples
from hedgerow.data.lines import told
from hedgerow.data.measure import Progress
from hedgerow.data.shares import counted
from hedgerow.errors import RecipeError
from hedgerow.flops import MOLMO2_8B
from hedgerow.models.molmo2 import Molmo2
from hedgerow.models.rows import RowModel
from hedgerow.packing.loader import Loaded, RowLoader
from hedgerow.recipe import Recipe
from hedgerow.sequence import Budget, Cost, Row, Sequence
from hedgerow.train import checkpoint, parallel
from hedgerow.train.log import Callback, Step
from hedgerow.train.loop import Trainer, train
from hedgerow.train.optim import Optimizers
from hedgerow.train.result import save_run

log = logging.getLogger("hedgerow")
_LOOKS = 8  # examples, before training, at what vision says of them
RECORD = "trained.json"  # what a run that has ended leaves beside its model


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run left behind: the `model` folder in the layout of `transformers`, and what it was trained on.

    `examples` is how many an epoch has, `epochs` how many were trained on: below 1 a part of one. `dropped`
    says of each example that was left out where it stands and why. The last `undecoded` of them stand in an
    epoch, for they were found to be bad only when they were decoded; the others do not. `finished` says that
    all steps are done, `earlier` that they were before this call, which had nothing left to train.
    """

    model: Path
    steps: int
    examples: int
    epochs: float
    dropped: tuple[str, ...]
    seconds: float
    undecoded: int = 0
    finished: bool = True
    earlier: bool = False

    def __str__(self) -> str:
        if self.earlier:
            return (
                f"{self.model}: finished, all {self.steps} steps are done; add --fresh to train anew; "
                "to train longer give a new 'out' and, in place of model.spec or model.checkpoint, "
                f"'init: {self.model.parent}'"
            )
        if self.epochs < 1:
            seen = f"on {round(self.epochs * self.examples)} of {counted(self.examples, 'example')}"
        else:
            often = f"{self.epochs:.3g}"
            each = "once each" if often == "1" else f"each about {often} times"
            seen = f"on {counted(self.examples, 'example')}, {each}"
        bad = [f"  {line}" for line in told(self.dropped, whole=str(self.model.parent / RECORD))]
        steps = counted(self.steps, "step")
        return "\n".join([f"{self.model}: {steps} {seen}{self._lost}, {self.seconds:.0f} s", *bad])

    @property
    def _lost(self) -> str:
        """How many examples were left out, in words; those that count among the examples are told apart."""
        if not self.dropped:
            return ""
        before = len(self.dropped) - self.undecoded
        when = f" ({before} before, {self.undecoded} of these when decoded)" if self.undecoded else ""
        return f"; {len(self.dropped)} dropped{when}"

    def write(self) -> None:
        """Write it beside the model, whole or not at all."""
        fresh = self.model.with_name(f".new-{RECORD}")
        figures = asdict(self)
        del figures["earlier"]  # of a call, not of the run
        fresh.write_text(json.dumps(figures, default=str, indent=2) + "\n", encoding="utf-8")
        fresh.replace(self.model.with_name(RECORD))

    @classmethod
    def read(cls, out: Path) -> "Trained | None":
        """Read what a run wrote when it ended; None where there is nothing that can be read."""
        try:
            found = json.loads((out / RECORD).read_text(encoding="utf-8"))
            known = {"model": out / MODEL, "dropped": tuple(found["dropped"])}
            return cls(**{**found, **known, "finished": True, "earlier": True})
        except (OSError, ValueError, TypeError, KeyError):
            return None  # not ended, or of another version: the run is gone through again


def run(
    recipe: Recipe,
    *,
    fresh: bool = False,
    callbacks: Listing[Callback] = (),
    progress: Progress | None = None,
) -> Trained:
    """Train as a recipe says, or go on where a run was cut off, and save the model.

    A run that has ended is not loaded: what it left is returned. Started by `torchrun`, all its processes
    train together.

    Args:
        recipe: the run.
        fresh: start over.
        callbacks: go along.
        progress: called while the data are indexed, with how many trees are measured and how many there are.

    Raises:
        DataError: the data are bad and `on_bad` is raise.
        RecipeError: the run's folder holds another run, or training failed.
    """
    with parallel.group():
        return _run(recipe, fresh=fresh, callbacks=callbacks, progress=progress)


def _run(recipe: Recipe, *, fresh: bool, callbacks: Listing[Callback], progress: Progress | None) -> Trained:
    begin = time.perf_counter()
    context = parallel.context(recipe.context)
    ended = None if fresh else _ended(recipe)
    first = parallel.rank() == 0
    if ended is not None:
        if first:
            told = f"going on from step {ended.steps} of {ended.steps}: nothing is left to train"
            print(told, file=sys.stderr, flush=True)
        return ended
    _check_references(recipe)
    encoder = build_encoder(recipe)
    examples = training_examples(recipe, encoder, progress=progress if first else None)
    left_out = (*examples.dropped, *examples.epoch(0).dropped)
    for line in _opening(recipe, examples) if first else ():
        print(line, file=sys.stderr, flush=True)
    model = build_model(recipe)
    model.context = context
    if recipe.model.spec is not None and isinstance(model, Molmo2):  # trained weights have found their scale
        _warn_if_blind(model, examples)
    late = _Late()
    rows = row_loader(recipe, examples)
    (recipe.out / RECORD).unlink(missing_ok=True)  # of an earlier run here, which is replaced
    with explained(rows):
        train(recipe, model, rows, fresh=fresh, context=context, callbacks=(*callbacks, late))
    dropped = (*map(str, left_out), *late.dropped)
    seconds = time.perf_counter() - begin
    trained = Trained(
        model=recipe.out / MODEL,
        steps=recipe.steps,
        examples=len(examples),
        epochs=_epochs(rows),
        dropped=dropped,
        seconds=seconds,
        undecoded=len(late.dropped),
    )
    if first:
        save_run(model, recipe)
        trained.write()
    return trained


def _opening(recipe: Recipe, examples: Examples) -> Iterator[object]:
    """What to say of data and rates before the first step."""
    mixture = examples.report()
    if len(recipe.data.train) > 1 or mixture.cuts:
        yield mixture
    yield from examples.losses()
    astray = examples.surveys.astray
    if astray.any():
        yield points_note(int(astray.sum()))
    rates = recipe.optimizer
    groups = {"vision": rates.vision, "connector": rates.connector, "language": rates.language}
    there = ("language",) if recipe.vision.family == "text" else tuple(groups)
    slow = {
        name: groups[name] for name in there if groups[name].lr > 0 and groups[name].warmup >= recipe.steps
    }
    if slow:
        peak = max(recipe.steps / rate.warmup for rate in slow.values())
        named = ", ".join(f"optimizer.{name}.warmup" for name in slow)
        yield (
            f"the warm-up is as long as the run of {counted(recipe.steps, 'step')}: {named} "
            f"{'is' if len(slow) == 1 else 'are'} {_span([rate.warmup for rate in slow.values()])}, and the "
            f"rate ends at {100 * peak:.3g} % of its peak; lower it, or train longer"
        )


def _span(numbers: Listing[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _ended(recipe: Recipe) -> Trained | None:
    """Return what a run of the recipe left that has ended, before anything is measured or built.

    Raises:
        RecipeError: the folder holds another run.
    """
    folder = checkpoint.newest(recipe.out)
    if folder is None:
        return None
    checkpoint.check_run(folder, recipe)
    last = folder.name == f"step-{recipe.steps:08d}" and (recipe.out / MODEL).is_dir()
    return Trained.read(recipe.out) if last else None


def _check_references(recipe: Recipe) -> None:
    loss = recipe.loss
    if recipe.data.references is None and loss.needs_reference and loss.reference == "stored":
        raise RecipeError(
            "the loss needs log-probabilities under a reference model: set loss.reference: model, or "
            "name a file of them in data.references (hedgerow data reference RECIPE writes it)"
        )


@contextmanager
def explained(rows: RowLoader) -> Iterator[None]:
    """Name the example that a data worker had in hand when it died, if that is what goes wrong.

    Raises:
        DataError: a worker died.
    """
    try:
        yield
    except RuntimeError as error:
        found = rows.explain(error)
        if found is None:
            raise
        raise found from error


def _epochs(rows: RowLoader) -> float:
    """Return how many epochs of examples a loader has handed over to all processes."""
    state = rows.state_dict()
    epoch, row = state["epoch"], state["row"]
    plan = rows.plan(epoch)
    return float(epoch + sum(map(len, plan.rows[:row])) / plan.examples)


def row_loader(recipe: Recipe, examples: Examples) -> RowLoader:
    """Make the loader of a recipe for this process; those of one context get the same rows."""
    sparse = device().type == "cuda" and recipe.model.attention in ("auto", "flex")
    return RowLoader(
        examples,
        budget_of(recipe),
        seed=recipe.seed,
        pool=recipe.packing.pool,
        window=recipe.packing.window,
        step=recipe.rows_per_step,
        balance=MOLMO2_8B if recipe.packing.balance else None,
        plans=recipe.out / "plans",
        workers=recipe.packing.workers,
        pad=recipe.packing.pad or sparse,  # one length, so that the kernel is compiled once
        blocks=sparse,
        on_bad=recipe.data.on_bad,
        rank=parallel.rank() // recipe.context,
        world=parallel.world() // recipe.context,
    )


def one_step(recipe: Recipe, model: RowModel) -> Callable[[Listing[Row]], None]:
    """Return a function that makes one optimiser step on given rows, each a micro-batch."""
    optimizers = Optimizers(model, recipe)

    def step(rows: Listing[Row]) -> None:
        given = recipe.model_copy(update={"rows_per_step": len(rows)})
        Trainer(given, model, optimizers, _Given(rows), objective=None).step(1)

    return step


@dataclass(frozen=True, slots=True)
class _Given:
    """A loader of rows that are already there."""

    rows: Listing[Row]

    def __iter__(self) -> Iterator[Loaded]:
        return iter([Loaded(row, number, 0) for number, row in enumerate(self.rows)])

    def state_dict(self) -> dict[str, Any]:
        """Nothing to remember."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""


class _Late(Callback):
    """Collects why examples were left out when they were decoded, once each whatever the number of epochs."""

    def __init__(self) -> None:
        self.dropped: dict[str, None] = {}

    def on_step(self, step: Step) -> None:
        """Note what a step left out."""
        self.dropped |= dict.fromkeys(step.dropped)


def _warn_if_blind(model: Molmo2, examples: Examples) -> None:
    """Say when the connector's output is far from the scale of the embeddings it is added to.

    Looks at examples until two crops of them differ, at a few at most.
    """
    crops = examples.costs(0).amounts("crops")[:, 0]
    attempts = (examples.attempt(0, int(number)) for number in np.flatnonzero(crops))
    looked, seen = list[Sequence](), set[bytes]()
    for found in attempts:
        if isinstance(found, Sequence) and found.vision is not None:
            looked.append(found)
            seen |= {crop.tobytes() for crop in found.vision.crops}
        if len(seen) > 1 or len(looked) == _LOOKS:
            break
    if not looked:
        return
    cost = sum((sequence.cost for sequence in looked), Cost())
    report = model.scale_report(Row.join(looked, Budget(**cost)))
    if report.problem:
        log.warning("%s", report.problem)
