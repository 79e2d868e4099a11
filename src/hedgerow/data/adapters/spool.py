"""Rows that share a root become one tree; about 100 bytes of each are in memory, the rest on disk."""

import hashlib
import json
from array import array
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from hedgerow.data.adapters.merge import Refuse, Row, branch_count, merged, point_count
from hedgerow.data.adapters.piece import Asked, PerTree, Piece
from hedgerow.errors import DataError
from hedgerow.sequence import Array


class Spool:
    """Takes rows as trees of their own, and writes them joined; order is that of the first row of each tree.

    Args:
        out: the file of trees; until it is whole, rows stand in a file beside it.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._path = out.with_name(f"{out.name}.part")
        self._joined = out.with_name(f"{out.name}.joined")
        self._keys, self._offsets = array("Q"), array("q")
        self._branches, self._limits = array("q"), array("q")
        self._asking = array("b")  # whether branches may have to be merged, or contradict each other
        self._known: list[PerTree] = []
        self._file: BinaryIO

    def __enter__(self) -> "Spool":
        try:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w+b")
        except OSError as error:
            raise DataError(f"{self._out}: cannot be written ({error}); give another --out") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        for path in (self._path, self._joined):
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DataError(
                f"{self._out}: cannot be written ({error}); make room, or give another --out"
            ) from error

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, piece: Piece, limit: PerTree, where: str) -> None:
        """Keep a row.

        Args:
            piece: the row as a tree of its own.
            limit: the most of one tree.
            where: its file and line.

        Raises:
            DataError: it holds half a character, which no file can.
        """
        value = piece.tree.to_dict()
        try:
            line = json.dumps(value, ensure_ascii=False).encode() + b"\n"
            beside = json.dumps([where, [one and [one.merge, one.objects] for one in piece.asked]]).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"holds half a character ({error.reason}); write whole ones") from None
        if limit not in self._known:
            self._known.append(limit)
        self._keys.append(_digest(piece, value, len(self._keys)))
        self._offsets.append(self._file.tell())
        self._branches.append(len(piece.tree.nodes()) - 1)
        self._asking.append(sum(one is not None for one in piece.asked) > 1)
        self._limits.append(self._known.index(limit))
        self._file.write(line + beside + b"\n")

    def write(self, refuse: Refuse) -> tuple[int, int]:
        """Write the trees, and return how many trees and branches; without a tree there is no file.

        Args:
            refuse: what becomes of a row that contradicts another one of its tree.
        """
        order, starts = _grouped(np.asarray(self._keys))
        trees = branches = 0
        with self._joined.open("wb") as file:
            for at, start in enumerate(starts):
                end = starts[at + 1] if at + 1 < len(starts) else len(order)
                for number, (tree, size) in enumerate(self._trees(order[start:end], refuse)):
                    file.write(tree if number == 0 else _renamed(tree, number))
                    trees, branches = trees + 1, branches + size
        if trees:
            self._joined.replace(self._out)
        return trees, branches

    def _trees(self, rows: Array, refuse: Refuse) -> Iterator[tuple[bytes, int]]:
        """Join the rows of one group, to as many trees as the limit asks for; each with its branches."""
        first = int(rows[0])
        if len(rows) == 1 and not self._asking[first]:
            self._file.seek(self._offsets[first])
            yield self._file.readline(), self._branches[first]
            return
        limit = self._known[self._limits[first]]
        for alike in _alike([self._row(int(row)) for row in rows]):
            kept = merged(alike, refuse)
            at = 0
            for size in dealt([point_count(row.tree) for row in kept], limit) if kept else []:
                yield _joined(kept[at : at + size])
                at += size

    def _row(self, number: int) -> Row:
        self._file.seek(self._offsets[number])
        tree, (where, asked) = json.loads(self._file.readline()), json.loads(self._file.readline())
        return Row(where, tree, [one and Asked(one[0], tuple(one[1])) for one in asked])


def dealt(points: Listing[int], limit: PerTree) -> list[int]:
    """Return how many rows each tree of a group takes, in order.

    Args:
        points: of each row.
        limit: the most of a tree.
    """
    sizes, held = [0], 0
    for count in points:
        if limit.points is not None and sizes[-1] and held + count > limit.points:
            sizes.append(0)
            held = 0
        sizes[-1] += 1
        held += count
    return [part for size in sizes for part in _even(size, limit.rows or size)]


def _even(size: int, most: int) -> list[int]:
    """Split a number into the fewest parts of at most so much that differ by one at most."""
    count = -(-size // most)
    return [size // count + (number < size % count) for number in range(count)]


def _grouped(keys: Array) -> tuple[Array, Array]:
    """Return all rows, those of one key side by side and keys by their first row, and where each starts."""
    if not len(keys):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first[which], kind="stable")
    sorted_keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]]))
    return order, starts


def _digest(piece: Piece, value: dict[str, Any], number: int) -> int:
    """A number that rows share if they share a tree; what shares it by chance is told apart when joined."""
    own = number if piece.key is None else None
    root = json.dumps([own, piece.key, value.get("source"), value["messages"]])
    return int.from_bytes(hashlib.blake2b(root.encode(), digest_size=8).digest(), "big")


def _alike(rows: Listing[Row]) -> list[list[Row]]:
    """Tell rows apart that share a number by chance: those of one tree have the same root."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(json.dumps(row.tree["messages"]), []).append(row)
    return list(found.values())


def _joined(rows: Listing[Row]) -> tuple[bytes, int]:
    tree = rows[0].tree
    if len(rows) > 1:
        tree = {**tree, "branches": [branch for row in rows for branch in row.tree["branches"]]}
    return json.dumps(tree, ensure_ascii=False).encode() + b"\n", branch_count(tree)


def _renamed(line: bytes, number: int) -> bytes:
    """Give the further trees of one root names of their own."""
    tree = json.loads(line)
    return json.dumps({**tree, "id": f"{tree['id']} ({number + 1})"}, ensure_ascii=False).encode() + b"\n"
