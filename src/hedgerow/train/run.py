"""A whole run: from a recipe to a trained model on disk."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.build import MODEL, budget_of, build_encoder, build_model, device, training_examples
from hedgerow.data.index import Examples
from hedgerow.data.measure import Progress
from hedgerow.flops import MOLMO2_8B
from hedgerow.models.assemble import save
from hedgerow.models.molmo2 import Molmo2
from hedgerow.packing.loader import Loaded, RowLoader
from hedgerow.recipe import Recipe
from hedgerow.sequence import Budget, Row, Sequence
from hedgerow.text import load_tokenizer
from hedgerow.train import parallel
from hedgerow.train.log import Callback, Step
from hedgerow.train.loop import Trainer, train
from hedgerow.train.optim import Optimizers

log = logging.getLogger("hedgerow")


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run left behind: the `model` folder in the layout of `transformers`, and what it was trained on.

    `dropped` says of each example that was left out, when indexed or when decoded, where it stands and why.
    """

    model: Path
    steps: int
    examples: int
    dropped: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        bad = "".join(f"\n  dropped {item}" for item in self.dropped)
        lost = f", {len(self.dropped)} dropped" if self.dropped else ""
        return (
            f"{self.model}: {self.steps} steps on {self.examples} examples{lost}, {self.seconds:.0f} s{bad}"
        )


def run(
    recipe: Recipe,
    *,
    fresh: bool = False,
    callbacks: Listing[Callback] = (),
    progress: Progress | None = None,
) -> Trained:
    """Train as a recipe says, or go on where a run was cut off, and save the model.

    Started by `torchrun`, all its processes train together.

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
    encoder = build_encoder(recipe)
    first = parallel.rank() == 0
    examples = training_examples(recipe, encoder, progress=progress if first else None)
    if first and len(recipe.data.train) > 1:
        print(examples.report(), file=sys.stderr, flush=True)
    model = build_model(recipe)
    context = model.context = parallel.context(recipe.context)
    if recipe.model.spec is not None:  # trained weights have found their scale
        _warn_if_blind(model, examples)
    late = _Late()
    rows = row_loader(recipe, examples)
    try:
        train(recipe, model, rows, fresh=fresh, context=context, callbacks=(*callbacks, late))
    except RuntimeError as error:
        found = rows.explain(error)
        if found is None:
            raise
        raise found from error
    folder = recipe.out / MODEL
    if parallel.rank() == 0:
        save(
            model,
            folder,
            tokenizer=load_tokenizer(recipe.model.tokenizer),
            settings=recipe.to_dict()["vision"],
        )
    dropped = (*map(str, (*examples.dropped, *examples.epoch(0).dropped)), *late.dropped)
    return Trained(folder, recipe.steps, len(examples), dropped, time.perf_counter() - begin)


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


def one_step(recipe: Recipe, model: Molmo2) -> Callable[[Listing[Row]], None]:
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
    """Say when the connector's output is far from the scale of the embeddings it is added to."""
    crops = examples.costs(0).amounts("crops")[:, 0]
    seen = (examples.attempt(0, int(number)) for number in np.flatnonzero(crops))
    sequence = next((found for found in seen if isinstance(found, Sequence)), None)
    if sequence is None:
        return
    report = model.scale_report(Row.join([sequence], Budget(**sequence.cost)))
    if report.problem:
        log.warning("%s", report.problem)
