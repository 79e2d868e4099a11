"""Finds what stands in the data twice by 12 bytes a row, mostly on disk: a hash, and where the row stands."""

import hashlib
import json
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.sequence import Array

_MERGED = 2**20  # hashes of one sorted table at most, so that merging two never takes much memory
_LONG = 2**18  # hashes of a table that lies in a file
MOST_ROWS = 2**32


class _Table:
    """Hashes in rising order, and their rows; those of a long one lie in a file that vanishes with it."""

    def __init__(self, hashes: Array, rows: Array) -> None:
        self.hashes, self.rows = hashes, rows
        self._file: mmap.mmap | None = None
        if len(hashes) < _LONG:
            return
        with tempfile.TemporaryFile() as file:
            file.write(hashes.data)
            file.write(rows.data)
            file.flush()
            self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.hashes = np.frombuffer(self._file, np.uint64, len(hashes))
        self.rows = np.frombuffer(self._file, np.uint32, len(rows), offset=hashes.nbytes)

    def __len__(self) -> int:
        return len(self.hashes)

    def rest(self) -> None:
        """Let go of what was read of the file."""
        if self._file is not None:
            self._file.madvise(mmap.MADV_DONTNEED)


class Duplicates:
    """Tells of hashes, batch after batch, which came before and where.

    A batch is looked up in sorted tables and becomes one; two of about a length are merged.
    """

    def __init__(self) -> None:
        self._tables: list[_Table] = []

    def add(self, hashes: Array, rows: Array) -> Array:
        """Return the row in which each hash stood first, -1 where it is new.

        Args:
            hashes: uint64 [n].
            rows: uint32 [n], their rows, which rise from batch to batch.

        Returns:
            int64 [n].
        """
        unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        earlier = np.full(len(unique), -1, np.int64)
        for table in self._tables:
            place = np.minimum(np.searchsorted(table.hashes, unique), len(table) - 1)
            same = table.hashes[place] == unique
            earlier[same] = table.rows[place[same]]
            table.rest()
        new = earlier < 0
        self._keep(unique[new], rows[first[new]])
        earlier[new] = rows[first[new]]
        found = earlier[inverse]
        found[first[new]] = -1
        return found

    def _keep(self, hashes: Array, rows: Array) -> None:
        if not len(hashes):
            return
        while self._tables and _merge(len(self._tables[-1]), len(hashes)):
            other = self._tables.pop()
            hashes, rows = np.concatenate([other.hashes, hashes]), np.concatenate([other.rows, rows])
            order = np.argsort(hashes, kind="stable")
            hashes, rows = hashes[order], rows[order]
        self._tables.append(_Table(hashes, rows))


def _merge(last: int, new: int) -> bool:
    return last < 2 * new and last + new <= _MERGED


def hashes_of(line: str, folder: Path) -> tuple[int, int]:
    """Return 64 bits of what an id hashes to, and of what the messages and branches of a row do.

    Two rows of ten million share 64 bits by chance once in 370,000 such data sets. Paths of media count from
    the folder, so that rows of files in several folders are told apart, or found alike.

    Args:
        line: a tree in JSON.
        folder: of its file.
    """
    row = json.loads(line, object_pairs_hook=lambda pairs: _located(dict(pairs), folder))
    said = {key: row.get(key) for key in ("messages", "branches")}
    return _hash(row["id"]), _hash(json.dumps(said, sort_keys=True))


def _located(value: dict[str, Any], folder: Path) -> dict[str, Any]:
    if value.get("type") in ("image", "video") and isinstance(value.get("path"), str):
        value["path"] = os.path.normpath(folder / value["path"])
    return value


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
