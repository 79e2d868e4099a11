"""Tree to tree, before it is measured: what differs from pass to pass over the data.

A transform is a pure function of (tree, seed, pass): it never changes its input, and what is drawn for a tree
depends on its id and not on other trees, on a process or on a library's random generator.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Listing
from typing import Annotated, TypeVar

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from hedgerow.content import STRICT, Image, Part, Points, Text, Tracks, Video
from hedgerow.data.options import reorder
from hedgerow.tree import Branch, Message, MessageTree

_T = TypeVar("_T")
_PLACE = re.compile(r"\{(\w*)\}")
_PLACES = ("label", "text")


class Dice:
    """Random draws from a hash of a key: the same on every machine, Python and version of a library.

    Args:
        key: what the draws depend on, and nothing else.
    """

    def __init__(self, *key: str | int) -> None:
        self._key = json.dumps(key).encode()
        self._drawn = 0

    def _fraction(self) -> int:
        """Draw 64 bits."""
        raw = hashlib.blake2b(self._key, digest_size=8, salt=self._drawn.to_bytes(16, "little"))
        self._drawn += 1
        return int.from_bytes(raw.digest(), "little")

    def below(self, count: int) -> int:
        """Draw one of 0 to `count` - 1."""
        return self._fraction() * count >> 64

    def happens(self, probability: float) -> bool:
        """Draw whether something of a probability happens: never at 0, always at 1."""
        return self._fraction() < probability * 2**64

    def one_of(self, items: Listing[_T]) -> _T:
        """Draw one item."""
        return items[self.below(len(items))]

    def shuffled(self, items: Listing[_T]) -> list[_T]:
        """Return the items in an order drawn from all orders."""
        found = list(items)
        for place in range(len(found) - 1, 0, -1):
            other = self.below(place + 1)
            found[place], found[other] = found[other], found[place]
        return found


@dataclass(frozen=True, slots=True, config=STRICT)
class HighResolution:
    """With a probability, the images of a tree are cut into up to `max_crops` crops.

    Defaults are those of arXiv 2601.10611's public code for pointing in images. With `tasks` only trees are
    meant that have an answer of one of them.
    """

    probability: Annotated[float, Field(ge=0.0, le=1.0)] = 0.3
    max_crops: Annotated[int, Field(ge=1)] = 24
    tasks: tuple[str, ...] = ()

    def concerns(self, tree: MessageTree) -> bool:
        """Say whether a tree may be drawn."""
        answered = [n for n in tree.nodes() if any(message.role == "assistant" for message in n.messages)]
        return not self.tasks or any((node.task or "qa") in self.tasks for node in answered)


@dataclass(frozen=True, slots=True, config=STRICT)
class Transforms:
    """Which transforms are used, in this order; none by default.

    Attributes:
        shuffle_options: put the options of a `multiple_choice` question in another order, and the letter of
            the answer with its option; see `hedgerow.data.options` for what is recognised.
        templates: by task, wordings for questions; one is drawn for each question. `{text}` is the question
            as it stands, `{label}` what the reply points to or tracks. A wording with `{label}` is not drawn
            for a reply without one.
        fps: frames a second, one drawn for each video that does not say its own.
        high_resolution: see `HighResolution`; images that say their own `max_crops` keep it.
        shuffle_branches: draw the order of branches, at every depth.
    """

    shuffle_options: bool = False
    templates: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    fps: tuple[Annotated[float, Field(gt=0.0)], ...] = ()
    high_resolution: HighResolution | None = None
    shuffle_branches: bool = False

    @field_validator("templates")
    @classmethod
    def _known_places(cls, templates: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        for task, wordings in templates.items():
            if not wordings:
                raise ValueError(f"no wording for {task}; give at least one, or leave the task out")
            for wording in wordings:
                unknown = {*_PLACE.findall(wording)} - {*_PLACES}
                if unknown:
                    raise ValueError(
                        f"'{wording}' has a place {{{min(unknown)}}}; known are {{label}} and {{text}}"
                    )
        return templates

    def __bool__(self) -> bool:
        """Whether any transform is used."""
        return self != Transforms()

    def __call__(self, tree: MessageTree, *, seed: int, turn: int) -> MessageTree:
        """Return the tree as it is used in a pass over the data.

        Args:
            tree: stays as it is.
            seed: of the run.
            turn: number of the pass.
        """

        def dice(name: str) -> Dice:
            return Dice(seed, turn, tree.id, name)

        if self.shuffle_options:
            tree = _with_questions(tree, functools.partial(_options, dice=dice("options")))
        if self.templates:
            wording = functools.partial(_worded, templates=self.templates, dice=dice("templates"))
            tree = _with_questions(tree, wording)
        if self.fps:
            tree = _with_parts(tree, functools.partial(_at_rate, rates=self.fps, dice=dice("fps")))
        high = self.high_resolution
        if high and high.concerns(tree) and dice("high_resolution").happens(high.probability):
            tree = _with_parts(tree, functools.partial(_enlarged, max_crops=high.max_crops))
        if self.shuffle_branches:
            tree = _with_branches_shuffled(tree, dice("branches"))
        return tree


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """A question and its replies: the next message, or the first one of each branch."""

    question: Message
    replies: tuple[Message, ...]
    task: str


_Change = Callable[[_Asked], _Asked]
_Node = TypeVar("_Node", MessageTree, Branch)


def _with_questions(tree: MessageTree, change: _Change) -> MessageTree:
    return _questions_of(tree, tree.task, change)


def _questions_of(node: _Node, inherited: str | None, change: _Change) -> _Node:
    task = node.task or inherited
    messages: list[Message] = list(node.messages)
    branches = list(node.branches)
    for place, message in enumerate(messages):
        following = messages[place + 1 : place + 2]
        if message.role != "user":
            continue
        if following and following[0].role == "assistant":
            asked: _Asked = change(_Asked(message, (following[0],), task or "qa"))
            messages[place : place + 2] = [asked.question, *asked.replies]
        elif not following:
            messages[place], branches = _answered_below(message, branches, task, change)
    inner = tuple(_questions_of(branch, task, change) for branch in branches)
    return dataclasses.replace(node, messages=tuple(messages), branches=inner)


def _answered_below(
    question: Message, branches: list[Branch], inherited: str | None, change: _Change
) -> tuple[Message, list[Branch]]:
    """Change a question whose answers are branches of their own, if all of one task answer it."""
    own = [place for place, branch in enumerate(branches) if branch.messages[0].role == "assistant"]
    tasks = {branches[place].task or inherited for place in own}
    if len(tasks) != 1 or len(own) < len(branches):
        return question, branches
    asked = change(_Asked(question, tuple(branches[place].messages[0] for place in own), tasks.pop() or "qa"))
    changed = [
        dataclasses.replace(branch, messages=(reply, *branch.messages[1:]))
        for branch, reply in zip(branches, asked.replies, strict=True)
    ]
    return asked.question, changed


def _options(asked: _Asked, *, dice: Dice) -> _Asked:
    texts = [plain_text(message) for message in (asked.question, *asked.replies)]
    known = [text for text in texts if text is not None]
    if asked.task != "multiple_choice" or len(known) < len(texts):
        return asked
    found = reorder(known[0], known[1:], dice.shuffled)
    if found is None:
        return asked
    replies = [_with_text(m, text) for m, text in zip(asked.replies, found[1], strict=True)]
    return _Asked(_with_text(asked.question, found[0]), tuple(replies), asked.task)


def _worded(asked: _Asked, *, templates: Mapping[str, tuple[str, ...]], dice: Dice) -> _Asked:
    text = plain_text(asked.question)
    shown = [part for reply in asked.replies for part in reply.parts if isinstance(part, Points | Tracks)]
    labels = {part.label for part in shown}
    values = {"text": text} | ({"label": labels.pop()} if len(labels) == 1 else {})
    usable = [w for w in templates.get(asked.task, ()) if {*_PLACE.findall(w)} <= values.keys()]
    if text is None or not usable:
        return asked
    wording = _PLACE.sub(lambda place: str(values[place[1]]), dice.one_of(usable))
    return dataclasses.replace(asked, question=_with_text(asked.question, wording))


def plain_text(message: Message) -> str | None:
    """Return what a message says, as one text that another may replace.

    None when it says nothing, says it with points or tracks, or weighs some of its characters differently.
    """
    said = [part for part in message.parts if not isinstance(part, Image | Video)]
    texts = [part for part in said if isinstance(part, Text)]
    weights = {part.weight for part in texts}
    if len(texts) < len(said) or len(weights) != 1 or any(part.spans for part in texts):
        return None
    return "".join(part.text for part in texts)


def _with_text(message: Message, text: str) -> Message:
    """Return a message that says a text in place of its own, which stands where its first piece stood."""
    if isinstance(message.content, str):
        return dataclasses.replace(message, content=text)
    pieces = [part for part in message.content if isinstance(part, Text)]
    if "".join(part.text for part in pieces) == text:
        return message
    first = dataclasses.replace(pieces[0], text=text)
    parts = [
        first if part is pieces[0] else part
        for part in message.content
        if part is pieces[0] or not isinstance(part, Text)
    ]
    return dataclasses.replace(message, content=tuple(parts))


def _at_rate(part: Part, *, rates: tuple[float, ...], dice: Dice) -> Part:
    if not isinstance(part, Video) or part.fps is not None:
        return part
    return dataclasses.replace(part, fps=dice.one_of(rates))


def _enlarged(part: Part, *, max_crops: int) -> Part:
    if not isinstance(part, Image) or part.max_crops is not None:
        return part
    return dataclasses.replace(part, max_crops=max_crops)


def _with_parts(node: _Node, change: Callable[[Part], Part]) -> _Node:
    messages = tuple(
        message
        if isinstance(message.content, str)
        else dataclasses.replace(message, content=tuple(change(part) for part in message.content))
        for message in node.messages
    )
    branches = tuple(_with_parts(branch, change) for branch in node.branches)
    return dataclasses.replace(node, messages=messages, branches=branches)


def _with_branches_shuffled(node: _Node, dice: Dice) -> _Node:
    branches = tuple(_with_branches_shuffled(branch, dice) for branch in dice.shuffled(node.branches))
    return dataclasses.replace(node, branches=branches)
