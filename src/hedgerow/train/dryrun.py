"""A recipe tried out with none of its data and no checkpoint, and what the real run would take.

The mixture is walked as it is, with small data in place of sets that are not there; a tiny model of the same
structure takes two steps on its rows, on the path of every run. What was small is said.
"""

import dataclasses
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Molmo2Config

from hedgerow.build import build_chat, build_encoder, build_model, origin_of, training_examples
from hedgerow.data.shares import counted
from hedgerow.data.standins import Small, shrink
from hedgerow.errors import RecipeError
from hedgerow.flops import PUBLISHED
from hedgerow.models.assemble import ModelSpec, save
from hedgerow.models.sizes import config_of, published_config, twin, twin_config
from hedgerow.recipe import Recipe
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.train.forecast import Cluster, Forecast, Walk, forecast, walked
from hedgerow.train.log import Callback, Step
from hedgerow.train.loop import train
from hedgerow.train.run import explained, row_loader

STEPS = 2
_DRAWS = 8  # of an epoch, times the number of data sets
_LEAST_DRAWS = 512
_TINY = "tiny"


@dataclass(frozen=True, slots=True)
class Trial:
    """What was walked and stepped.

    Attributes:
        sets: all data sets, as they were walked.
        dropped: examples of theirs that were left out.
        notes: what else became of them.
        tokenizer: what text was counted with.
        twin: parameters of the twin.
        losses: of its steps.
        rows: samples, tokens, crops and targets of the row of each step.
        seconds: all of it took.
    """

    sets: tuple[Small, ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...]
    tokenizer: str
    twin: int
    losses: tuple[float, ...]
    rows: tuple[dict[str, int], ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        sets = [
            {"path": str(one.given.path), "group": one.given.group, "trees": one.trees, "stand_in": one.like}
            for one in self.sets
        ]
        return dataclasses.asdict(dataclasses.replace(self, sets=())) | {"sets": sets}

    def __str__(self) -> str:
        losses = " then ".join(f"{loss:.3f}" for loss in self.losses)
        rows = [
            f"  row       {one['samples']} samples, {one['tokens']:,} tokens, {one['crops']} crops, "
            f"{one['targets']:,} targets"
            for one in self.rows
        ]
        steps = f"{len(self.losses)} steps of one row, loss {losses}; {self.seconds:.0f} s in all"
        return "\n".join([*self._data(), f"twin        {self.twin:,} parameters, {steps}", *rows])

    def _data(self) -> list[str]:
        own = [one.given.path.name for one in self.sets if one.like is None]
        likes = Counter(one.like for one in self.sets if one.like is not None)
        counts = f"{len(self.sets) - len(own)} stand-ins, {len(own)} by their own first trees"
        lines = [f"data        {counted(len(self.sets), 'set')}: {counts}"]
        if own:
            lines.append(f"  own       {', '.join(own)}")
        if likes:
            lines.append(f"  stand-ins {', '.join(f'{like} x{count}' for like, count in likes.items())}")
        if self.dropped:
            lines.append(f"  dropped   {len(self.dropped)}, the first is {self.dropped[0]}")
        lines += [f"  note      {note}" for note in self.notes]
        return [*lines, f"  text      counted with the tokenizer {self.tokenizer}"]


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a dry run did, and what the real run would take."""

    trial: Trial
    forecast: Forecast

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain data."""
        return {"trial": self.trial.to_dict(), "forecast": self.forecast.to_dict()}

    def __str__(self) -> str:
        return f"{self.trial}\n{self.forecast}"


def dry_run(
    recipe: Recipe, *, size: str | None = None, gpus: int | None = None, tflops: float | None = None
) -> DryRun:
    """Try a recipe out; nothing is written but to a temporary folder.

    Args:
        recipe: the run, of a Molmo2.
        size: a published size, "4B", "8B" or "O-7B"; None: that of the recipe's model.
        gpus: as for `Cluster.of`.
        tflops: as for `Cluster`.

    Raises:
        RecipeError: the recipe is for another family, its model is not there and no size is given, a set is
            missing and nothing stands in for it, or the rows do not divide among the GPUs.
        DataError: data that are there are bad.
    """
    name, config = _config(recipe, size)
    cluster = Cluster.of(recipe, gpus, tflops=tflops)
    with tempfile.TemporaryDirectory(prefix="hedgerow-") as scratch:
        trial, walk = _try(recipe, config, Path(scratch))
    return DryRun(trial, forecast(recipe, config, walk, cluster, name=name))


def _try(recipe: Recipe, config: Molmo2Config, folder: Path) -> tuple[Trial, Walk]:
    begin = time.perf_counter()
    small = shrink(recipe.data.train, folder / "data")
    there = recipe.model.tokenizer == _TINY or Path(recipe.model.tokenizer).exists()
    chat = build_chat(recipe) if there else ChatFormat(load_tokenizer(_TINY))
    model = twin(twin_config(config, chat.tokenizer), seed=recipe.seed)
    save(model, folder / "twin", tokenizer=chat, settings=recipe.to_dict()["vision"])
    tried = _in_small(recipe, small, folder)
    if not there:  # a template and a first token are of their tokenizer
        tried = tried.model_copy(
            update={"model": tried.model.model_copy(update={"template": "chatml", "bos": None})}
        )
    examples = training_examples(tried, build_encoder(tried))
    rows, watch = row_loader(tried, examples), _Watch()
    with explained(rows):
        train(tried, build_model(tried), rows, callbacks=(watch,))
    share = sum(one["targets"] for one in watch.rows) / sum(one["tokens"] for one in watch.rows)
    cuts = examples.report().cuts
    left_out = (*examples.dropped, *examples.epoch(0).dropped, *watch.dropped)
    trial = Trial(
        sets=tuple(small),
        dropped=tuple(map(str, left_out)),
        notes=(*((cuts,) if cuts else ()), *map(str, examples.losses())),
        tokenizer=recipe.model.tokenizer if there else _TINY,
        twin=sum(parameter.numel() for parameter in model.parameters()),
        losses=tuple(watch.losses),
        rows=tuple(watch.rows),
        seconds=time.perf_counter() - begin,
    )
    return trial, walked(examples.costs(0), rows.plan(0), targets=share)


def _config(recipe: Recipe, size: str | None) -> tuple[str, Molmo2Config]:
    """Return the name and the configuration of the model that the real run trains."""
    if recipe.vision.family != "molmo2":
        raise RecipeError(
            f"a dry run is of a Molmo2, vision.family is {recipe.vision.family}; give another recipe"
        )
    if size is not None:
        return f"Molmo2-{size}", published_config(size)
    origin = recipe.model.spec or origin_of(recipe)
    assert origin is not None  # of a valid recipe
    if isinstance(origin, ModelSpec):
        return "the model", config_of(origin, load_tokenizer(recipe.model.tokenizer))
    if not (origin / "config.json").is_file():
        raise RecipeError(
            f"{origin}: there is no model yet, so its size is not known; give --size, one of "
            f"{', '.join(PUBLISHED)}, or make it first"
        )
    return str(origin), config_of(origin, None)


def _in_small(recipe: Recipe, small: list[Small], folder: Path) -> Recipe:
    """Return the recipe of the twin's steps: the same rows, rates and losses, one row a step, no warm-up."""
    draws = max(_LEAST_DRAWS, _DRAWS * len(small)) if recipe.data.rates.govern(recipe.data.train) else None
    rates = recipe.optimizer
    cold = {
        part: getattr(rates, part).model_copy(update={"warmup": 0})
        for part in ("vision", "connector", "language")
    }
    changes: dict[str, Any] = {
        "data": {"train": tuple(one.small for one in small), "epoch": draws, "frames": None, "workers": 1},
        "model": {"spec": None, "checkpoint": folder / "twin", "tokenizer": str(folder / "twin")},
        "packing": {"workers": 0},
        "optimizer": cold,
    }
    sections = {name: getattr(recipe, name).model_copy(update=update) for name, update in changes.items()}
    whole = {"init": None, "out": folder / "run", "steps": STEPS, "rows_per_step": 1, "context": 1}
    return recipe.model_copy(update=sections | whole | {"save_every": None})


class _Watch(Callback):
    """Notes what the steps of the twin were made of."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rows: list[dict[str, int]] = []
        self.dropped: list[str] = []

    def on_step(self, step: Step) -> None:
        """Note a step, which is one row."""
        targets = sum(sums.targets for sums in step.sums.values())
        samples = sum(sums.samples for sums in step.sums.values())
        held = {name: step.cost.get(name, 0) for name in ("tokens", "crops")}
        self.losses.append(step.loss)
        self.rows.append({"samples": samples, **held, "targets": targets})
        self.dropped += step.dropped
