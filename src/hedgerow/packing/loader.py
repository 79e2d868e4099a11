"""The loader: the rows of a plan through a standard `DataLoader`, decoded late.

The rows, and where a resumed run goes on, are the same for any number of workers and ranks.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Listing
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset

from hedgerow.errors import BudgetError, DataError, HedgerowError, RecipeError
from hedgerow.packing.plan import Plan, check_costs, plan_epoch
from hedgerow.sequence import Budget, Cost, Row, Sequence

OnBad = Literal["raise", "skip"]


@dataclasses.dataclass(frozen=True, slots=True)
class Dropped:
    """An example left out of its row: its index, and the message that says why."""

    index: int
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """One row of the plan, as the loader hands it over.

    `row` is None where the plan has no row `number` left for this rank, or every example of it was dropped.
    """

    row: Row | None
    number: int
    epoch: int
    dropped: tuple[Dropped, ...] = ()


class RowLoader:
    """Rows of one rank, epoch after epoch. Iterating gives the rest of the current epoch, then the next.

    The plan of an epoch is a pure function of (costs, budget, seed, epoch, pool). Every step takes the next
    `world` rows of it, and row r goes to rank r % world. In the last step of an epoch the ranks without a row
    get `row=None`: all ranks make the same number of steps. Examples are encoded when their row is due.

    Args:
        encode: decodes and encodes the example of an index; picklable, and a pure function of the index.
        costs: what each example takes; its index is what `encode` gets.
        budget: the most a row may hold.
        seed: of the order of examples; not negative.
        pool: examples that wait at most, as in `Packer`.
        workers: processes that encode; 0 encodes in this one.
        rank: of this process, below `world`.
        world: number of processes that share the rows.
        pad: fill each row up to the budget, as in `Row.join`.
        on_bad: "raise" the DataError of an example that cannot be encoded, or that holds more than its cost
            said so that the row would overflow; or "skip" that example alone, and name it in `dropped`.
        prefetch: rows that each worker makes ahead.

    Raises:
        BudgetError: an example alone exceeds the budget; named by its index.
        RecipeError: an option is not one of the above.

    Example:
        >>> loader = RowLoader(encode, costs, budget, seed=0)  # doctest: +SKIP
        >>> for loaded in loader:  # one epoch; the next time, the next epoch
        ...     train(loaded.row)  # doctest: +SKIP
    """

    def __init__(
        self,
        encode: Callable[[int], Sequence],
        costs: Listing[Cost],
        budget: Budget,
        *,
        seed: int,
        pool: int = 48,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        pad: bool = False,
        on_bad: OnBad = "raise",
        prefetch: int = 2,
    ) -> None:
        if not costs:
            raise DataError("there is no example to load: give at least one cost")
        if on_bad not in ("raise", "skip"):
            raise RecipeError(f"on_bad={on_bad!r}: choose 'raise' or 'skip'")
        if not 0 <= rank < world:
            raise ValueError(f"rank={rank} of world={world}: ranks are numbered from 0")
        check_costs(costs, budget)
        self._costs, self._budget, self._seed, self._pool = costs, budget, seed, pool
        self._workers, self._prefetch = workers, prefetch
        self._rank, self._world = rank, world
        self._rows = _Rows(encode, budget, pad, on_bad)
        self._epoch, self._row = 0, 0
        self._planned: tuple[int, Plan] | None = None

    def plan(self, epoch: int) -> Plan:
        """Return the plan of an epoch: all rows of all ranks. The latest is kept."""
        if self._planned is None or self._planned[0] != epoch:
            plan = plan_epoch(self._costs, self._budget, seed=self._seed, epoch=epoch, pool=self._pool)
            self._planned = (epoch, plan)
        return self._planned[1]

    def __iter__(self) -> Iterator[Loaded]:
        epoch, start = self._epoch, self._row
        ends = len(self.plan(epoch).rows)
        if start >= ends:
            raise RecipeError(
                f"cannot resume at row {start} of epoch {epoch}, which has {ends} rows: costs have changed; "
                "restore the data, or start a new run"
            )
        feed = self._feed(self._jobs(epoch, start))
        try:
            for step, loaded in enumerate(feed, start=1):
                if isinstance(loaded, HedgerowError):
                    raise loaded
                row = start + step * self._world
                self._epoch, self._row = (epoch, row) if row < ends else (epoch + 1, 0)
                yield loaded
        finally:
            _stop(feed)

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is, as plain JSON values.

        Rows handed over count as used, prefetched ones do not. The state is the same on every rank, and
        restores on another number of workers or ranks.
        """
        return {"epoch": self._epoch, "row": self._row, **self._order()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state: the next iteration starts there, without decoding what came before.

        Raises:
            RecipeError: saved with what makes other rows: another seed, pool, budget or number of examples.
        """
        order = self._order()
        changed = [f"{name} {state[name]} is now {now}" for name, now in order.items() if state[name] != now]
        if changed:
            raise RecipeError(
                f"cannot resume the same rows: {', '.join(changed)}; restore it, or start a new run"
            )
        self._epoch, self._row = state["epoch"], state["row"]

    def _order(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "pool": self._pool,
            "budget": dict(self._budget),
            "examples": len(self._costs),
        }

    def _jobs(self, epoch: int, start: int) -> list["_Job"]:
        rows = self.plan(epoch).rows
        first = start + (self._rank - start) % self._world
        steps = -(-(len(rows) - start) // self._world)
        numbers = range(first, first + steps * self._world, self._world)
        return [_Job(epoch, number, self._examples(rows, number)) for number in numbers]

    def _examples(self, rows: list[list[int]], number: int) -> tuple[tuple[int, Cost], ...]:
        return tuple((index, self._costs[index]) for index in rows[number]) if number < len(rows) else ()

    def _feed(self, jobs: list["_Job"]) -> Iterator[Loaded | HedgerowError]:
        loader = DataLoader(
            self._rows,
            sampler=jobs,
            batch_size=None,
            collate_fn=_same,
            num_workers=self._workers,
            prefetch_factor=self._prefetch if self._workers else None,
            generator=torch.Generator(),  # its own: a resumed run must not draw from torch's global generator
        )
        return iter(loader)


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    epoch: int
    number: int
    examples: tuple[tuple[int, Cost], ...]  # index and planned cost


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows(Dataset[Loaded | HedgerowError]):
    """What a worker holds: makes the row of a job."""

    encode: Callable[[int], Sequence]
    budget: Budget
    pad: bool
    on_bad: OnBad

    def __getitem__(self, job: _Job) -> Loaded | HedgerowError:
        try:
            return self._load(job)
        except HedgerowError as error:
            return error  # as a value: the DataLoader would bury its message in a traceback

    def _load(self, job: _Job) -> Loaded:
        found, dropped = [], []
        for index, planned in job.examples:
            try:
                found.append((index, planned, self.encode(index)))
            except DataError as error:
                if self.on_bad == "raise":
                    raise
                dropped.append(Dropped(index, str(error)))
        over = self._overflowing(found)
        if over and self.on_bad == "raise":
            raise BudgetError(next(iter(over.values())))
        dropped += [Dropped(index, message) for index, message in over.items()]
        kept = [sequence for index, _, sequence in found if index not in over]
        row = Row.join(kept, self.budget, pad=self.pad) if kept else None
        return Loaded(row, job.number, job.epoch, tuple(dropped))

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
                    f"row has no room ({excess}): measure it again, or leave it out with on_bad='skip'"
                )
        return over


def _same(loaded: Any) -> Any:
    return loaded


def _stop(feed: Any) -> None:
    # An error's traceback would keep the iterator, and so its workers, alive; no public call ends them.
    if hasattr(feed, "_shutdown_workers"):
        feed._shutdown_workers()
