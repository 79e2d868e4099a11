"""Measures many trees without decoding a pixel, in this process or in several: the result is the same."""

import dataclasses
import gc
import multiprocessing
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Listing
from concurrent.futures import ProcessPoolExecutor
from typing import Literal

import numpy as np

from hedgerow.data.answers import astray
from hedgerow.data.facts import Known, MediaFacts
from hedgerow.data.lines import Dropped, Line, Lines, located
from hedgerow.data.oversize import Oversize, check_fits, shortened
from hedgerow.data.seen import seen
from hedgerow.data.transforms import Transforms
from hedgerow.encode import Encoder, Survey
from hedgerow.errors import BudgetError, DataError
from hedgerow.sequence import Array, Budget, Cost, Costs
from hedgerow.tree import MessageTree

OnBad = Literal["raise", "skip"]
Progress = Callable[[int, int], None]  # trees measured, trees in all
_CHUNK = 128  # trees that a process measures before it reports


@dataclasses.dataclass(frozen=True, slots=True)
class Maker:
    """From a line to the tree that is trained on. Picklable.

    Attributes:
        encoder: measures trees.
        seed: of the transforms.
        transforms: what is done to each tree in each pass.
        budget: what a row may hold; None: anything.
        oversize: what becomes of a tree over the budget.
        on_bad: what becomes of one that cannot be read or encoded.
    """

    encoder: Encoder
    seed: int = 0
    transforms: Transforms = dataclasses.field(default_factory=Transforms)
    budget: Budget | None = None
    oversize: Oversize = "raise"
    on_bad: OnBad = "raise"

    def tree(self, line: Line, turn: int) -> MessageTree:
        """Read a tree and transform it.

        Raises:
            DataError: it cannot be read.
        """
        tree = line.read()
        return self.transforms(tree, seed=self.seed, turn=turn) if self.transforms else tree

    def survey(self, line: Line, turn: int) -> tuple[Survey, int, int]:
        """Measure a tree as it is used in a pass.

        Returns:
            What is known of it; how many of its branches its size leaves out; how many of its answers give
            points under another task. Points are counted before it is shortened, those of branches that
            cannot be taught among them.

        Raises:
            DataError: it cannot be used; the message names the line.
        """
        with located(str(line)):
            tree, survey = _taught(self.tree(line, turn), self.encoder)
            aside = sum(astray(tree, self.encoder.weights).values())
            if self.budget is None or self.budget.fits(survey.cost):
                return survey, 0, aside
            if self.oversize != "shorten":
                check_fits(tree, survey.cost, self.budget, oversize=self.oversize)
            short = shortened(tree, self.encoder, self.budget)
            small = self.encoder.survey(short)
            left = dataclasses.replace(survey, cost=small.cost, tasks=small.tasks, weight=small.weight)
            return left, len(tree.branches) - len(short.branches), aside

    def forgives(self, error: DataError) -> bool:
        """Whether the example of an error is left out instead of stopping the run."""
        return self.oversize != "raise" if isinstance(error, BudgetError) else self.on_bad == "skip"


def _taught(tree: MessageTree, encoder: Encoder) -> tuple[MessageTree, Survey]:
    """Return a tree without the branches that cannot be taught, and what is known of it.

    Raises:
        DataError: it cannot be encoded without them either.
    """
    try:
        return tree, encoder.survey(tree)
    except DataError:
        # Looking for such branches first would sample the frames of every tree twice.
        found = seen(tree, encoder)
        if not found.branches:
            raise
    survey = encoder.survey(found.tree)
    return found.tree, dataclasses.replace(survey, points=found.points, lost=found.lost, left=found.branches)


@dataclasses.dataclass(frozen=True, slots=True)
class Surveys:
    """What is known of n examples.

    `costs` of each, `tasks` its samples by task, `weight` float64 [n] its loss weight, `cut` int64 [n] how
    many of its branches its size leaves out, `astray` int64 [n] how many of its answers give points under
    another task. `points` int64 [n] have a time, `lost` of them stand on no sampled frame, and `left`
    branches are left out because all points of an answer do.
    """

    costs: Costs
    tasks: Costs
    weight: Array
    cut: Array
    astray: Array
    points: Array
    lost: Array
    left: Array

    @classmethod
    def of(cls, surveys: Listing[Survey], cut: Listing[int], astray: Listing[int]) -> "Surveys":
        """Make the table of surveys."""
        tasks = [Cost(**{task: survey.tasks.count(task) for task in survey.tasks}) for survey in surveys]
        return cls(
            costs=Costs.of([survey.cost for survey in surveys]),
            tasks=Costs.of(tasks),
            weight=np.array([survey.weight for survey in surveys], np.float64),
            cut=np.array(cut, np.int64),
            astray=np.array(astray, np.int64),
            points=np.array([survey.points for survey in surveys], np.int64),
            lost=np.array([survey.lost for survey in surveys], np.int64),
            left=np.array([survey.left for survey in surveys], np.int64),
        )

    @classmethod
    def join(cls, tables: Listing["Surveys"]) -> "Surveys":
        """Put tables one below the other."""
        return cls(
            costs=_stacked([table.costs for table in tables]),
            tasks=_stacked([table.tasks for table in tables]),
            **{name: np.concatenate([getattr(table, name) for table in tables]) for name in _COLUMNS},
        )

    def take(self, places: Array) -> "Surveys":
        """Return what is known of these examples, in this order."""
        columns = {name: getattr(self, name)[places] for name in _COLUMNS}
        return Surveys(self.costs.take(places), self.tasks.take(places), **columns)

    def __len__(self) -> int:
        return len(self.weight)


