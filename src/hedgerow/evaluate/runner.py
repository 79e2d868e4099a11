"""Asks the questions of message trees, scores the replies, and sums up by task and by kind of object."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from hedgerow.content import Image, Points, Text, Tracks, Video
from hedgerow.data.seen import seen
from hedgerow.encode import Encoder, written
from hedgerow.evaluate import metrics
from hedgerow.grounding.codec import format_points, parse
from hedgerow.grounding.counting import count_of
from hedgerow.models.generate import generate
from hedgerow.models.rows import RowModel
from hedgerow.models.sampling import Sampling
from hedgerow.sequence import Sequence as Prompt
from hedgerow.tree import MessageTree, Node

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_OPTION = re.compile(r"^[A-Z][.)] .*$", re.MULTILINE)
CAPTIONS = ("video_caption", "image_caption")
HELD = 65536  # tokens of prompts that are in memory at once, with their pixels


@dataclass(frozen=True, slots=True)
class Question:
    """One supervised answer of a tree: `text` asks, `answer` is the true reply.

    Points and tracks of the answer are in fractions, at the printed times of sampled frames. `sizes` are of
    what they stand on, (width, height) in pixels: of the video, or of each image shown.
    """

    tree: MessageTree
    node: Node
    text: str
    answer: tuple[Text | Points | Tracks, ...]
    sizes: tuple[tuple[int, int], ...]

    @property
    def task(self) -> str:
        """The node's task, qa where none is given."""
        return self.node.task or "qa"

    @property
    def key(self) -> tuple[str, str, str]:
        """Data set, task and question template: numbers and options are taken out of the text."""
        return self.tree.source, self.task, _NUMBER.sub("#", _OPTION.sub("", self.text))

    @property
    def kind(self) -> str:
        """What is asked about: data set and label of the object, or the data set alone."""
        truth = self.truth
        return f"{self.tree.source} {truth.label}" if truth is not None else self.tree.source

    @property
    def truth(self) -> Points | Tracks | None:
        """The true points or tracks; None where the answer is text."""
        return next((part for part in self.answer if isinstance(part, Points | Tracks)), None)

    @property
    def reference(self) -> str:
        """The true reply as text."""
        return "".join(written(part) for part in self.answer)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to a question and its score, from 0 to 1."""

    question: Question
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean score with its 95 % interval, bootstrapped over trees; `n` questions."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def questions(trees: Iterable[MessageTree], encoder: Encoder) -> list[Question]:
    """Return every node that ends with an answer, as a question.

    Branches whose points stand on no sampled frame have no true answer and are left out.

    Raises:
        DataError: the points of a root do, or a tree cannot be encoded.
    """
    found = []
    for tree in (seen(tree, encoder).tree for tree in trees):
        for node in tree.nodes():
            if node.messages[-1].role != "assistant":
                continue
            before = [message for message in (*node.path, *node.messages[:-1]) if message.role == "user"]
            text = " ".join(part.text for part in before[-1].parts if part.type == "text")
            answer = encoder.answer(node)
            found.append(Question(tree, node, text, answer, _sizes(node, answer, encoder)))
    return found


def _sizes(
    node: Node, answer: Sequence[Text | Points | Tracks], encoder: Encoder
) -> tuple[tuple[int, int], ...]:
    media = [item for message in (*node.path, *node.messages) for item in message.media]
    timed = any(
        point.time is not None for part in answer if not isinstance(part, Text) for point in part.points
    )
    videos = [item for item in media if isinstance(item, Video)][-1:]  # times belong to the last one
    images = [item for item in media if isinstance(item, Image)]
    return tuple((facts.width, facts.height) for facts in map(encoder.facts, videos if timed else images))


def score(question: Question, text: str) -> float:
    """Score a reply from 0 to 1.

    Pointing: F1 of hits; tracking: F1 over frames; counting: exact number; multiple choice: the letter;
    captions: F1 of words; anything else: 1 for the same text, case and outer space aside.
    """
    if question.task == "counting":
        return _same(count_of(text), count_of(question.reference))
    truth = question.truth
    if truth is not None:
        parts = parse(text).parts
        if isinstance(truth, Tracks):
            tracks = next((part for part in parts if isinstance(part, Tracks)), Tracks(truth.label))
            size = question.sizes[0] if truth.points else (1, 1)  # nothing to hit needs no size
            return metrics.track_scores(tracks, truth, size=size).f1
        points = next((part for part in parts if isinstance(part, Points)), Points(truth.label))
        return metrics.pointing_scores(points, truth, size=question.sizes).f1
    reference = question.reference
    if question.task == "multiple_choice":
        return _same(metrics.choice_of(text), metrics.choice_of(reference))
    if question.task in CAPTIONS:
        return metrics.token_f1(text, reference).f1
    return float(text.strip().lower() == reference.strip().lower())


def _same(said: int | str | None, true: int | str | None) -> float:
    """An unreadable reply is wrong, even where the true one cannot be read either."""
    return float(said is not None and said == true)


def ask(
    model: RowModel, encoder: Encoder, asked: Sequence[Question], *, max_new_tokens: int = 128
) -> list[Reply]:
    """Ask a model every question, greedily, and score the replies."""
    texts: list[str] = []
    for prompts in _prompts(asked, encoder):
        found = generate(model, prompts, encoder.chat, Sampling(max_new_tokens=max_new_tokens))
        texts += [answer.text for answer in found.answers]
    return [Reply(question, text, score(question, text)) for question, text in zip(asked, texts, strict=True)]


def _prompts(asked: Sequence[Question], encoder: Encoder) -> Iterator[list[Prompt]]:
    """Prompts in order, in runs of about `HELD` tokens; those of a tree stay together."""
    held: list[Prompt] = []
    for tree, group in groupby(asked, key=lambda question: question.tree):
        held += encoder.prompts(tree, [question.node for question in group])
        if sum(map(len, held)) >= HELD:
            yield held
            held = []
    if held:
        yield held


class Constant:
    """The best single reply per data set, task and question template: what one can score without looking.

    Chosen on training questions among their own answers. A point is given the time that was asked for, so
    that the constant is not beaten by reading the question alone.

    Args:
        training: questions to choose on.
        most: how many questions of a template to try as the answer and to score on, evenly spaced.
    """

    def __init__(self, training: Iterable[Question], *, most: int = 64) -> None:
        asked: dict[tuple[str, str, str], list[Question]] = defaultdict(list)
        for question in training:
            asked[question.key].append(question)
        self._best: dict[tuple[str, str, str], Question] = {}
        for key, known in asked.items():
            few = known[:: -(-len(known) // most)]
            candidates = list({item.reference: item for item in few}.values())
            means = [np.mean([score(other, answer_as(item, other)) for other in few]) for item in candidates]
            self._best[key] = candidates[int(np.argmax(means))]

    def replies(self, asked: Sequence[Question]) -> list[Reply]:
        """Answer questions; one with an unknown template is answered with nothing."""
        texts = [
            answer_as(self._best[question.key], question) if question.key in self._best else ""
            for question in asked
        ]
        return [
            Reply(question, text, score(question, text)) for question, text in zip(asked, texts, strict=True)
        ]


def answer_as(given: Question, asked: Question) -> str:
    """Return the true answer of one question as a reply to another; points take the time it asks for."""
    truth, wanted = given.truth, asked.truth
    if isinstance(truth, Points) and isinstance(wanted, Points):
        times = {point.time for point in wanted.points}
        if len(times) == 1:
            time = times.pop()
            return format_points(
                replace(truth, points=tuple(replace(point, time=time) for point in truth.points))
            )
    return given.reference


def summary(replies: Iterable[Reply], *, by: Callable[[Reply], str]) -> Mapping[str, Figure]:
    """Return the mean score of each group of replies, in order of name."""
    groups: dict[str, list[Reply]] = defaultdict(list)
    for reply in replies:
        groups[by(reply)].append(reply)
    return {name: figure(members) for name, members in sorted(groups.items())}


def figure(replies: Sequence[Reply]) -> Figure:
    """Return the mean score with its interval over trees."""
    scores = [reply.score for reply in replies]
    low, high = metrics.interval(scores, [reply.question.tree.id for reply in replies])
    return Figure(float(np.mean(scores)), low, high, len(scores))
