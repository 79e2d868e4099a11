"""Where trees stand in files; nothing of them is held in memory."""

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from contextlib import contextmanager
from pathlib import Path
from typing import overload

import numpy as np

from hedgerow.errors import DataError
from hedgerow.sequence import Array
from hedgerow.tree import MessageTree, parse_line

_TOLD = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """Where a tree stands: file, line number from 1, byte offset."""

    path: str
    number: int
    offset: int

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"

    def read(self) -> MessageTree:
        """Parse the tree that stands here.

        Raises:
            DataError: the file cannot be read, it changed, or the line is not a tree.
        """
        try:
            with Path(self.path).open("rb") as file:
                file.seek(self.offset)
                raw = file.readline()
        except OSError as error:
            raise _unreadable(self.path, error) from None
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self}: not UTF-8 ({error}); save the file in UTF-8") from None
        return parse_line(text, where=str(self), folder=Path(self.path).parent)


class Lines(Listing[Line]):
    """The lines of several files as one table, a sequence of `Line`. Immutable.

    Args:
        paths: the files.
        table: int64 [n, 3]: place of the file in `paths`, line number, byte offset.
    """

    __slots__ = ("_table", "paths")

    def __init__(self, paths: Listing[str], table: Array) -> None:
        self.paths = tuple(paths)
        self._table = table

    @classmethod
    def scan(cls, paths: Listing[Path]) -> "Lines":
        """Find the lines of files that hold anything.

        Raises:
            DataError: a file cannot be read.
        """
        tables = [_scan(path, place) for place, path in enumerate(paths)]
        return cls([str(path) for path in paths], np.concatenate(tables))

    @property
    def files(self) -> Array:
        """The place in `paths` of the file of each line, int64 [n]."""
        return self._table[:, 0]

    def take(self, places: Array) -> "Lines":
        """Return the lines at these places, in this order."""
        return Lines(self.paths, self._table[places])

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, place: int) -> Line: ...
    @overload
    def __getitem__(self, place: slice) -> "Lines": ...
    def __getitem__(self, place: int | slice) -> "Line | Lines":
        if isinstance(place, slice):
            return Lines(self.paths, self._table[place])
        file, number, offset = self._table[place].tolist()
        return Line(self.paths[file], number, offset)


@dataclasses.dataclass(frozen=True, slots=True)
class Dropped:
    """An example that was left out, and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"

    @classmethod
    def of(cls, line: Line, error: DataError) -> "Dropped":
        """Note an error that `located` has passed."""
        return cls(str(line), str(error).removeprefix(f"{line}: "))


def told(dropped: Listing[object], *, whole: str) -> list[str]:
    """Return a line for each of the first examples that were left out, and one for the others.

    Args:
        dropped: where each stands and why.
        whole: what names all of them.
    """
    lines = [f"dropped {item}" for item in dropped[:_TOLD]]
    if len(dropped) > _TOLD:
        lines.append(f"and {len(dropped) - _TOLD} more; all are in {whole}")
    return lines


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put `where: ` before the message of a DataError that passes through, once."""
    try:
        yield
    except DataError as error:
        if str(error).startswith(where):
            raise
        raise type(error)(f"{where}: {error}") from None


def _scan(path: Path, place: int) -> Array:
    numbers, offsets, offset = [], [], 0
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.isspace():
                    numbers.append(number)
                    offsets.append(offset)
                offset += len(raw)
    except OSError as error:
        raise _unreadable(path, error) from None
    return np.array([[place] * len(numbers), numbers, offsets], np.int64).T


def _unreadable(path: str | Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error}); give a JSONL file in UTF-8")
