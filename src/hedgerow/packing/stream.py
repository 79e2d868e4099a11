"""Rows of a stream whose costs are known only once its items are encoded: each worker packs its own."""

import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from collections.abc import Sequence as Listing
from contextlib import closing
from typing import Any, Generic, TypeVar

import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info

from hedgerow.errors import DataError, HedgerowError, RecipeError
from hedgerow.packing.feed import InHand, encoded, feed, joined, received
from hedgerow.packing.loader import Dropped, Loaded, OnBad, check_shared
from hedgerow.packing.plan import POOL
from hedgerow.packing.pool import Key, Packer
from hedgerow.sequence import Budget, Row, Sequence

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class _Progress:
    """Where one worker is after a row that it gave.

    `step` counts the rows of its rank, this one included; `position` the items of the stream it has passed,
    `waiting` those that wait in its packer, whose state is `packer`. Once the stream has ended `waiting` and
    `packer` stay as they were then, and `flushed` counts the rows given of those that were left.
    """

    step: int = 0
    position: int = 0
    waiting: Listing[int] = ()
    flushed: int | None = None
    packer: Mapping[str, Any] | None = None


class StreamLoader(Generic[T]):
    """Rows of one rank from a stream, epoch after epoch. Iterating gives the rest of an epoch, then the next.

    Item i goes to worker i % (ranks x workers) of all; each worker goes through the whole stream, encodes its
    own items and packs them with a `Packer` of its own. Every item comes exactly once an epoch.

    A stream does not say how many rows it makes. Where `torch.distributed` is set up and `world` is above 1,
    the ranks tell each other at every row whether they have one (one `all_gather_object` of a few kilobytes):
    all make equally many, and those that are done get `row=None`. Without it each rank ends by itself.

    Resuming goes through the stream again, without encoding what has left in rows. So a stream must give the
    same items every time it is asked for an epoch, and must be cheap to go through before it is encoded.

    Args:
        stream: gives the items of an epoch; picklable.
        encode: decodes and encodes an item; picklable, and a pure function of it.
        budget: the most a row may hold.
        pool: sequences that wait at most in each worker, as in `Packer`.
        workers: processes that encode; 0 encodes in this one.
        rank: of this process, below `world`.
        world: number of processes that share the stream.
        pad: fill each row up to the budget, as in `Row.join`.
        on_bad: "raise" the DataError of an item that cannot be encoded or exceeds the budget; or "skip" that
            item alone, and name it by its place in the stream in `dropped`.
        prefetch: rows that each worker makes ahead.

    Raises:
        RecipeError: an option is not one of the above.
    """

    def __init__(
        self,
        stream: Callable[[int], Iterable[T]],
        encode: Callable[[T], Sequence],
        budget: Budget,
        *,
        pool: int = POOL,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        pad: bool = False,
        on_bad: OnBad = "raise",
        prefetch: int = 2,
    ) -> None:
        check_shared(on_bad, rank, world, workers)
        if not callable(stream):
            raise RecipeError(
                f"stream={stream!r:.80}: give a function of the epoch, such as lambda epoch: iter(items)"
            )
        self._work = _Work(stream, encode, budget, pool, pad, on_bad, InHand.of(workers))
        self._workers, self._prefetch = workers, prefetch
        self._rank, self._world = rank, world
        self._epoch, self._step = 0, 0
        self._progress: dict[int, _Progress] = {}

    def __iter__(self) -> Iterator[Loaded]:
        resumed, rows = self._step > 0, self._rest()
        first = next(rows, None)
        if first is None and resumed:  # behind the last row: now in the next epoch
            rows = self._rest()
            first = next(rows, None)
        with closing(rows):
            if first is not None:
                yield first
            yield from rows

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is, as plain JSON values; its size grows with workers x pool.

        Rows handed over count as used, prefetched ones do not. Where the ranks tell each other, the state is
        that of all and the same on each; otherwise it is this rank's.
        """
        shards = {str(shard): dataclasses.asdict(self._progress[shard]) for shard in sorted(self._progress)}
        ranks = list(range(self._world)) if self._together() else [self._rank]
        return {"epoch": self._epoch, "step": self._step, "ranks": ranks, "shards": shards, **self._order()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            RecipeError: saved with another budget, pool or number of workers or ranks, or by another rank.
        """
        changed = [
            f"{name} {state[name]} is now {now}" for name, now in self._order().items() if state[name] != now
        ]
        if changed:
            raise RecipeError(
                f"cannot resume the same rows: {', '.join(changed)}; a stream resumes with the saved ones"
            )
        if self._rank not in state["ranks"]:
            raise RecipeError(
                f"the state is that of rank {state['ranks'][0]} alone, this is rank {self._rank}: save one a "
                "rank, or set up torch.distributed before loading"
            )
        self._epoch, self._step = state["epoch"], state["step"]
        self._progress = {int(shard): _Progress(**values) for shard, values in state["shards"].items()}

    def explain(self, error: RuntimeError) -> DataError | None:
        """Say which item a data worker had in hand when it died, as `RowLoader.explain` does."""
        return self._work.hand.explain(error, lambda _, number: _named(number))

    def _order(self) -> dict[str, Any]:
        work = self._work
        return {
            "budget": dict(work.budget),
            "pool": work.pool,
            "workers": self._workers,
            "world": self._world,
        }

    def _rest(self) -> Generator[Loaded]:
        """Yield the rest of the epoch, and go to the next."""
        epoch, count = self._epoch, max(self._workers, 1)
        own = [self._progress.get(worker * self._world + self._rank, _Progress()) for worker in range(count)]
        # The DataLoader asks its first worker first: let that be the one after the last that gave a row.
        last = max(range(count), key=lambda worker: own[worker].step)
        first = (last + 1) % count if own[last].step else 0
        shards = _Shards(self._work, epoch, self._rank, self._world, first, tuple(own))
        with closing(feed(shards, None, workers=self._workers, prefetch=self._prefetch)) as rows:
            while (given := self._agreed(rows)) is not None:
                self._step += 1
                for shard, progress in given.shards:
                    self._progress[shard] = dataclasses.replace(progress, step=self._step)
                number = (self._step - 1) * self._world + self._rank
                yield Loaded(received(given.row), number, epoch, given.dropped)
        self._epoch, self._step, self._progress = epoch + 1, 0, {}

    def _agreed(self, rows: Iterator["_Given"]) -> "_Given | None":
        """Return this rank's next row, with the progress of all ranks; None when no rank has one."""
        try:
            own = next(rows, None)
        except RuntimeError as error:
            found = self.explain(error)
            if found is None:
                raise
            raise found from error
        if not self._together():
            return own
        told: list[Any] = [None] * self._world
        dist.all_gather_object(told, own.shards if own is not None else ())
        shards = tuple(shard for told_by_one in told for shard in told_by_one)
        return dataclasses.replace(own or _Given(), shards=shards) if shards else None

    def _together(self) -> bool:
        return self._world > 1 and dist.is_available() and dist.is_initialized()


