"""All runs of an experiment: each arm with each seed, and what they scored on the way."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Listing
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.build import build_encoder, training_examples
from hedgerow.encode import Encoder
from hedgerow.errors import RecipeError
from hedgerow.evaluate.runner import Constant, questions
from hedgerow.experiments.weights.arms import Arm
from hedgerow.experiments.weights.exam import Exam, Examiner, write_exam
from hedgerow.experiments.weights.figures import Estimate, Scores, estimate
from hedgerow.recipe import Recipe
from hedgerow.train.run import run

_FACTS = "media.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """How often to do what: `seeds` runs an arm, asked at `points` steps, about `trees` trees (None: all)."""

    out: Path
    seeds: int
    points: int
    trees: int | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise RecipeError(f"seeds is {self.seeds}; give at least 1")


@dataclasses.dataclass(frozen=True, slots=True)
class Trials:
    """What the runs scored.

    `scores` by name of the arm, float64 [seeds, steps, questions], and `constant`, float64 [questions], that
    of the best constant reply of the training data.
    """

    exam: Exam
    seeds: tuple[int, ...]
    scores: Mapping[str, Scores]
    constant: Scores

    def score(self, arm: str, measure: str) -> list[Estimate]:
        """Return what an arm scored, for each of `exam.steps`."""
        return self._estimates(self.scores[arm], measure, least=0.0)

    def gain(self, arm: str, over: str, measure: str) -> list[Estimate]:
        """Return by how much an arm scored more than another at each step, paired by seed and question."""
        return self._estimates(self.scores[arm] - self.scores[over], measure, least=-1.0)

    def mean_gain(self, arm: str, over: str, measure: str) -> Estimate:
        """Return by how much an arm scored more than another in the mean over steps, paired likewise."""
        apart = (self.scores[arm] - self.scores[over]).mean(axis=1, keepdims=True)
        return self._estimates(apart, measure, least=-1.0)[0]

    def floor(self, measure: str) -> float:
        """Return what the best constant reply scores."""
        return float(self.constant[self.exam.measures[measure]].mean())

    def _estimates(self, scores: Scores, measure: str, *, least: float) -> list[Estimate]:
        places = self.exam.measures[measure]
        trees = [self.exam.questions[place].tree.id for place in places]
        return [estimate(scores[:, step, places], trees, least=least) for step in range(scores.shape[1])]

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain data: by arm, measure and step."""
        measures = self.exam.measures
        return {
            "seeds": list(self.seeds),
            "trees": len({question.tree.id for question in self.exam.questions}),
            "questions": {measure: len(places) for measure, places in measures.items()},
            "constant": {measure: self.floor(measure) for measure in measures},
            "arms": {
                arm: {measure: self.by_step(self.score(arm, measure)) for measure in measures}
                for arm in self.scores
            },
        }

    def by_step(self, estimates: Listing[Estimate]) -> list[dict[str, Any]]:
        """Return estimates, one for each of `exam.steps`, as plain data."""
        pairs = zip(self.exam.steps, estimates, strict=True)
        return [{"step": step, **dataclasses.asdict(found)} for step, found in pairs]


def trained_tasks(recipe: Recipe, settings: Settings) -> tuple[str, ...]:
    """Return the tasks that the training data of a recipe have, in order of name.

    Raises:
        RecipeError: the recipe does not fit its data.
        DataError: the data are bad.
    """
    base = recipe.model_copy(update={"out": settings.out})
    counts = training_examples(base, build_encoder(base)).surveys.tasks.total()
    return tuple(sorted(task for task, count in counts.items() if count))


def run_trials(
    recipe: Recipe, arms: Listing[Arm], settings: Settings, *, say: Callable[[str], object]
) -> Trials:
    """Train and examine each arm with each seed, in `out/ARM-SEED`; runs that were cut off go on.

    Runs of one seed begin with the same weights and see the same rows in the same order.

    Raises:
        RecipeError: there are several processes, no evaluation data, or other runs in the folder.
        DataError: the data are bad.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError("an experiment runs as one process; start it without torchrun")
    base = recipe.model_copy(update={"out": settings.out})
    encoder = build_encoder(base)
    exam = write_exam(base, encoder, points=settings.points, trees=settings.trees)
    constant = _constant(base, encoder, exam)  # looks at all media, so that no run has to
    seeds = tuple(range(recipe.seed, recipe.seed + settings.seeds))
    scores: dict[str, list[Scores]] = {arm.name: [] for arm in arms}
    for seed in seeds:
        for number, arm in enumerate(arms, start=1):
            say(f"-- {arm.name}, seed {seed}: arm {number} of {len(arms)}")
            own = arm.recipe(recipe, seed=seed, out=settings.out)
            _share_facts(settings.out, own.out)
            run(own, callbacks=[Examiner(exam, encoder)])
            scores[arm.name].append(exam.read(own.out))
    return Trials(exam, seeds, {name: np.stack(found) for name, found in scores.items()}, constant)


def _constant(recipe: Recipe, encoder: Encoder, exam: Exam) -> Scores:
    known = (line.read() for line in dict.fromkeys(training_examples(recipe, encoder).lines))
    best = Constant(questions(known, encoder))
    return np.array([reply.score for reply in best.replies(exam.questions)])


def _share_facts(out: Path, run_folder: Path) -> None:
    run_folder.mkdir(parents=True, exist_ok=True)
    if (out / _FACTS).is_file():
        shutil.copyfile(out / _FACTS, run_folder / _FACTS)
