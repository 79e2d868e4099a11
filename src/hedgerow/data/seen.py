"""Branches that cannot be taught, for no sampled frame shows what they point to: left out, and counted."""

import dataclasses
from collections.abc import Set as AbstractSet
from typing import TypeVar

from hedgerow.content import Points, Tracks, Video
from hedgerow.encode import Encoder
from hedgerow.errors import DataError, HedgerowError
from hedgerow.grounding.align import Frames, align, missed
from hedgerow.tree import Branch, MessageTree, Node

_N = TypeVar("_N", Branch, MessageTree)
_Timed = list[tuple[Points | Tracks, Video | None]]  # parts with times, each with the video it stands on
_BELOW = "it stands below a branch that is left out"


@dataclasses.dataclass(frozen=True, slots=True)
class Loss:
    """What sampling costs one node of a tree.

    Of the `points` with a time in its messages so many as are `lost` are not taught; `reason` says why. A
    node is `left_out` if of some part all points are lost, or if it stands below such a node.
    """

    address: str
    points: int
    lost: int
    left_out: bool
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """A tree without the branches that cannot be taught.

    Of its `points` with a time, so many as are `lost` are not taught; so many `branches` are left out, each
    with all below it.
    """

    tree: MessageTree
    points: int
    lost: int
    branches: int


def losses(tree: MessageTree, encoder: Encoder) -> tuple[Loss, ...]:
    """Return what sampling costs each node that has points with a time, in the order of `tree.nodes()`.

    Args:
        tree: as it is written; without such points nothing is looked up.
        encoder: samples the frames.

    Raises:
        DataError: a point stands where nothing is shown, or a video cannot be read.
    """
    frames: dict[Video, Frames] = {}
    shown: list[Video | None] = []  # by node: the last video of its path, itself included
    out: set[int] = set()
    found: list[Loss] = []
    for node in tree.nodes():
        parts, last = _timed(node, shown[node.parent] if node.parent >= 0 else None)
        shown.append(last)
        if node.parent in out:
            out.add(node.index)
            points = sum(point.time is not None for part, _ in parts for point in part.points)
            loss = Loss(node.address, points, points, left_out=True, reason=_BELOW)
        else:
            try:
                loss = _loss(node, parts, frames, encoder)
            except HedgerowError as error:
                raise type(error)(f"{tree.place(node)}: {error}") from None
            out |= {node.index} if loss.left_out else set()
        if parts:
            found.append(loss)
    return tuple(found)


def seen(tree: MessageTree, encoder: Encoder) -> Seen:
    """Leave out the branches that cannot be taught at the sampled frames, each with all below it.

    Args:
        tree: as it is written.
        encoder: samples the frames.

    Raises:
        DataError: the root cannot be taught, no answer is left, or as `losses` raises.
    """
    found = losses(tree, encoder)
    points, lost = sum(loss.points for loss in found), sum(loss.lost for loss in found)
    out: list[Loss] = []  # depth first, so that what stands below a branch follows it
    for loss in found:
        if loss.left_out and not (out and loss.address.startswith(f"{out[-1].address}.")):
            out.append(loss)
    if not out:
        return Seen(tree, points, lost, 0)
    if not out[0].address:
        raise DataError(f"{tree.id}, root: {out[0].reason}")
    kept = _without(tree, "", {loss.address for loss in out})
    if not any(message.role == "assistant" for node in kept.nodes() for message in node.messages):
        where = f"{tree.id}, branch {out[0].address}: {out[0].reason}"
        raise DataError(f"{where}; no other answer is left")
    return Seen(kept, points, lost, len(out))


def _timed(node: Node, video: Video | None) -> tuple[_Timed, Video | None]:
    """Return the parts of a node with times, and the video shown last, which is `video` if it shows none."""
    found: _Timed = []
    for message in node.messages:
        video = next((item for item in reversed(message.media) if isinstance(item, Video)), video)
        parts = [part for part in message.parts if isinstance(part, Points | Tracks)]
        found += [(part, video) for part in parts if any(point.time is not None for point in part.points)]
    return found, video


def _loss(node: Node, parts: _Timed, frames: dict[Video, Frames], encoder: Encoder) -> Loss:
    points = lost = 0
    gone, reasons = False, []
    for part, video in parts:
        if video is not None and video not in frames:
            frames[video] = encoder.frames(video)
        shown = None if video is None else frames[video]
        found = align(part, shown)
        points += found.points
        lost += found.lost
        gone |= found.gone
        if shown is not None and found.lost:
            reasons.append(missed(part, found, shown))
    return Loss(node.address, points, points if gone else lost, left_out=gone, reason="; ".join(reasons))


def _without(node: _N, address: str, out: AbstractSet[str]) -> _N:
    """Return a node without the branches at some addresses."""
    named = [(f"{address}.{n}" if address else str(n), branch) for n, branch in enumerate(node.branches)]
    kept = tuple(_without(branch, name, out) for name, branch in named if name not in out)
    return dataclasses.replace(node, branches=kept)
