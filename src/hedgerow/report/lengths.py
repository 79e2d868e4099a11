"""How long examples are, by kind and by task; and what their annotations would cost apart."""

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, get_args

import numpy as np

from hedgerow.content import Image
from hedgerow.encode import Encoder, written
from hedgerow.sequence import Array, Cost, Costs
from hedgerow.tree import MessageTree, Node

Kind = Literal["text", "image", "several images", "video"]


@dataclass(frozen=True, slots=True)
class Spread:
    """An amount over many examples; `deciles` from the least to the most, eleven of them."""

    median: float
    p95: float
    most: int
    deciles: tuple[float, ...]

    @classmethod
    def of(cls, amounts: Array) -> "Spread | None":
        """Sum up amounts; None for none."""
        if not len(amounts):
            return None
        median, p95 = np.percentile(amounts, (50, 95))
        deciles = np.percentile(amounts, range(0, 101, 10)).tolist()
        return cls(float(median), float(p95), int(np.max(amounts)), tuple(deciles))


@dataclass(frozen=True, slots=True)
class Lengths:
    """What the examples of one kind, or with samples of one task, hold.

    `answers` are the answer tokens of an example, or of a sample of the task; None where no tree was read.
    """

    name: str
    examples: int
    tokens: Spread | None
    crops: Spread | None
    answers: Spread | None


@dataclass(frozen=True, slots=True)
class Look:
    """What reading a tree tells beyond its cost.

    `answers` has the task and the answer tokens of each node with answers; `apart` what each of these nodes
    costs as a conversation of its own, everything above it repeated.
    """

    kind: Kind
    cost: Cost
    answers: tuple[tuple[str, int], ...]
    apart: tuple[Cost, ...]


def look(tree: MessageTree, encoder: Encoder) -> Look:
    """Look at a tree; no pixel is decoded.

    Raises:
        DataError: it cannot be encoded.
    """
    nodes, costs = tree.nodes(), encoder.node_costs(tree)
    paths: list[Cost] = []
    for node, cost in zip(nodes, costs, strict=True):
        paths.append(cost + paths[node.parent] if node.parent >= 0 else cost)
    answered = [node for node in nodes if any(message.role == "assistant" for message in node.messages)]
    return Look(
        kind=_kind(nodes),
        cost=sum(costs, Cost()),
        answers=tuple((node.task or "qa", sum(_answers(node, encoder))) for node in answered),
        apart=tuple(paths[node.index] for node in answered),
    )


def by_kind(looks: Listing[Look]) -> Iterator[Lengths]:
    """Tell lengths by what trees show; kinds that do not occur are left out."""
    for kind in get_args(Kind):
        own = [one for one in looks if one.kind == kind]
        if own:
            costs = Costs.of([one.cost for one in own])
            yield _lengths(kind, costs, [sum(n for _, n in one.answers) for one in own])


def by_task(costs: Costs, tasks: Costs, looks: Listing[Look]) -> Iterator[Lengths]:
    """Tell lengths by task, commonest first; an example counts for each task that it has a sample of.

    Args:
        costs: of all examples.
        tasks: how many samples of each task each example has.
        looks: at some of them.
    """
    held = tasks.amounts(*tasks.names) > 0
    found = [
        _lengths(task, costs.take(np.flatnonzero(held[:, column])), _answers_of(task, looks))
        for column, task in enumerate(tasks.names)
    ]
    yield from sorted(found, key=attrgetter("examples"), reverse=True)


def _lengths(name: str, costs: Costs, answers: Listing[int]) -> Lengths:
    tokens, crops = costs.amounts("tokens", "crops").T
    return Lengths(name, len(costs), Spread.of(tokens), Spread.of(crops), Spread.of(answers))


def _answers_of(task: str, looks: Listing[Look]) -> list[int]:
    return [count for one in looks for name, count in one.answers if name == task]


def _kind(nodes: Listing[Node]) -> Kind:
    media = [item for node in nodes for message in node.messages for item in message.media]
    images = sum(isinstance(item, Image) for item in media)
    if images < len(media):
        return "video"
    return "several images" if images > 1 else "image" if images else "text"


def _answers(node: Node, encoder: Encoder) -> Iterator[int]:
    """The tokens of each answer of a node, as it is taught; end-of-turn not counted."""
    for end, message in enumerate(node.messages, 1):
        if message.role == "assistant":
            parts = encoder.answer(dataclasses.replace(node, messages=node.messages[:end]))
            yield len(encoder.chat.encode("".join(map(written, parts))).tokens)
