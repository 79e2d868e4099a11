"""From a message tree to a Sequence: text, media, answers and weights put together."""

import copy
import logging
from collections.abc import Callable
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from functools import cache

import numpy as np

from hedgerow.content import Image, Media, Points, Text, Tracks, Video
from hedgerow.encode.draft import Draft, Shown, cost_of, frames_of, node_costs_of, placed, told
from hedgerow.encode.writer import Writer
from hedgerow.errors import DataError
from hedgerow.grounding.align import Frames
from hedgerow.linearize import arrange, linearize, vision_first
from hedgerow.ranks import check_pairs, pair_of
from hedgerow.sequence import Array, Cost, Sample, Sequence, VisionInput
from hedgerow.text import ChatFormat
from hedgerow.tree import Message, MessageTree, Node
from hedgerow.vision.facts import Facts, probe
from hedgerow.vision.processor import MediaLayout, VisionProcessor
from hedgerow.weights.weighting import Weighting

_LOG = logging.getLogger("hedgerow")


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

    The processor says where the media of a user's message stand: before the header of its turn, as in Molmo2,
    or inside the turn, which a message that only shows media leaves open for the next one of its path.
    Answers of the assistant are supervised, with the end-of-turn token; a node with answers is one sample.

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

    @property
    def _writer(self) -> Writer:
        return Writer(self.chat, self.processor, self.facts, weighed=bool(self.weights.weighers))

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
        return node_costs_of(nodes, self._drafts(tree, nodes))

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
            cost=cost_of(nodes, drafts),
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
        draft = self._writer.draft(tree, alone, [], 0)
        draft.add(self.chat.markup(self._writer.around([*messages, Message("assistant", "")]).header))
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
        return tuple(part if isinstance(part, Text) else placed(part, shown).part for part in parts)

    def frames(self, video: Video) -> Frames:
        """Return the sampled frames of a video, as its points and tracks are placed on them.

        Raises:
            MediaError: the file cannot be read, or the clip lies outside it.
        """
        return frames_of(video, self._shown(video)[1])

    def _shown(self, media: Media) -> tuple[Media, MediaLayout]:
        filled = self.processor.filled(media)
        return filled, self.processor.layout(filled, self.facts(filled), label=None)

    def _drafts(self, tree: MessageTree, nodes: tuple[Node, ...]) -> list[Draft]:
        drafts: list[Draft] = []
        shown: list[Shown] = []  # per node: the media of its path, itself included
        groups = 0
        for node in nodes:
            above = shown[node.parent] if node.parent >= 0 else []
            draft = self._writer.draft(tree, node, above, groups)
            groups = max(groups, max(draft.group, default=-1) + 1)
            shown.append(above + draft.media)
            drafts.append(draft)
        if not any(weight >= 0 for draft in drafts for weight in draft.answer):
            raise DataError(f"{tree.id}: no supervised answer; add an assistant message to a branch")
        if self.paired:
            check_pairs(tree, told(nodes, drafts))
        return drafts

    def _weights(self, tree: MessageTree, node: Node, draft: Draft) -> Array:
        try:
            return draft.weights(self.weights)
        except DataError as error:
            raise type(error)(f"{tree.place(node)}: {error}") from error.__cause__

    def _sequence(
        self, tree: MessageTree, nodes: tuple[Node, ...], drafts: list[Draft], vision: VisionInput | None
    ) -> Sequence:
        axes = self.processor.axes
        places = None if axes == 1 else [draft.positions(axes) for draft in drafts]
        layout = linearize([node.parent for node in nodes], [len(draft.tokens) for draft in drafts], places)
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
            cost=cost_of(nodes, drafts),
            vision=vision,
        )

    def _samples(self, tree: MessageTree, nodes: tuple[Node, ...], drafts: list[Draft]) -> dict[int, Sample]:
        counts = {
            node.index: sum(w >= 0 for w in draft.answer) for node, draft in zip(nodes, drafts, strict=True)
        }
        answered = [node for node in nodes if counts[node.index]]
        ranked = told(nodes, drafts)
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
                pair=pair_of(node, ranked),
                rank=node.rank or 0,
            )
        return found


def _sources(
    target: np.ndarray,
    owner: np.ndarray,
    nodes: tuple[Node, ...],
    start: tuple[int, ...],
    drafts: list[Draft],
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
