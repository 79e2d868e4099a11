"""Trees and packed rows as blocks of a page: the processed pixels, every token, every weight."""

from collections.abc import Sequence as Listing
from itertools import groupby

import numpy as np
from PIL import Image as Pixels

from hedgerow.content import Point, Points, Tracks
from hedgerow.encode import Encoder
from hedgerow.grounding.draw import draw
from hedgerow.grounding.points import printed_time
from hedgerow.report.page import Branch, Packed, Picture, Piece, Token, Tree, data_uri
from hedgerow.sequence import Array, Row, Sequence
from hedgerow.tree import MessageTree, Node
from hedgerow.vision.processor import MediaLayout

_SHOWN = 168  # pixels of the longer side of a thumbnail at least
_VISION = "<im_patch>"


def tree_block(tree: MessageTree, encoder: Encoder) -> Tree:
    """Show a tree as it is encoded: frames with the true points and tracks, then every node's tokens."""
    sequence = encoder(tree)
    nodes = tree.nodes()
    truths = [part for node in nodes if node.messages[-1].role == "assistant" for part in _drawn(encoder, tree, node)]
    pictures = media_pictures(sequence, encoder.layouts(tree), truths)
    starts = np.cumsum((0, *encoder.lengths(tree)))
    shaded = _weights(sequence)
    top = float(sequence.weight.max(initial=0.0)) or 1.0
    branches = []
    for node, start, stop in zip(nodes, starts, starts[1:], strict=False):
        tokens = _tokens(sequence, encoder, range(start, stop), shaded, top)
        title = f"{node.address or 'root'} {node.task or ''}{_weighed(sequence, node)}"
        branches.append(Branch(title, node.address.count(".") + 1 if node.address else 0, tokens))
    return Tree(f"{sequence!r}", pictures, branches)


def media_pictures(
    sequence: Sequence,
    layouts: Listing[MediaLayout],
    true: Listing[Points | Tracks],
    predicted: Listing[Points | Tracks] = (),
    *,
    most: int = 12,
) -> list[Picture]:
    """Show the frames of a video or the whole views of images, as processed, with points drawn on them.

    Args:
        sequence: encoded with its pixels.
        layouts: of its media, in order.
        true: placed annotations.
        predicted: drawn beside the true ones.
        most: how many pictures at most.
    """
    pictures: list[Picture] = []
    crop = images = 0
    for layout in layouts:
        shown: list[tuple[int, float | None]] = [(crop + n, time) for n, time in enumerate(layout.times)]
        if not layout.times:
            images += 1
            shown = [(crop, None)]
        crop += layout.crops
        for number, time in shown:
            picture = _enlarged(Pixels.fromarray(np.asarray(sequence.vision.crops[number])), layout.size)
            image = images if time is None else None
            drawn = draw(picture, true=_at(true, time, image), predicted=_at(predicted, time, image))
            pictures.append(Picture(data_uri(drawn), f"image {images}" if time is None else f"{time:.1f} s"))
    return pictures[:most]


def row_block(row: Row, number: int) -> Packed:
    """Show a packed row as its trees side by side; vision, text and answers are told apart."""
    most = max(row.budget["tokens"], len(row))
    answers = np.zeros(len(row) + 1, bool)
    answers[row.source + 1] = True
    tone = np.where(row.group >= 0, 0, np.where(answers[:-1], 2, 1))
    trees, start = [], 0
    for example, length in zip(row.examples, row.lengths, strict=True):
        pieces = [
            Piece(count / most, name, f"{count} {name} tokens")
            for name, count in _runs(tone[start : start + length])
        ]
        trees.append((example, pieces))
        start += length
    return Packed(f"Row {number}: {repr(row).splitlines()[0].removeprefix('Row of ')}", trees)


def _at(parts: Listing[Points | Tracks], time: float | None, image: int | None) -> list[Point]:
    """The points that stand on one frame or image."""
    points = [point for part in parts for point in part.points]
    if time is None:
        return [point for point in points if (point.image or 1) == image and point.time is None]
    printed = printed_time(time)
    return [point for point in points if point.time is not None and printed_time(point.time) == printed]


def _drawn(encoder: Encoder, tree: MessageTree, node: Node) -> list[Points | Tracks]:
    return [part for part in encoder.answer(tree, node) if isinstance(part, Points | Tracks)]


def _weighed(sequence: Sequence, node: Node) -> str:
    for sample in sequence.samples:
        if sample.branch == node.address:
            return f": {sample.n} answer tokens, weight {sample.weight:.3g} each"
    return ""


def _weights(sequence: Sequence) -> dict[int, float]:
    """Loss weight by the place of the target token; a place targeted from several sources keeps the last."""
    return {int(place) + 1: float(weight) for place, weight in zip(sequence.source, sequence.weight, strict=True)}


def _tokens(
    sequence: Sequence, encoder: Encoder, places: range, weights: dict[int, float], top: float
) -> list[Token]:
    patch = encoder.chat.special(_VISION) if sequence.vision is not None else -1
    tokens = []
    for token, run in groupby(places, key=lambda place: int(sequence.tokens[place])):
        same = list(run)
        if token == patch and len(same) > 1:
            tokens.append(Token(f"{_VISION}x{len(same)}", None, ""))
            continue
        for place in same:
            weight = weights.get(place)
            shade = None if weight is None else weight / top
            note = "" if weight is None else f"weight {weight:.3g}"
            tokens.append(Token(encoder.chat.show(token), shade, note))
    return tokens


def _enlarged(picture: Pixels.Image, size: tuple[int, int]) -> Pixels.Image:
    """Undo the squeeze to a square, so that the picture has the shape of its source again."""
    width, height = size
    scale = max(_SHOWN, *picture.size) / max(width, height)
    return picture.resize((max(round(width * scale), 1), max(round(height * scale), 1)), Pixels.Resampling.NEAREST)


def _runs(tone: Array) -> list[tuple[str, int]]:
    names = ("vision", "text", "answer")
    return [(names[int(key)], len(list(run))) for key, run in groupby(tone.tolist())]
