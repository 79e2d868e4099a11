"""The index: which trees there are, and what each costs in each epoch; no pixel is read for it."""

import dataclasses
import logging
from collections.abc import Sequence as Listing

import numpy as np

from hedgerow.data.facts import MediaFacts
from hedgerow.data.lines import Dropped, Line, Lines, located
from hedgerow.data.measure import Maker, Progress, Surveys, measure
from hedgerow.data.mixture import DataSet, Drawn, Mixture, Rates, mixture
from hedgerow.data.oversize import shortened
from hedgerow.data.references import References
from hedgerow.data.seen import seen
from hedgerow.data.shares import MixtureReport, counted, report
from hedgerow.data.transforms import Transforms
from hedgerow.encode import Encoder
from hedgerow.errors import DataError
from hedgerow.sequence import Costs, Sequence
from hedgerow.tree import MessageTree

_LOG = logging.getLogger("hedgerow")


@dataclasses.dataclass(frozen=True, slots=True)
class Epoch:
    """The examples of one epoch that can be used: what is drawn, and what is known of it.

    `dropped` says what was left out in this epoch alone: a transform may make a tree larger than a row.
    """

    drawn: Drawn
    surveys: Surveys
    dropped: tuple[Dropped, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Losses:
    """What sampling costs a data set.

    Of its `points` with a time, so many as are `lost` stand on no sampled frame or in one of the `branches`
    that are left out for it.
    """

    name: str
    points: int
    lost: int
    branches: int

    def __str__(self) -> str:
        share = f"{self.lost:,} of {counted(self.points, 'point')} ({100 * self.lost / self.points:.3g} %)"
        left = f"{counted(self.branches, 'branch')} left out; " if self.branches else ""
        return (
            f"{self.name}: {share} fall between sampled frames and are not taught; {left}"
            "`hedgerow data view` shows where (problem: points lost)"
        )


class Examples:
    """The examples of a run: costs now, trees and pixels late. Picklable, so that data workers can hold it.

    An epoch draws examples from the data sets; they are numbered from 0 in each epoch, and everything about
    them is a pure function of (data, settings, seed, epoch, number). The latest epoch is kept.

    Args:
        lines: where the usable trees stand, set after set.
        surveys: what is known of them before any transform.
        dropped: what was left out.
        maker: makes and measures a tree.
        mixture: what an epoch draws.
        sets: the data sets.
        references: log-probabilities of targets under a reference model, if any are stored.
        workers: processes that measure.
    """

    def __init__(
        self,
        lines: Lines,
        surveys: Surveys,
        *,
        dropped: Listing[Dropped],
        maker: Maker,
        mixture: Mixture,
        sets: Listing[DataSet],
        references: References | None = None,
        workers: int = 1,
    ) -> None:
        self.lines = lines
        self.surveys = surveys
        self.dropped = tuple(dropped)
        self.mixture = mixture
        self.sets = tuple(sets)
        self._maker = maker
        self._references = references
        self._workers = workers
        self._latest: tuple[int, Epoch] | None = None

    @property
    def encoder(self) -> Encoder:
        """What encodes the trees."""
        return self._maker.encoder

    def __len__(self) -> int:
        """How many examples an epoch draws, those that it has to leave out included."""
        return len(self.mixture)

    def epoch(self, number: int) -> Epoch:
        """Return what an epoch draws; with transforms, all of it is measured anew.

        Raises:
            DataError: a transformed tree is bad or holds more than a row, and that is not to be left out; or
                nothing is left.
        """
        if self._latest is None or self._latest[0] != number:
            self._latest = (number, self._epoch(number))
        return self._latest[1]

    def costs(self, epoch: int) -> Costs:
        """Return what each example of an epoch costs."""
        return self.epoch(epoch).surveys.costs

    def tasks(self, epoch: int) -> Costs:
        """Return how many samples of each task each example of an epoch has."""
        return self.epoch(epoch).surveys.tasks

    def tree(self, epoch: int, number: int) -> MessageTree:
        """Read one tree, transformed, and without the branches that are left out in this epoch.

        Raises:
            DataError: its file has changed.
        """
        known = self.epoch(epoch)
        tree = self._maker.tree(self._line(epoch, number), int(known.drawn.turns[number]))
        if known.surveys.left[number]:
            tree = seen(tree, self.encoder).tree
        if known.surveys.cut[number] and self._maker.budget is not None:
            return shortened(tree, self.encoder, self._maker.budget)
        return tree

    def encode(self, epoch: int, number: int) -> Sequence:
        """Read and encode one tree, pixels included.

        Raises:
            DataError: it cannot be encoded; the message names file and line.
        """
        with located(self.where(epoch, number)):
            sequence = self.encoder(self.tree(epoch, number))
            return sequence if self._references is None else self._references.attach(sequence)

    def attempt(self, epoch: int, number: int) -> Sequence | Dropped:
        """Read and encode one tree; where bad examples are skipped, return why it cannot be.

        Raises:
            DataError: it cannot be encoded, and bad examples are not skipped.
        """
        try:
            return self.encode(epoch, number)
        except DataError as error:
            if not self._maker.forgives(error):
                raise
            return Dropped.of(self._line(epoch, number), error)

    def where(self, epoch: int, number: int) -> str:
        """Return file and line of an example."""
        return str(self._line(epoch, number))

    def report(self) -> MixtureReport:
        """Return what part each data set and group has in training; with transforms, in the first epoch."""
        files = self.lines.files
        if not self._maker.transforms:
            return report(self.sets, self.mixture, files, self.surveys)
        epoch = self.epoch(0)  # what is left out or shortened is known once it is transformed
        draws = np.bincount(files[self.mixture.draw(0).examples], minlength=len(self.sets))
        return report(self.sets, self.mixture, files[epoch.drawn.examples], epoch.surveys, draws=draws)

    def losses(self) -> tuple[Losses, ...]:
        """Return what each data set that loses points loses; with transforms, in the first epoch."""
        surveys, owner = self.surveys, self.lines.files
        if self._maker.transforms:  # frame rates may differ from pass to pass
            epoch = self.epoch(0)
            surveys, owner = epoch.surveys, owner[epoch.drawn.examples]
        columns = (surveys.points, surveys.lost, surveys.left)
        totals = [np.bincount(owner, column, minlength=len(self.sets)) for column in columns]
        names = [one.path.name for one in self.sets]
        found = [
            Losses(name if names.count(name) == 1 else str(one.path), *map(int, counts))
            for name, one, *counts in zip(names, self.sets, *totals, strict=True)
        ]
        return tuple(one for one in found if one.lost)

    @classmethod
    def read(
        cls,
        sets: Listing[DataSet],
        maker: Maker,
        *,
        rates: Rates | None = None,
        references: References | None = None,
        workers: int = 1,
        progress: Progress | None = None,
    ) -> "Examples":
        """Index data sets.

        Args:
            sets: JSONL files.
            maker: makes and measures the trees.
            rates: how often sets are drawn; None: each of their trees `repeat` times an epoch.
            references: of these trees, if any are stored.
            workers: processes that measure; the result is the same for any number.
            progress: called with how many trees are measured, and how many there are.

        Raises:
            DataError: an example is bad or holds more than a row, and that is not to be left out; or none is
                left.
            ValueError: the groups of sets and rates do not match.
        """
        lines = Lines.scan([one.path for one in sets])
        plain = maker
        if maker.transforms:  # whether a tree fits is known once it is transformed
            plain = dataclasses.replace(maker, transforms=Transforms(), budget=None)
        turns = np.zeros(len(lines), np.int64)
        found = measure(plain, lines, turns, workers=workers, progress=progress)
        if not len(found.kept):
            files = ", ".join(str(one.path) for one in sets)
            raise DataError(f"{files}: no usable example; {_why(found.dropped)}")
        lines = lines.take(found.kept)
        sizes = np.bincount(lines.files, minlength=len(sets)).tolist()
        return cls(
            lines,
            found.surveys,
            dropped=found.dropped,
            maker=maker,
            mixture=mixture(sets, rates or Rates(), sizes, seed=maker.seed),
            sets=sets,
            references=references,
            workers=workers,
        )

    def save_facts(self) -> None:
        """Write down the facts of media files that were looked up, if they have a file."""
        if isinstance(self.encoder.facts, MediaFacts):
            self.encoder.facts.save()

    def _line(self, epoch: int, number: int) -> Line:
        return self.lines[int(self.epoch(epoch).drawn.examples[number])]

    def _epoch(self, number: int) -> Epoch:
        drawn = self.mixture.draw(number)
        if not self._maker.transforms:
            return Epoch(drawn, self.surveys.take(drawn.examples))
        lines = self.lines.take(drawn.examples)
        found = measure(self._maker, lines, drawn.turns, workers=self._workers)
        if not len(found.kept):
            raise DataError(f"epoch {number}: no usable example; {_why(found.dropped)}")
        if found.dropped:
            left = (len(found.dropped), len(lines), found.dropped[0])
            _LOG.warning("epoch %d leaves out %d of %d examples, the first is %s", number, *left)
        kept = Drawn(drawn.examples[found.kept], drawn.turns[found.kept])
        return Epoch(kept, found.surveys, found.dropped)


def _why(dropped: Listing[Dropped]) -> str:
    if not dropped:
        return "it is empty; write one tree a line"
    return f"it leaves out all {len(dropped)}, the first is {dropped[0]}"
