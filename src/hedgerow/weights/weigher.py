"""What all weighers of a recipe share, and how several become one factor."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from hedgerow.content import MOST, STRICT
from hedgerow.errors import RecipeError
from hedgerow.weights.answer import Answer, Array, Weigher, brief

Factor = Annotated[float, Field(allow_inf_nan=False, ge=-MOST, le=MOST)]  # below 0 only where that is allowed


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Limited:
    """A weigher of some answers only.

    Attributes:
        tasks: tasks whose answers it weighs; none: of all.
        sources: data sets whose answers it weighs; none: of all.
    """

    tasks: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __call__(self, answer: Answer) -> Array:
        """Return the factor of each token, float32 [n]: 1 where the weigher has nothing to say.

        Raises:
            RecipeError: the weigher cannot be used as it is.
        """
        wanted = (not self.tasks or answer.task in self.tasks) and (
            not self.sources or answer.source in self.sources
        )
        found = self.factors(answer) if wanted else np.ones(len(answer.offsets))
        return found.astype(np.float32)

    def factors(self, answer: Answer) -> Array:
        """Return the factors of an answer it weighs, float [n]."""
        raise NotImplementedError


def product(answer: Answer, weighers: Iterable[Weigher], *, allow_negative: bool = False) -> Array:
    """Return what several weighers together make of an answer's n tokens, float32 [n].

    Args:
        answer: an empty one has no factors.
        weighers: in any order.
        allow_negative: take factors below 0, which teach a model to avoid a token.

    Raises:
        RecipeError: a weigher gives another number of factors, or one that is not finite or below 0.
    """
    found = np.ones(len(answer.offsets), np.float64)
    for weigher in weighers if len(found) else ():
        factors = np.asarray(weigher(answer))
        _check(answer, weigher, factors, allow_negative=allow_negative)
        found = found * factors
    return found.astype(np.float32)


def negatives(value: Any, name: str) -> list[str]:
    """Return the dotted names of all numbers below 0 in plain values, mappings and dataclasses."""
    if isinstance(value, bool | str) or value is None:
        return []
    if isinstance(value, int | float):
        return [name] if value < 0 or math.isnan(value) else []
    inner: dict[Any, Any]
    if dataclasses.is_dataclass(value):
        inner = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, dict):
        inner = value
    elif isinstance(value, tuple):
        inner = dict(enumerate(value))
    else:
        return []
    return [found for key, item in inner.items() for found in negatives(item, f"{name}.{key}")]


def _check(answer: Answer, weigher: Weigher, factors: Array, *, allow_negative: bool) -> None:
    name = getattr(weigher, "__name__", type(weigher).__name__)
    where = f"the weigher {name} on the answer {brief(answer.text)}"
    if factors.shape != (len(answer.offsets),):
        raise RecipeError(
            f"{where}: {list(factors.shape)} factors for {len(answer.offsets)} tokens; give one for each"
        )
    bad = ~np.isfinite(factors)
    if bad.any():
        place = int(np.flatnonzero(bad)[0])
        raise RecipeError(f"{where}: the factor of token {place} is {factors[place]}; give finite factors")
    if not allow_negative and (factors < 0).any():
        place = int(np.flatnonzero(factors < 0)[0])
        raise RecipeError(
            f"{where}: the factor of token {place} is {factors[place]:g}; give 0 or more, or set "
            "weights.allow_negative"
        )
