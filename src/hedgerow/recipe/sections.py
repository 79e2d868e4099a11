"""The sections of a recipe. Unknown keys are errors that name the nearest valid one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from hedgerow.data.measure import OnBad
from hedgerow.data.mixture import DataSet, Rates
from hedgerow.data.oversize import Oversize
from hedgerow.data.transforms import Transforms
from hedgerow.models.spec import ModelSpec
from hedgerow.vision.hf import HFProcessor
from hedgerow.vision.processor import Molmo2Processor
from hedgerow.vision.qwen3_vl import Qwen3VLProcessor
from hedgerow.vision.text import TextProcessor
from hedgerow.weights.dynamic import Dynamic

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A part of a recipe: frozen, and it takes no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _listed(value: object) -> object:
    return [value] if isinstance(value, str | Path) else value


class Frames(Section):
    """A `folder` that keeps the pixels of videos from one epoch, and one run, to the next.

    Of its files those used least recently are removed, so that they take `gigabytes` (10^9 bytes) at most.
    """

    folder: Path
    gigabytes: PositiveFloat = 20.0


class Data(Section):
    """What is trained on and evaluated on, how it is mixed and varied, and what becomes of bad examples.

    With `groups` (their rates), or a `cap` or `factor` of a set, or `epoch`, an epoch is that many draws (as
    many as there are examples, without `epoch`); otherwise it is every example. `transforms` are done to what
    is trained on alone. `on_bad` says whether an example that cannot be read or encoded stops the run or is
    left out. `workers` processes measure the data, by default one for each core. `references` is a file of
    log-probabilities under a reference model, which `hedgerow data reference` writes. `frames` keeps the
    pixels of videos on disk, so that they are decoded once.
    """

    train: tuple[DataSet, ...] = Field(min_length=1)
    evaluate: Annotated[tuple[Path, ...], BeforeValidator(_listed)] = ()
    groups: Mapping[str, PositiveFloat] = {}
    epoch: PositiveInt | None = None
    transforms: Transforms = Transforms()
    on_bad: OnBad = "raise"
    workers: PositiveInt | None = None
    references: Path | None = None
    frames: Frames | None = None

    @model_validator(mode="after")
    def _references_stay_true(self) -> "Data":
        if self.references is not None and self.transforms:
            raise ValueError(
                "transforms change the targets from epoch to epoch, so stored references do not fit them; "
                "leave out one of the two"
            )
        return self

    @model_validator(mode="after")
    def _rates_match_the_sets(self) -> "Data":
        self.rates.govern(self.train)
        return self

    @property
    def rates(self) -> Rates:
        """How often data sets are drawn."""
        return Rates(self.groups, self.epoch)


class Model(Section):
    """The model: `spec`, sizes of one with fresh weights, or `checkpoint`, the folder of a saved one.

    A run that starts from another run (`init` of the recipe) names neither. `tokenizer` is a folder, or
    "tiny" for the shipped one. Conversations are written as ChatML, or by the `tokenizer`'s own chat
    `template`. `bos` is the token that each begins with, null for none. For both "auto" is what the
    tokenizer's model was trained with. `attention` "auto" takes the fastest for the device.
    """

    spec: ModelSpec | None = None
    checkpoint: Path | None = None
    tokenizer: str = "tiny"
    template: Literal["auto", "chatml", "tokenizer"] = "auto"
    bos: str | None = "auto"
    attention: Literal["dense", "segmented", "flex", "auto"] = "auto"
    vision_attention: Literal["sdpa", "eager"] = "sdpa"
    gradient_checkpointing: bool = False


def _of_a_family(value: object) -> object:
    return {"family": "molmo2", **value} if isinstance(value, Mapping) else value


# How media are encoded, for the family of models that `family` names; Molmo2 where it is not given.
Vision = Annotated[
    Annotated[
        Molmo2Processor | Qwen3VLProcessor | HFProcessor | TextProcessor, Field(discriminator="family")
    ],
    BeforeValidator(_of_a_family),
]


class Dpo(Section):
    """Direct preference optimisation, see `hedgerow.train.preference`."""

    name: Literal["dpo"] = "dpo"
    beta: PositiveFloat = 0.1
    smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0


class Otpo(Section):
    """DPO with tokens weighted by optimal transport; `entropy` and `marginal` are its strengths.

    Defaults are those of arXiv 2505.18720.
    """

    name: Literal["otpo"] = "otpo"
    beta: PositiveFloat = 0.01
    smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    entropy: PositiveFloat = 1.0
    marginal: PositiveFloat = 0.2


class Loss(Section):
    """What is minimised.

    `normalize` names the divisor, `z_loss` is the factor of the z-loss, `chunk` limits rows of logits.
    `dynamic` is a factor on the weights that depends on what the model predicts, see
    `hedgerow.weights.dynamic`. With `preference` ranked answers are compared instead. Where either needs
    log-probabilities under a reference model, these are `stored` in `data.references`, or come from a copy of
    the `model` before training.
    """

    normalize: Literal["weights", "samples", "tokens"] = "weights"
    z_loss: NonNegativeFloat = 0.0
    chunk: PositiveInt = 256
    dynamic: Dynamic | None = None
    preference: Annotated[Dpo | Otpo, Field(discriminator="name")] | None = None
    reference: Literal["stored", "model"] = "stored"

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities under a reference model are needed."""
        return self.preference is not None or (self.dynamic is not None and self.dynamic.needs_reference)

    @model_validator(mode="after")
    def _preferences_stand_alone(self) -> "Loss":
        if self.preference is not None and (self.dynamic or self.z_loss or self.normalize != "weights"):
            raise ValueError(
                "a preference loss is a mean over pairs: leave out dynamic, z_loss and normalize"
            )
        return self

    @model_validator(mode="after")
    def _a_reference_is_of_use(self) -> "Loss":
        if self.reference == "model" and not self.needs_reference:
            raise ValueError(
                "reference: model, but neither a preference loss nor dynamic 'top' by 'excess' is given to "
                "use it; leave it out"
            )
        return self


