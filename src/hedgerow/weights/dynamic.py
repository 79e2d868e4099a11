"""Loss weights that depend on what the model says of a target while it is trained.

Each is a factor on the weight that the data gave the target, computed from numbers without a gradient. With p
the probability of the target, ce = -log p and H the entropy of the prediction in nats:

| name | factor | source |
|---|---|---|
| `focal` | (1 - p)^gamma | arXiv 1708.02002, equation 4 |
| `confidence` | p | DFT, arXiv 2508.05629: its loss is -sg(p) log p |
| `entropy` | min(H / ceiling, 1)^alpha | EAFT, arXiv 2601.02151, where H is of the 20 likeliest words |
| `top`, by `ce` or `entropy` | 1 for the highest share of a sample, else 0 | by entropy: arXiv 2506.01939 |
| `top`, by `excess` | the same, of ce - ce of a reference model | Rho-1, arXiv 2404.07965 |

Rho-1 selects within the batch. Here it is within the sample, so that how samples are spread over rows,
micro-batches and processes changes no weight.
"""

import dataclasses
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from hedgerow.content import STRICT

if TYPE_CHECKING:
    from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of m targets, in fp32 or better, without a gradient.

    `ce` [m] is -log p, `entropy` [m] that of the prediction in nats (None where nobody asked for it),
    `reference` [m] log p under a reference model (None where nobody asked for it), `weight` [m] what the data
    gave, `sample` int64 [m] whose targets they are.
    """

    ce: "Tensor"
    entropy: "Tensor | None"
    reference: "Tensor | None"
    weight: "Tensor"
    sample: "Tensor"


class _Kind:
    """What a kind needs; `compares` says that a target's factor depends on the others of its sample."""

    compares: ClassVar[bool] = False

    @property
    def needs_entropy(self) -> bool:
        return False

    @property
    def needs_reference(self) -> bool:
        return False


@dataclass(frozen=True, slots=True, config=STRICT)
class Focal(_Kind):
    """Less for what the model knows: (1 - p)^gamma."""

    gamma: float = Field(default=2.0, ge=0.0)
    name: Literal["focal"] = "focal"

    def __call__(self, seen: Prediction) -> "Tensor":
        """Return the factor of each target, [m]."""
        return (-(-seen.ce).expm1()).clamp(min=0.0) ** self.gamma


@dataclass(frozen=True, slots=True, config=STRICT)
class Confidence(_Kind):
    """Less for what the model finds unlikely: p."""

    name: Literal["confidence"] = "confidence"

    def __call__(self, seen: Prediction) -> "Tensor":
        """Return the factor of each target, [m]."""
        return (-seen.ce).exp()


@dataclass(frozen=True, slots=True, config=STRICT)
class Entropy(_Kind):
    """Less where the model is sure, whatever of: min(H / ceiling, 1)^alpha; the ceiling is ln 20 in EAFT."""

    alpha: float = Field(default=1.0, ge=0.0)
    ceiling: float = Field(default=3.0, gt=0.0)
    name: Literal["entropy"] = "entropy"

    @property
    def needs_entropy(self) -> bool:
        """Always."""
        return True

    def __call__(self, seen: Prediction) -> "Tensor":
        """Return the factor of each target, [m]."""
        assert seen.entropy is not None
        return (seen.entropy / self.ceiling).clamp(0.0, 1.0) ** self.alpha


@dataclass(frozen=True, slots=True, config=STRICT)
class Top(_Kind):
    """Only the highest share of each sample's targets: 1 or 0.

    Of a sample with n targets whose weight is not 0, ceil(share n) stay; of equal ones the first. `by` is
    what they are compared by.
    """

    share: float = Field(gt=0.0, le=1.0)
    by: Literal["ce", "entropy", "excess"] = "ce"
    name: Literal["top"] = "top"

    compares: ClassVar[bool] = True

    @property
    def needs_entropy(self) -> bool:
        """If it compares entropies."""
        return self.by == "entropy"

    @property
    def needs_reference(self) -> bool:
        """If it compares with a reference model."""
        return self.by == "excess"

    def __call__(self, seen: Prediction) -> "Tensor":
        """Return the factor of each target, [m]; all targets of a sample must be there."""
        import torch  # a recipe that names this kind is read without it

        counted = seen.weight != 0
        score = torch.where(counted, self._score(seen), -torch.inf)
        order = score.argsort(descending=True, stable=True)
        order = order[seen.sample[order].argsort(stable=True)]  # sample by sample, the highest first
        count = torch.bincount(seen.sample)
        start = (count.cumsum(0) - count)[seen.sample[order]]
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device) - start
        trained = torch.bincount(seen.sample, weights=counted.double())
        most = torch.ceil(self.share * trained - 1e-9)  # 0.07 * 100 is 7.000000000000001
        return ((place < most[seen.sample]) & counted).to(seen.ce.dtype)

    def _score(self, seen: Prediction) -> "Tensor":
        if self.by == "excess":
            assert seen.reference is not None
            return seen.ce + seen.reference
        found = seen.entropy if self.by == "entropy" else seen.ce
        assert found is not None
        return found


Dynamic = Annotated[Focal | Confidence | Entropy | Top, Field(discriminator="name")]
