"""What is wrong with one row: all of it, so that a file is mended in one go."""

import copy
import dataclasses
import json
import os
from collections.abc import Container, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from hedgerow.content import Grounding, Image, Media, Points, Text, Tracks, Video
from hedgerow.data.answers import astray, unknown
from hedgerow.data.check_duplicates import hashes_of
from hedgerow.data.check_media import Looker
from hedgerow.data.check_schema import Fault, Kind, is_foreign, place_of, schema_faults
from hedgerow.data.oversize import Oversize, check_fits
from hedgerow.data.seen import Loss, losses, seen
from hedgerow.encode import Encoder
from hedgerow.errors import BudgetError, DataError, MediaError
from hedgerow.grounding import points
from hedgerow.sequence import Budget, Cost
from hedgerow.tree import Message, MessageTree, parse_line


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What came of a row.

    Attributes:
        faults: what is wrong with it.
        hashes: of its id and its messages; None of what is no tree.
        source: its data set; empty for what is no tree.
        points: how many points with a time it has, if that could be found out.
        lost: how many of them no sampled frame shows.
        moved: the row with its media paths for another folder, where they had to change.
        foreign: whether it is no tree, and looks like a row of another format.
        unknown: how many answers have a task that is not known, by task.
        astray: how many answers give points or tracks under a task that is weighted as text.
    """

    faults: tuple[Fault, ...]
    hashes: tuple[int, int] | None = None
    source: str = ""
    points: int = 0
    lost: int = 0
    moved: bytes | None = None
    foreign: bool = False
    unknown: Mapping[str, int] = dataclasses.field(default_factory=dict)
    astray: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class RowCheck:
    """Finds what is wrong with a row.

    Attributes:
        encoder: as which the row would be trained on.
        budget: what a row of training may hold.
        oversize: what becomes of a tree over the budget; where it is shortened, only its branches can be too
            large.
        looker: looks at media; None: nothing that depends on them is checked.
        out: a folder that good rows will be copied to, if any.
    """

    encoder: Encoder
    budget: Budget
    oversize: Oversize
    looker: Looker | None = None
    out: Path | None = None

    def __call__(self, raw: bytes, path: Path, number: int) -> Row:
        """Check one line of a file.

        Raises:
            RecipeError: tokenizer and vision settings do not fit together.
        """
        where = f"{path}:{number}"
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            return Row((Fault("schema", "", f"not UTF-8 ({error}); save the file in UTF-8"),))
        try:
            tree = parse_line(line, where=where, folder=path.parent)
        except DataError as error:
            whole = Fault("schema", "", str(error).removeprefix(f"{where}: "))
            return Row(tuple(schema_faults(line)) or (whole,), foreign=is_foreign(line, path))
        row = self._tree(tree)
        hashes = hashes_of(line, path.parent)
        moved = None if row.faults or self.out is None else _moved(line, path.parent, self.out)
        return dataclasses.replace(row, hashes=hashes, moved=moved)

    def _tree(self, tree: MessageTree) -> Row:
        encoder = copy.copy(self.encoder)
        faults: list[Fault] = []
        unusable = set(tree.media)
        if self.looker is not None:
            encoder.facts = self.looker.facts
            faults, unusable = _media_faults(tree, self.looker, encoder)
        faults += _answer_faults(tree)
        lost: tuple[Loss, ...] = ()
        late: dict[str, Fault] = {}
        whole = None
        if not unusable:
            try:
                lost = losses(tree, encoder)
                late = {loss.address: _late(loss) for loss in lost if loss.left_out}
                usable = seen(tree, encoder).tree
                cost = encoder.survey(usable).cost
                faults += () if self.budget.fits(cost) else self._size_faults(usable, cost, encoder)
            except DataError as error:
                whole = _whole(tree, error)
        parts = list(_part_faults(tree, encoder, unusable, late)) if unusable or whole else []
        faults += [*late.values(), *parts]
        if whole and not late and not parts and whole not in faults:
            faults.append(whole)
        points, gone = sum(loss.points for loss in lost), sum(loss.lost for loss in lost)
        return Row(
            tuple(faults),
            source=tree.source,
            points=points,
            lost=gone,
            unknown=unknown(tree, encoder.weights),
            astray=sum(astray(tree, encoder.weights).values()),
        )

    def _size_faults(self, tree: MessageTree, cost: Cost, encoder: Encoder) -> Iterator[Fault]:
        """Say what is too large of a tree that is."""
        if self.oversize != "shorten":
            try:
                check_fits(tree, cost, self.budget, oversize=self.oversize)
            except BudgetError as error:
                yield dataclasses.replace(_whole(tree, error), kind="size")
        costs = encoder.node_costs(tree)
        if not self.budget.fits(costs[0]):
            over = self.budget.excess(costs[0])
            text = f"alone it holds {over} of a row; raise packing.budget, or make it smaller"
            yield Fault("size", "root", text)
            return
        branches: dict[str, Cost] = {}
        for node, own in zip(tree.nodes()[1:], costs[1:], strict=True):
            first = node.address.partition(".")[0]
            branches[first] = branches.get(first, costs[0]) + own
        for address, held in branches.items():
            if not self.budget.fits(held):
                over = self.budget.excess(held)
                text = f"with its root it holds {over} of a row; raise packing.budget, or make it shorter"
                yield Fault("size", place_of(address), text)


def _media_faults(tree: MessageTree, looker: Looker, encoder: Encoder) -> tuple[list[Fault], set[Media]]:
    """Return what is wrong with media, each told once, and those of which not even the facts are known."""
    faults: dict[str, Fault] = {}
    unusable = set[Media]()
    for node in tree.nodes():
        for message in node.messages:
            several = sum(isinstance(item, Image) for item in message.media) > 1
            for item in message.media:
                try:
                    text = looker.fault(encoder.processor.filled(item, several=several))
                except MediaError as error:
                    text = str(error)
                    unusable.add(item)
                if text:
                    faults.setdefault(text, Fault("media", place_of(node.address), text))
    return list(faults.values()), unusable


def _answer_faults(tree: MessageTree) -> Iterator[Fault]:
    answers = [
        (node, number, message)
        for node in tree.nodes()
        for number, message in enumerate(node.messages)
        if message.role == "assistant"
    ]
    if not answers:
        yield Fault("answer", "", "no supervised answer; add an assistant message to a branch")
    for node, number, message in answers:
        if all(isinstance(part, Text) and not part.text.strip() for part in message.parts):
            text = f"message {number} is an empty answer; write what is to be learnt, or leave the branch out"
            yield Fault("answer", place_of(node.address), text)


def _late(loss: Loss) -> Fault:
    return Fault("time", place_of(loss.address), loss.reason)


def _part_faults(
    tree: MessageTree, encoder: Encoder, unusable: AbstractSet[Media], late: Container[str]
) -> Iterator[Fault]:
    """Encode all points and tracks of a tree, each alone below the media that it can be about.

    Of the nodes that are `late`, by their addresses, times are told already.
    """
    for node in tree.nodes():
        above = [item for message in node.path for item in message.media]
        for message in node.messages:
            above += message.media
            for part in message.parts:
                if not isinstance(part, Points | Tracks):
                    continue
                try:
                    if unusable.isdisjoint(above):
                        _encode_alone(tree, part, above, encoder)
                    elif part.frame != "pixels":
                        _check_place(part)
                except DataError as error:
                    kind = _kind(part, above, encoder)
                    if kind != "time" or node.address not in late:
                        text = str(error).removeprefix(f"{tree.id}, root: ")
                        yield Fault(kind, place_of(node.address), text)


def _encode_alone(tree: MessageTree, part: Grounding, above: list[Media], encoder: Encoder) -> None:
    question = Message("user", tuple(above) or "-")
    encoder.survey(MessageTree(tree.id, (question, Message("assistant", (part,))), source=tree.source))


def _check_place(part: Grounding, size: points.Size | None = None) -> None:
    fractions = points.to_fractions(part, size=size)
    if isinstance(fractions, Points):
        points.canonical(fractions)


def _kind(part: Grounding, above: list[Media], encoder: Encoder) -> Kind:
    """Say whether a part that is refused is so for its times."""
    videos = [item for item in above if isinstance(item, Video)]
    if all(point.time is None for point in part.points):
        return "place"
    if not videos:
        return "time"
    size = None
    if part.frame == "pixels":
        facts = encoder.facts(encoder.processor.filled(videos[-1]))
        size = (facts.width, facts.height)
    try:
        _check_place(part, size)
    except DataError:
        return "place"
    return "time"


def _whole(tree: MessageTree, error: DataError) -> Fault:
    """Take an error of an encoded tree apart: its id, perhaps the node, and the text."""
    text = str(error).removeprefix(tree.id)
    place, parted, rest = text.removeprefix(", ").partition(": ")
    return (
        Fault("answer", place, rest)
        if text.startswith(", ") and parted
        else Fault("answer", "", text.removeprefix(": "))
    )


def _moved(line: str, folder: Path, out: Path) -> bytes | None:
    """Return a row whose media are found from another folder too; None where it needs no change."""
    near, far = folder.resolve(), out.resolve()
    if near == far:
        return None
    moved = parse_line(line, where="row", folder=Path(os.path.relpath(near, far)))
    if moved == parse_line(line, where="row", folder=Path()):  # no path is a relative one
        return None
    return json.dumps(moved.to_dict(), ensure_ascii=False).encode() + b"\n"
