"""What is known of a node while it is written, and what follows from it."""

from collections import Counter
from collections.abc import Sequence as Listing
from dataclasses import dataclass, field

import numpy as np

from hedgerow.content import Image, Media, Points, Text, Tracks, Video
from hedgerow.errors import DataError
from hedgerow.grounding.align import Aligned, Frames, align, missed
from hedgerow.grounding.codec import format_points, format_tracks
from hedgerow.grounding.points import to_fractions
from hedgerow.sequence import Array, Cost
from hedgerow.tree import Node
from hedgerow.vision.processor import MediaLayout
from hedgerow.weights.answer import Answer
from hedgerow.weights.weighting import Weighting

Shown = list[tuple[Media, MediaLayout]]


@dataclass(slots=True)
class Draft:
    """What is known of one node while its messages are written; the first four lists are per token.

    `answer` is what the data say of the weight of a target (of its message, part and characters), -1 for what
    is no target; `answers` are what weighers look at, each with the place of its first token. `laid` are runs
    whose positions do not count their tokens: the place of the first, and the positions from there.
    """

    task: str
    source: str
    tokens: list[int] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    slot: list[bool] = field(default_factory=list)
    answer: list[float] = field(default_factory=list)
    answers: list[tuple[int, Answer]] = field(default_factory=list)
    stops: int = 0
    media: Shown = field(default_factory=list)
    laid: list[tuple[int, Array]] = field(default_factory=list)
    points: int = 0  # with a time
    lost: int = 0

    def add(self, tokens: Listing[int], *, group: int = -1, slot: bool = False, answer: float = -1.0) -> None:
        """Write tokens that are alike."""
        self.tokens.extend(tokens)
        self.group.extend([group] * len(tokens))
        self.slot.extend([slot] * len(tokens))
        self.answer.extend([answer] * len(tokens))

    def positions(self, axes: int) -> Array:
        """Return the rotary positions of the tokens from the start of the node, int [axes, tokens]."""
        pieces: list[Array] = []
        done = reached = 0
        for first, own in [*self.laid, (len(self.tokens), np.zeros((axes, 0), np.int64))]:
            counted = np.arange(reached, reached + first - done)
            reached += len(counted)
            pieces += [np.tile(counted, (axes, 1)), own + reached]
            done, reached = first + own.shape[1], reached + int(own.max(initial=-1)) + 1
        return np.concatenate(pieces, axis=1)

    def place(self, part: Text | Points | Tracks, media: Shown) -> Text | Points | Tracks:
        """Return a part as it is taught, and count its points."""
        if isinstance(part, Text):
            return part
        found = placed(part, media)
        self.points += found.points
        self.lost += found.lost
        return found.part

    def weights(self, weighting: Weighting) -> Array:
        """Return the weight of each token before that of its sample, float64; 0 where it is no target."""
        return weighting.tokens(np.maximum(self.answer, 0.0), self.answers)


def written(part: Text | Points | Tracks) -> str:
    """Return the text of a part; points and tracks must have been placed."""
    if isinstance(part, Text):
        return part.text
    return format_points(part) if isinstance(part, Points) else format_tracks(part)


def placed(part: Points | Tracks, media: Shown) -> Aligned[Points | Tracks]:
    """Return points in fractions, at printed times: times are of the last video, numbers of the images.

    Raises:
        DataError: a point lies outside, its image is not shown, or no sampled frame shows any of them.
    """
    videos = [(item, layout) for item, layout in media if isinstance(item, Video)]
    images = [layout.size for item, layout in media if isinstance(item, Image)]
    if not videos or (images and all(point.time is None for point in part.points)):
        return align(to_fractions(part, size=images), images=len(images))
    video, layout = videos[-1]
    frames = frames_of(video, layout)
    found = align(to_fractions(part, size=layout.size), frames)
    if found.gone:
        raise DataError(missed(part, found, frames))
    return found


def frames_of(video: Video, layout: MediaLayout) -> Frames:
    """Return the sampled frames of a video, as its annotations are placed on them."""
    return Frames(layout.times, layout.step, video.annotation_fps)


def told(nodes: tuple[Node, ...], drafts: list[Draft]) -> list[Node]:
    """Return the nodes with an answer of a weight above 0: one of weight 0 is compared with no other."""
    found = zip(nodes, drafts, strict=True)
    return [node for node, draft in found if node.weight and max(draft.answer, default=-1.0) > 0]


def cost_of(nodes: tuple[Node, ...], drafts: list[Draft]) -> Cost:
    """Return what a tree costs."""
    return sum(node_costs_of(nodes, drafts), Cost())


def node_costs_of(nodes: tuple[Node, ...], drafts: list[Draft]) -> tuple[Cost, ...]:
    """Return what each node of a tree costs beside the nodes above it."""
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
