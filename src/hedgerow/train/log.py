"""What a step reports, the file it is written to, and the lines or the bar that a person watches.

`metrics.jsonl` has one object a line:

| key | meaning |
|---|---|
| step, epoch | step from 1, epoch of its last row from 0 |
| loss, z_loss | what was minimised, and the part of it that is z-loss |
| tasks, sources | by task and by data set, see below |
| fill | share used of each budget, by name |
| tokens_per_second, crops_per_second | over all processes, waiting included, padding not |
| waiting | share of the step's time that was spent waiting for data |
| grad_norm | before clipping |
| lr | of each group |
| memory_mb | peak: of the device's tensors on a GPU, resident of this process on a CPU |
| dropped | why examples were left out of this step |

Of each task and data set, with w the weight of a target in the end: `loss` = sum w ce / sum w, `nll` = mean
ce, `targets`, `share` = sum w over that of the whole step, `effective` = (sum w)^2 / sum w^2: as many targets
of equal weight would average as much. In preference runs `loss` is the mean over pairs, `share` and
`effective` count pairs, `accuracy` is the share of pairs whose margin (beta times how much further from the
reference model the better answer has become likely than the worse) is above 0, and `margin` its mean.
"""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from hedgerow.recipe import Recipe
from hedgerow.sequence import Budget, Cost
from hedgerow.train.loss import Sums

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
except ImportError:  # comes with the extra `cli`; without it a terminal gets plain lines
    Progress = None  # type: ignore[assignment,misc]

METRICS = "metrics.jsonl"
_PAUSE = 10.0  # seconds between plain lines


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step over all processes; `sums` by task and data set, the rest as in the table above."""

    number: int
    epoch: int
    loss: float
    z_loss: float
    sums: Mapping[tuple[str, str], Sums]
    cost: Cost
    budget: Budget
    seconds: float
    waiting: float
    grad_norm: float
    rates: Mapping[str, float]
    memory: int
    dropped: tuple[str, ...] = ()

    @property
    def fill(self) -> dict[str, float]:
        """Share used of each budget by all rows of the step."""
        return {name: self.cost.get(name, 0) / most for name, most in self.budget.items() if most}

    def per_second(self, name: str) -> float:
        """Return the speed in tokens or crops a second."""
        return self.cost.get(name, 0) / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Return the line of `metrics.jsonl`."""
        return {
            "step": self.number,
            "epoch": self.epoch,
            "loss": self.loss,
            "z_loss": self.z_loss,
            "tasks": self._means(lambda task, _: task),
            "sources": self._means(lambda _, source: source),
            "fill": {name: round(share, 4) for name, share in self.fill.items()},
            "tokens_per_second": round(self.per_second("tokens"), 1),
            "crops_per_second": round(self.per_second("crops"), 1),
            "waiting": round(self.waiting, 4),
            "grad_norm": self.grad_norm,
            "lr": dict(self.rates),
            "memory_mb": round(self.memory / 2**20, 1),
            "dropped": list(self.dropped),
        }

    def _means(self, name: Callable[[str, str], str]) -> dict[str, dict[str, float]]:
        parts: dict[str, list[Sums]] = {}
        for key, sums in self.sums.items():
            parts.setdefault(name(*key), []).append(sums)
        whole = Sums.total(self.sums.values()).weight
        return {key: _report(Sums.total(found), whole) for key, found in sorted(parts.items())}


def _report(sums: Sums, whole: float) -> dict[str, float]:
    compared = {"accuracy": sums.right / sums.pairs, "margin": sums.margin / sums.pairs} if sums.pairs else {}
    return {
        "loss": sums.weighted / sums.weight if sums.weight else 0.0,
        "nll": sums.nll / max(sums.targets, 1),
        "targets": sums.targets,
        "share": round(sums.weight / whole, 4) if whole else 0.0,
        "effective": round(sums.effective, 1),
        **compared,
    }


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that tensors held on a GPU, or that this process held on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@dataclass(frozen=True, slots=True)
class Run:
    """What callbacks are given at the start; `step` is the last one that is done, 0 at first."""

    recipe: Recipe
    model: nn.Module
    step: int


class Callback:
    """Goes along with a run, on every process (see `parallel.rank`); override what you need."""

    def on_start(self, run: Run) -> None:
        """Before the first step, after a checkpoint was restored."""

    def on_step(self, step: Step) -> None:
        """After each step, before a checkpoint of it; gradients are those the optimiser saw."""

    def on_save(self, folder: Path) -> None:
        """After a checkpoint was written."""

    def on_end(self) -> None:
        """After the last checkpoint; not after an error."""


class MetricsFile(Callback):
    """Writes every `log_every`-th step and the last to `metrics.jsonl` in `recipe.out`, a line in one piece.

    Args:
        recipe: the run.
        after: the step it goes on from; later lines, and a line that was cut off, are removed.
    """

    def __init__(self, recipe: Recipe, *, after: int) -> None:
        self._recipe = recipe
        path = recipe.out / METRICS
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            fresh = path.with_name(f".new-{path.name}")
            fresh.write_bytes(_lines_until(path.read_bytes(), after))
            fresh.replace(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def on_step(self, step: Step) -> None:
        """Append a line."""
        if step.number % self._recipe.log_every == 0 or step.number == self._recipe.steps:
            os.write(self._file, (json.dumps(step.to_dict()) + "\n").encode())

    def on_save(self, folder: Path) -> None:  # noqa: ARG002 - the signature of a callback
        """Make sure that the lines outlive a power cut, as the checkpoint does."""
        os.fsync(self._file)


def _lines_until(content: bytes, last: int) -> bytes:
    kept = []
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n") or json.loads(line)["step"] > last:
            break
        kept.append(line)
    return b"".join(kept)


class Lines(Callback):
    """Plain lines on stderr: the first and the last step, and one now and then.

    Args:
        steps: length of the run.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._last = -math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def on_start(self, run: Run) -> None:
        """Say where a run goes on that was cut off."""
        if run.step:
            print(f"going on from step {run.step} of {self._steps}", file=sys.stderr, flush=True)

    def on_step(self, step: Step) -> None:
        """Print a step, if the last line is long enough ago."""
        now = time.monotonic()
        if now - self._last >= _PAUSE or step.number == self._steps:
            print(f"step {step.number}/{self._steps}  {brief(step)}", file=sys.stderr, flush=True)
            self._last = now


class Bar(Callback):
    """A progress bar on stderr, made by rich.

    Args:
        steps: length of the run.
    """

    def __init__(self, steps: int) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task("", total=steps)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_step(self, step: Step) -> None:
        """Move the bar to a step."""
        self._progress.update(self._task, completed=step.number, description=brief(step))


def reporter(steps: int) -> Lines | Bar:
    """Return what shows a run: a bar on a terminal where rich is installed, plain lines otherwise."""
    return Bar(steps) if Progress is not None and sys.stderr.isatty() else Lines(steps)


def brief(step: Step) -> str:
    """Return loss, speed and the share of time spent waiting."""
    speed = f"{step.per_second('tokens'):,.0f} tokens/s"
    return f"loss {step.loss:.4f}  {speed}  waiting {step.waiting:.0%}"
