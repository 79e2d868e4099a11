"""The whole run as validated data, read from YAML.

Unknown keys are errors that name the nearest valid one. Relative paths of inputs (`data`, `model`, `init`)
are taken relative to the recipe's folder when they stand in the file, and to the working directory when they
come as an override; `out` is always relative to the working directory.
"""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from hedgerow.data.measure import OnBad
from hedgerow.data.mixture import DataSet, Rates
from hedgerow.data.oversize import Oversize
from hedgerow.data.transforms import Transforms
from hedgerow.errors import RecipeError
from hedgerow.models.spec import ModelSpec
from hedgerow.validation import explain, fields_of, parse_yaml, read_yaml, yaml_package
from hedgerow.vision.processor import Molmo2Processor
from hedgerow.weights.dynamic import Dynamic
from hedgerow.weights.weighting import Weighting

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A part of a recipe: frozen, and it takes no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _listed(value: object) -> object:
    return [value] if isinstance(value, str | Path) else value


class Data(Section):
    """What is trained on and evaluated on, how it is mixed and varied, and what becomes of bad examples.

    With `groups` (their rates), or a `cap` or `factor` of a set, or `epoch`, an epoch is that many draws (as
    many as there are examples, without `epoch`); otherwise it is every example. `transforms` are done to what
    is trained on alone. `on_bad` says whether an example that cannot be read or encoded stops the run or is
    left out. `workers` processes measure the data, by default one for each core. `references` is a file of
    log-probabilities under a reference model, which `hedgerow data reference` writes.
    """

    train: tuple[DataSet, ...] = Field(min_length=1)
    evaluate: Annotated[tuple[Path, ...], BeforeValidator(_listed)] = ()
    groups: Mapping[str, PositiveFloat] = {}
    epoch: PositiveInt | None = None
    transforms: Transforms = Transforms()
    on_bad: OnBad = "raise"
    workers: PositiveInt | None = None
    references: Path | None = None

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
    "tiny" for the shipped one. `attention` "auto" takes the fastest for the device.
    """

    spec: ModelSpec | None = None
    checkpoint: Path | None = None
    tokenizer: str = "tiny"
    attention: Literal["dense", "segmented", "flex", "auto"] = "auto"
    vision_attention: Literal["sdpa", "eager"] = "sdpa"
    gradient_checkpointing: bool = False


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
    of them.
    """

    data: Data
    model: Model
    steps: PositiveInt
    out: Path
    vision: Molmo2Processor = Molmo2Processor()
    weights: Weighting = Weighting()
    loss: Loss = Loss()
    packing: Packing = Packing()
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
        spec = self.model.spec
        for name in ("crop_size", "patch_size"):
            given = getattr(self.vision, name)
            if spec is not None and given != getattr(spec, name):
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
            f"  optimizer  {matrices}{rates}; {self.schedule.kind} to {self.schedule.floor:g}",
            f"  out        {self.out}",
        ]
        return "\n".join(lines)


def load_recipe(path: str | Path, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file; without `out` the run goes to `runs/NAME OF THE FILE`.
        overrides: values by dotted name, such as `{"optimizer.language.lr": "1e-3", "data.train.0.path":
            "a.jsonl"}`; each is read as YAML.

    Raises:
        RecipeError: the file or a value is wrong; one line that names file, key, and what is allowed.
    """
    path = Path(path)
    raw = _anchored(read_yaml(path), path.parent)
    for name, text in (overrides or {}).items():
        _put(raw, name, parse_yaml(text, where=f"--{name}"))
    raw.setdefault("out", str(Path("runs") / path.stem))
    try:
        return Recipe.model_validate(_anchored(raw, Path()))
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain(error, _names(Recipe), Recipe)}") from None
    except RecipeError as error:
        raise RecipeError(f"{path}: vision: {error}") from None


def _put(raw: dict[str, Any], name: str, value: Any) -> None:
    """Set a value by its dotted name; sections that are not there yet are made."""
    *above, last = name.split(".")
    place: Any = raw
    for key in above:
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
        place = place[_key(place, key, name)]
    place[_key(place, last, name)] = value


def _key(place: Any, key: str, name: str) -> str | int:
    if isinstance(place, dict):
        return key
    if not isinstance(place, list):
        raise RecipeError(
            f"--{name}: '{key}' stands below the value {place!r}, which has no keys; shorten the name"
        )
    if not key.isdecimal() or int(key) >= len(place):
        raise RecipeError(
            f"--{name}: '{key}' is no place in a list of {len(place)}; give 0 to {len(place) - 1}"
        )
    return int(key)


def _anchored(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a copy in which relative paths of inputs are joined to a folder and absolute."""
    raw = copy.deepcopy(raw)
    data, model = raw.get("data"), raw.get("model")
    if isinstance(data, dict):
        sources = data.get("train")
        for source in sources if isinstance(sources, list) else []:
            _anchor(source, "path", folder)
        _anchor(data, "evaluate", folder)
        _anchor(data, "references", folder)
    if isinstance(model, dict):
        _anchor(model, "checkpoint", folder)
        if model.get("tokenizer") != "tiny":
            _anchor(model, "tokenizer", folder)
    weights = raw.get("weights")
    lexical = weights.get("lexical") if isinstance(weights, dict) else None
    if isinstance(lexical, dict):
        lists = lexical.get("keywords")
        for words in lists.values() if isinstance(lists, dict) else []:
            _anchor(words, "file", folder)
        _anchor(lexical.get("rarity"), "table", folder)
    _anchor(raw, "init", folder)
    return raw


def _anchor(place: Any, key: str, folder: Path) -> None:
    value = place.get(key) if isinstance(place, dict) else None
    if isinstance(value, str):
        place[key] = str((folder / value).absolute())
    elif isinstance(value, list):
        place[key] = [str((folder / item).absolute()) if isinstance(item, str) else item for item in value]


def _names(kind: Any) -> set[str]:
    """Every key a recipe may have, at any depth: those of a section, a dataclass, or what a generic holds."""
    kinds = fields_of(kind)
    if not kinds:
        return {name for inner in get_args(kind) for name in _names(inner)}
    return {*kinds, *(name for inner in kinds.values() for name in _names(inner))}
