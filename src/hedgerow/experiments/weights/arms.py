"""The arms of an experiment: recipes that differ in their weights and in nothing else."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence as Listing
from pathlib import Path

from hedgerow.errors import RecipeError
from hedgerow.recipe import Recipe
from hedgerow.weights.weighting import Weighting

WEIGHTED, UNIFORM = "weighted", "uniform"
CAPTION_WEIGHTS = (0.05, 0.1, 0.2, 0.5)
POINTING_WEIGHTS = (0.1, 0.2, 0.5, 1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Arm:
    """One way to weigh; `name` is also a part of the name of its runs' folders."""

    name: str
    weights: Weighting

    def recipe(self, recipe: Recipe, *, seed: int, out: Path) -> Recipe:
        """Return a recipe with the weights of this arm, a seed, and a folder of its own below `out`."""
        changed = {"weights": self.weights, "seed": seed, "out": out / f"{self.name}-{seed}"}
        return recipe.model_copy(update=changed)


def ablation_arms(weights: Weighting) -> tuple[Arm, Arm]:
    """Return the arm with the given weights and the one in which each token weighs 1.

    Raises:
        RecipeError: they are the same.
    """
    plain = Weighting(preset="uniform")
    if weights == plain:
        raise RecipeError("weights.preset is uniform, so both arms would be one; give molmo2 or nothing")
    return Arm(WEIGHTED, weights), Arm(UNIFORM, plain)


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """Arms in which one task is weighed from little to much: `arms` are names, in the order of `weights`."""

    task: str
    weights: tuple[float, ...]
    arms: tuple[str, ...]


def sweep_arms(
    weights: Weighting, wanted: Mapping[str, Listing[float]]
) -> tuple[tuple[Arm, ...], tuple[Line, ...]]:
    """Return the arms of a sweep, each once, and the lines through them, along which one task changes.

    Args:
        weights: of the recipe; what they say of other tasks stays.
        wanted: by task that is swept, the weights of its tokens.

    Raises:
        RecipeError: the recipe gives such a task a weight of its own, or a weight is not positive.
    """
    plain = {task: _plain_weight(weights, task) for task in wanted}
    usual = {
        task: None if weight is None else weight * weights.scale.get(task, 1.0)
        for task, weight in plain.items()
    }
    arms: dict[str, Arm] = {}
    lines = []
    for task, asked in wanted.items():
        if not asked or min(asked) <= 0:
            raise RecipeError(f"the weights of {task} are {list(asked)}; give numbers above 0")
        found = [_arm(weights, plain, usual | {task: weight}) for weight in sorted(set(asked))]
        arms |= {arm.name: arm for arm in found}
        lines.append(Line(task, tuple(sorted(set(asked))), tuple(arm.name for arm in found)))
    return tuple(arms.values()), tuple(lines)


def _plain_weight(weights: Weighting, task: str) -> float | None:
    """The weight of a task before `scale`; None where it depends on the length of the answer."""
    if task in weights.tasks:
        raise RecipeError(f"weights.tasks.{task} is given, and the sweep sets this weight; leave it out")
    unscaled = _without(weights, task)
    short, long = (unscaled.sample(task, "", tokens) for tokens in (1, 4))
    return short if short == long else None


def _arm(weights: Weighting, plain: Mapping[str, float | None], wanted: Mapping[str, float | None]) -> Arm:
    """Make the arm in which tasks have the wanted weights (None: as the recipe says)."""
    changed, names = weights, []
    for task, weight in wanted.items():
        names.append(f"{task}-{'usual' if weight is None else format(weight, 'g')}")
        if weight is None:
            continue
        usual = plain[task]
        if usual is None:
            changed = dataclasses.replace(_without(changed, task), tasks={**changed.tasks, task: weight})
        else:
            changed = dataclasses.replace(changed, scale={**changed.scale, task: weight / usual})
    return Arm("-".join(names), changed)


def _without(weights: Weighting, task: str) -> Weighting:
    """The same without a factor of the task."""
    scale = {name: factor for name, factor in weights.scale.items() if name != task}
    return dataclasses.replace(weights, scale=scale)
