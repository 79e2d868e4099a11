"""What was learnt, on held-out photos: losses, choices among captions, captions written."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from photos import Photo, describing, options
from sight import Sight

from hedgerow.encode import Encoder
from hedgerow.evaluate.metrics import interval
from hedgerow.models.generate import generate
from hedgerow.models.sampling import Sampling
from hedgerow.packing.plan import plan_rows
from hedgerow.sequence import Array, Budget, Row
from hedgerow.train.chunks import predict
from hedgerow.tree import MessageTree

_TOKENS, _CROPS = 1024, 64  # of a row; a longer tree has one of its own


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over `n` photos with its 95 % interval, bootstrapped over things."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float], photos: Sequence[Photo]) -> "Mean":
        """Return the mean of one value a photo."""
        low, high = interval(values, [photo.thing for photo in photos])
        return cls(float(np.mean(values)), low, high, len(values))

    def __str__(self) -> str:
        return f"{self.value:7.3f}  [{self.low:.3f}, {self.high:.3f}]  {self.n:4d}"


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one set of held-out photos.

    Losses are those of the first caption in nats a token: after its `right` photo, after a `shuffled` one,
    and `blind`, without any; `gain` is the second less the first, photo by photo. `choice` is how often the
    true one of four captions is the likeliest, `blind_choice` the same without the photo, and `lift` how
    often the photo raises its likelihood the most.
    """

    right: Mean
    shuffled: Mean
    blind: Mean
    gain: Mean
    choice: Mean
    blind_choice: Mean
    lift: Mean


@torch.no_grad()
def answer_losses(model: Sight, encoder: Encoder, trees: Sequence[MessageTree]) -> list[Array]:
    """Return for each tree the losses of its branches, float [branches, 2]: summed, and mean a token."""
    model.eval()
    found: list[Array] = [np.empty(0)] * len(trees)
    costs = [encoder.measure(tree) for tree in trees]
    budget = Budget(tokens=max(_TOKENS, *(cost["tokens"] for cost in costs)), crops=_CROPS)
    for numbers in plan_rows(costs, budget).rows:
        row = Row.join([encoder(trees[number]) for number in numbers], budget).to(model.device)
        ce = predict(model(row).index_select(0, row.source), row.target, model.head).ce.double().numpy()
        sample = row.sample.numpy()
        sums, counts = np.bincount(sample, ce), np.bincount(sample)
        each = np.stack([sums, sums / counts], axis=1)
        ends = np.cumsum([len(trees[number].branches) for number in numbers])
        for number, own in zip(numbers, np.split(each, ends[:-1]), strict=True):
            found[number] = own
    return found


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of one held-out photo; of which `Scores` are means.

    `seen` and `blind` float [4, 2]: summed and mean losses of four captions with and without the photo, of
    which number `true` is its own; `shuffled` is the mean loss of its own after another photo.
    """

    photo: Photo
    true: int
    seen: Array
    blind: Array
    shuffled: float


def measure(model: Sight, encoder: Encoder, photos: Sequence[Photo], *, seed: int) -> tuple[Measured, ...]:
    """Measure on held-out photos; wrong captions and shuffled photos are those of other things among them.

    Args:
        model: trained or not.
        encoder: of the model.
        photos: to measure on.
        seed: of the choices.
    """
    rng = np.random.default_rng(seed)
    choices = [options(photo, photos, rng) for photo in photos]
    wrong = [_other(photo, photos, rng) for photo in photos]
    seen = _describe(model, encoder, photos, choices)
    shuffled = _describe(model, encoder, wrong, [photo.captions[:1] for photo in photos])
    blind = _describe(model, encoder, [None] * len(photos), choices)
    return tuple(
        Measured(photo, choice.index(photo.captions[0]), sight, none, float(astray[0, 1]))
        for photo, choice, sight, none, astray in zip(photos, choices, seen, blind, shuffled, strict=True)
    )


def summed_up(measured: Sequence[Measured]) -> Scores:
    """Return the means over photos."""
    photos = [one.photo for one in measured]

    def mean(values: Iterable[float]) -> Mean:
        return Mean.of(list(values), photos)

    def hits(losses: Callable[[Measured], Array]) -> Mean:
        return mean(float(losses(one).argmin() == one.true) for one in measured)

    return Scores(
        right=mean(one.seen[one.true, 1] for one in measured),
        shuffled=mean(one.shuffled for one in measured),
        blind=mean(one.blind[one.true, 1] for one in measured),
        gain=mean(one.shuffled - one.seen[one.true, 1] for one in measured),
        choice=hits(lambda one: one.seen[:, 0]),
        blind_choice=hits(lambda one: one.blind[:, 0]),
        lift=hits(lambda one: one.seen[:, 0] - one.blind[:, 0]),
    )


def _describe(
    model: Sight,
    encoder: Encoder,
    photos: Sequence[Photo | None],
    captions: Sequence[Sequence[str]],
) -> list[Array]:
    given = enumerate(zip(photos, captions, strict=True))
    return answer_losses(model, encoder, [describing(photo, f"{n}", said) for n, (photo, said) in given])


def _other(photo: Photo, others: Sequence[Photo], rng: np.random.Generator) -> Photo:
    apart = [other for other in others if other.thing != photo.thing]
    found = [other for other in apart if other.captions[0] != photo.captions[0]]
    return found[int(rng.integers(len(found)))]


def captions(model: Sight, encoder: Encoder, photos: Sequence[Photo]) -> list[str]:
    """Write a caption of each photo, the likeliest token at each step."""
    trees = [describing(photo, f"{number}", photo.captions[:1]) for number, photo in enumerate(photos)]
    prompts = [prompt for tree in trees for prompt in encoder.prompts(tree, tree.nodes()[1:])]
    sampling = Sampling(max_new_tokens=24)
    return [answer.text for answer in generate(model, prompts, encoder.chat, sampling).answers]
