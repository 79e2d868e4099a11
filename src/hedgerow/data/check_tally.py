"""Counts what comes of the rows of files, in their order, and finds duplicates among them."""

from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as Listing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np

from hedgerow.data.check_duplicates import Duplicates
from hedgerow.data.check_row import Row, RowCheck
from hedgerow.data.check_schema import HINT, Fault, Kind


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault of the row that stands in a file at a line, counted from 1."""

    file: str
    line: int
    fault: Fault

    def __str__(self) -> str:
        place = f"{self.fault.place}: " if self.fault.place else ""
        return f"{self.file}:{self.line}: {place}{self.fault.text} [{self.fault.kind}]"


@dataclass(frozen=True, slots=True)
class Lost:
    """Of `points` of a data set, those with a time, `lost` are at times that no sampled frame shows."""

    source: str
    points: int
    lost: int

    @property
    def share(self) -> float:
        """The part that is lost, from 0 to 1."""
        return self.lost / self.points


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found.

    Attributes:
        files: those that were read.
        rows: how many rows there are.
        good: how many have no problem.
        problems: how many there are, by kind.
        lost: points that no sampled frame shows, by data set.
        moved: of the rows that were written, how many have other media paths.
        unknown: how many answers have a task that is not known, by task.
        astray: how many answers give points or tracks under a task that is weighted as text.
    """

    files: tuple[str, ...]
    rows: int
    good: int
    problems: dict[Kind, int]
    lost: tuple[Lost, ...]
    moved: int
    unknown: dict[str, int]
    astray: int


@dataclass(frozen=True, slots=True)
class Job:
    """Lines of a file. `number` is that of the first, `first` its place among the lines of all files."""

    path: Path
    number: int
    first: int
    lines: list[bytes]

    def do(self, check: RowCheck) -> list[Row | None]:
        """Check the lines; what is blank is no row."""
        return [
            None if line.isspace() else check(line, self.path, number)
            for number, line in enumerate(self.lines, self.number)
        ]


class Tally:
    """Counts what comes of rows, and finds duplicates among them."""

    def __init__(
        self,
        files: Listing[Path],
        starts: Listing[int],
        tell: Callable[[Problem], None],
        good: IO[bytes] | None,
    ) -> None:
        self._files = [str(path) for path in files]
        self._starts = starts  # of each file, how many lines stand in those before it
        self._tell = tell
        self._good_lines = good
        self._ids, self._contents = Duplicates(), Duplicates()
        self._rows = self._good = self._moved = 0
        self._problems = Counter[Kind]()
        self._points, self._lost = Counter[str](), Counter[str]()
        self._unknown, self._astray = Counter[str](), 0
        self._hinted = False

    def add(self, job: Job, rows: Listing[Row | None]) -> None:
        """Count the rows of a job, tell their problems, and write down those that are good."""
        twice = self._duplicates(job, rows)
        for place, (line, row) in enumerate(zip(job.lines, rows, strict=True)):
            if row is None:
                continue
            faults = (*self._with_hint(row), *twice.get(place, ()))
            for fault in faults:
                self._tell(Problem(str(job.path), job.number + place, fault))
            self._problems.update(fault.kind for fault in faults)
            self._rows += 1
            self._good += not faults
            self._unknown.update(row.unknown)
            self._astray += row.astray
            if row.points:
                self._points[row.source] += row.points
                self._lost[row.source] += row.lost
            if self._good_lines is not None and not faults:
                self._good_lines.write(row.moved or line.rstrip(b"\n") + b"\n")
                self._moved += row.moved is not None

    def checked(self) -> Checked:
        """Return the figures."""
        return Checked(
            files=tuple(self._files),
            rows=self._rows,
            good=self._good,
            problems=dict(self._problems),
            lost=tuple(Lost(name, count, self._lost[name]) for name, count in self._points.items()),
            moved=self._moved,
            unknown=dict(self._unknown),
            astray=self._astray,
        )

    def _with_hint(self, row: Row) -> tuple[Fault, ...]:
        """The faults of a row; the first row that looks like another format says what reads such."""
        if self._hinted or not row.foreign:
            return row.faults
        self._hinted = True
        *first, last = row.faults
        return (*first, replace(last, text=f"{last.text}; {HINT}"))

    def _duplicates(self, job: Job, rows: Listing[Row | None]) -> dict[int, list[Fault]]:
        found = [(place, row.hashes) for place, row in enumerate(rows) if row is not None and row.hashes]
        numbers = np.array([job.first + place for place, _ in found], np.uint32)
        hashes = np.array([pair for _, pair in found], np.uint64).reshape(-1, 2)
        ids = self._ids.add(hashes[:, 0], numbers).tolist()
        contents = self._contents.add(hashes[:, 1], numbers).tolist()
        return {
            place: [self._twice(id_, content)]
            for (place, _), id_, content in zip(found, ids, contents, strict=True)
            if id_ >= 0 or content >= 0
        }

    def _twice(self, same_id: int, same_content: int) -> Fault:
        """Say where a row stood first: the row of its id and that of its messages, -1 for none."""
        if same_id == same_content:
            text = f"the row stands at {self._where(same_id)} already; remove one of them"
        elif same_content < 0:
            text = f"its id stands at {self._where(same_id)} already; give one of them another"
        else:
            text = (
                f"its messages stand at {self._where(same_content)} already, under another id; remove one row"
            )
        return Fault("duplicate", "", text)

    def _where(self, row: int) -> str:
        file = int(np.searchsorted(self._starts, row, side="right")) - 1
        return f"{self._files[file]}:{row - self._starts[file] + 1}"
