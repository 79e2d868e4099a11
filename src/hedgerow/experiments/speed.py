"""Padded against packed trees: same annotations, model, precision, threads, backend; timed in turns."""

import ctypes
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable
from collections.abc import Sequence as Listing
from functools import partial
from pathlib import Path

import numpy as np

from hedgerow.encode import Encoder
from hedgerow.packing.plan import plan_rows
from hedgerow.sequence import Budget, Cost, Row, Sequence
from hedgerow.tree import MessageTree


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """One way to train on the annotations: `seconds` is a median, `peak_mb` None where unknown."""

    rows: int
    tokens: int
    crops: int
    seconds: float
    peak_mb: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """Padded rows, one annotation each, against packed trees."""

    annotations: int
    padded: Side
    packed: Side

    @property
    def speedup(self) -> float:
        """How many times faster packed trees are."""
        return self.padded.seconds / self.packed.seconds

    @property
    def bound(self) -> float:
        """The most that could be gained: time grows with tokens and crops, so the greater ratio."""
        return max(self.fewer_tokens, self.fewer_crops)

    @property
    def fewer_tokens(self) -> float:
        """How many times fewer tokens packed trees hold."""
        return self.padded.tokens / self.packed.tokens

    @property
    def fewer_crops(self) -> float:
        """How many times fewer crops packed trees hold."""
        return self.padded.crops / max(self.packed.crops, 1)

    def __str__(self) -> str:
        lines = [f"{'':8}{'rows':>6}{'tokens':>9}{'crops':>7}{'seconds':>9}{'peak MB':>9}"]
        for name, side in (("padded", self.padded), ("packed", self.packed)):
            peak = "-" if side.peak_mb is None else f"{side.peak_mb:.0f}"
            lines.append(
                f"{name:8}{side.rows:>6}{side.tokens:>9,}{side.crops:>7}{side.seconds:>9.3f}{peak:>9}"
            )
        lines.append(
            f"{self.annotations} annotations: {self.speedup:.1f} times faster; {self.fewer_tokens:.1f} times "
            f"fewer tokens and {self.fewer_crops:.1f} times fewer crops allow {self.bound:.1f}"
        )
        return "\n".join(lines)


def compare(
    trees: Listing[MessageTree],
    encoder: Encoder,
    step: Callable[[Listing[Row]], None],
    *,
    budget: Budget,
    repeats: int = 3,
) -> Comparison:
    """Time one optimiser step over all annotations of the trees, padded and packed.

    Args:
        trees: each node with answers is one annotation.
        encoder: encodes them.
        step: forward, backward and optimiser on rows as micro-batches.
        budget: what a packed row may hold; a padded batch holds as many annotations as fit its tokens.
        repeats: how often each side is timed, in alternation, after one untimed turn.
    """
    packed = pack([encoder(tree) for tree in trees], budget)
    padded = pad([one for tree in trees for one in separate(tree, encoder)], budget)
    sides = {"padded": padded, "packed": packed}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    peaks = {name: peak_of(partial(step, rows)) for name, rows in sides.items()}
    for _ in range(repeats):
        for name, rows in sides.items():
            begin = time.perf_counter()
            step(rows)
            seconds[name].append(time.perf_counter() - begin)
    made = {
        name: Side(
            rows=len(rows),
            tokens=sum(len(row) for row in rows),
            crops=sum(row.cost.get("crops", 0) for row in rows),
            seconds=statistics.median(seconds[name]),
            peak_mb=peaks[name],
        )
        for name, rows in sides.items()
    }
    annotations = sum(len(row.samples) for row in packed)
    return Comparison(annotations, made["padded"], made["packed"])


def separate(tree: MessageTree, encoder: Encoder) -> list[Sequence]:
    """Return one sequence for each node with answers: what a trainer without trees would be given.

    Each holds the media and messages of the node's path again, and is trained on the node's own answers, with
    the weights they have in the tree.
    """
    whole, nodes = encoder(tree), {node.address: node for node in tree.nodes()}
    found = []
    for number, sample in enumerate(whole.samples):
        node = nodes[sample.branch]
        alone = encoder(dataclasses.replace(tree, messages=node.path + node.messages, branches=()))
        weight = whole.weight[whole.sample == number]
        own = slice(len(alone.target) - len(weight), None)  # answers above it come first
        found.append(
            dataclasses.replace(
                alone,
                source=alone.source[own],
                target=alone.target[own],
                weight=weight,
                sample=np.zeros(len(weight), np.int32),
                samples=(sample,),
            )
        )
    return found


def pack(sequences: Listing[Sequence], budget: Budget) -> list[Row]:
    """Pack sequences into rows."""
    plan = plan_rows([sequence.cost for sequence in sequences], budget)
    return [Row.join([sequences[number] for number in row], budget) for row in plan.rows]


def pad(sequences: Listing[Sequence], budget: Budget) -> list[Row]:
    """Batch sequences by length and fill each up to the longest of its batch; crops are not limited."""
    rows: list[Row] = []
    batch: list[Sequence] = []
    for sequence in sorted(sequences, key=len):
        if batch and (len(batch) + 1) * len(sequence) > budget["tokens"]:
            rows.append(_padded_row(batch))
            batch = []
        batch.append(sequence)
    return [*rows, _padded_row(batch)] if batch else rows


def _padded_row(batch: Listing[Sequence]) -> Row:
    length = max(len(sequence) for sequence in batch)
    filled = [fill(sequence, length) for sequence in batch]
    total = sum((sequence.cost for sequence in filled), Cost())
    return Row.join(filled, Budget(**total))


def fill(sequence: Sequence, length: int) -> Sequence:
    """Lengthen a sequence with tokens that see only themselves and train nothing."""
    missing = length - len(sequence)
    own = np.arange(len(sequence), length, dtype=np.int32)
    return dataclasses.replace(
        sequence,
        tokens=np.pad(sequence.tokens, (0, missing)),
        position=np.pad(sequence.position, [(0, 0)] * (sequence.position.ndim - 1) + [(0, missing)]),
        order=np.concatenate([sequence.order, own]),
        end=np.concatenate([sequence.end, own + 1]),
        group=np.pad(sequence.group, (0, missing), constant_values=-1),
        cost=Cost(**{**sequence.cost, "tokens": length}),
    )


def peak_of(work: Callable[[], None]) -> float | None:
    """Run something and return by how many MB resident memory rose at most; None where no system tells."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not (status.is_file() and reset.exists()):
        work()
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that still counts as resident would hide a rise
    reset.write_text("5")
    before = _status_mb(status, "VmRSS")
    work()
    return _status_mb(status, "VmHWM") - before


def _status_mb(status: Path, name: str) -> float:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) / 1024
