"""`hedgerow data check`: what is wrong with files of trees, told on a screen or as JSON."""

import dataclasses
import json
import os
from collections.abc import Callable
from collections.abc import Sequence as Listing
from pathlib import Path
from typing import Any

from hedgerow.data.answers import points_note, unknown_note
from hedgerow.data.check import MediaLevel, Settings, check
from hedgerow.data.check_schema import KINDS
from hedgerow.data.check_tally import Checked, Problem
from hedgerow.data.measure import Progress
from hedgerow.data.shares import counted
from hedgerow.encode import Encoder
from hedgerow.errors import CheckError, RecipeError
from hedgerow.recipe import Packing, Recipe
from hedgerow.report.page import Section, Table
from hedgerow.sequence import Budget
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.vision.processor import Molmo2Processor

_SHOWN = 50  # problems on a screen


def check_files(
    files: Listing[Path],
    recipe: Recipe | None,
    *,
    media: MediaLevel,
    fix: Path | None,
    tell: Callable[[Problem], None],
    progress: Progress | None = None,
) -> Checked:
    """Check every row of some files as a recipe would train on it.

    Args:
        files: trees in the native format; none takes those that the recipe trains on.
        recipe: its tokenizer, vision settings, weights and budget; its transforms are not applied. None takes
            the settings of Molmo2.
        media: whether media are decoded, only looked up, or left alone.
        fix: a file for the good rows, if any.
        tell: called with each problem, in the order of the rows.
        progress: called with how many lines are checked, and how many there are.

    Raises:
        DataError: a file cannot be read, or holds no row.
        RecipeError: neither a file nor a recipe is given.
    """
    if recipe is None:
        if not files:
            raise RecipeError("nothing to check; name a JSONL file of trees, or --recipe FILE")
        settings = _molmo2()
    else:
        settings = _settings(recipe)
        files = files or [one.path for one in recipe.data.train]
    settings = dataclasses.replace(settings, media=media, fix=fix)
    return check(files, settings, tell=tell, progress=progress)


def _molmo2() -> Settings:
    room = Packing().budget
    encoder = Encoder(ChatFormat(load_tokenizer()), Molmo2Processor())
    return Settings(encoder, Budget(tokens=room.tokens, crops=room.crops), workers=_cores())


def _settings(recipe: Recipe) -> Settings:
    from hedgerow.build import (  # loads torch, which nothing else here needs
        budget_of,
        build_encoder,
        maker_of,
    )

    return Settings(
        maker_of(recipe, build_encoder(recipe)).encoder,
        budget_of(recipe),
        oversize=recipe.packing.oversize,
        workers=recipe.data.workers or _cores(),
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Screen:
    """Keeps the first problems for a screen, which is told of all once they are counted."""

    def __init__(self) -> None:
        self._first: list[Problem] = []

    def tell(self, problem: Problem) -> None:
        """Take a problem."""
        if len(self._first) < _SHOWN:
            self._first.append(problem)

    def finish(self, checked: Checked, fix: Path | None) -> None:
        """Print the first problems, and the figures."""
        from hedgerow.report.terminal import print_sections

        for problem in self._first:
            print(problem)
        more = sum(checked.problems.values()) - len(self._first)
        if more:
            print(f"and {more:,} more; --json lists all")
        if self._first:
            print()
        found = sections(checked)
        if found:
            print_sections(found)
            print()
        for note in notes(checked):
            print(f"note: {note}")
        print(summary(checked))
        if fix is not None:
            moved = f", {checked.moved:,} with other media paths" if checked.moved else ""
            print(f"wrote {fix}: {counted(checked.good, 'row')}{moved}")


class Json:
    """Prints one JSON object piece by piece, so that any number of problems fits."""

    def __init__(self) -> None:
        self._begun = False

    def tell(self, problem: Problem) -> None:
        """Print a problem."""
        shown = {"file": problem.file, "line": problem.line, **dataclasses.asdict(problem.fault)}
        print(f",\n{json.dumps(shown)}" if self._begun else f'{{"problems": [\n{json.dumps(shown)}', end="")
        self._begun = True

    def finish(self, checked: Checked, fix: Path | None) -> None:
        """Print the figures and end the object."""
        figures: dict[str, Any] = dataclasses.asdict(checked)
        figures["kinds"] = figures.pop("problems")
        figures["lost"] = [dataclasses.asdict(one) | {"share": one.share} for one in checked.lost]
        figures["notes"] = notes(checked)
        figures["fix"] = None if fix is None else str(fix)
        print("" if self._begun else '{"problems": [', end="")
        print(f"], {json.dumps(figures)[1:]}")


def sections(checked: Checked) -> list[Section]:
    """Return the figures of a check as tables; none where there is nothing to tell."""
    kinds = [(kind, checked.problems[kind], KINDS[kind]) for kind in KINDS if kind in checked.problems]
    lost = [(one.source, one.points, one.lost, f"{one.share:.1%}") for one in checked.lost]
    found = []
    if kinds:
        found.append(Section("Problems", [Table(("kind", "problems", "what it is"), kinds)]))
    if lost:
        caption = "points at times that no sampled frame shows: they are not taught"
        found.append(
            Section("Points lost", [Table(("data set", "points", "lost", "share"), lost, caption=caption)])
        )
    return found


def summary(checked: Checked) -> str:
    """Return the result of a check as one line."""
    bad = checked.rows - checked.good
    found = counted(sum(checked.problems.values()), "problem") if bad else "nothing is wrong"
    where = f" in {bad:,} of them" if bad and checked.rows > 1 else ""
    return f"{counted(checked.rows, 'row')} in {', '.join(checked.files)}: {found}{where}"


def notes(checked: Checked) -> list[str]:
    """Return what is no problem, and perhaps not what was meant: unknown tasks, and points as text."""
    found = [unknown_note(task, answers) for task, answers in sorted(checked.unknown.items())]
    return found + ([points_note(checked.astray)] if checked.astray else [])


def require_good(checked: Checked, fix: Path | None) -> None:
    """Fail where anything is wrong.

    Raises:
        CheckError: it is.
    """
    if checked.good < checked.rows:
        remedy = (
            "train on the file of --fix, or mend the rows" if fix else "mend them, or add --fix GOOD.jsonl"
        )
        bad = checked.rows - checked.good
        have = "row has" if checked.rows == 1 else "rows has" if bad == 1 else "rows have"
        raise CheckError(f"{bad:,} of {checked.rows:,} {have} a problem; {remedy}")
