"""Small random trees with pixels, as rows and as the conversations they stand for."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hedgerow
from hedgerow.models.assemble import ModelSpec, build
from hedgerow.models.molmo2 import Molmo2
from hedgerow.sequence import Budget, Cost, Row, Sample, Sequence, VisionInput
from hedgerow.testing import Forest, random_forest
from hedgerow.text import load_tokenizer

sys.path.append(str(Path(__file__).parent))  # for `processor_toys`

CROP, PATCHES, WINDOW = 8, 16, 4
SPEC = ModelSpec(
    hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=48,
    vision_hidden=16, vision_layers=2, vision_heads=2, vision_mlp=24,
    crop_size=CROP, patch_size=2, initializer_range=0.3,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Toy:
    """Random trees in logical order: a token, a pooling window and a loss weight for each token of a forest.

    Tokens of a group are slots, each group has a crop. `before` is the token before on the path, -1 for none.
    """

    forest: Forest
    tokens: np.ndarray
    windows: np.ndarray
    weights: np.ndarray
    crops: np.ndarray
    before: np.ndarray

    @property
    def nodes(self) -> range:
        return range(len(self.forest.parents))

    def supervised(self) -> np.ndarray:
        return self.forest.text & (self.before >= 0)

    def whole(self, where: np.ndarray | None = None) -> Row:
        """Some whole trees, or all, with tokens in the given physical order."""
        where = np.arange(len(self.forest)) if where is None else where
        start = int(self.forest.order[where].min())
        layout = {name: getattr(self.forest, name)[where] for name in ("order", "end", "position")}
        layout |= {name: layout[name] - start for name in ("order", "end")}
        return _row(self.sequence(where, supervised=self.supervised(), **layout))

    def trees(self) -> list[np.ndarray]:
        """The tokens of each tree."""
        roots = [self.forest.path(node)[0] for node in self.nodes]
        return [np.flatnonzero(np.array(roots)[self.forest.owner] == root) for root in sorted(set(roots))]

    def conversation(self, node: int) -> Sequence:
        """A node with its path as one plain conversation, trained on the node alone."""
        where = np.flatnonzero(np.isin(self.forest.owner, self.forest.path(node)))
        own, end = np.arange(len(where)), np.full(len(where), len(where))
        supervised = self.supervised() & (self.forest.owner == node)
        return self.sequence(where, supervised=supervised, order=own, end=end, position=own)

    def sequence(self, where: np.ndarray, *, supervised: np.ndarray, **layout: np.ndarray) -> Sequence:
        place = np.full(len(self.forest), -1)
        place[where] = np.arange(len(where))
        groups = self.forest.group[where]
        used, group = np.unique(groups[groups >= 0], return_inverse=True)
        slot = np.flatnonzero(groups >= 0)
        windows = self.windows[where][slot]
        target = np.array([token for token in np.flatnonzero(supervised) if place[token] >= 0], int)
        nodes, sample, sizes = np.unique(self.forest.owner[target], return_inverse=True, return_counts=True)
        samples = [
            Sample("toy", f"{node}", "toy", "qa", int(n), 1.0) for node, n in zip(nodes, sizes, strict=True)
        ]
        local = np.full(len(where), -1, np.int32)
        local[slot] = group
        vision = VisionInput(
            crops=self.crops[used],
            pooling=np.where(windows < 0, -1, windows + PATCHES * group[:, None]).astype(np.int32),
            grids=np.zeros((0, 3), np.int32),
            patches=PATCHES,
        )
        return Sequence(
            example="toy",
            tokens=self.tokens[where].astype(np.int32),
            group=local,
            slot=slot.astype(np.int32),
            source=place[self.before[target]].astype(np.int32),
            target=self.tokens[target].astype(np.int32),
            weight=self.weights[target].astype(np.float32),
            sample=sample.astype(np.int32),
            samples=tuple(samples),
            cost=Cost(tokens=len(where)),
            vision=vision if len(slot) else None,
            **{name: array.astype(np.int32) for name, array in layout.items()},
        )


def _row(sequence: Sequence) -> Row:
    return Row.join([sequence], Budget(tokens=len(sequence))).to("cpu")


@pytest.fixture(scope="session")
def as_row() -> Callable[[Sequence], Row]:
    """Make a row of one sequence, as tensors."""
    return _row


@pytest.fixture(scope="session")
def toy(vocabulary: dict[str, int]) -> Callable[..., Toy]:
    """Draw a toy: `toy(seed, trees=2, ...)`, with the arguments of `random_forest`."""

    def draw(seed: int, **sizes: int) -> Toy:
        rng = np.random.default_rng(seed)
        forest = random_forest(rng, **sizes)
        count = len(forest)
        last = [int(np.flatnonzero(forest.owner == node)[-1]) for node in range(len(forest.parents))]
        parents = [last[parent] if parent >= 0 else -1 for parent in forest.parents]
        first = np.flatnonzero(np.diff(forest.owner, prepend=-1))
        before = np.arange(count) - 1
        before[first] = [parents[forest.owner[token]] for token in first]
        shape = (int(forest.group.max(initial=-1)) + 1, CROP, CROP, 3)
        windows = rng.integers(0, PATCHES, (count, WINDOW))
        windows[rng.random(windows.shape) < 0.2] = -1
        windows[:, 0] = rng.integers(0, PATCHES, count)
        return Toy(
            forest=forest,
            tokens=np.where(forest.group >= 0, vocabulary["<im_patch>"], rng.integers(3, 768, count)),
            windows=windows,
            weights=rng.uniform(0.1, 2.0, count),
            crops=rng.integers(0, 256, shape).astype(np.uint8),
            before=before,
        )

    return draw


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The shipped tokenizer."""
    return load_tokenizer(Path(hedgerow.__file__).parent / "tokenizer")


@pytest.fixture(scope="session")
def vocabulary(tokenizer: Any) -> dict[str, int]:
    """Token ids by name."""
    return dict(tokenizer.get_vocab(with_added_tokens=True))


@pytest.fixture(scope="session")
def make_model(tokenizer: Any) -> Callable[..., Molmo2]:
    """Build a tiny model: `make_model(attention="dense", ...)`, with the arguments of `build`.

    `sizes` are fields of the spec that differ.
    """

    def make(spec: ModelSpec = SPEC, *, sizes: dict[str, int] | None = None, **options: Any) -> Molmo2:
        return build(dataclasses.replace(spec, **(sizes or {})), tokenizer=tokenizer, seed=7, **options)

    return make
