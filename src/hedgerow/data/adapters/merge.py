"""Points and tracks of which each row holds some: what belongs together becomes one answer."""

import dataclasses
import json
from collections.abc import Callable
from collections.abc import Sequence as Listing
from typing import Any

from hedgerow.data.adapters.piece import Asked
from hedgerow.tree import MessageTree

Refuse = Callable[[str, str], None]  # file and line of a row, and why it is bad: raises, or leaves it out
_GROUNDING = ("points", "tracks")
_LONGEST = 60  # of what an error shows of a branch
_REMEDY = "merge such rows by merge_by in the mapping, as merge_by: [label], or correct the row"


@dataclasses.dataclass(slots=True)
class Row:
    """A row as a tree of its own, while it is joined with others.

    Attributes:
        where: its file and line.
        tree: in the native format.
        asked: of each of its branches, by what it joins others; empty: none does.
    """

    where: str
    tree: dict[str, Any]
    asked: list[Asked | None]


def merged(rows: Listing[Row], refuse: Refuse) -> list[Row]:
    """Merge the branches that a mapping says are one, and refuse two that answer a question differently.

    A merged branch stands in the first row that has it; objects are numbered anew, in the order they come. A
    row that is refused is left out, one of which nothing is left is no row any more.

    Args:
        rows: those of one root, in order; their trees are changed.
        refuse: what becomes of a row that contradicts an earlier one.
    """
    kept = _told_apart(_merged(rows, refuse), refuse)
    for row in kept:
        if row.asked:
            MessageTree.from_dict(row.tree, where=row.where)  # an object may now stand twice at one time
    return kept


def branch_count(tree: dict[str, Any]) -> int:
    """How many branches a tree has, at any depth."""
    branches = tree.get("branches", ())
    return len(branches) + sum(branch_count(branch) for branch in branches)


def point_count(tree: dict[str, Any]) -> int:
    """How many points its answers hold, at any depth."""
    own = sum(len(part.get("points", ())) for message in tree["messages"] for part in _grounding(message))
    return own + sum(point_count(branch) for branch in tree.get("branches", ()))


@dataclasses.dataclass(frozen=True, slots=True)
class _Merging:
    """The branch that takes the points of others, its row, and the numbers of its objects."""

    where: str
    branch: dict[str, Any]
    numbers: dict[str, int]

    @classmethod
    def of(cls, row: Row, branch: dict[str, Any], asked: Asked) -> "_Merging":
        return cls(row.where, branch, {name: number for number, name in enumerate(asked.objects, 1)})

    def take(self, branch: dict[str, Any], asked: Asked) -> None:
        """Put the points of another branch behind those of this one."""
        (part,), (other,) = _grounding(self.branch["messages"][-1]), _grounding(branch["messages"][-1])
        points = other.get("points", [])
        for point in points:
            if "id" in point:
                name = asked.objects[point["id"] - 1]
                point["id"] = self.numbers.setdefault(name, len(self.numbers) + 1)
        if points:
            part["points"] = [*part.get("points", ()), *points]


def _merged(rows: Listing[Row], refuse: Refuse) -> list[Row]:
    first: dict[str, _Merging] = {}
    kept = []
    for row in rows:
        own, clash = _own(row, first)
        if clash:
            refuse(row.where, clash)
            continue
        first |= own
        left = []
        for branch, asked in _pairs(row):
            if asked is None or asked.merge is None or first[asked.merge].branch is branch:
                left.append((branch, asked))
            else:
                first[asked.merge].take(branch, asked)
        if left or not row.asked:
            kept.append(row)
        if row.asked:
            row.tree["branches"], row.asked = [one for one, _ in left], [one for _, one in left]
    return kept


def _pairs(row: Row) -> list[tuple[dict[str, Any], Asked | None]]:
    return list(zip(row.tree["branches"], row.asked, strict=True)) if row.asked else []


def _own(row: Row, first: dict[str, _Merging]) -> tuple[dict[str, _Merging], str]:
    """Return the branches that later ones are merged with, or why a branch cannot be merged."""
    own: dict[str, _Merging] = {}
    for branch, asked in _pairs(row):
        if asked is None or asked.merge is None:
            continue
        found = first.get(asked.merge) or own.get(asked.merge)
        if found is None:
            own[asked.merge] = _Merging.of(row, branch, asked)
        elif _wording(found.branch) != _wording(branch):
            return own, (
                f"merge_by makes it one with {found.where}, and their words differ: "
                f"{_short(found.branch)}, {_short(branch)}; name in merge_by what they differ in"
            )
    return own, ""


def _told_apart(rows: Listing[Row], refuse: Refuse) -> list[Row]:
    asked_by: dict[str, tuple[str, dict[str, Any]]] = {}
    kept = []
    for row in rows:
        clash = ""
        for branch, asked in _pairs(row):
            if asked is None:
                continue
            where, before = asked_by.setdefault(_wording(branch), (row.where, branch))
            if before["messages"] != branch["messages"]:
                clash = f"asks {_short(branch)} as {where} does, and points elsewhere; {_REMEDY}"
        if clash:
            refuse(row.where, clash)
        else:
            kept.append(row)
    return kept


def _wording(branch: dict[str, Any]) -> str:
    """All of a branch but its points."""
    *before, answer = branch["messages"]
    parts = [
        {key: value for key, value in part.items() if key != "points"}
        if part.get("type") in _GROUNDING
        else part
        for part in answer["content"]
    ]
    return json.dumps([branch.get("task"), before, parts])


def _short(branch: dict[str, Any]) -> str:
    """What is asked and answered, for an error; its points are left out."""
    texts = [
        " ".join(part.get("text") or part.get("label") or "" for part in parts)
        for parts in ([{"text": one}] if isinstance(one, str) else one for one in _contents(branch))
    ]
    text = " ".join(texts)
    return repr(text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")


def _contents(branch: dict[str, Any]) -> list[str | list[dict[str, Any]]]:
    return [message["content"] for message in branch["messages"]]


def _grounding(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [] if isinstance(content, str) else [part for part in content if part["type"] in _GROUNDING]
