"""A training run: its sections, and what must agree between them."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, NonNegativeInt, PositiveInt, model_validator

from hedgerow.models.lora_spec import LoraSpec
from hedgerow.recipe.sections import Data, Loss, Model, Optimizer, Packing, Schedule, Section, Vision
from hedgerow.validation import yaml_package
from hedgerow.vision.processor import Molmo2Processor
from hedgerow.weights.weighting import Weighting


def _refuse_fp16(value: object) -> object:
    if value in ("fp16", "float16", "half"):
        raise ValueError(
            "fp16 overflows above 65504, and sums of weighted losses go beyond; use bf16 or fp32"
        )
    return value


_OF_SAMPLES = ("preset", "c", "tasks", "scale", "sources", "schedule", "allow_negative")


class Recipe(Section):
    """A training run.

    Every optimiser step takes `rows_per_step` rows over all processes, each row a micro-batch of its own.
    `context` processes share each row, for rows too long for one; it divides their number and the heads.
    Weights and gradients are fp32; `precision: bf16` computes in bf16 where that is safe. `init` names the
    folder of the run whose weights this one starts from. A checkpoint is written every `save_every` steps and
    at the end, the last `keep` stay. `threads` is the number of CPU threads: results are exact for one number
    of them. The parts that `lora` names train small matrices beside their own, see `LoraSpec`.
    """

    data: Data
    model: Model
    steps: PositiveInt
    out: Path
    vision: Vision = Molmo2Processor()
    weights: Weighting = Weighting()
    loss: Loss = Loss()
    packing: Packing = Packing()
    lora: LoraSpec | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    rows_per_step: PositiveInt = 1
    context: PositiveInt = 1
    precision: Annotated[Literal["fp32", "bf16"], BeforeValidator(_refuse_fp16)] = "fp32"
    seed: NonNegativeInt = 0
    init: Path | None = None
    save_every: PositiveInt | None = None
    keep: PositiveInt = 2
    log_every: PositiveInt = 1
    threads: PositiveInt | None = None

    @model_validator(mode="before")
    @classmethod
    def _processor_of_the_model(cls, fields: Any) -> Any:
        """Name the model's folder as that of its processor, where it has none."""
        if not isinstance(fields, dict):
            return fields
        vision, model = fields.get("vision"), fields.get("model")
        folder = model.get("checkpoint") if isinstance(model, dict) else None
        if folder and isinstance(vision, dict) and vision.get("family") == "processor":
            return {**fields, "vision": {"folder": str(folder), **vision}}
        return fields

    @model_validator(mode="after")
    def _one_origin(self) -> "Recipe":
        named = {"model.spec": self.model.spec, "model.checkpoint": self.model.checkpoint, "init": self.init}
        given = [name for name, value in named.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"the weights come from {' and '.join(given) or 'nowhere'}; give one of {', '.join(named)} "
                "('spec: {}' builds the default)"
            )
        return self

    @model_validator(mode="after")
    def _crops_fit_the_model(self) -> "Recipe":
        spec, vision = self.model.spec, self.vision
        if spec is None:
            return self
        if not isinstance(vision, Molmo2Processor):
            raise ValueError(
                f"vision.family is {vision.family}, model.spec is of a Molmo2; name a model.checkpoint, or "
                "leave vision.family out"
            )
        for name in ("crop_size", "patch_size"):
            given = getattr(vision, name)
            if given != getattr(spec, name):
                raise ValueError(
                    f"vision.{name} is {given}, model.spec.{name} {getattr(spec, name)}; make them equal"
                )
        return self

    @model_validator(mode="after")
    def _context_divides_the_heads(self) -> "Recipe":
        spec = self.model.spec
        if spec is None:
            return self
        common = math.gcd(spec.heads, spec.kv_heads)
        if common % self.context:
            allowed = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
            raise ValueError(
                f"context: {self.context} processes cannot share {spec.heads} heads and {spec.kv_heads} "
                f"kv_heads (model.spec) evenly; allowed: {allowed}"
            )
        return self

    @model_validator(mode="after")
    def _adapters_are_trained(self) -> "Recipe":
        if self.lora is None:
            return self
        still = [name for name in self.lora.parts if getattr(self.optimizer, name).lr == 0.0]
        if still:
            raise ValueError(
                f"lora.parts names {still[0]}, and optimizer.{still[0]}.lr is 0: give it a rate, or take it "
                "out of lora.parts"
            )
        if self.lora.dropout and self.context > 1:
            raise ValueError(
                f"lora.dropout {self.lora.dropout:g} with context {self.context}: processes that share a row "
                "would drop otherwise than one; set one of them to its default"
            )
        return self

    @model_validator(mode="after")
    def _references_come_from_one_place(self) -> "Recipe":
        if self.data.references is not None and self.loss.reference == "model":
            raise ValueError(
                "data.references names a file, and loss.reference: model asks for a copy of the model; leave "
                "out one of the two"
            )
        return self

    @model_validator(mode="after")
    def _weights_have_a_part(self) -> "Recipe":
        """Answers are compared by their ranks: what only weighs one answer against another plays no part."""
        given = [name for name in _OF_SAMPLES if getattr(self.weights, name) != getattr(Weighting(), name)]
        if self.loss.preference is not None and given:
            raise ValueError(
                f"{', '.join(f'weights.{name}' for name in given)} have no part in a preference loss; leave "
                "them out"
            )
        return self

    @model_validator(mode="after")
    def _divisor_is_positive(self) -> "Recipe":
        if self.weights.allow_negative and self.loss.normalize == "weights":
            raise ValueError(
                "weights.allow_negative: a sum of weights that may be below 0 is no divisor; give "
                "loss.normalize 'samples' or 'tokens'"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain JSON values, defaults included."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the recipe as YAML that `load_recipe` reads, defaults included."""
        return str(yaml_package().safe_dump(self.to_dict(), sort_keys=False))

    @property
    def origin(self) -> str:
        """Where the weights come from."""
        if self.init is not None:
            return f"weights of {self.init}"
        return "fresh weights" if self.model.checkpoint is None else str(self.model.checkpoint)

    def __repr__(self) -> str:
        """Show the run in a few lines."""
        budget, optimizer = self.packing.budget, self.optimizer
        rates = ", ".join(
            f"{name} {getattr(optimizer, name).lr:g}" for name in ("vision", "connector", "language")
        )
        packing = self.packing
        way = f"pool of {packing.pool}" if packing.window is None else f"windows of {packing.window:,}"
        matrices = f"matrices by muon {optimizer.muon.lr:g}, " if optimizer.name == "muon" else ""
        lines = [
            f"Recipe: {self.steps:,} steps of {self.rows_per_step} rows, seed {self.seed}, {self.precision}",
            f"  data       {', '.join(str(source.path) for source in self.data.train)}",
            f"  model      {self.origin}, tokenizer {self.model.tokenizer}",
            f"  row        {budget.tokens:,} tokens, {budget.crops:,} crops, {way}",
            f"  loss       weights {self.weights.preset}, over {self.loss.normalize}",
            *([] if self.lora is None else [f"  lora       {self.lora}"]),
            f"  optimizer  {matrices}{rates}; {self.schedule.kind} to {self.schedule.floor:g}",
            f"  out        {self.out}",
        ]
        return "\n".join(lines)
