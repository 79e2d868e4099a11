"""Weights of tasks that change while a model trains."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from hedgerow.weights.answer import Array

Knots = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class TaskSchedule:
    """A factor on the weight of a task as a function of the step: straight lines between given steps.

    Before the first of them and after the last the factor stays. Nothing is encoded again: the loop
    multiplies a row's weights.

    Attributes:
        tasks: by task, (step, factor) pairs in order.

    Raises:
        ValueError: a task has no pair, steps do not increase, or a factor is not finite.
    """

    tasks: Mapping[str, Knots] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no function."""
        for task, knots in self.tasks.items():
            if not knots:
                raise ValueError(f"the schedule of {task} is empty; give [step, factor] pairs")
            steps, factors = [step for step, _ in knots], [factor for _, factor in knots]
            if steps != sorted({*steps}) or steps[0] < 0:
                raise ValueError(f"the schedule of {task} has the steps {steps}; let them increase from 0")
            if not np.isfinite(factors).all():
                raise ValueError(f"the schedule of {task} has the factors {factors}; give finite ones")

    def factor(self, task: str, step: int) -> float:
        """Return the factor of a task at an optimiser step (from 1); 1 for a task without a schedule."""
        knots = self.tasks.get(task)
        if knots is None:
            return 1.0
        return float(np.interp(step, [at for at, _ in knots], [value for _, value in knots]))

    def factors(self, tasks: Iterable[str], step: int) -> Array:
        """Return the factor of each sample of a row from their tasks, float32 [S]."""
        return np.array([self.factor(task, step) for task in tasks], np.float32)

    def __bool__(self) -> bool:
        """Whether any task has one."""
        return bool(self.tasks)