_COLUMNS = ("weight", "cut", "astray", "points", "lost", "left")


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """What came of some lines.

    `kept` int64 [n] are the places of the usable ones, `surveys` what is known of them, `dropped` the others.
    """

    kept: Array
    surveys: Surveys
    dropped: tuple[Dropped, ...]


def measure(
    maker: Maker, lines: Lines, turns: Array, *, workers: int = 1, progress: Progress | None = None
) -> Measured:
    """Measure the trees of some lines.

    Args:
        maker: reads and measures one.
        lines: where they stand.
        turns: int64 [n], in which pass over the data each is used.
        workers: processes; few trees are measured in this one.
        progress: called with how many are done, and how many there are.

    Raises:
        DataError: one cannot be used and is not forgiven: the first, in the order of `lines`.
    """
    starts = range(0, max(len(lines), 1), _CHUNK)
    jobs = [_Job(lines[start : start + _CHUNK], turns[start : start + _CHUNK]) for start in starts]
    parts, kept = [], []
    dropped: list[Dropped] = []
    for start, done in zip(starts, _results(maker, jobs, workers), strict=True):
        parts.append(done.measured.surveys)
        dropped += done.measured.dropped
        kept.append(start + done.measured.kept)
        if isinstance(maker.encoder.facts, MediaFacts):
            maker.encoder.facts.learn(done.facts)
        if progress is not None:
            progress(min(start + _CHUNK, len(lines)), len(lines))
    return Measured(np.concatenate(kept), Surveys.join(parts), tuple(dropped))


def bounded(maker: Maker, lines: Lines, turns: Array, known: Surveys, *, workers: int = 1) -> Measured:
    """Bring lines that were measured without a budget under the budget of a maker, as it would measure them.

    Only trees that are to be shortened are read again.

    Args:
        maker: with a budget, and what becomes of trees over it: `drop` or `shorten`.
        lines: where the trees stand.
        turns: int64 [n], in which pass over the data each is used.
        known: of each, without a budget.
        workers: processes.

    Returns:
        As `measure` does: the trees that are left, in order, and why the others are not.

    Raises:
        ValueError: the maker has no budget, or stops at a tree over it.
    """
    budget = maker.budget
    if budget is None or maker.oversize == "raise":
        raise ValueError(
            f"a maker with budget {budget} and '{maker.oversize}': give one, and drop or shorten"
        )
    fits = (known.costs.amounts(*budget) <= list(budget.values())).all(axis=1)
    within, over = np.flatnonzero(fits), np.flatnonzero(~fits)
    if maker.oversize == "drop":
        reasons = [(str(lines[place]), budget.excess(known.costs[place])) for place in over.tolist()]
        return Measured(within, known.take(within), tuple(Dropped(*reason) for reason in reasons))
    short = measure(maker, lines.take(over), turns[over], workers=workers)
    kept = np.concatenate([within, over[short.kept]])
    order = np.argsort(kept)
    surveys = Surveys.join([known.take(within), short.surveys]).take(order)
    return Measured(kept[order], surveys, short.dropped)


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    lines: Lines
    turns: Array

    def do(self, maker: Maker) -> "_Done":
        kept, found, cut, aside, dropped = [], [], [], [], []
        for place, (line, turn) in enumerate(zip(self.lines, self.turns.tolist(), strict=True)):
            try:
                survey, missing, other = maker.survey(line, turn)
            except DataError as error:
                if not maker.forgives(error):
                    raise
                dropped.append(Dropped.of(line, error))
                continue
            kept.append(place)
            found.append(survey)
            cut.append(missing)
            aside.append(other)
        facts = maker.encoder.facts
        news = facts.news() if isinstance(facts, MediaFacts) else {}
        return _Done(Measured(np.array(kept, np.int64), Surveys.of(found, cut, aside), tuple(dropped)), news)


@dataclasses.dataclass(frozen=True, slots=True)
class _Done:
    measured: Measured
    facts: dict[str, Known]


def _results(maker: Maker, jobs: list[_Job], workers: int) -> Iterator[_Done]:
    """Give what comes of each job, in order."""
    # A data worker is a daemon, which may not have processes of its own.
    if workers < 2 or len(jobs) < 2 or multiprocessing.current_process().daemon:
        yield from (job.do(maker) for job in jobs)
        return
    # Garbage that owns threads, as decoded frames do, would block a forked process that collects it.
    gc.collect()
    with ProcessPoolExecutor(min(workers, len(jobs)), initializer=_begin, initargs=(maker,)) as pool:
        yield from pool.map(_do, jobs)


_maker: list[Maker] = []  # of a process that measures; a tokenizer is too large to come with each job


def _begin(maker: Maker) -> None:
    _maker.append(maker)


def _do(job: _Job) -> _Done:
    return job.do(_maker[0])


def _stacked(tables: Listing[Costs]) -> Costs:
    names = list(dict.fromkeys(name for table in tables for name in table.names))
    return Costs(names, np.concatenate([table.amounts(*names) for table in tables]))
