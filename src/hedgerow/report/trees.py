"""Trees and packed rows as blocks of a page: the processed pixels, every token, every weight."""

from collections import Counter
from collections.abc import Sequence as Listing
from itertools import groupby

import numpy as np

from hedgerow.content import Point, Points, Text, Tracks
from hedgerow.encode import Encoder
from hedgerow.linearize import arrange
from hedgerow.report.mask import mask_figure
from hedgerow.report.page import Branch, Fill, Packed, Picture, Piece, Placed, Tree, show
from hedgerow.report.pictures import evenly, pictures, shots, taken
from hedgerow.report.shades import Shades
from hedgerow.report.tokens import stretches, target_weights
from hedgerow.sequence import Array, Row, Sample, Sequence
from hedgerow.tree import MessageTree, Node
from hedgerow.vision.processor import MediaLayout

MOST = 12  # pictures of a tree
ROOM = 150_000  # characters that they take, about
_LEAST = 2_200  # of one picture; fewer are shown where there is not so much room
_LABEL = 44  # characters of a node's question beside the tree


def tree_block(
    tree: MessageTree, encoder: Encoder, *, sequence: Sequence | None = None, room: int = ROOM
) -> Tree:
    """Show a tree as it is encoded: frames with the true points and tracks, then every node's tokens.

    Args:
        tree: the tree.
        encoder: encodes it.
        sequence: the encoded tree, if it is at hand.
        room: characters that its pictures may take; 0 for none, and then its pixels are not looked at.
    """
    sequence = sequence or encoder(tree)
    sequence = arrange(sequence, np.argsort(sequence.order))  # as it reads
    layouts = encoder.layouts(tree)
    true = _truths(encoder, tree, layouts) if room else []
    most = min(max(room // _LEAST, 1), MOST) if room else 0
    shown, of = pictures(sequence, layouts, true, most=most, room=room)
    starts = np.cumsum((0, *encoder.lengths(tree))).tolist()
    weights = target_weights(sequence)
    branches = []
    for node, start, stop in zip(tree.nodes(), starts, starts[1:], strict=False):
        title = f"{_named(node)}{_ranked(node)}{_weighed(sequence, node)}"
        tokens = stretches(sequence, encoder.chat, range(start, stop), weights)
        branches.append(Branch(title, _depth(node), tokens, _label(node)))
    return Tree(
        tree.id,
        shown,
        branches,
        Shades.of([sequence.weight]),
        facts=_facts(sequence),
        tasks=Counter(sample.task for sample in sequence.samples),
        of=of,
    )


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
    if sequence.vision is None:
        return []
    placed, said = _on_media(true, layouts), _on_media(predicted, layouts)
    every = shots(sequence.vision, layouts)
    whole = [shot for shot in every if shot.time is not None or shot.small]
    return [
        taken(
            shot,
            sequence.vision,
            layouts[shot.media].size,
            true=shot.on(placed),
            predicted=shot.on(said),
            room=ROOM // MOST,
        )
        for shot in evenly(whole, most)
    ]


def _truths(encoder: Encoder, tree: MessageTree, layouts: Listing[MediaLayout]) -> list[list[Point]]:
    """The annotations of all nodes, for each image and video of a tree."""
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
            found[number] += [point for point in points if point not in found[number]]
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


def row_block(row: Row, number: int, links: Listing[str] = ()) -> Packed:
    """Show a packed row as its trees side by side; vision, text and answers are told apart.

    Args:
        row: as joined.
        number: of the row.
        links: the address on the page of each tree, empty where it is not shown; none for no links.
    """
    most = max(row.budget["tokens"], len(row))
    answers = np.isin(row.order, row.order[row.source] + 1)
    tone = np.where(row.group >= 0, 0, np.where(answers, 2, 1))
    tone[row.slot] = 0  # a model without groups has slots all the same
    trees, start = [], 0
    for place, (example, length) in enumerate(zip(row.examples, row.lengths, strict=True)):
        pieces = [
            Piece(count / most, name, f"{count} {name} tokens")
            for name, count in _runs(tone[start : start + length])
        ]
        trees.append(Placed(example, pieces, links[place] if links else ""))
        start += length
    fills = [Fill(name, row.cost.get(name, 0), room) for name, room in row.budget.items()]
    return Packed(
        f"Row {number}: {_many(len(trees), 'tree')}, {len(row.target):,} targets",
        trees,
        fills,
        mask_figure(row),
    )


def _facts(sequence: Sequence) -> str:
    taken = ", ".join(f"{amount:,} {name}" for name, amount in sequence.cost.items())
    return f"{taken}, {len(sequence.target):,} targets"


def _named(node: Node) -> str:
    return f"{node.address or 'root'}{f' {node.task}' if node.task else ''}"


def _depth(node: Node) -> int:
    return node.address.count(".") + 1 if node.address else 0


def _label(node: Node) -> str:
    """The name of a node and the beginning of its first text."""
    said = next((part.text for m in node.messages for part in m.parts if isinstance(part, Text)), "")
    line = " ".join(said.split())
    short = line if len(line) <= _LABEL else line[: _LABEL - 1] + "…"
    return f"{_named(node)}: {short}" if short else _named(node)


def _ranked(node: Node) -> str:
    if node.rank is None:
        return ""
    return f", rank {node.rank}{' (best)' if node.rank == 0 else ''}"


def _many(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _weighed(sequence: Sequence, node: Node) -> str:
    """The weight of a node's answer tokens, or what it was before data and weighers, and what it became."""
    for number, sample in enumerate(sequence.samples):
        if sample.branch == node.address:
            return f": answer of {_many(sample.n, 'token')}, {_each(sequence, number, sample)}"
    return ""


def _each(sequence: Sequence, number: int, sample: Sample) -> str:
    own = sequence.weight[sequence.sample == number]
    if np.allclose(own, sample.weight):
        return f"weight {show(sample.weight)} each"
    low, high = show(float(own.min())), show(float(own.max()))
    return f"base weight {show(sample.weight)}, tokens weigh {low} to {high}"


def _runs(tone: Array) -> list[tuple[str, int]]:
    names = ("vision", "text", "answer")
    return [(names[int(key)], len(list(run))) for key, run in groupby(tone.tolist())]
