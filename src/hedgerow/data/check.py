"""Checks every row of files of trees, in several processes and in a memory that does not grow with them."""

import gc
import itertools
import logging
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from collections.abc import Sequence as Listing
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from hedgerow.data.check_duplicates import MOST_ROWS
from hedgerow.data.check_media import Looker
from hedgerow.data.check_row import Row, RowCheck
from hedgerow.data.check_tally import Checked, Job, Problem, Tally
from hedgerow.data.measure import Progress
from hedgerow.data.oversize import Oversize
from hedgerow.data.probes import Prober
from hedgerow.encode import Encoder
from hedgerow.errors import DataError
from hedgerow.sequence import Budget

MediaLevel = Literal["pixels", "facts", "none"]
_Result = tuple[Job, list[Row | None]]
_ROWS = 256  # of a job at most
_JOBS = 32  # of a worker at least, if there are as many rows
_AHEAD = 4  # jobs of a worker that wait or are done
_BLOCK = 2**20  # bytes


@dataclass(frozen=True, slots=True)
class Settings:
    """How rows are checked.

    Attributes:
        encoder: as which they would be trained on.
        budget: what a row of training may hold.
        oversize: what becomes of a tree over the budget.
        media: whether media are read as a model sees them (`pixels`), only looked up, or left alone.
        workers: processes; what is found is the same for any number.
        fix: a file for the rows that are good, if any.
    """

    encoder: Encoder
    budget: Budget
    oversize: Oversize = "raise"
    media: MediaLevel = "pixels"
    workers: int = 1
    fix: Path | None = None


def check(
    files: Listing[Path],
    settings: Settings,
    *,
    tell: Callable[[Problem], None],
    progress: Progress | None = None,
) -> Checked:
    """Check every row of some files.

    Args:
        files: trees in the native format.
        settings: how.
        tell: called with each problem, in the order of the rows.
        progress: called with how many lines are checked, and how many there are.

    Raises:
        DataError: a file cannot be read or is to be written over, or there is no row.
        RecipeError: tokenizer and vision settings do not fit together.
    """
    lines = [_count(path) for path in files]
    if sum(lines) >= MOST_ROWS:
        raise DataError(f"{sum(lines):,} lines, at most {MOST_ROWS:,} are checked at once; name fewer files")
    if settings.fix is not None and any(settings.fix.resolve() == path.resolve() for path in files):
        raise DataError(f"{settings.fix}: is to be checked and to be written; give --fix another file")
    size = min(max(sum(lines) // (settings.workers * _JOBS), 1), _ROWS)
    starts = np.cumsum([0, *lines]).tolist()
    with tempfile.TemporaryDirectory() as folder, _written(settings.fix) as good:
        tally = Tally(files, starts, tell, good)
        with closing(_results(settings, Path(folder, "media.db"), _jobs(files, size))) as results:
            for job, rows in results:
                tally.add(job, rows)
                if progress is not None:
                    progress(job.first + len(job.lines), sum(lines))
        found = tally.checked()
        if not found.rows:
            raise DataError(f"{', '.join(found.files)}: no row; write one tree a line")
    return found


def _count(path: Path) -> int:
    """Count the lines of a file.

    Raises:
        DataError: it cannot be read.
    """
    count, last = 0, b"\n"
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                count += block.count(b"\n")
                last = block[-1:]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a JSONL file in UTF-8") from None
    return count + (last != b"\n")


def _jobs(files: Listing[Path], size: int) -> Iterator[Job]:
    first = 0
    for path in files:
        number = 1
        with path.open("rb") as file:
            while lines := list(itertools.islice(file, size)):
                yield Job(path, number, first, lines)
                number, first = number + len(lines), first + len(lines)


def _results(settings: Settings, store: Path, jobs: Iterable[Job]) -> Generator[_Result, None, None]:
    """Give what comes of each job, in order; few are read ahead."""
    if settings.workers < 2:
        check = _row_check(settings, store)
        try:
            yield from ((job, job.do(check)) for job in jobs)
        finally:
            if check.looker is not None:
                check.looker.close()
        return
    # Garbage that owns threads, as decoded frames do, would block a forked process that collects it.
    gc.collect()
    with ProcessPoolExecutor(settings.workers, initializer=_begin, initargs=(settings, store)) as pool:
        try:
            waiting = deque[tuple[Job, Future[list[Row | None]]]]()
            for job in jobs:
                waiting.append((job, pool.submit(_do, job)))
                if len(waiting) > _AHEAD * settings.workers:
                    done, future = waiting.popleft()
                    yield done, future.result()
            yield from ((job, future.result()) for job, future in waiting)
        finally:
            pool.shutdown(cancel_futures=True)


_check: list[RowCheck] = []  # of a process that checks; a tokenizer is too large to come with each job


def _begin(settings: Settings, store: Path) -> None:
    logging.getLogger("hedgerow").setLevel(logging.ERROR)  # what the encoder warns of is told as a problem
    _check.append(_row_check(settings, store))


def _do(job: Job) -> list[Row | None]:
    return job.do(_check[0])


def _row_check(settings: Settings, store: Path) -> RowCheck:
    looker = None
    if settings.media != "none":
        pixels = settings.media == "pixels"
        looker = Looker(store, settings.encoder.processor, pixels=pixels, prober=Prober())
    out = None if settings.fix is None else settings.fix.parent
    return RowCheck(settings.encoder, settings.budget, settings.oversize, looker, out)


@contextmanager
def _written(path: Path | None) -> Iterator[IO[bytes] | None]:
    """Open a file that is there once all is written; its folder is made."""
    if path is None:
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
