"""One global batch of 8 trees, over rows, micro-batches and processes; as a script, one process of two."""

import dataclasses
import importlib.util
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.distributed as dist

from hedgerow.packing.loader import Loaded
from hedgerow.sequence import Budget, Cost, Row, Sample, Sequence
from hedgerow.train.loop import Trainer
from hedgerow.train.loss import weighted_loss
from hedgerow.train.optim import Optimizers
from hedgerow.train.preference import Transport, preference_loss
from hedgerow.weights.dynamic import Entropy, Focal, Top

TREES = 8
ALONE = ((8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1))  # trees of a row, rows of a process, processes
TOGETHER = ((4, 1, 2), (1, 4, 2))
DYNAMIC = {"fractional": None, "focal": Focal(), "entropy": Entropy(ceiling=4.0), "top": Top(0.4, "excess")}
PREFERENCE = {"dpo": None, "otpo": Transport(entropy=0.3, marginal=0.5)}
DIVISORS = ("weights", "samples", "tokens")
DTYPES = (torch.float64, torch.float32)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained: weights or preferences, the divisor, the dtype."""

    kind: str
    normalize: str
    dtype: torch.dtype

    def __str__(self):
        return f"{self.kind}, {self.normalize}, {self.dtype}"

    def objective(self, model, row):
        hidden = model(row)
        if self.kind in PREFERENCE:
            transport = PREFERENCE[self.kind]
            return preference_loss(hidden, row, model.head, beta=0.5, transport=transport, chunk=7)
        dynamic = DYNAMIC[self.kind]
        return weighted_loss(hidden, row, model.head, dynamic=dynamic, z_loss=1e-2, chunk=7)


CASES = [
    *(Case(kind, divisor, dtype) for kind in DYNAMIC for divisor in DIVISORS for dtype in DTYPES),
    *(Case(kind, "weights", dtype) for kind in PREFERENCE for dtype in DTYPES),
]  # fmt: skip


def trees():
    """A root and 2 to 4 ranked branches of 1 to 6 targets, weights of every size, reference values."""
    rng = np.random.default_rng(11)
    return [_tree(rng, f"tree-{number}") for number in range(TREES)]


def _tree(rng, example):
    root, lengths = int(rng.integers(2, 6)), rng.integers(1, 7, int(rng.integers(2, 5)))
    total = root + int(lengths.sum())
    tokens = rng.integers(0, 32, total).astype(np.int32)
    starts = root + np.cumsum([0, *lengths[:-1]])
    place = np.concatenate([start + np.arange(n) for start, n in zip(starts, lengths, strict=True)])
    before = np.where(np.isin(place, starts), root - 1, place - 1)
    samples = [
        Sample(example, f"{n}", "set", "qa", int(size), 0.4 + 0.3 * n, pair=0, rank=(n + 1) // 2)
        for n, size in enumerate(lengths)
    ]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    own = rng.choice([0.0, 0.1, 0.5, 1.0, 1.7], total - root, p=[0.1, 0.2, 0.2, 0.3, 0.2])
    own[place == starts[owner]] = 1.0
    weight = own * np.array([sample.weight for sample in samples])[owner]
    order = np.arange(total, dtype=np.int32)
    return Sequence(
        example=example, tokens=tokens, position=order, order=order, end=np.full(total, total, np.int32),
        group=np.full(total, -1, np.int32), slot=np.zeros(0, np.int32), source=before.astype(np.int32),
        target=tokens[place], weight=weight.astype(np.float32), sample=owner.astype(np.int32),
        samples=tuple(samples), cost=Cost(tokens=total, crops=0),
        reference=rng.normal(-3.0, 0.5, total - root).astype(np.float32),
    )  # fmt: skip


def row(examples):
    return Row.join(examples, Budget(tokens=1000, crops=8)).to("cpu")


@dataclasses.dataclass
class Given:
    """A loader of rows that are there."""

    rows: list

    def __iter__(self):
        return iter([Loaded(part, number, 0) for number, part in enumerate(self.rows)])

    state_dict = load_state_dict = None


def step(toy, folder, case, split, rank=0):
    """Make one step and return its loss, its grad norm and the gradients before clipping."""
    size, rows, world = split
    everything = trees()
    mine = [row(everything[start : start + size]) for start in range(0, TREES, size)][rank::world]
    assert len(mine) == rows
    rate = {"lr": 0.01, "warmup": 0}
    recipe = toy.recipe(
        folder, rows_per_step=rows * world, loss={"normalize": case.normalize},
        optimizer={"clip": None, "language": rate, "vision": rate, "connector": rate},
    )  # fmt: skip
    model = toy.Toy(dtype=case.dtype)
    made = Trainer(recipe, model, Optimizers(model, recipe), Given(mine), objective=case.objective).step(1)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return SimpleNamespace(loss=made.loss, norm=made.grad_norm, gradients=gradients)


def together(toy, folder, rank):
    """Make every case as one of two processes."""
    store = f"file://{Path(folder) / 'store'}"
    limit = timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=limit)
    try:
        run = partial(step, toy, folder, rank=rank)
        return {(case, split): run(case, split) for case in CASES for split in TOGETHER}
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("train_toy", Path(__file__).with_name("toy.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.set_num_threads(1)
    together(module, sys.argv[1], 1)