def _named(number: int) -> str:
    return f"item {number} of the stream"


@dataclasses.dataclass(frozen=True, slots=True)
class _Given:
    """A row as a worker gives it, and which shard of the stream is then where."""

    row: Row | None = None
    dropped: tuple[Dropped, ...] = ()
    shards: tuple[tuple[int, _Progress], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class _Work:
    """What every worker does."""

    stream: Callable[[int], Iterable[Any]]
    encode: Callable[[Any], Sequence]
    budget: Budget
    pool: int
    pad: bool
    on_bad: OnBad
    hand: InHand


@dataclasses.dataclass(frozen=True, slots=True)
class _Shards(IterableDataset[_Given | HedgerowError]):
    """The workers of a rank: `own` is where each is, and worker `first` of these is asked first."""

    work: _Work
    epoch: int
    rank: int
    world: int
    first: int
    own: tuple[_Progress, ...]

    def __iter__(self) -> Iterator[_Given | HedgerowError]:
        info = get_worker_info()
        worker = (self.first + (info.id if info else 0)) % len(self.own)
        shard = _Shard(self.work, self.epoch, worker * self.world + self.rank, len(self.own) * self.world)
        try:
            yield from shard.rows(self.own[worker])
        except HedgerowError as error:
            yield error


class _Shard:
    """One worker's part of one epoch of the stream: every `shards`th item, from item `number` on."""

    def __init__(self, work: _Work, epoch: int, number: int, shards: int) -> None:
        self._work, self._epoch, self._number, self._shards = work, epoch, number, shards
        self._packer = Packer(work.budget, work.pool)
        self._held: dict[int, Sequence] = {}  # encoded, waiting in the packer
        self._dropped: list[Dropped] = []  # since the last row

    def rows(self, start: _Progress) -> Iterator[_Given]:
        """Yield the rows that are left, each with where this part is after it."""
        if start.packer is not None:
            self._packer.load_state_dict(start.packer)
        if start.flushed is not None:
            return self._flushed(start)
        return self._packed(start)

    def _packed(self, start: _Progress) -> Iterator[_Given]:
        position = start.position
        for number, item in self._items(start.position, start.waiting):
            position = number + 1
            pack = self._push(number, item)
            if pack is not None:
                row = self._joined(pack)
                yield self._given(row, self._progress(position))
        ended = dataclasses.replace(self._progress(position), flushed=0)
        yield from self._left(self._packer.flush(), ended)

    def _flushed(self, start: _Progress) -> Iterator[_Given]:
        assert start.flushed is not None
        left = self._packer.flush()[start.flushed :]
        for number, _ in self._items(start.position, [int(key) for pack in left for key in pack]):
            raise DataError(f"the stream gives item {number}, behind its end when saved: restore the stream")
        yield from self._left(left, start)

    def _left(self, packs: Listing[Listing[Key]], progress: _Progress) -> Iterator[_Given]:
        assert progress.flushed is not None
        for flushed, pack in enumerate(packs, start=progress.flushed + 1):
            yield self._given(self._joined(pack), dataclasses.replace(progress, flushed=flushed))
        if self._dropped:
            yield self._given(None, dataclasses.replace(progress, flushed=progress.flushed + len(packs)))

    def _items(self, position: int, waiting: Listing[int]) -> Iterator[tuple[int, Any]]:
        """Yield this part's items from `position` on; of those before it, encode the ones that wait."""
        items = enumerate(self._work.stream(self._epoch))
        for number, item in itertools.islice(items, position):
            if number in waiting:
                self._held[number] = self._encode(number, item)
        missing = [number for number in waiting if number not in self._held]
        if missing:
            raise DataError(f"the stream ends before item {missing[0]}, which waits: restore the stream")
        yield from (given for given in items if given[0] % self._shards == self._number)

    def _push(self, number: int, item: Any) -> list[Key] | None:
        try:
            sequence = self._encode(number, item)
            pack = self._packer.push(number, sequence.cost)
        except DataError as error:
            if self._work.on_bad == "raise":
                raise
            self._dropped.append(Dropped(number, str(error)))
            return None
        self._held[number] = sequence
        return pack

    def _encode(self, number: int, item: Any) -> Sequence:
        self._work.hand.note(-1, number)
        return encoded(lambda: self._work.encode(item), lambda: _named(number))

    def _progress(self, position: int) -> _Progress:
        return _Progress(0, position, tuple(self._held), None, self._packer.state_dict())

    def _joined(self, pack: Listing[Key]) -> Row:
        sequences = [self._held.pop(int(key)) for key in pack]
        return joined(sequences, self._work.budget, pad=self._work.pad)

    def _given(self, row: Row | None, progress: _Progress) -> _Given:
        dropped, self._dropped = tuple(self._dropped), []
        return _Given(row, dropped, ((self._number, progress),))