class Room(Section):
    """The most a row may hold."""

    tokens: PositiveInt = 16384
    crops: NonNegativeInt = 128


class Packing(Section):
    """How examples become rows.

    `budget` is what a row holds at most. `pool` examples wait for a row at most; with `window` instead that
    many are planned at a time, and no pool may be given. `balance` arranges rows so that all processes have
    as much to compute.
    `oversize` examples, larger than a row, stop the run, are left out, or are shortened by whole branches.
    `workers` processes decode. `pad` fills rows up to the budget.
    """

    budget: Room = Room()
    pool: PositiveInt = 48
    window: PositiveInt | None = None
    balance: bool = False
    oversize: Oversize = "raise"
    workers: NonNegativeInt = 0
    pad: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> "Packing":
        if self.window is not None and self.pool != type(self).model_fields["pool"].default:
            raise ValueError(
                f"pool is {self.pool} and window {self.window}: examples wait in a pool, or are planned a "
                "window at a time; give one of them"
            )
        return self


class Rate(Section):
    """Peak learning rate of a group of parameters, reached after `warmup` steps; 0 freezes the group."""

    lr: NonNegativeFloat = 5e-6
    warmup: NonNegativeInt = 200


class LanguageRate(Rate):
    """As `Rate`, with the language model's default."""

    lr: NonNegativeFloat = 1e-5


class Muon(Section):
    """Muon for the weight matrices of linear layers; read with `name: muon` only, AdamW takes the rest."""

    lr: PositiveFloat = 2e-3
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95


class Optimizer(Section):
    """AdamW, or Muon and AdamW. Defaults are those of the fine-tuning stage of arXiv 2601.10611, table 12.

    `clip` is the most the norm of the whole gradient may be, none for no limit.
    """

    name: Literal["adamw", "muon"] = "adamw"
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    eps: PositiveFloat = 1e-6
    weight_decay: NonNegativeFloat = 0.0
    clip: PositiveFloat | None = 1.0
    vision: Rate = Rate()
    connector: Rate = Rate()
    language: LanguageRate = LanguageRate()
    muon: Muon = Muon()


class Schedule(Section):
    """Rates after warm-up: constant up to the share `hold` of all steps, then down to `floor` times the peak.

    `kind` is the shape of the way down: half a cosine, or a straight line.
    """

    kind: Literal["cosine", "linear"] = "cosine"
    hold: Fraction = 0.0
    floor: Fraction = 0.1
