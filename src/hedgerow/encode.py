"""From a message tree to a Sequence: text, media, answers and weights put together."""

import copy
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Listing
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from hedgerow.content import Image, Media, Points, Text, Tracks, Video
from hedgerow.errors import DataError, HedgerowError
from hedgerow.grounding.align import Aligned, Frames, align, missed
from hedgerow.grounding.codec import format_points, format_tracks
from hedgerow.grounding.points import to_fractions
from hedgerow.linearize import arrange, linearize, vision_first
from hedgerow.ranks import check_pairs, pair_of
from hedgerow.sequence import Array, Cost, Sample, Sequence, VisionInput
from hedgerow.text import ChatFormat
from hedgerow.tree import Message, MessageTree, Node
from hedgerow.vision.facts import Facts, probe
from hedgerow.vision.processor import PATCH, Marks, MediaLayout, VisionProcessor
from hedgerow.weights.answer import Answer, stated
from hedgerow.weights.weighting import Weighting

_Shown = list[tuple[Media, MediaLayout]]
_LOG = logging.getLogger("hedgerow")
REMEDY = (
    "raise fps or max_frames, show a shorter clip, or leave the branch out; times count in seconds from the "
    "start of the clip"
)


@dataclass(slots=True)
class _Draft:
    """What is known of one node while its messages are written; the first four lists are per token.

    `answer` is what the data say of the weight of a target (of its message, part and characters), -1 for what
    is no target; `answers` are what weighers look at, each with the place of its first token.
    """

    task: str
    source: str
    tokens: list[int] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    slot: list[bool] = field(default_factory=list)
    answer: list[float] = field(default_factory=list)
    answers: list[tuple[int, Answer]] = field(default_factory=list)
    stops: int = 0
    media: _Shown = field(default_factory=list)
    points: int = 0  # with a time
    lost: int = 0

    def add(self, tokens: Listing[int], *, group: int = -1, slot: bool = False, answer: float = -1.0) -> None:
        self.tokens.extend(tokens)
        self.group.extend([group] * len(tokens))
        self.slot.extend([slot] * len(tokens))
        self.answer.extend([answer] * len(tokens))

    def place(self, part: Text | Points | Tracks, media: _Shown) -> Text | Points | Tracks:
        """Return a part as it is taught, and count its points."""
        if isinstance(part, Text):
            return part
        found = _placed(part, media)
        self.points += found.points
        self.lost += found.lost
        return found.part

    def weights(self, weighting: Weighting) -> Array:
        """Return the weight of each token before that of its sample, float64; 0 where it is no target."""
        return weighting.tokens(np.maximum(self.answer, 0.0), self.answers)


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of a tree before a pixel is decoded.

    `tasks` names the task of each sample, `weight` is the sum over its targets of their loss weights. Of its
    `points` with a time, so many as are `lost` stand on no sampled frame and are not taught; so many branches
    as are `left` out could not be taught for it.
    """

    cost: Cost
    tasks: tuple[str, ...]
    weight: float
    points: int = 0
    lost: int = 0
    left: int = 0


class Encoder:
    """Encodes message trees for one tokenizer and one vision processor.

    A user message's media stand before its header, as in Molmo2; a message that only shows media has no
    header. Answers of the assistant are supervised, with the end-of-turn token; a node with answers is one
    sample.

    Args:
        chat: tokenizer and template.
        processor: turns media into tokens and crops.
        weights: how targets are weighted.
        facts: where the facts of a media file come from.
        vision_first: put each node's visual tokens before its text in physical order. It changes no result
            and leaves block-sparse attention more to skip; prompts are in logical order all the same.

    Attributes:
        paired: whether a tree must have ranked answers to compare, see `for_preferences`.
    """

    def __init__(
        self,
        chat: ChatFormat,
        processor: VisionProcessor,
        *,
        weights: Weighting | None = None,
        facts: Callable[[Media], Facts] = probe,
        vision_first: bool = True,
    ) -> None:
        self.chat = chat
        self.processor = processor
        self.weights = weights or Weighting()
        self.facts = facts
        self.vision_first = vision_first
        self.paired = False

    def for_preferences(self) -> "Encoder":
        """Return an encoder that refuses trees without a better and a worse answer to one question."""
        other = copy.copy(self)
        other.paired = True
        return other

    def __call__(self, tree: MessageTree) -> Sequence:
        """Encode a tree, pixels included.

        Raises:
            DataError: nothing is supervised, or an annotation does not fit its media; the message names the
                branch.
            MediaError: a file cannot be read.
        """
        nodes = tree.nodes()
        drafts = self._drafts(tree, nodes)
        media = [item for draft in drafts for item in draft.media]
        vision = VisionInput.join([self.processor.visual(item, layout) for item, layout in media])
        sequence = self._sequence(tree, nodes, drafts, vision)
        if not self.vision_first:
            return sequence
        owner = np.repeat(np.arange(len(nodes)), [len(draft.tokens) for draft in drafts])
        return arrange(sequence, vision_first(owner, sequence.group))

    def measure(self, tree: MessageTree) -> Cost:
        """Return exactly what the encoded tree will cost, without decoding a pixel: tokens, crops, pairs.

        Raises:
            DataError: as encoding would.
        """
        return sum(self.node_costs(tree), Cost())

    def node_costs(self, tree: MessageTree) -> tuple[Cost, ...]:
        """Return what each node costs, in the order of `tree.nodes()`; together they are the tree's cost.

        A node's cost depends on the nodes above it only: without a branch, the others cost the same.

        Raises:
            DataError: as encoding would.
        """
        nodes = tree.nodes()
        return _node_costs(nodes, self._drafts(tree, nodes))

    def survey(self, tree: MessageTree) -> Survey:
        """Return the cost, the tasks and the loss weight of a tree, as it will be encoded.

        Raises:
            DataError: as encoding would.
        """
        nodes = tree.nodes()
        drafts = self._drafts(tree, nodes)
        samples = self._samples(tree, nodes, drafts)
        weights = [
            sample.weight * float(self._weights(tree, nodes[node], drafts[node]).sum())
            for node, sample in samples.items()
        ]
        return Survey(
            cost=_cost(nodes, drafts),
            tasks=tuple(sample.task for sample in samples.values()),
            weight=sum(weights),
            points=sum(draft.points for draft in drafts),
            lost=sum(draft.lost for draft in drafts),
        )

    def lengths(self, tree: MessageTree) -> tuple[int, ...]:
        """Return how many tokens each node of a tree has, in the order of `tree.nodes()`.

        Raises:
            DataError: as encoding would.
        """
        return tuple(len(draft.tokens) for draft in self._drafts(tree, tree.nodes()))

    def layouts(self, tree: MessageTree) -> tuple[MediaLayout, ...]:
        """Return the layout of every image and video of a tree, in the order of its crops.

        Raises:
            DataError: as encoding would.
        """
        return tuple(layout for draft in self._drafts(tree, tree.nodes()) for _, layout in draft.media)

    def prompts(self, tree: MessageTree, nodes: Listing[Node]) -> list[Sequence]:
        """Encode conversations of a tree, each up to its last answer, ready to be continued by the assistant.

        Media that several of them show are decoded once.

        Args:
            tree: the tree the nodes belong to.
            nodes: of `tree.nodes()`; where one ends with an answer, that answer is left out.
        """
        seen: dict[Media, VisionInput] = {}
        return [self._prompt(tree, node, seen) for node in nodes]

    def _prompt(self, tree: MessageTree, node: Node, seen: dict[Media, VisionInput]) -> Sequence:
        messages = node.path + node.messages
        messages = messages[:-1] if messages[-1].role == "assistant" else messages
        alone = Node(0, -1, (), messages, node.task, node.weight, None, node.address)
        draft = self._draft(tree, alone, [], 0)
        header, _ = self._around([*messages, Message("assistant", "")])
        draft.add(self.chat.markup(header))
        draft.answer = [-1.0] * len(draft.tokens)
        for item, layout in draft.media:
            if item not in seen:
                seen[item] = self.processor.visual(item, layout)
        vision = VisionInput.join([seen[item] for item, _ in draft.media])
        return self._sequence(tree, (alone,), [draft], vision)

    def answer(self, node: Node) -> tuple[Text | Points | Tracks, ...]:
        """Return the parts of a node's last message as they are taught: points placed on sampled frames.

        Raises:
            DataError: as encoding would.
        """
        media = [item for message in (*node.path, *node.messages) for item in message.media]
        shown = [self._shown(item) for item in media]
        parts = [part for part in node.messages[-1].parts if not isinstance(part, Image | Video)]
        return tuple(part if isinstance(part, Text) else _placed(part, shown).part for part in parts)

    def frames(self, video: Video) -> Frames:
        """Return the sampled frames of a video, as its points and tracks are placed on them.

        Raises:
            MediaError: the file cannot be read, or the clip lies outside it.
        """
        return _frames(video, self._shown(video)[1])

    def _shown(self, media: Media) -> tuple[Media, MediaLayout]:
        filled = self.processor.filled(media)
        return filled, self.processor.layout(filled, self.facts(filled), label=None)

    def _drafts(self, tree: MessageTree, nodes: tuple[Node, ...]) -> list[_Draft]:
        drafts: list[_Draft] = []
        shown: list[_Shown] = []  # per node: the media of its path, itself included
        groups = 0
        for node in nodes:
            above = shown[node.parent] if node.parent >= 0 else []
            draft = self._draft(tree, node, above, groups)
            groups = max(groups, max(draft.group, default=-1) + 1)
            shown.append(above + draft.media)
            drafts.append(draft)
        if not any(weight >= 0 for draft in drafts for weight in draft.answer):
            raise DataError(f"{tree.id}: no supervised answer; add an assistant message to a branch")
        if self.paired:
            check_pairs(tree, _told(nodes, drafts))
        return drafts

    def _draft(self, tree: MessageTree, node: Node, above: _Shown, group: int) -> _Draft:
        draft = _Draft(task=node.task or "qa", source=tree.source)
        history = [*node.path, *node.messages]
        for number, message in enumerate(node.messages, len(node.path)):
            try:
                group = self._add_media(draft, message, above, group)
                self._add_text(draft, history, number, above + draft.media)
            except HedgerowError as error:
                raise type(error)(f"{tree.place(node)}: {error}") from None
        return draft

    def _weights(self, tree: MessageTree, node: Node, draft: _Draft) -> Array:
        try:
            return draft.weights(self.weights)
        except DataError as error:
            raise type(error)(f"{tree.place(node)}: {error}") from error.__cause__

    def _add_media(self, draft: _Draft, message: Message, above: _Shown, group: int) -> int:
        shown = message.media
        if not shown:
            return group
        images = sum(isinstance(item, Image) for item, _ in above + draft.media)
        several = sum(isinstance(item, Image) for item in shown) > 1
        for item in shown:
            images += isinstance(item, Image)
            label = f"Image {images}" if several and isinstance(item, Image) else None
            filled = self.processor.filled(item, several=several)
            layout = self.processor.layout(filled, self.facts(filled), label=label)
            draft.media.append((filled, layout))
            for piece in layout.pieces:
                if isinstance(piece, Marks):
                    own = -1 if self.processor.groups == "none" else group
                    for name, count in _runs(piece.names):
                        draft.add([self.chat.special(name)] * count, group=own, slot=name == PATCH)
                else:
                    draft.add(self.chat.encode(piece).tokens)
            group += self.processor.groups == "per_image"
        return group + (self.processor.groups == "message")

    def _add_text(self, draft: _Draft, history: list[Message], number: int, media: _Shown) -> None:
        message = history[number]
        if not _speaks(message):
            return
        own = [part for part in message.parts if not isinstance(part, Image | Video)]
        said = [(part, written(draft.place(part, media))) for part in own]
        header, tail = self._around(history[: number + 1])
        draft.add(self.chat.markup(header))
        span = self.chat.encode("".join(text for _, text in said))
        if message.role != "assistant":
            draft.add(span.tokens)
            draft.add(self.chat.markup(tail))
            return
        whole = 1.0 if message.weight is None else message.weight
        first = len(draft.tokens)
        draft.add(span.tokens, answer=whole)
        stands_out = any(map(_stands_out, own))
        if stands_out or self.weights.weighers:
            answer = Answer.of(said, span.offsets, task=draft.task, source=draft.source)
            draft.answers.append((first, answer))
            if stands_out:
                draft.answer[first:] = (whole * stated(answer, said)).tolist()
        stop, *rest = self.chat.markup(tail)
        draft.add([stop], answer=whole)
        draft.add(rest)
        draft.stops += 1

    def _around(self, history: list[Message]) -> tuple[str, str]:
        """What stands around the last message; one without a header is no turn to the template."""
        turns = [message for message in history if _speaks(message)]
        return self.chat.template.around(turns, len(turns) - 1)

    def _sequence(
        self, tree: MessageTree, nodes: tuple[Node, ...], drafts: list[_Draft], vision: VisionInput | None
    ) -> Sequence:
        layout = linearize([node.parent for node in nodes], [len(draft.tokens) for draft in drafts])
        answer = np.array([weight for draft in drafts for weight in draft.answer])
        owner = np.repeat(np.arange(len(nodes)), [len(draft.tokens) for draft in drafts])
        target = np.flatnonzero(answer >= 0)
        samples = self._samples(tree, nodes, drafts)
        number = {node: place for place, node in enumerate(sorted(samples))}
        every = [self._weights(tree, node, draft) for node, draft in zip(nodes, drafts, strict=True)]
        own = np.concatenate(every)[target].astype(np.float32)
        weight = np.array([samples[node].weight for node in owner[target]], np.float32) * own
        tokens = np.array([token for draft in drafts for token in draft.tokens], np.int32)
        return Sequence(
            example=tree.id,
            tokens=tokens,
            position=layout.position,
            order=layout.order,
            end=layout.end,
            group=np.array([group for draft in drafts for group in draft.group], np.int32),
            slot=np.flatnonzero([slot for draft in drafts for slot in draft.slot]).astype(np.int32),
            source=_sources(target, owner, nodes, layout.start, drafts),
            target=tokens[target],
            weight=weight,
            sample=np.array([number[node] for node in owner[target]], np.int32),
            samples=tuple(samples[node] for node in sorted(samples)),
            cost=_cost(nodes, drafts),
            vision=vision,
        )

    def _samples(self, tree: MessageTree, nodes: tuple[Node, ...], drafts: list[_Draft]) -> dict[int, Sample]:
        counts = {
            node.index: sum(w >= 0 for w in draft.answer) for node, draft in zip(nodes, drafts, strict=True)
        }
        answered = [node for node in nodes if counts[node.index]]
        told = _told(nodes, drafts)
        found = {}
        for node in answered:
            n = counts[node.index] - drafts[node.index].stops
            if not n:
                _name_empty(tree.source)
            task = drafts[node.index].task
            weight = self.weights.sample(task, tree.source, max(n, 1), branches=len(answered))
            found[node.index] = Sample(
                example=tree.id,
                branch=node.address,
                source=tree.source,
                task=task,
                n=n,
                weight=weight * node.weight,
                pair=pair_of(node, told),
                rank=node.rank or 0,
            )
        return found


def _speaks(message: Message) -> bool:
    """Whether a message has a header: one that shows nothing but media has none."""
    return not message.media or len(message.parts) > len(message.media)


def _stands_out(part: Text | Points | Tracks) -> bool:
    """Whether the data say something of the weight or the meaning of a part."""
    return part.weight is not None or (isinstance(part, Text) and bool(part.spans))


def _sources(
    target: np.ndarray,
    owner: np.ndarray,
    nodes: tuple[Node, ...],
    start: tuple[int, ...],
    drafts: list[_Draft],
) -> np.ndarray:
    """The token before each target on its path: one place back, or the last of the nearest node above."""
    source = target - 1
    for place in np.flatnonzero(
        [index == start[node] for index, node in zip(target, owner[target], strict=True)]
    ):
        node = nodes[owner[target[place]]].parent
        while node >= 0 and not drafts[node].tokens:
            node = nodes[node].parent
        source[place] = start[node] + len(drafts[node].tokens) - 1
    return source.astype(np.int32)


@cache
def _name_empty(source: str) -> None:
    _LOG.warning("data set '%s' has empty answers: only the end of their turn is trained", source)


def written(part: Text | Points | Tracks) -> str:
    """Return the text of a part; points and tracks must have been placed."""
    if isinstance(part, Text):
        return part.text
    return format_points(part) if isinstance(part, Points) else format_tracks(part)


def _placed(part: Points | Tracks, media: _Shown) -> Aligned[Points | Tracks]:
    """Points in fractions, at printed times: times are of the last video, image numbers of the images."""
    videos = [(item, layout) for item, layout in media if isinstance(item, Video)]
    images = [layout.size for item, layout in media if isinstance(item, Image)]
    if not videos or (images and all(point.time is None for point in part.points)):
        return align(to_fractions(part, size=images), images=len(images))
    video, layout = videos[-1]
    frames = _frames(video, layout)
    found = align(to_fractions(part, size=layout.size), frames)
    if found.gone:
        raise DataError(f"{missed(part, found, frames)}; {REMEDY}")
    return found


def _frames(video: Video, layout: MediaLayout) -> Frames:
    return Frames(layout.times, layout.step, video.annotation_fps)


def _runs(names: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    start = 0
    for place in range(1, len(names) + 1):
        if place == len(names) or names[place] != names[start]:
            yield names[start], place - start
            start = place


def _told(nodes: tuple[Node, ...], drafts: list[_Draft]) -> list[Node]:
    """The nodes with an answer of a weight above 0: one of weight 0 is compared with no other."""
    found = zip(nodes, drafts, strict=True)
    return [node for node, draft in found if node.weight and max(draft.answer, default=-1.0) > 0]


def _cost(nodes: tuple[Node, ...], drafts: list[_Draft]) -> Cost:
    return sum(_node_costs(nodes, drafts), Cost())


def _node_costs(nodes: tuple[Node, ...], drafts: list[_Draft]) -> tuple[Cost, ...]:
    costs: list[Cost] = []
    above: list[int] = []  # per node: the tokens of its path, itself included
    for node, draft in zip(nodes, drafts, strict=True):
        own = len(draft.tokens)
        before = above[node.parent] if node.parent >= 0 else 0
        above.append(before + own)
        pairs = own * before + own * (own + 1) // 2
        # A group lies in one message: beyond causality it shows each of its pairs once more.
        pairs += sum(n * (n - 1) // 2 for group, n in Counter(draft.group).items() if group >= 0)
        costs.append(Cost(tokens=own, crops=sum(layout.crops for _, layout in draft.media), pairs=pairs))
    return tuple(costs)
