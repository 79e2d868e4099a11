"""What a run takes of each GPU: from sizes, rows and rates alone."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from transformers import Molmo2Config

from hedgerow.errors import RecipeError
from hedgerow.flops import FlopModel
from hedgerow.models.sizes import Parameters, adapters_of, parameters_of, sizes_of
from hedgerow.packing.plan import Plan
from hedgerow.recipe import Recipe
from hedgerow.sequence import Costs
from hedgerow.train.memory import FULL, Activations, Load, Memory, Trained, memory_of

_MOST_GPUS = 128  # as many as the published runs had; more only if they are asked for
_LARGE = 80 * 10**9  # bytes of a GPU that many have
_PARTS = ("vision", "connector", "language")


@dataclass(frozen=True, slots=True)
class Walk:
    """What packing a mixture came to, over an epoch of it.

    `row` is the mean cost of a row, its targets included as far as rows were decoded.
    """

    examples: int
    rows: int
    row: dict[str, float]
    fill: dict[str, float]

    @property
    def examples_per_row(self) -> float:
        """How many examples share a row."""
        return self.examples / self.rows


@dataclass(frozen=True, slots=True)
class Work:
    """FLOPs of a mean row, forward and backward and, with checkpointing, forward again.

    All parts are counted as if they were trained whole: where some are not, it is an upper bound.
    """

    vision: float
    language: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        """All of a row."""
        return self.vision + self.language + self.attention + self.head


@dataclass(frozen=True, slots=True)
class Cluster:
    """`gpus` in groups of `context` that share a row.

    `tflops` is what the user assumes a GPU does in a second (10^12 FLOPs), None where nothing is assumed.
    """

    gpus: int
    context: int
    tflops: float | None

    @classmethod
    def of(cls, recipe: Recipe, gpus: int | None, *, tflops: float | None = None) -> "Cluster":
        """Hold a number of GPUs against a recipe; None takes as many as its rows allow, 128 at most.

        Raises:
            RecipeError: the rows of a step do not divide among them, or a figure is not above 0.
        """
        rows, context = recipe.rows_per_step, recipe.context
        if gpus is None:
            groups = next(n for n in range(max(_MOST_GPUS // context, 1), 0, -1) if rows % n == 0)
            gpus = groups * context
        if gpus < 1 or gpus % context or rows % (gpus // context):
            raise RecipeError(
                f"gpus {gpus}: rows_per_step is {rows} and {context} GPUs share a row (context), so not all "
                f"get as many rows; give {context} times a divisor of {rows}"
            )
        if tflops is not None and not tflops > 0:
            raise RecipeError(f"tflops {tflops:g}: give what a GPU does in a second, above 0, such as 400")
        return cls(gpus, context, tflops)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the real run takes: `steps` steps of `rows_per_step` rows on a cluster.

    `memory` is what each GPU holds at most, for a row that fills its budget with text and video frames.
    """

    name: str
    parameters: Parameters
    trained: Trained
    memory: Memory
    work: Work
    walk: Walk
    cluster: Cluster
    steps: int
    rows_per_step: int
    budget: dict[str, int]

    @property
    def step_flops(self) -> float:
        """FLOPs of a GPU in a step."""
        return self.work.total * self.rows_per_step / self.cluster.gpus

    @property
    def hours(self) -> float | None:
        """Hours of the run at the assumed speed."""
        speed = self.cluster.tflops
        return None if speed is None else self.step_flops * self.steps / (speed * 1e12) / 3600

    def per_step(self, name: str) -> float:
        """Tokens or crops of a step, over all GPUs."""
        return self.walk.row[name] * self.rows_per_step

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain data."""
        found = dataclasses.asdict(self)
        found["parameters"]["total"] = self.parameters.total
        found["trained"] = {
            "whole": sorted(self.trained.whole),
            "adapted": sorted(self.trained.adapted),
            "adapters": self.trained.adapters,
            "total": self.trained.parameters(self.parameters),
        }
        found["memory"] = self.memory.to_dict()
        found["work"]["total"] = self.work.total
        for name in ("tokens", "crops"):
            found[f"{name}_per_step"] = self.per_step(name)
            found[f"{name}_of_the_run"] = self.per_step(name) * self.steps
        found["flops_per_gpu_and_step"] = self.step_flops
        found["flops_of_the_run"] = self.step_flops * self.cluster.gpus * self.steps
        found["hours"] = self.hours
        return found

    def __str__(self) -> str:
        return "\n".join([*self._model(), *self._memory(), *self._rows(), *self._flops()])

    def _model(self) -> list[str]:
        one, context, steps = self.parameters, self.cluster.context, f"{self.steps:,} steps"
        inside = f"{_short(one.embedding)} embeddings, {_short(one.head)} head"
        groups = f" in groups of {context} that share a row" if context > 1 else ""
        return [
            f"{self.name} on {self.cluster.gpus:,} GPUs{groups}, {steps} of {self.rows_per_step:,} rows",
            f"  parameters  {_short(one.total)}: vision {_short(one.vision)}, connector "
            f"{_short(one.connector)}, language {_short(one.language)} ({inside})",
            f"  trained     {_short(self.trained.parameters(one))}: {', '.join(map(self._way, _PARTS))}",
        ]

    def _way(self, part: str) -> str:
        if part in self.trained.adapted:
            return f"{part} by adapters"
        return part if part in self.trained.whole else f"{part} frozen"

    def _memory(self) -> list[str]:
        one = self.memory
        whole = ", ".join(f"{n} {_gb(getattr(one, n))}" for n in ("weights", "gradients", "moments"))
        kept = ", ".join(f"{n} {_gb(getattr(one, n))}" for n in ("vision", "connector", "language"))
        note = "it does not fit one of 80 GB" if one.peak > _LARGE else "it fits one of 80 GB"
        lines = [
            f"  memory      {_gb(one.peak)} GB a GPU; {note}",
            f"    states    {_gb(one.states)} ({whole}): fp32, whole on every GPU, for there is no sharding",
            f"    kept      {_gb(one.kept)} of a full row until the backward pass ({kept})",
            f"    and       {_gb(max(one.layer, one.loss))} at the peak: the loss {_gb(one.loss)}, or "
            f"a layer {_gb(one.layer)}",
        ]
        return [*lines, *self._remedies()] if one.peak > _LARGE else lines

    def _remedies(self) -> list[str]:
        """What may make it fit."""
        again = [] if self.memory.layer else ["model.gradient_checkpointing: true"]
        return [
            "    to fit    more GPUs do not help, for each holds all of it. A part that is frozen (lr: 0) or",
            "              has adapters (lora) takes 4 bytes a parameter in place of 16; otherwise "
            + ", ".join([*again, "shorter rows (packing.budget)", "larger GPUs"]),
        ]

    def _rows(self) -> list[str]:
        walk = self.walk
        lines = [f"  rows        {walk.examples_per_row:.1f} examples each, as the mixture was walked"]
        for name in self.budget:
            each = f"{walk.row[name]:,.0f} of {self.budget[name]:,} a row ({walk.fill[name]:.0%})"
            whole = _short(self.per_step(name) * self.steps)
            step = _short(self.per_step(name))
            lines.append(f"    {name:<9} {each}, {step} a step, {whole} in the run")
        return lines

    def _flops(self) -> list[str]:
        one, gpu = self.work, self.step_flops
        parts = ", ".join(f"{name} {part / one.total:.0%}" for name, part in dataclasses.asdict(one).items())
        lines = [
            f"  FLOPs       {one.total:.3g} a row ({parts})",
            f"    a GPU     {gpu:.3g} a step, {gpu * self.steps:.3g} in the run; all GPUs "
            f"{gpu * self.cluster.gpus * self.steps:.3g}",
        ]
        if self.trained.whole < set(_PARTS):
            lines.append("    counted   as if all parts were trained whole: it is less")
        if self.hours is not None:
            lines.append(
                f"    hours     {self.hours:.1f}, {_short(self.hours * self.cluster.gpus)} GPU hours, if a "
                f"GPU did {self.cluster.tflops:g} TFLOP/s all the time, as you assume"
            )
        return lines


def forecast(recipe: Recipe, config: Molmo2Config, walk: Walk, cluster: Cluster, *, name: str) -> Forecast:
    """Compute what a run takes.

    Args:
        recipe: the run.
        config: of the model.
        walk: what its rows are like.
        cluster: what it runs on.
        name: of the model.
    """
    sizes, parameters, budget = sizes_of(config), parameters_of(config), recipe.packing.budget
    recompute, share = recipe.model.gradient_checkpointing, cluster.context
    saved = Activations(
        sizes,
        width=2 if recipe.precision == "bf16" else FULL,
        norm_after=config.text_config.norm_after,
        recompute=recompute,
    )
    load = Load.of_frames(sizes, tokens=-(-budget.tokens // share), crops=-(-budget.crops // share))
    trained = _trained(recipe, config)
    return Forecast(
        name=name,
        parameters=parameters,
        trained=trained,
        memory=memory_of(saved, parameters, load, trained=trained, chunk=recipe.loss.chunk),
        work=work_of(FlopModel.of(name, sizes, recompute=recompute), walk.row),
        walk=walk,
        cluster=cluster,
        steps=recipe.steps,
        rows_per_step=recipe.rows_per_step,
        budget={"tokens": budget.tokens, "crops": budget.crops},
    )


def _trained(recipe: Recipe, config: Molmo2Config) -> Trained:
    """Say what a recipe trains of a model."""
    lora = recipe.lora
    adapted = frozenset[str]() if lora is None else frozenset[str](lora.parts)
    moving = frozenset(part for part in _PARTS if getattr(recipe.optimizer, part).lr > 0)
    return Trained(moving - adapted, adapted, 0 if lora is None else adapters_of(config, lora))


def work_of(model: FlopModel, row: dict[str, float]) -> Work:
    """Return the FLOPs of a mean row by part."""
    return Work(
        vision=model.crop * row["crops"],
        language=model.token * row["tokens"],
        attention=model.pair * row["pairs"],
        head=model.target * row["targets"],
    )


def walked(costs: Costs, plan: Plan, *, targets: float) -> Walk:
    """Sum up a plan.

    Args:
        costs: of the examples.
        plan: of their rows.
        targets: supervised targets a token.
    """
    total, rows = costs.total(), len(plan.rows)
    row = {name: total.get(name, 0) / rows for name in ("tokens", "crops", "pairs")}
    return Walk(plan.examples, rows, row | {"targets": targets * row["tokens"]}, plan.fill)


def _gb(amount: float) -> str:
    return f"{amount / 1e9:.1f}" if amount < 1e11 else f"{amount / 1e9:.0f}"


def _short(amount: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if amount >= size:
            return f"{amount / size:.3g} {unit}"
    return f"{amount:.0f}"
