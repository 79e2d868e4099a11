"""Rows of foreign files, read one after another: JSON lines, a JSON list, Parquet, tables of text."""

import csv
import dataclasses
import json
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from pathlib import Path
from typing import Any

from hedgerow.errors import DataError

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".tsv")
_BESIDE = {  # media, and what people write about their data
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".srt", ".vtt"),
    *(".md", ".txt", ".yaml", ".yml"),
}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_BLANK = b"\xef\xbb\xbf \t\r\n"  # a byte order mark among it
_ROWS, _HEAVY_ROWS = 1024, 16  # of a batch of Parquet, without and with embedded files


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One row of a foreign file, not read yet.

    Attributes:
        file: the file, or the name of a hub set.
        name: of the file, shorter: by it trees are named that have no id.
        number: line of JSON lines and tables of text, item of a list, row of Parquet; from 1.
        raw: the line, or the row where the format of the file has rows of its own; of a row that cannot be
            read, the error.
        folder: relative paths in the row are relative to it.
    """

    file: str
    name: str
    number: int
    raw: Any = dataclasses.field(repr=False)
    folder: Path = Path()

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"

    @property
    def source(self) -> str:
        """The data set of its tree, where the row names none: the last part of the file's name."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def id(self) -> str:
        """The id of its tree, where the row has none."""
        return f"{self.name}-{self.number}"

    def values(self) -> dict[str, Any]:
        """Read the columns of the row.

        Raises:
            DataError: it is not JSON, no object, or it does not fit the header of its table.
        """
        value = self.raw
        if isinstance(value, DataError):
            raise value
        if isinstance(value, bytes):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{self}: not JSON ({error}); write one object a line") from None
        if not isinstance(value, dict):
            raise DataError(f'{self}: holds {type(value).__name__}, not an object; write {{"key": value}}')
        return value


def data_files(sources: Listing[str | Path], *, out: Path) -> list[tuple[Path, str]]:
    """Return the files of sources with a short name each; of a folder those that hold data, at any depth.

    Args:
        sources: files and folders.
        out: what is written, no source even where it lies in a folder of sources.

    Raises:
        DataError: a source does not exist, is no data, or a folder holds none.
    """
    return [found for source in sources for found in _files(Path(source), out.absolute())]


def read(path: Path, name: str) -> Iterator[Record]:
    """Yield the rows of a file; all but a JSON list, which is read as a whole, as a stream.

    Raises:
        DataError: the file cannot be read.
    """
    folder = path.parent.absolute()
    try:
        for number, raw in _rows(path):
            yield Record(str(path), name, number, raw, folder)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); give a file of {', '.join(SUFFIXES)}") from None


def _files(source: Path, out: Path) -> list[tuple[Path, str]]:
    if not source.exists():
        raise DataError(f"{source}: there is no such file or folder; give files of {', '.join(SUFFIXES)}")
    inside = [source]
    if source.is_dir():
        inside = [path for path in sorted(source.rglob("*")) if path.is_file() and path.absolute() != out]
    found = [path for path in inside if path == source or not _is_beside(path.relative_to(source))]
    odd = next((path for path in found if path.suffix not in SUFFIXES), None)
    if odd is not None:
        raise DataError(
            f"{odd}: not a format that is read; give {', '.join(SUFFIXES)}, or leave it out of the folder"
        )
    if not found:
        raise DataError(f"{source}: holds no data; give a folder with files of {', '.join(SUFFIXES)}")
    if source.is_file():
        return [(source, source.stem)]
    return [(path, path.relative_to(source).with_suffix("").as_posix()) for path in found]


def _is_beside(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return hidden or not path.suffix or path.suffix.lower() in _BESIDE


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    if path.suffix == ".parquet":
        return _parquet(path)
    return _table(path) if path.suffix in _DELIMITERS else _json(path)


def _table(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a table of text, by the lines they start at; an empty cell holds nothing."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.reader(file, delimiter=_DELIMITERS[path.suffix])
        try:
            names = [name.strip() for name in next(table, [])]
            if not all(names) or len(set(names)) < len(names):
                raise DataError(f"{path}:1: the header is {names}; give each column a name of its own")
            start = table.line_num + 1
            for cells in table:
                if len(cells) == len(names):
                    yield start, {name: cell or None for name, cell in zip(names, cells, strict=True)}
                elif cells:
                    told = (
                        f"{len(cells)} cells below a header of {len(names)}; put cells with commas in quotes"
                    )
                    yield start, DataError(told)
                start = table.line_num + 1
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{path}:{table.line_num + 1}: cannot be read ({error}); write it in UTF-8, or as JSON lines"
            ) from None


def _json(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        if path.suffix == ".json" and file.read(1024).lstrip(_BLANK).startswith(b"["):
            file.seek(0)
            try:
                yield from enumerate(json.load(file), 1)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{path}: not JSON ({error}); give a list of objects, or one a line"
                ) from None
            return
        file.seek(0)
        for number, line in enumerate(file, 1):
            if not line.isspace():
                yield number, line


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            f"{path}: Parquet needs the package pyarrow; pip install 'hedgerow[parquet]'"
        ) from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            size = _HEAVY_ROWS if "binary" in str(file.schema_arrow) else _ROWS
            for batch in file.iter_batches(batch_size=size):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pyarrow.ArrowException as error:
        told = str(error).split("\n")[0]
        raise DataError(
            f"{path}: row {number + 1} cannot be read ({told}); fetch or write the file anew"
        ) from None
