"""Evaluates the trained model of a recipe on the recipe's evaluation data."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hedgerow.build import build_encoder, evaluation_examples, trained_model, training_examples
from hedgerow.data.index import Examples
from hedgerow.data.lines import Dropped, told
from hedgerow.evaluate.runner import Constant, Figure, Reply, ask, questions, summary
from hedgerow.recipe import Recipe
from hedgerow.tree import MessageTree

REPLIES = "replies.jsonl"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores by task and by kind of object, beside the best constant reply of the training data.

    `written` is the file that holds each question with its reply, truth and score.
    """

    replies: tuple[Reply, ...]
    tasks: Mapping[str, Figure]
    constant: Mapping[str, Figure]
    kinds: Mapping[str, Figure]
    written: Path
    dropped: tuple[Dropped, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        shown = {"tasks": self.tasks, "constant": self.constant, "kinds": self.kinds}
        figures = {
            name: {key: asdict(value) for key, value in group.items()} for name, group in shown.items()
        }
        return {**figures, "dropped": [str(item) for item in self.dropped], "replies": str(self.written)}

    def __str__(self) -> str:
        lines = [f"{'task':24}{'score':>8}  {'95 % interval':18}{'n':>6}{'constant':>10}"]
        for name, figure in self.tasks.items():
            interval = f"[{figure.low:.3f}, {figure.high:.3f}]"
            constant = self.constant[name].value
            lines.append(f"{name:24}{figure.value:>8.3f}  {interval:18}{figure.n:>6}{constant:>10.3f}")
        where = f"replies, truths and scores of all questions: {self.written}"
        return "\n".join([*lines, where, *told(self.dropped, whole="what --json prints")])


def evaluate_recipe(recipe: Recipe) -> Evaluation:
    """Ask the trained model every question of the evaluation data, and write the replies into `recipe.out`.

    Raises:
        RecipeError: there is no trained model, or no evaluation data.
        DataError: the data are bad.
    """
    encoder = build_encoder(recipe)
    model = trained_model(recipe)
    examples = evaluation_examples(recipe, encoder)
    trees, dropped = _readable(examples)
    asked = questions(trees, encoder)
    replies = ask(model, encoder, asked)
    known = (line.read() for line in dict.fromkeys(training_examples(recipe, encoder).lines))
    constant = Constant(questions(known, encoder)).replies(asked)
    write_replies(recipe.out / REPLIES, replies)
    return Evaluation(
        replies=tuple(replies),
        tasks=by_task(replies),
        constant=by_task(constant),
        kinds=summary(replies, by=lambda reply: f"{reply.question.task}: {reply.question.kind}"),
        written=recipe.out / REPLIES,
        dropped=(*examples.dropped, *dropped),
    )


def _readable(examples: Examples) -> tuple[list[MessageTree], list[Dropped]]:
    """Part the trees from those whose pixels turn out to be bad."""
    trees: list[MessageTree] = []
    dropped: list[Dropped] = []
    for number in range(len(examples)):
        outcome = examples.attempt(0, number)
        if isinstance(outcome, Dropped):
            dropped.append(outcome)
        else:
            trees.append(examples.tree(0, number))
    return trees, dropped


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
