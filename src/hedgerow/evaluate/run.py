"""Evaluates the trained model of a recipe on the recipe's evaluation data."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hedgerow.build import build_encoder, evaluation_trees, trained_model
from hedgerow.evaluate.runner import Constant, Figure, Reply, ask, questions, summary
from hedgerow.recipe import Recipe
from hedgerow.tree import read_trees

REPLIES = "replies.jsonl"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores by task and by kind of object, beside the best constant reply of the training data."""

    replies: tuple[Reply, ...]
    tasks: Mapping[str, Figure]
    constant: Mapping[str, Figure]
    kinds: Mapping[str, Figure]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        shown = {"tasks": self.tasks, "constant": self.constant, "kinds": self.kinds}
        return {name: {key: asdict(value) for key, value in figures.items()} for name, figures in shown.items()}

    def __str__(self) -> str:
        lines = [f"{'task':24}{'score':>8}  {'95 % interval':18}{'n':>6}{'constant':>10}"]
        for name, figure in self.tasks.items():
            interval = f"[{figure.low:.3f}, {figure.high:.3f}]"
            constant = self.constant[name].value
            lines.append(f"{name:24}{figure.value:>8.3f}  {interval:18}{figure.n:>6}{constant:>10.3f}")
        return "\n".join(lines)


def evaluate_recipe(recipe: Recipe) -> Evaluation:
    """Ask the trained model every question of the evaluation data, and write the replies into the run's folder.

    Raises:
        RecipeError: there is no trained model, or no evaluation data.
        DataError: the data are bad.
    """
    encoder = build_encoder(recipe)
    asked = questions(evaluation_trees(recipe), encoder)
    replies = ask(trained_model(recipe), encoder, asked)
    training = (tree for source in recipe.data.train for tree in read_trees(source.path))
    constant = Constant(questions(training, encoder)).replies(asked)
    write_replies(recipe.out / REPLIES, replies)
    return Evaluation(
        tuple(replies), by_task(replies), by_task(constant), summary(replies, by=lambda reply: reply.question.kind)
    )


def by_task(replies: list[Reply]) -> Mapping[str, Figure]:
    """Sum replies up by task."""
    return summary(replies, by=lambda reply: reply.question.task)


def write_replies(path: Path, replies: list[Reply]) -> None:
    """Write replies as JSONL: tree, branch, question, reply, truth, score."""
    with path.open("w", encoding="utf-8") as file:
        for reply in replies:
            question = reply.question
            line = {
                "id": question.tree.id,
                "branch": question.node.address,
                "task": question.task,
                "question": question.text,
                "reply": reply.text,
                "truth": question.reference,
                "score": reply.score,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
