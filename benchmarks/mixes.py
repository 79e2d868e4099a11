"""Synthetic mixes for benchmarks of packing: what each example of a data set takes of the budgets.

W1 short texts, W1L long texts; W2 texts, images and videos bound by crops, W2B bound by both budgets, W2T
bound by tokens. `random_mix` draws whole mixes: how many parts, of which kinds, sizes and shares.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hedgerow.sequence import Budget, Costs

Array = Any
Kind = Callable[[Any, int], Array]  # (generator, n) -> [n, 2] tokens and crops, not yet held to the budget

_STREAM = 0x6D6978  # keeps these draws apart from those of a plan with the same seed
TEXT, BOTH = Budget(tokens=16384), Budget(tokens=16384, crops=128)


@dataclass(frozen=True, slots=True)
class Part:
    """A kind of example, the share of them in a mix, and what they are."""

    share: float
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Mix:
    """Parts that are drawn at random by their shares, under a budget; every example fits it."""

    name: str
    budget: Budget
    parts: tuple[Part, ...]

    def draw(self, count: int, seed: int) -> Costs:
        """Draw the costs of a data set."""
        rng = _generator(seed)
        which = self._drawn(rng, count)
        table = np.zeros((count, 2), np.int64)
        for number, part in enumerate(self.parts):
            here = np.flatnonzero(which == number)
            table[here] = part.kind(rng, len(here))
        names = list(self.budget)
        return Costs(names, np.clip(table[:, : len(names)], [1, 0][: len(names)], list(self.budget.values())))

    def kinds(self, count: int, seed: int) -> Array:
        """Return which part each example of `draw` is of, int64 [n]."""
        return self._drawn(_generator(seed), count)

    def _drawn(self, rng: Any, count: int) -> Array:
        shares = np.array([part.share for part in self.parts])
        return rng.choice(len(self.parts), count, p=shares / shares.sum())

    def __str__(self) -> str:
        return f"{self.name}: " + ", ".join(f"{part.share:.0%} {part.name}" for part in self.parts)


def _generator(seed: int) -> Any:
    return np.random.default_rng([_STREAM, seed])


def lognormal(median: float, spread: float, least: int = 1) -> Kind:
    """Texts whose lengths are lognormal."""

    def draw(rng: Any, count: int) -> Array:
        return columns(np.maximum(rng.lognormal(np.log(median), spread, count), least), 0)

    return draw


def uniform(low: int, high: int) -> Kind:
    """Texts of `low` up to and including `high` tokens."""
    return lambda rng, count: columns(rng.integers(low, high + 1, count), 0)


def image(tokens: tuple[int, int] = (300, 1500), crops: tuple[int, int] = (1, 25)) -> Kind:
    """An image with a text; tokens and crops are drawn apart."""
    return lambda rng, count: columns(
        rng.integers(tokens[0], tokens[1] + 1, count), rng.integers(crops[0], crops[1] + 1, count)
    )


def images(most: int = 5) -> Kind:
    """Two up to `most` images, each of 300 to 1,500 tokens and 1 to 9 crops."""

    def draw(rng: Any, count: int) -> Array:
        there = np.arange(most) < rng.integers(2, most + 1, count)[:, None]
        tokens, crops = rng.integers(300, 1501, (count, most)), rng.integers(1, 10, (count, most))
        return columns((tokens * there).sum(1), (crops * there).sum(1))

    return draw


def video(frames: tuple[int, int] = (16, 128), each: int = 83, text: tuple[int, int] = (50, 4000)) -> Kind:
    """A video, one crop a frame, with a text."""

    def draw(rng: Any, count: int) -> Array:
        shown = rng.integers(frames[0], frames[1] + 1, count)
        return columns(each * shown + rng.integers(text[0], text[1] + 1, count), shown)

    return draw


def nearly_full(least: float, crops: float) -> Kind:
    """Examples of `least` to 1 of the token budget, and up to `crops` of the crop budget."""

    def draw(rng: Any, count: int) -> Array:
        tokens = rng.uniform(least, 1.0, count) * BOTH["tokens"]
        return columns(tokens, rng.uniform(0.0, crops, count) * BOTH["crops"])

    return draw


def columns(tokens: Array, crops: Array) -> Array:
    return np.stack(np.broadcast_arrays(tokens, crops), axis=1).astype(np.int64)


def _multimodal(name: str, *shares: float) -> Mix:
    kinds = {"text": uniform(200, 2000), "image": image(), "several images": images(), "video": video()}
    parts = zip(shares, kinds.items(), strict=True)
    return Mix(name, BOTH, tuple(Part(share, kind, draw) for share, (kind, draw) in parts))


MIXES = {
    mix.name: mix
    for mix in (
        Mix("W1", TEXT, (Part(1.0, "text", lognormal(700, 1.1, least=16)),)),
        Mix("W1L", TEXT, (Part(1.0, "text", lognormal(3500, 0.9, least=16)),)),
        _multimodal("W2", 0.10, 0.35, 0.10, 0.45),
        _multimodal("W2B", 0.35, 0.30, 0.10, 0.25),
        _multimodal("W2T", 0.50, 0.25, 0.05, 0.20),
    )
}


def random_mix(seed: int) -> Mix:
    """Draw a mix of one to six parts under both budgets.

    Tiny texts and examples that nearly fill a row are among the kinds, each as likely as any other.
    """
    rng = np.random.default_rng([_STREAM, seed, 1])
    kinds = [_RANDOM[number] for number in rng.integers(0, len(_RANDOM), rng.integers(1, 7))]
    shares = rng.dirichlet(np.ones(len(kinds)))
    parts = [Part(float(share), *kind(rng)) for share, kind in zip(shares, kinds, strict=True)]
    return Mix(f"mix {seed}", BOTH, tuple(parts))


def _tiny(rng: Any) -> tuple[str, Kind]:
    most = int(rng.integers(4, 129))
    return f"text of 1-{most}", uniform(1, most)


def _text(rng: Any) -> tuple[str, Kind]:
    median, spread = np.exp(rng.uniform(np.log(50), np.log(8000))), rng.uniform(0.1, 1.4)
    return f"text about {median:.0f}, spread {spread:.1f}", lognormal(median, spread)


def _image(rng: Any) -> tuple[str, Kind]:
    tokens, crops = _span(rng, 20, 4000), _span(rng, 1, 40)
    return f"image of {tokens[0]}-{tokens[1]}, {crops[0]}-{crops[1]} crops", image(tokens, crops)


def _images(rng: Any) -> tuple[str, Kind]:
    most = int(rng.integers(2, 9))
    return f"2-{most} images", images(most)


def _video(rng: Any) -> tuple[str, Kind]:
    frames, each, words = _span(rng, 4, 128), int(rng.integers(9, 200)), _span(rng, 10, 6000)
    return f"video of {frames[0]}-{frames[1]} frames of {each}", video(frames, each, words)


def _full(rng: Any) -> tuple[str, Kind]:
    least, crops = rng.uniform(0.6, 0.99), rng.uniform(0.0, 1.0)
    return f"{least:.0%} of a row, up to {crops:.0%} of its crops", nearly_full(least, crops)


def _span(rng: Any, low: int, high: int) -> tuple[int, int]:
    one, other = np.exp(rng.uniform(np.log(low), np.log(high), 2))
    return int(min(one, other)), int(max(one, other))


_RANDOM = (_tiny, _text, _image, _images, _video, _full)
