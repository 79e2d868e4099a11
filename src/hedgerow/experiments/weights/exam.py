"""The questions that every run of an experiment is asked on its way, and the answers on disk."""

import json
from collections.abc import Iterable
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from hedgerow.build import evaluation_examples
from hedgerow.data.lines import Dropped
from hedgerow.encode import Encoder
from hedgerow.errors import DataError, RecipeError
from hedgerow.evaluate.run import write_replies
from hedgerow.evaluate.runner import CAPTIONS, Question, ask, questions
from hedgerow.experiments.weights.figures import Scores
from hedgerow.models.molmo2 import Molmo2
from hedgerow.recipe import Recipe
from hedgerow.train.log import Callback, Run, Step
from hedgerow.tree import MessageTree

SHORT, CAPTION, POINTING = "short answers", "captions", "pointing"
MEASURES = {SHORT: ("multiple_choice", "counting"), CAPTION: CAPTIONS, POINTING: ("pointing",)}
_ASKED = tuple(task for tasks in MEASURES.values() for task in tasks)
_ROOM = 2  # a reply is cut off at this many times the tokens of the longest true one


@dataclass(frozen=True, slots=True)
class Exam:
    """The same questions for every run, asked after each of `steps`; a reply has at most `most` tokens."""

    questions: tuple[Question, ...]
    steps: tuple[int, ...]
    most: int

    @property
    def measures(self) -> dict[str, list[int]]:
        """Places of the questions of each measure; tasks of a measure that has several are named too."""
        found: dict[str, list[int]] = {}
        for measure, tasks in MEASURES.items():
            by_task = {task: self._of((task,)) for task in tasks}
            held = {task: places for task, places in by_task.items() if places}
            found |= {measure: self._of(tasks)} if held else {}
            found |= held if len(held) > 1 else {}
        return found

    def _of(self, tasks: Iterable[str]) -> list[int]:
        return [place for place, question in enumerate(self.questions) if question.task in tasks]

    def read(self, out: Path) -> Scores:
        """Return the scores of a finished run, float64 [steps, questions].

        Raises:
            RecipeError: it was asked other questions, or at other steps.
        """
        return np.stack([self._scores(_answers(out, step)) for step in self.steps])

    def _scores(self, path: Path) -> Scores:
        wanted = [(one.tree.id, one.node.address, one.text, one.reference) for one in self.questions]
        lines = []
        if path.is_file():
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if [(line["id"], line["branch"], line["question"], line["truth"]) for line in lines] != wanted:
            raise RecipeError(
                f"{path}: no answers to these {len(wanted)} questions; an earlier experiment here had "
                "other evaluation data or points: set them back, or give a new folder with --out"
            )
        return np.array([line["score"] for line in lines])


def write_exam(recipe: Recipe, encoder: Encoder, *, points: int, trees: int | None) -> Exam:
    """Choose what is asked and when: equally far apart, the last time after the last step.

    Args:
        recipe: names the evaluation data and the number of steps.
        encoder: of the recipe.
        points: how often.
        trees: about how many trees of the evaluation data, evenly spread; None: all.

    Raises:
        RecipeError: there are no evaluation data, or a number is too small or too large.
        DataError: the data are bad, or have no question of a task that is measured.
    """
    if not 1 <= points <= recipe.steps:
        raise RecipeError(f"points is {points}; give 1 to {recipe.steps}, the steps of the recipe")
    if trees is not None and trees < 2:
        raise RecipeError(f"trees is {trees}; give at least 2, or there is nothing to tell chance by")
    asked = [
        question for question in questions(_trees(recipe, encoder, trees), encoder) if question.task in _ASKED
    ]
    if not asked:
        raise DataError(f"data.evaluate has no question of {', '.join(_ASKED)}; give data that have some")
    longest = max(len(encoder.chat.encode(question.reference).tokens) for question in asked)
    steps = tuple(recipe.steps * number // points for number in range(1, points + 1))
    return Exam(tuple(asked), steps, _ROOM * longest)


def _trees(recipe: Recipe, encoder: Encoder, most: int | None) -> Listing[MessageTree]:
    """Evenly spread trees; those whose pixels turn out to be bad are left out where the recipe allows it."""
    examples = evaluation_examples(recipe, encoder)
    amount = len(examples) if most is None else min(most, len(examples))
    places = [len(examples) * number // amount for number in range(amount)]
    return [
        examples.tree(0, place) for place in places if not isinstance(examples.attempt(0, place), Dropped)
    ]


class Examiner(Callback):
    """Asks the questions of an exam on the way of a run, and writes the answers into its folder.

    Answers stand on disk before a checkpoint of their step or of a later one: a run that was cut off and
    goes on leaves none out.

    Args:
        exam: the questions.
        encoder: makes the prompts.
    """

    def __init__(self, exam: Exam, encoder: Encoder) -> None:
        self._exam, self._encoder = exam, encoder

    def on_start(self, run: Run) -> None:
        """Note which run this is."""
        self._run = run

    def on_step(self, step: Step) -> None:
        """Ask, if it is time."""
        if step.number not in self._exam.steps:
            return
        model = cast(Molmo2, self._run.model)
        replies = ask(model, self._encoder, self._exam.questions, max_new_tokens=self._exam.most)
        path = _answers(self._run.recipe.out, step.number)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".new-{path.name}")
        write_replies(fresh, replies)
        fresh.replace(path)


def _answers(out: Path, step: int) -> Path:
    return out / "answers" / f"step-{step:08d}.jsonl"
