"""Answers whose task is perhaps not the one that was meant: an unknown name, or points under another task."""

from collections import Counter

from hedgerow.content import Points, Tracks
from hedgerow.tree import MessageTree
from hedgerow.weights import Weighting
from hedgerow.weights.rules import TASKS, meant

_GROUNDED = ("pointing", "tracking")


def unknown(tree: MessageTree, weights: Weighting) -> Counter[str]:
    """Count the answers whose task is no known one and has no weight of its own, by task."""
    known = {*TASKS, *weights.tasks}
    return Counter(task for task, _ in _answers(tree) if task not in known)


def astray(tree: MessageTree, weights: Weighting) -> Counter[str]:
    """Count the answers that give points or tracks under a task that is weighted as text, by task.

    A task that `weights.tasks` names is weighted as its user wants it, and does not count.
    """
    known = {*_GROUNDED, *weights.tasks}
    return Counter(task for task, grounded in _answers(tree) if grounded and task not in known)


def unknown_note(task: str, answers: int) -> str:
    """Say what becomes of answers of an unknown task, and which was perhaps meant."""
    count = "1 answer" if answers == 1 else f"{answers:,} answers"
    return f"{count} of the task '{task}', which is unknown and weighted as otherwise; {meant(task)}"


def points_note(answers: int) -> str:
    """Say what becomes of answers that give points under another task, and what to do."""
    which = "answer gives" if answers == 1 else "answers give"
    return (
        f"{answers:,} {which} points or tracks under a task other than pointing and tracking ('qa' where "
        "none is given), and so weighted and scored as text: by default 4 / sqrt(n), not 0.2; give their "
        'branches "task": "pointing" or "tracking"'
    )


def _answers(tree: MessageTree) -> list[tuple[str, bool]]:
    """The task of each node with an answer, and whether the answer holds points or tracks."""
    found = []
    for node in tree.nodes():
        said = [message for message in node.messages if message.role == "assistant"]
        if said:
            parts = [part for message in said for part in message.parts]
            found.append((node.task or "qa", any(isinstance(part, Points | Tracks) for part in parts)))
    return found
