"""The loader: the rows of a plan through a standard `DataLoader`, decoded late.

The rows, and where a resumed run goes on, are the same for any number of workers and ranks.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Listing
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from torch.utils.data import Dataset

from hedgerow import visibility
from hedgerow.errors import BudgetError, DataError, HedgerowError, RecipeError
from hedgerow.flops import FlopModel
from hedgerow.packing.balance import arrange, per_row
from hedgerow.packing.feed import InHand, encoded, feed, joined, received
from hedgerow.packing.plan import POOL, Plan, check_way, plan_epoch, table_of
from hedgerow.packing.saved import Match
from hedgerow.sequence import Budget, Cost, Costs, Row, Sequence

OnBad = Literal["raise", "skip"]


class Source(Protocol):
    """The examples of each epoch, numbered from 0: known by their costs, encoded when they are due.

    Picklable, and every method a pure function of its arguments.
    """

    def costs(self, epoch: int) -> Costs:
        """Return what each example of an epoch takes."""
        ...

    def tasks(self, epoch: int) -> Costs:
        """Return how many supervised samples of each task each example of an epoch has."""
        ...

    def encode(self, epoch: int, number: int) -> Sequence:
        """Decode and encode an example.

        Raises:
            DataError: it cannot be encoded.
        """
        ...

    def where(self, epoch: int, number: int) -> str:
        """Say in a few words which example this is, such as `clips.jsonl:17`, for messages."""
        ...


class Fixed:
    """A `Source` whose examples are the same in every epoch.

    Args:
        encode: makes the sequence of an example, given its index; picklable.
        costs: what each example takes.
        tasks: supervised samples of each example by task; without them, balanced ranks heed no tasks.
    """

    def __init__(
        self,
        encode: Callable[[int], Sequence],
        costs: Costs | Listing[Cost],
        tasks: Costs | Listing[Cost] | None = None,
    ) -> None:
        self._encode, self._costs = encode, table_of(costs)
        self._tasks = Costs((), np.zeros((len(self._costs), 0))) if tasks is None else table_of(tasks)

    def costs(self, epoch: int) -> Costs:  # noqa: ARG002 - the same in every epoch
        """Return what each example takes."""
        return self._costs

    def tasks(self, epoch: int) -> Costs:  # noqa: ARG002
        """Return how many supervised samples of each task each example has."""
        return self._tasks

    def encode(self, epoch: int, number: int) -> Sequence:  # noqa: ARG002
        """Decode and encode an example."""
        return self._encode(number)

    def where(self, epoch: int, number: int) -> str:  # noqa: ARG002
        """Name an example by its index."""
        return f"example {number}"


def check_shared(on_bad: OnBad, rank: int, world: int, workers: int) -> None:
    """Check the options that loaders share.

    Raises:
        RecipeError: `on_bad` is not one of its words, or there are fewer than no workers.
        ValueError: there is no such rank.
    """
    if on_bad not in ("raise", "skip"):
        raise RecipeError(f"on_bad={on_bad!r}: choose 'raise' or 'skip'")
    if not 0 <= rank < world:
        raise ValueError(f"rank={rank} of world={world}: ranks are numbered from 0")
    if workers < 0:
        raise RecipeError(f"workers={workers}: give 0 to encode in this process, or more")


@dataclasses.dataclass(frozen=True, slots=True)
class Dropped:
    """An example left out of its row: its index, and the message that says why."""

    index: int
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """One row, as the loader hands it over.

    `row` is None where no row `number` is left for this rank, or every example of it was dropped.
    """

    row: Row | None
    number: int
    epoch: int
    dropped: tuple[Dropped, ...] = ()


class RowLoader:
    """Rows of one rank, epoch after epoch. Iterating gives the rest of the current epoch, then the next.

    The plan of an epoch is a pure function of (costs, budget, seed, epoch, pool, window), and with balance of
    (tasks, FLOP model, step). At a time the ranks take the next `world` rows of it, and row r goes to rank
    r % world. Where an epoch ends the ranks without a row get `row=None`: all ranks get equally many.
    Examples are encoded when their row is due.

    Args:
        source: the examples.
        budget: the most a row may hold.
        seed: of the order of examples; not negative.
        pool: examples that wait at most, as in `Packer`.
        window: plan this many examples at once, as in `plan_epoch`, instead of a pool; None packs from the
            pool.
        step: rows of a global step, a multiple of `world`; read with `balance` only.
        balance: arrange rows so that those of a step take nearly equal FLOPs of this model; None does not.
        plans: folder of this run in which the plan of the latest epoch is kept, and found again by a resumed
            run; its ranks share it. None plans anew.
        workers: processes that encode; 0 encodes in this one.
        rank: of this process, below `world`.
        world: number of processes that share the rows.
        pad: fill each row up to the budget, as in `Row.join`.
        blocks: note in each row which blocks of tokens see each other, for the backend "flex".
        on_bad: "raise" the DataError of an example that cannot be encoded, or that holds more than its cost
            said so that the row would overflow; or "skip" that example alone, and name it in `dropped`.
        prefetch: rows that each worker makes ahead.

    Raises:
        RecipeError: an option is not one of the above.

    Example:
        >>> loader = RowLoader(Fixed(encode, costs), budget, seed=0)  # doctest: +SKIP
        >>> for loaded in loader:  # one epoch; the next time, the next epoch
        ...     train(loaded.row)  # doctest: +SKIP
    """

    def __init__(
        self,
        source: Source,
        budget: Budget,
        *,
        seed: int,
        pool: int = POOL,
        window: int | None = None,
        step: int = 1,
        balance: FlopModel | None = None,
        plans: Path | None = None,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        pad: bool = False,
        blocks: bool = False,
        on_bad: OnBad = "raise",
        prefetch: int = 2,
    ) -> None:
        check_shared(on_bad, rank, world, workers)
        check_way(pool, window)
        if balance is not None and not isinstance(balance, FlopModel):
            raise RecipeError(
                f"balance={balance!r}: give the FlopModel to balance by, such as hedgerow.flops.MOLMO2_8B"
            )
        if balance is not None and step % world:
            raise RecipeError(f"step={step} rows on world={world}: give a multiple, one row a rank or more")
        self._source, self._budget, self._seed, self._pool, self._window = source, budget, seed, pool, window
        self._step, self._balance, self._plans = step, balance, plans
        self._workers, self._prefetch = workers, prefetch
        self._rank, self._world = rank, world
        self._rows = _Rows(source, budget, pad, blocks, on_bad, InHand.of(workers))
        self._epoch, self._row = 0, 0
        self._known: _Known | None = None

    def plan(self, epoch: int) -> Plan:
        """Return the plan of an epoch: all rows of all ranks. The latest is kept.

        Raises:
            BudgetError: an example alone exceeds the budget; named by its index.
            DataError: the epoch has no example.
        """
        known = self._at(epoch)
        if known.plan is None:
            known.plan = self._saved(epoch, known)
        return known.plan

    def __iter__(self) -> Iterator[Loaded]:
        ends = len(self.plan(self._epoch).rows)
        if self._row == ends:  # resumed behind the last row
            self._epoch, self._row = self._epoch + 1, 0
            ends = len(self.plan(self._epoch).rows)
        epoch, start = self._epoch, self._row
        rows = feed(self._rows, self._jobs(epoch, start), workers=self._workers, prefetch=self._prefetch)
        with closing(rows):
            for given in range(1, self._turns(epoch, start) + 1):
                loaded = self._next(rows)
                self._row = min(start + given * self._world, ends)
                yield dataclasses.replace(loaded, row=received(loaded.row))
        self._epoch, self._row = epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is, as plain JSON values of a few hundred bytes.

        Rows handed over count as used, prefetched ones do not. The state is the same on every rank, and
        restores on another number of workers or ranks.
        """
        match = self._at(self._epoch).match
        return {"epoch": self._epoch, "row": self._row, "match": json.loads(match.to_json())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state: the next iteration starts there, without decoding what came before.

        Raises:
            RecipeError: saved with what makes other rows: other data, budget, seed or settings.
        """
        saved, match = Match.from_json(json.dumps(state["match"])), self._at(state["epoch"]).match
        changed = saved.differences(match)
        if changed:
            raise RecipeError(
                f"cannot resume the same rows: {', '.join(changed)}; restore it, or start a new run"
            )
        self._epoch, self._row = state["epoch"], state["row"]

    def explain(self, error: RuntimeError) -> DataError | None:
        """Say which example a data worker had in hand when it died, if that is what the error is about.

        The death of a worker is raised wherever the main thread is, so often outside of this loader.
        """
        return self._rows.hand.explain(error, self._name)

    def _name(self, row: int, example: int) -> str:
        return f"{self._source.where(self._epoch, example)} (row {row} of epoch {self._epoch})"

    def _at(self, epoch: int) -> "_Known":
        if self._known is None or self._known.epoch != epoch:
            costs = self._source.costs(epoch)
            if not len(costs):
                raise DataError(f"epoch {epoch} has no example to load: give at least one")
            tasks = None if self._balance is None else self._source.tasks(epoch)
            self._known = _Known(epoch, costs, tasks, self._match(epoch, costs, tasks))
        return self._known

    def _match(self, epoch: int, costs: Costs, tasks: Costs | None) -> Match:
        identity, balance = b"", None
        if self._balance is not None and tasks is not None:
            table = tasks.amounts(*tasks.names)
            identity = json.dumps(tasks.names).encode() + np.ascontiguousarray(table, "<i8").tobytes()
            balance = f"{self._balance!r} over {self._step} rows"
        return Match.of(
            costs,
            self._budget,
            identity=identity,
            seed=self._seed,
            epoch=epoch,
            pool=self._pool,
            window=self._window,
            balance=balance,
        )

    def _saved(self, epoch: int, known: "_Known") -> Plan:
        if self._plans is None:
            return self._planned(epoch, known)
        name = hashlib.sha256(known.match.to_json().encode()).hexdigest()[:16]
        path = self._plans / f"epoch-{epoch}-{name}.npz"
        if path.is_file():
            return Plan.load(path, known.match)
        plan = self._planned(epoch, known)
        plan.save(path, known.match)
        for old in set(self._plans.glob("epoch-*.npz")) - {path}:
            old.unlink(missing_ok=True)  # another rank may be first
        return plan

    def _planned(self, epoch: int, known: "_Known") -> Plan:
        plan = plan_epoch(
            known.costs, self._budget, seed=self._seed, epoch=epoch, pool=self._pool, window=self._window
        )
        if self._balance is None or known.tasks is None:
            return plan
        flops = per_row(plan.rows, self._balance(known.costs))
        samples = per_row(plan.rows, known.tasks.amounts(*known.tasks.names))
        order = arrange(flops, samples, self._step, seed=self._seed, epoch=epoch)
        return dataclasses.replace(plan, rows=[plan.rows[row] for row in order.tolist()])

    def _turns(self, epoch: int, start: int) -> int:
        """How many rows each rank gets from row `start` on."""
        return -(-(len(self.plan(epoch).rows) - start) // self._world)

    def _jobs(self, epoch: int, start: int) -> Iterator["_Job"]:
        rows, costs = self.plan(epoch).rows, self._at(epoch).costs
        first = start + (self._rank - start) % self._world
        for turn in range(self._turns(epoch, start)):
            number = first + turn * self._world
            row = rows[number] if number < len(rows) else []
            yield _Job(epoch, number, tuple((index, costs[index]) for index in row))

    def _next(self, rows: Iterator[Loaded]) -> Loaded:
        try:
            return next(rows)
        except RuntimeError as error:
            found = self.explain(error)
            if found is None:
                raise
            raise found from error


@dataclasses.dataclass(slots=True)
class _Known:
    """What is known of an epoch; its plan is made when it is asked for."""

    epoch: int
    costs: Costs
    tasks: Costs | None
    match: Match
    plan: Plan | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    epoch: int
    number: int
    examples: tuple[tuple[int, Cost], ...]  # index and planned cost


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows(Dataset[Loaded | HedgerowError]):
    """What a worker holds: makes the row of a job."""

    source: Source
    budget: Budget
    pad: bool
    blocks: bool
    on_bad: OnBad
    hand: InHand

    def __getitem__(self, job: _Job) -> Loaded | HedgerowError:
        try:
            return self._load(job)
        except HedgerowError as error:
            return error

    def _load(self, job: _Job) -> Loaded:
        found, dropped = [], []
        for index, planned in job.examples:
            self.hand.note(job.number, index)
            try:
                found.append((index, planned, self._encoded(job.epoch, index)))
            except DataError as error:
                if self.on_bad == "raise":
                    raise
                dropped.append(Dropped(index, str(error)))
        over = self._overflowing(found)
        if over and self.on_bad == "raise":
            raise BudgetError(f"{next(iter(over.values()))}, or leave it out with on_bad='skip'")
        dropped += [Dropped(index, message) for index, message in over.items()]
        kept = [sequence for index, _, sequence in found if index not in over]
        row = joined(kept, self.budget, pad=self.pad) if kept else None
        if row is not None and self.blocks:
            row = dataclasses.replace(row, blocks=visibility.summary(row))
        return Loaded(row, job.number, job.epoch, tuple(dropped))

    def _encoded(self, epoch: int, number: int) -> Sequence:
        return encoded(lambda: self.source.encode(epoch, number), lambda: self.source.where(epoch, number))

    def _overflowing(self, found: list[tuple[int, Cost, Sequence]]) -> dict[int, str]:
        """Say which examples to leave out: of those larger than planned, each that finds no room."""
        if self.budget.fits(sum((sequence.cost for _, _, sequence in found), Cost())):
            return {}
        held, larger, over = Cost(), [], {}
        for index, planned, sequence in found:
            if all(sequence.cost.get(name, 0) <= planned.get(name, 0) for name in self.budget):
                held += sequence.cost
            else:
                larger.append((index, planned, sequence))
        for index, planned, sequence in larger:
            if self.budget.fits(held + sequence.cost):
                held += sequence.cost
            else:
                excess = self.budget.excess(held + sequence.cost)
                over[index] = (
                    f"example {sequence.example} was planned as {planned} but holds {sequence.cost}, and its "
                    f"row has no room ({excess}): measure it again"
                )
        return over
