"""The index: which trees there are, what each costs, and facts of their media; no pixel is read for it."""

import dataclasses
import json
import os
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from hedgerow.content import Media
from hedgerow.encode import Encoder
from hedgerow.errors import BudgetError, DataError
from hedgerow.sequence import Budget, Cost, Sequence
from hedgerow.tree import MessageTree, parse_line
from hedgerow.vision.facts import Facts, ImageFacts, VideoFacts, probe

OnBad = Literal["raise", "skip"]
_KINDS = {"ImageFacts": ImageFacts, "VideoFacts": VideoFacts}


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
            DataError: the file changed, or the line is not a tree.
        """
        with Path(self.path).open("rb") as file:
            file.seek(self.offset)
            return self.parse(file.readline())

    def parse(self, raw: bytes) -> MessageTree:
        """Build the tree from the bytes of this line.

        Raises:
            DataError: they are not a tree in UTF-8.
        """
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self}: not UTF-8 ({error}); save the file in UTF-8") from None
        return parse_line(text, where=str(self), folder=Path(self.path).parent)


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


class MediaFacts:
    """Facts of media files, each looked at once; kept in a file, valid while size and time of a file stay.

    Args:
        cache: JSON file to read facts from and save them to; None keeps them in memory. One that cannot be
            read is made again.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache
        self._known = _read_facts(cache) if cache is not None and cache.is_file() else {}

    def __call__(self, media: Media) -> Facts:
        """Return the facts of a file.

        Raises:
            MediaError: the file is missing or cannot be read.
        """
        path, key = Path(media.path), f"{media.type} {media.path}"  # a file may be shown as either
        stamp = [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else []
        known = self._known.get(key)
        if known is None or known[0] != stamp:
            known = self._known[key] = (stamp, probe(media))
        return known[1]

    def save(self) -> None:
        """Write the facts to the cache file, if there is one."""
        if self._cache is None:
            return
        values = {
            key: (stamp, type(facts).__name__, dataclasses.asdict(facts))
            for key, (stamp, facts) in self._known.items()
        }
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._cache.with_name(f"{self._cache.name}.{os.getpid()}")  # ranks write the same file
        temporary.write_text(json.dumps(values), encoding="utf-8")
        temporary.replace(self._cache)


class Examples:
    """The examples of a run: costs now, trees and pixels late. Picklable, so that data workers can hold it.

    Args:
        lines: where the trees stand.
        costs: what each costs, in the same order.
        dropped: what was left out.
        encoder: encodes a tree when it is asked for.
        on_bad: whether an example whose pixels turn out to be bad is left out by `attempt`.
    """

    def __init__(
        self,
        lines: Listing[Line],
        costs: Listing[Cost],
        *,
        dropped: Listing[Dropped],
        encoder: Encoder,
        on_bad: OnBad = "raise",
    ) -> None:
        self.lines = tuple(lines)
        self.costs = tuple(costs)
        self.dropped = tuple(dropped)
        self.encoder = encoder
        self.on_bad = on_bad

    def __len__(self) -> int:
        return len(self.lines)

    def tree(self, number: int) -> MessageTree:
        """Read one tree."""
        return self.lines[number].read()

    def encode(self, number: int) -> Sequence:
        """Read and encode one tree, pixels included.

        Raises:
            DataError: it cannot be encoded; the message names file and line.
        """
        with located(str(self.lines[number])):
            return self.encoder(self.tree(number))

    def attempt(self, number: int) -> Sequence | Dropped:
        """Read and encode one tree; where bad examples are skipped, return why it cannot be.

        Raises:
            DataError: it cannot be encoded, and bad examples are not skipped.
        """
        try:
            return self.encode(number)
        except DataError as error:
            if self.on_bad == "raise":
                raise
            return Dropped.of(self.lines[number], error)

    @classmethod
    def read(
        cls,
        paths: Listing[tuple[str | Path, int]],
        encoder: Encoder,
        *,
        budget: Budget | None = None,
        on_bad: OnBad = "raise",
    ) -> "Examples":
        """Index JSONL files.

        Args:
            paths: files, and how often each of their trees is used in an epoch.
            encoder: measures the trees.
            budget: what a row may hold; an example over it is bad.
            on_bad: raise at the first bad example, or leave it out and count it.

        Raises:
            DataError: an example is bad, or none is left.
        """
        lines: list[Line] = []
        costs: list[Cost] = []
        dropped: list[Dropped] = []
        for path, repeat in paths:
            for line, raw in _lines(Path(path)):
                try:
                    with located(str(line)):
                        tree = line.parse(raw)
                        cost = _measure(tree, encoder, budget)
                except DataError as error:
                    if on_bad == "raise":
                        raise
                    dropped.append(Dropped.of(line, error))
                    continue
                lines.extend([line] * repeat)
                costs.extend([cost] * repeat)
        if not lines:
            raise DataError(
                f"{', '.join(str(path) for path, _ in paths)}: no usable example; {_why(dropped)}"
            )
        return cls(lines, costs, dropped=dropped, encoder=encoder, on_bad=on_bad)


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put `where: ` before the message of a DataError that passes through, once."""
    try:
        yield
    except DataError as error:
        if str(error).startswith(where):
            raise
        raise type(error)(f"{where}: {error}") from None


def _measure(tree: MessageTree, encoder: Encoder, budget: Budget | None) -> Cost:
    cost = encoder.measure(tree)
    if budget is not None and not budget.fits(cost):
        raise BudgetError(
            f"{tree.id}: {budget.excess(cost)} of a row; raise the budget, shorten its branches, "
            "or set on_bad: skip"
        )
    return cost


def _lines(path: Path) -> Iterator[tuple[Line, bytes]]:
    try:
        with path.open("rb") as file:
            offset = 0
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    yield Line(str(path), number, offset), raw
                offset += len(raw)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); give a JSONL file in UTF-8") from None


def _read_facts(cache: Path) -> dict[str, tuple[list[int], Facts]]:
    try:
        found = json.loads(cache.read_text(encoding="utf-8"))
        return {key: (stamp, _KINDS[kind](**values)) for key, (stamp, kind, values) in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}  # cut off, or of another version: facts can be looked up again


def _why(dropped: Listing[Dropped]) -> str:
    return f"the first of {len(dropped)} bad ones: {dropped[0]}" if dropped else "it is empty"
