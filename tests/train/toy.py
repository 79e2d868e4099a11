"""A toy model with what training asks of one, toy examples, and one process of several (as a script)."""

import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from hedgerow.packing.loader import Fixed, Loaded, RowLoader
from hedgerow.recipe import Recipe
from hedgerow.sequence import Budget, Cost, Row, Sample, Sequence
from hedgerow.train.log import Callback
from hedgerow.train.loop import train

WORDS, WIDTH = 32, 8
TASKS = ("pointing", "qa", "video_caption")


class Given:
    """A loader of given rows, epoch after epoch."""

    def __init__(self, rows, dropped=()):
        self.loaded = [Loaded(row, number, 0, tuple(dropped)) for number, row in enumerate(rows)]

    def __iter__(self):
        return iter(self.loaded)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Stop(Exception):
    pass


class StopAt(Callback):
    """Ends a run as a kill would: nothing is written after step `number`."""

    def __init__(self, number):
        self.number = number

    def on_step(self, step):
        if step.number == self.number:
            raise Stop


class Toy(nn.Module):
    """Hidden states from single tokens: rows cannot leak, so packing changes nothing."""

    def __init__(self, *, dropout=0.0, seed=0, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.vision = nn.Linear(WIDTH, 2 * WIDTH)
        self.connector = nn.Linear(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.to(dtype)

    def forward(self, row):
        words = self.embed(row.tokens)
        return words + self.dropout(self.connector(torch.tanh(self.vision(words))))

    def parameter_groups(self):
        groups = {"vision": self.vision, "connector": self.connector}
        found = {name: list(module.parameters()) for name, module in groups.items()}
        return found | {"language": [self.embed.weight, self.head.weight]}


def sequences(count=12, seed=0):
    """Trees of a root and branches whose first targets share the root's last token; weights of every size."""
    rng = np.random.default_rng(seed)
    return [_sequence(rng, f"tree-{number}", f"set-{number % 2}") for number in range(count)]


def _sequence(rng, example, source):
    root, branches, length = int(rng.integers(2, 6)), int(rng.integers(1, 4)), 3
    total = root + branches * length
    tokens = rng.integers(0, WORDS, total).astype(np.int32)
    first = root + np.arange(branches) * length
    place = first[:, None] + np.arange(length)
    before = np.concatenate([np.full((branches, 1), root - 1), place[:, :-1]], axis=1)
    weight = rng.choice([0.0, 0.1, 0.5, 1.7], place.size).astype(np.float32)
    samples = tuple(
        Sample(example, str(branch), source, TASKS[branch], length, 1.0) for branch in range(branches)
    )
    order = np.arange(total, dtype=np.int32)
    return Sequence(
        example=example, tokens=tokens, position=order, order=order,
        end=np.full(total, total, np.int32), group=np.full(total, -1, np.int32), slot=np.zeros(0, np.int32),
        source=before.ravel().astype(np.int32), target=tokens[place.ravel()], weight=weight,
        sample=np.repeat(np.arange(branches), length).astype(np.int32), samples=samples,
        cost=Cost(tokens=total, crops=0),
    )  # fmt: skip


def rows(examples, split):
    """Pack examples into rows of `split` examples each, as tensors."""
    parts = [examples[start : start + split] for start in range(0, len(examples), split)]
    return [Row.join(part, Budget(tokens=1000, crops=8)).to("cpu") for part in parts]


def recipe(folder, **changes):
    """A recipe of six steps; `data` is a file in the folder, so that its content can be changed."""
    data = Path(folder) / "trees.jsonl"
    if not data.exists():
        data.write_text("{}\n")
    rate = {"lr": 0.01, "warmup": 2}
    fields = {
        "data": {"train": [{"path": data}]},
        "model": {"spec": {}},
        "vision": {"crop_size": 84, "patch_size": 7},
        "optimizer": {"vision": rate, "connector": rate, "language": rate, "weight_decay": 0.1},
        "steps": 6,
        "rows_per_step": 2,
        "threads": 1,
        "out": Path(folder) / "run",
    }
    return Recipe.model_validate(fields | changes)


def loader(examples, **options):
    """The real loader on toy examples: rows of about three, five rows an epoch."""
    costs = [example.cost for example in examples]
    source = Fixed(examples.__getitem__, costs)
    return RowLoader(source, Budget(tokens=30, crops=8), seed=0, pool=4, **options)


class Watch(Callback):
    """Keeps every step, and the gradients and weights after it."""

    def __init__(self):
        self.steps, self.gradients, self.weights = [], [], []

    def on_start(self, run):
        self.model = run.model

    def on_step(self, step):
        self.steps.append(step)
        named = list(self.model.named_parameters())
        self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        self.weights.append({name: p.detach().clone() for name, p in named})


def train_as(rank, world, folder):
    """Train as one of several processes, and return what this one saw."""
    store = f"file://{Path(folder) / 'store'}"
    limit = timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=limit)
    try:
        watch = Watch()
        source = loader(sequences(), rank=rank, world=world)
        # other weights on each rank: those of rank 0 count
        train(recipe(folder), Toy(dropout=0.1, seed=rank), source, callbacks=[watch])
    finally:
        dist.destroy_process_group()
    return watch


if __name__ == "__main__":
    train_as(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
