"""Converts foreign files into one file of trees."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from hedgerow.data.adapters import hub
from hedgerow.data.adapters.media import Files
from hedgerow.data.adapters.piece import Adapter, Options, PerTree, Piece, Turns
from hedgerow.data.adapters.records import Record, data_files, read
from hedgerow.data.adapters.registry import check_needs, named, recognised
from hedgerow.data.adapters.spool import Spool
from hedgerow.data.lines import Dropped, located, told
from hedgerow.data.shares import counted
from hedgerow.errors import DataError
from hedgerow.validation import explain

_KEPT = 100  # of the rows that were skipped, so many are named


@dataclasses.dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion read and wrote.

    Attributes:
        out: the file of trees.
        rows: that were read.
        trees: that were written.
        branches: of these.
        media: embedded files of the rows, which stand beside it.
        shown: media files that the trees name.
        missing: those of them that are not there.
        first_missing: the first of these; empty: there is none.
        formats: rows by the format they were read as.
        left_out: rows that their format leaves out, by format.
        skipped: bad rows.
        named: the first of these, with reasons.
    """

    out: str
    rows: int
    trees: int
    branches: int
    media: int
    shown: int
    missing: int
    first_missing: str
    formats: dict[str, int]
    left_out: dict[str, int]
    skipped: int
    named: tuple[Dropped, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Say what became of all rows."""
        formats = ", ".join(f"{name} {count:,}" for name, count in self.formats.items())
        lines = [
            f"{self.out}: {counted(self.trees, 'tree')} with {counted(self.branches, 'branch')} "
            f"from {counted(self.rows, 'row')} ({formats})"
        ]
        if self.media:
            lines.append(f"{counted(self.media, 'embedded file')} beside it, in {Path(self.out).stem}_media")
        lines += [f"left out by {name}: {counted(count, 'row')}" for name, count in self.left_out.items()]
        if self.skipped:
            lines.append(f"{counted(self.skipped, 'bad row')} skipped")
            lines += told(self.named, whole=f"the first {_KEPT} of --json")
        if self.missing:
            lines.append(
                f"{self.missing:,} of {counted(self.shown, 'media file')} {_are(self.missing)} not there, "
                f"the first is {self.first_missing}; give --media, the folder that paths are relative to"
            )
        return "\n".join(lines)


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def convert(
    sources: Listing[str | Path],
    out: str | Path,
    *,
    format: str | None = None,
    media: str | None = None,
    turns: Turns = "together",
    per_tree: int | None = None,
    on_bad: Literal["raise", "skip"] = "raise",
    from_hub: bool = False,
) -> Conversion:
    """Convert files of foreign formats into one JSONL file of trees.

    Memory stays flat for all but a JSON list, which is read as a whole, apart from an index of about 100
    bytes for each row and media file; the rows of one root are joined in memory. Embedded images and videos
    become files in `NAME_media` beside `out`, named by their content. `out` appears when all is well, and
    replaces what was there; otherwise what was written is removed.

    Args:
        sources: files, and folders of files, of any mix of formats; or names of hub sets.
        out: JSONL file; media paths in it are relative to its folder.
        format: the name of a format, or the path of a mapping in YAML; None: each file's own, by the columns
            of its first row.
        media: folder that paths of media are relative to, by default that of each file; with a last part in
            braces, such as `videos/{video_id}_2fps.mp4`, also the name of a file in place of a mapping's.
        turns: "apart" makes each question of a conversation about the same media a branch.
        per_tree: the most rows that share a tree, in place of the format's own.
        on_bad: "skip" leaves bad rows out and counts them.
        from_hub: sources are hub sets, `NAME`, `NAME@CONFIG:SPLIT`, and are fetched.

    Raises:
        DataError: a source cannot be read, no format fits it, no row is left, or a row is bad (with "raise").
        RecipeError: the format or an option is wrong.
    """
    out = Path(out)
    given = None if format is None else named(format)
    folder, pattern = _media(media)
    files, options = Files(out, folder), Options(turns, pattern)
    limit = None if per_tree is None else PerTree(per_tree)
    tally = _Tally(on_bad)
    opened = _opened(sources, out, from_hub=from_hub)
    with Spool(out) as spool, files:
        for records in opened:
            for record, values, adapter in _fitted(records, given, tally, files):
                with tally.bad_rows_counted(record):
                    piece = _piece(adapter, record, values, options, files)
                    if piece is not None:
                        spool.add(piece, limit or adapter.per_tree, str(record))
                    tally.count(adapter.name, piece)
        if not len(spool):
            raise DataError(f"{', '.join(map(str, sources))}: no row is left; nothing was written")
        trees, branches = spool.write(tally.refuse)
        if not trees:
            raise DataError(f"{', '.join(map(str, sources))}: no row is left; nothing was written")
    return tally.conversion(out, trees, branches, files)


def _fitted(
    records: Iterator[Record], given: Adapter | None, tally: "_Tally", files: Files
) -> Iterator[tuple[Record, dict[str, Any], Adapter]]:
    """Yield the rows of a file that can be read, with the format that its first one has or that is given."""
    adapter = None
    for record in records:
        values = tally.read(record, files)
        if values is None:
            continue
        if adapter is None:
            adapter = recognised(values, str(record)) if given is None else given
            check_needs(adapter, values, str(record))
        yield record, values, adapter


def _piece(
    adapter: Adapter, record: Record, values: dict[str, Any], options: Options, files: Files
) -> Piece | None:
    try:
        piece = adapter.piece(record, values, options)
    except ValidationError as error:
        raise DataError(explain(error, ())) from None
    if piece is None:
        return None
    roles = [message.role for node in piece.tree.nodes() for message in node.messages]
    if "assistant" not in roles:
        raise DataError("there is no answer to learn from; give a message of the assistant")
    return dataclasses.replace(piece, tree=files.settled(piece.tree, record.folder))


def _opened(sources: Listing[str | Path], out: Path, *, from_hub: bool) -> list[Iterator[Record]]:
    if from_hub:
        return [hub.read(str(source)) for source in sources]
    return [read(path, name) for path, name in data_files(sources, out=out)]


def _media(given: str | None) -> tuple[Path | None, str | None]:
    """Split a folder with a pattern of file names."""
    if given is None or "{" not in given:
        return None if given is None else Path(given), None
    fixed = given[: given.index("{")].rpartition("/")[0]
    pattern = given[len(fixed) :].lstrip("/")
    return Path(fixed or ("/" if given.startswith("/") else ".")), pattern


class _Tally:
    """Counts rows, and decides what becomes of a bad one."""

    def __init__(self, on_bad: Literal["raise", "skip"]) -> None:
        self._on_bad = on_bad
        self.rows = self.skipped = 0
        self.formats, self.left_out = Counter[str](), Counter[str]()
        self._named: list[Dropped] = []

    def read(self, record: Record, files: Files) -> dict[str, Any] | None:
        """Return the columns of a row; None where they cannot be read and that is no reason to stop."""
        self.rows += 1
        values: dict[str, Any] | None = None
        with self.bad_rows_counted(record):
            values = files.unpacked(record.values())
        return values

    def count(self, name: str, piece: Piece | None) -> None:
        """Count a row that was read as a format, and whether that leaves it out."""
        self.formats[name] += 1
        if piece is None:
            self.left_out[name] += 1

    @contextmanager
    def bad_rows_counted(self, record: Record) -> Iterator[None]:
        """Name the row in an error, and go on after it if that was asked for."""
        try:
            with located(str(record)):
                yield
        except DataError as error:
            if self._on_bad == "raise":
                raise
            self._skip(str(record), str(error).removeprefix(f"{record}: "))

    def refuse(self, where: str, reason: str) -> None:
        """Stop at a row that contradicts another one, or go on without it.

        Raises:
            DataError: bad rows are not skipped.
        """
        if self._on_bad == "raise":
            raise DataError(f"{where}: {reason}")
        self._skip(where, reason)

    def _skip(self, where: str, reason: str) -> None:
        self.skipped += 1
        if len(self._named) < _KEPT:
            self._named.append(Dropped(where, reason))

    def conversion(self, out: Path, trees: int, branches: int, files: Files) -> Conversion:
        """Return what came of it."""
        formats, left_out = dict(self.formats), dict(self.left_out)
        return Conversion(
            str(out),
            self.rows,
            trees,
            branches,
            files.embedded,
            files.shown,
            files.missing,
            files.first_missing,
            formats,
            left_out,
            self.skipped,
            tuple(self._named),
        )
