"""Trees and packed rows as blocks of a page: the processed pixels, every token, every weight."""

import math
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image as Pixels

from hedgerow.content import Point, Points, Tracks
from hedgerow.encode import Encoder
from hedgerow.grounding.draw import draw
from hedgerow.grounding.points import printed_time
from hedgerow.linearize import arrange
from hedgerow.report.page import Branch, Packed, Picture, Piece, Token, Tree, data_uri, show
from hedgerow.sequence import Array, Row, Sample, Sequence
from hedgerow.tree import MessageTree, Node
from hedgerow.vision.processor import PATCH, MediaLayout

_SHOWN = 240  # pixels of the longer side of a thumbnail at least
MOST = 12  # pictures of a tree


_RANGE = 10, 1000  # times that the greatest weight is the one that is shaded as lightly as can be seen
_LIGHTEST = 0.12


@dataclass(frozen=True, slots=True)
class Shades:
    """How dark a weight is shown: by its logarithm; 0 is shown in another way.

    Attributes:
        low: the size shown lightest: the smallest there is, if that is neither nearly the greatest nor tiny.
        high: the size of the greatest, shown darkest.
        below: whether some are below 0.
    """

    low: float
    high: float
    below: bool = False

    @classmethod
    def of(cls, weights: Iterable[Array]) -> "Shades":
        """Return those for all weights of some sequences, an array of each."""
        known = np.concatenate([np.zeros(0), *weights])
        sizes = np.abs(known[known != 0])
        high = float(sizes.max(initial=0.0)) or 1.0
        low = float(np.clip(sizes.min(initial=high), high / _RANGE[1], high / _RANGE[0]))
        return cls(low, high, bool((known < 0).any()))

    def __call__(self, weight: float) -> float:
        """Return 0 for 0, and for others from `_LIGHTEST` to 1, with the sign of the weight."""
        if not weight:
            return 0.0
        size = min(max(abs(weight), self.low), self.high)
        share = math.log(size / self.low) / math.log(self.high / self.low)
        return math.copysign(_LIGHTEST + (1 - _LIGHTEST) * share, weight)

    def scale(self) -> list[Token]:
        """Return what explains the shades: 0, and weights equally far apart in shade."""
        weights = [0.0, *np.geomspace(self.low, self.high, 5).tolist()]
        weights += [-self.high] if self.below else []
        return [Token(show(weight), self(weight), "") for weight in weights]


def tree_block(tree: MessageTree, encoder: Encoder, shades: Shades | None = None) -> Tree:
    """Show a tree as it is encoded: frames with the true points and tracks, then every node's tokens.

    Args:
        tree: the tree.
        encoder: encodes it.
        shades: of the weights; None: those of this tree alone.
    """
    sequence = encoder(tree)
    sequence = arrange(sequence, np.argsort(sequence.order))  # as it reads
    nodes = tree.nodes()
    pictures = list(_pictures(sequence, encoder.layouts(tree), _truths(encoder, tree), most=MOST))
    starts = np.cumsum((0, *encoder.lengths(tree)))
    weights = _weights(sequence)
    shades = shades or Shades.of([sequence.weight])
    branches = []
    for node, start, stop in zip(nodes, starts, starts[1:], strict=False):
        tokens = _tokens(sequence, encoder, range(start, stop), weights, shades)
        title = f"{node.address or 'root'} {node.task or ''}{_ranked(node)}{_weighed(sequence, node)}"
        branches.append(Branch(title, node.address.count(".") + 1 if node.address else 0, tokens))
    return Tree(_title(sequence), pictures, branches, shades.scale())


def _title(sequence: Sequence) -> str:
    taken = ", ".join(f"{amount:,} {name}" for name, amount in sequence.cost.items())
    answers = ", ".join(f"{sample.task} {_counted(sample)}" for sample in sequence.samples)
    return f"{sequence.example}: {taken}, {len(sequence.target)} targets ({answers})"


def media_pictures(
    sequence: Sequence,
    layouts: Listing[MediaLayout],
    true: Listing[Points | Tracks],
    predicted: Listing[Points | Tracks] = (),
    *,
    most: int = MOST,
) -> list[Picture]:
    """Show what one conversation shows, as processed, with points drawn on it.

    Args:
        sequence: encoded with its pixels.
        layouts: of its media, in order.
        true: placed annotations.
        predicted: drawn beside the true ones; what stands on no frame or image is left out.
        most: how many frames and images at most.
    """
    return list(
        _pictures(sequence, layouts, _on_media(true, layouts), _on_media(predicted, layouts), most=most)
    )


def _pictures(
    sequence: Sequence,
    layouts: Listing[MediaLayout],
    true: Listing[Listing[Point]],
    predicted: Listing[Listing[Point]] | None = None,
    *,
    most: int,
) -> Iterator[Picture]:
    """Frames of videos and whole views of images; points are given for each of them."""
    crop = images = 0
    for number, layout in enumerate(layouts):
        images += not layout.times
        for place, time in enumerate(layout.times or (None,)):
            if most == 0:
                return
            most -= 1
            assert sequence.vision is not None
            picture = _enlarged(
                Pixels.fromarray(np.asarray(sequence.vision.crops[crop + place])), layout.size
            )
            said = [] if predicted is None else _at(predicted[number], time)
            drawn = draw(picture, true=_at(true[number], time), predicted=said)
            yield Picture(data_uri(drawn), f"image {images}" if time is None else f"{time:.1f} s")
        crop += layout.crops


