"""All that decides how much an answer token counts, as a recipe says it."""

import dataclasses
import logging
from collections.abc import Mapping
from collections.abc import Sequence as Listing
from functools import cache
from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from hedgerow.content import STRICT
from hedgerow.weights.answer import Answer, Array, Weigher
from hedgerow.weights.lexical import Lexical
from hedgerow.weights.rules import Otherwise, sample_weight
from hedgerow.weights.schedule import Knots, TaskSchedule
from hedgerow.weights.spans import Spans
from hedgerow.weights.weigher import Factor, Limited, negatives, product

_LOG = logging.getLogger("hedgerow")


def _known(value: object) -> object:
    if isinstance(value, str) and value != "otherwise":
        raise ValueError("give a weight, or 'otherwise' for c / sqrt(n)")
    return value


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Weighting:
    """How targets are weighted. The defaults are those of arXiv 2601.10611, section 3.2.

    The weight of a target is that of its sample (`sample`), times what the data say of its tree, branch,
    message, part and characters, times the factors of the weighers (`tokens`).

    Attributes:
        preset: the table of tasks, see `hedgerow.weights.sample_weight`.
        c: of c / sqrt(n); None: the preset's.
        tasks: by task, a weight instead of the table's, or "otherwise" for c / sqrt(n).
        scale: by task, a factor.
        sources: by data set (`source` of a tree), a factor.
        lexical: weighers that look at words.
        spans: weighers that look at parts of an answer.
        normalize: "total" brings the weighers' factors of a sample to a mean that leaves it its total weight;
            "none" takes them as they are. End-of-turn tokens keep their plain weight.
        schedule: by task, [step, factor] pairs, see `TaskSchedule`.
        allow_negative: take weights and factors below 0, which teach a model to avoid an answer.
    """

    preset: Literal["molmo2", "molmo2_code", "uniform"] = "molmo2"
    c: Factor | None = None
    tasks: Mapping[str, Annotated[Factor | Otherwise, BeforeValidator(_known)]] = Field(default_factory=dict)
    scale: Mapping[str, Factor] = Field(default_factory=dict)
    sources: Mapping[str, Factor] = Field(default_factory=dict)
    lexical: Lexical = Lexical()
    spans: Spans = Spans()
    normalize: Literal["total", "none"] = "total"
    schedule: Mapping[str, Knots] = Field(default_factory=dict)
    allow_negative: bool = False

    @model_validator(mode="after")
    def _makes_sense(self) -> "Weighting":
        if self.c is not None and self.preset == "uniform":
            raise ValueError(f"c is {self.c:g}, but the preset uniform has none; leave it out")
        TaskSchedule(self.schedule)
        below = [
            name
            for field in dataclasses.fields(self)
            for name in negatives(getattr(self, field.name), field.name)
        ]
        if below and not self.allow_negative:
            raise ValueError(f"{below[0]} is below 0; give 0 or more, or set allow_negative")
        if below:
            _name_negative(tuple(below))
        return self

    @property
    def weighers(self) -> tuple[Weigher, ...]:
        """The weighers of answers that are used."""
        return (*self.lexical.weighers(), *self.spans.weighers())

    def limits(self) -> dict[str, Limited]:
        """Return the weighers by the fields of a recipe that they stand in."""
        found: dict[str, Limited] = {
            f"weights.lexical.keywords.{name}": one for name, one in self.lexical.keywords.items()
        }
        for section, weighers in (("lexical", self.lexical), ("spans", self.spans)):
            for field in dataclasses.fields(weighers):
                one = getattr(weighers, field.name)
                if isinstance(one, Limited):
                    found[f"weights.{section}.{field.name}"] = one
        return found

    @property
    def by_step(self) -> TaskSchedule:
        """The factors that change with the step."""
        return TaskSchedule(self.schedule)

    def sample(self, task: str, source: str, tokens: int, *, branches: int = 1) -> float:
        """Return the weight of each answer token of a sample before its data and its words are looked at.

        Args:
            task: of the sample.
            source: its data set.
            tokens: n, its answer tokens.
            branches: of its tree.

        Raises:
            DataError: it has no answer token.
        """
        weight = sample_weight(
            task, tokens, branches=branches, preset=self.preset, c=self.c, tasks=self.tasks
        )
        return weight * self.scale.get(task, 1.0) * self.sources.get(source, 1.0)

    def tokens(self, weight: Array, answers: Listing[tuple[int, Answer]]) -> Array:
        """Return the weights of a sample's tokens with the weighers' factors in them, float64 [n].

        Args:
            weight: float64 [n], what the data say; 0 where a token is no target.
            answers: of the sample, each with the place of its first token.

        Raises:
            RecipeError: a weigher gives what is no factor.
        """
        if not self.weighers:
            return weight
        factor = np.ones(len(weight))
        spoken = np.zeros(len(weight), bool)
        for first, answer in answers:
            where = slice(first, first + len(answer.offsets))
            factor[where] = product(answer, self.weighers, allow_negative=self.allow_negative)
            spoken[where] = True
        if self.normalize == "total":
            before, after = np.abs(weight[spoken]).sum(), np.abs((weight * factor)[spoken]).sum()
            if before and not after:
                _name_silent(answers[0][1].task)
            factor[spoken] = factor[spoken] * (before / after) if after else 1.0
        return weight * factor


@cache
def _name_silent(task: str) -> None:
    _LOG.warning(
        "the weighers give every token of an answer (task %s) the factor 0; such answers keep their plain "
        "weights, or none with weights.normalize: none",
        task,
    )


@cache
def _name_negative(names: tuple[str, ...]) -> None:
    _LOG.warning("weights below 0 are allowed and used: %s", ", ".join(names))
