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
SWEPT = ("video_caption", "pointing")


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
    weights: Weighting, *, captions: Listing[float], pointing: Listing[float]
) -> tuple[tuple[Arm, ...], tuple[Line, ...]]:
    """Return the arms of a sweep, each once, and the lines through them, along which one task changes.

    Args:
        weights: of the recipe; what they say of other tasks stays.
        captions: weights of the tokens of video captions.
        pointing: weights of the tokens of points.

    Raises:
        RecipeError: the recipe weighs such a task in a way that no factor could change to the wanted weight,
            or a weight is not positive.
    """
    flat = {task: _flat_weight(weights, task) for task in SWEPT}
    usual = {task: weight * weights.scale.get(task, 1.0) for task, weight in flat.items()}
    arms: dict[str, Arm] = {}
    lines = []
    for task, wanted in zip(SWEPT, (captions, pointing), strict=True):
        if not wanted or min(wanted) <= 0:
            raise RecipeError(f"the weights of {task} are {list(wanted)}; give numbers above 0")
        found = [_arm(weights, flat, usual | {task: weight}) for weight in sorted(set(wanted))]
        arms |= {arm.name: arm for arm in found}
        lines.append(Line(task, tuple(sorted(set(wanted))), tuple(arm.name for arm in found)))
    return tuple(arms.values()), tuple(lines)


def _flat_weight(weights: Weighting, task: str) -> float:
    """The weight of a task before `scale`."""
    if task in weights.tasks:
        raise RecipeError(f"weights.tasks.{task} is given, and the sweep sets this weight; leave it out")
    scale = {name: factor for name, factor in weights.scale.items() if name != task}
    return dataclasses.replace(weights, scale=scale).sample(task, "", 1)


def _arm(weights: Weighting, flat: Mapping[str, float], wanted: Mapping[str, float]) -> Arm:
    """Make the arm in which tasks have the wanted weights; `flat` are those that `scale` multiplies."""
    scale = {task: weight / flat[task] for task, weight in wanted.items()}
    name = "-".join(f"{task}-{weight:g}" for task, weight in wanted.items())
    return Arm(name, dataclasses.replace(weights, scale={**weights.scale, **scale}))