def _truths(encoder: Encoder, tree: MessageTree) -> list[list[Point]]:
    """The annotations of all nodes, for each image and video of a tree."""
    layouts = encoder.layouts(tree)
    found: list[list[Point]] = [[] for _ in layouts]
    shown: list[list[int]] = []  # by node: the media of its path, itself included
    seen = 0
    for node in tree.nodes():
        own = sum(len(message.media) for message in node.messages)
        shown.append([*(shown[node.parent] if node.parent >= 0 else ()), *range(seen, seen + own)])
        seen += own
        if node.messages[-1].role != "assistant":
            continue
        parts = [part for part in encoder.answer(node) if isinstance(part, Points | Tracks)]
        path = shown[-1]
        for number, points in zip(path, _on_media(parts, [layouts[n] for n in path]), strict=True):
            found[number] += points
    return found


def _on_media(parts: Listing[Points | Tracks], layouts: Listing[MediaLayout]) -> list[list[Point]]:
    """Part a conversation's points among its media: times are of the last video, numbers of images."""
    videos = [number for number, layout in enumerate(layouts) if layout.times]
    images = [number for number, layout in enumerate(layouts) if not layout.times]
    found: list[list[Point]] = [[] for _ in layouts]
    for point in (point for part in parts for point in part.points):
        places = images[(point.image or 1) - 1 :][:1] if point.time is None else videos[-1:]
        for number in places:
            found[number].append(point)
    return found


def row_block(row: Row, number: int) -> Packed:
    """Show a packed row as its trees side by side; vision, text and answers are told apart."""
    most = max(row.budget["tokens"], len(row))
    answers = np.isin(row.order, row.order[row.source] + 1)
    tone = np.where(row.group >= 0, 0, np.where(answers, 2, 1))
    tone[row.slot] = 0  # a model without groups has slots all the same
    trees, start = [], 0
    for example, length in zip(row.examples, row.lengths, strict=True):
        pieces = [
            Piece(count / most, name, f"{count} {name} tokens")
            for name, count in _runs(tone[start : start + length])
        ]
        trees.append((example, pieces))
        start += length
    return Packed(f"Row {number}: {repr(row).splitlines()[0].removeprefix('Row of ')}", trees)


def _at(points: Listing[Point], time: float | None) -> list[Point]:
    """Those on an image (time None), or on the frame at a time."""
    if time is None:
        return list(points)
    printed = printed_time(time)
    return [point for point in points if point.time is not None and printed_time(point.time) == printed]


def _ranked(node: Node) -> str:
    if node.rank is None:
        return ""
    return f", rank {node.rank}{' (best)' if node.rank == 0 else ''}"


def _counted(sample: Sample) -> str:
    return f"{sample.n} token{'' if sample.n == 1 else 's'}"


def _weighed(sequence: Sequence, node: Node) -> str:
    """The weight of a node's answer tokens, or what it was before data and weighers, and what it became."""
    for number, sample in enumerate(sequence.samples):
        if sample.branch != node.address:
            continue
        own = sequence.weight[sequence.sample == number]
        told = f": answer of {_counted(sample)}, "
        if np.allclose(own, sample.weight):
            return f"{told}weight {sample.weight:.3g} each"
        return f"{told}base weight {sample.weight:.3g}, tokens weigh {own.min():.3g} to {own.max():.3g}"
    return ""


def _weights(sequence: Sequence) -> dict[int, float]:
    """Loss weight by the place of the target token; a place targeted from several sources keeps the last."""
    return {
        int(place) + 1: float(weight) for place, weight in zip(sequence.source, sequence.weight, strict=True)
    }


def _tokens(
    sequence: Sequence, encoder: Encoder, places: range, weights: dict[int, float], shades: Shades
) -> list[Token]:
    patch = encoder.chat.special(PATCH) if sequence.vision is not None else -1
    tokens = []
    for token, run in groupby(places, key=lambda place: int(sequence.tokens[place])):
        same = list(run)
        if token == patch and len(same) > 1:
            tokens.append(Token(f"{PATCH}x{len(same)}", None, ""))
            continue
        for place in same:
            weight = weights.get(place)
            shade = None if weight is None else shades(weight)
            note = "" if weight is None else f"weight {weight:.3g}"
            tokens.append(Token(encoder.chat.show(token), shade, note))
    return tokens


def _enlarged(picture: Pixels.Image, size: tuple[int, int]) -> Pixels.Image:
    """Undo the squeeze to a square, so that the picture has the shape of its source again."""
    width, height = size
    scale = max(_SHOWN, *picture.size) / max(width, height)
    return picture.resize(
        (max(round(width * scale), 1), max(round(height * scale), 1)), Pixels.Resampling.NEAREST
    )


def _runs(tone: Array) -> list[tuple[str, int]]:
    names = ("vision", "text", "answer")
    return [(names[int(key)], len(list(run))) for key, run in groupby(tone.tolist())]
