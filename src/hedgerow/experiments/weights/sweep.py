"""Over a range of weights of captions and of points: what one task gains and the others lose."""

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hedgerow.errors import RecipeError
from hedgerow.evaluate.runner import CAPTIONS
from hedgerow.experiments.weights.arms import CAPTION_WEIGHTS, POINTING_WEIGHTS, Line, sweep_arms
from hedgerow.experiments.weights.exam import CAPTION, POINTING, SHORT
from hedgerow.experiments.weights.figures import Estimate
from hedgerow.experiments.weights.pages import (
    INTERVAL,
    bars,
    cells,
    change,
    curve,
    measured,
    method,
    score_table,
)
from hedgerow.experiments.weights.trials import Settings, Trials, run_trials, trained_tasks
from hedgerow.recipe import Recipe
from hedgerow.report.page import Chart, Section, Table, Text, write_page

_OWN = dict.fromkeys(CAPTIONS, CAPTION) | {"pointing": POINTING}  # the measure of a task that is swept


@dataclass(frozen=True, slots=True)
class Sweep:
    """Runs over a range of weights; `lines` say which arms differ in the weight of one task alone.

    `notes` say which task is not swept, and why.
    """

    trials: Trials
    lines: tuple[Line, ...]
    report: Path
    notes: tuple[str, ...] = ()

    def last(self, line: Line, measure: str) -> list[Estimate]:
        """Return the scores after the last step, from the lightest to the heaviest weight."""
        return [self.trials.score(arm, measure)[-1] for arm in line.arms]

    def span(self, line: Line, measure: str) -> Estimate:
        """Return the score at the heaviest weight less that at the lightest, after the last step."""
        return self.trials.gain(line.arms[-1], line.arms[0], measure)[-1]

    @property
    def sentences(self) -> list[str]:
        """The result in words: what the heaviest weight of a task changes over the lightest."""
        found = [
            f"{line.task} weighed {line.weights[-1]:g} instead of {line.weights[0]:g}, "
            f"{measure}: {change(self.span(line, measure), what='with more weight')}."
            for line in self.lines
            for measure in measured(self.trials)
        ]
        return [*found, *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        measures = self.trials.exam.measures
        lines = [
            {
                "task": line.task,
                "weights": list(line.weights),
                "arms": list(line.arms),
                "heaviest less lightest": {
                    measure: self.trials.by_step(self.trials.gain(line.arms[-1], line.arms[0], measure))
                    for measure in measures
                },
            }
            for line in self.lines
        ]
        return {
            **self.trials.to_dict(),
            "lines": lines,
            "result": self.sentences,
            "report": str(self.report),
        }


def sweep(
    recipe: Recipe,
    settings: Settings,
    *,
    captions: Listing[float] = CAPTION_WEIGHTS,
    pointing: Listing[float] = POINTING_WEIGHTS,
    say: Callable[[str], object],
) -> Sweep:
    """Train over a range of weights of two tasks, one at a time, and write `report.html` into the folder.

    Captions of videos are weighed, those of images where the training data have no others; a task that they
    do not have is left out.

    Raises:
        RecipeError: see `run_trials` and `sweep_arms`; or the training data have none of these tasks.
        DataError: the data are bad.
    """
    wanted, notes = _swept(trained_tasks(recipe, settings), captions, pointing)
    for note in notes:
        say(note)
    arms, lines = sweep_arms(recipe.weights, wanted)
    trials = run_trials(recipe, arms, settings, say=say)
    result = Sweep(trials, lines, settings.out / "report.html", notes)
    write_page(result.report, "Loss weights: a sweep", sections(result), subtitle=str(settings.out))
    return result


def _swept(
    trained: Listing[str], captions: Listing[float], pointing: Listing[float]
) -> tuple[Mapping[str, Listing[float]], tuple[str, ...]]:
    """The weights of each task that is swept, and a line on one that is not for want of examples."""
    choices = ((CAPTIONS, captions), (("pointing",), pointing))
    wanted: dict[str, Listing[float]] = {}
    notes = []
    for tasks, weights in choices:
        held = [task for task in tasks if task in trained]
        if held:
            wanted[held[0]] = weights
        else:
            notes.append(f"{' and '.join(tasks)}: not swept, no training example has it")
    there = f"the training data have {', '.join(trained)}"
    if not wanted:
        raise RecipeError(f"nothing to sweep: {there}; give data with captions or pointing")
    return wanted, tuple(f"{note}; {there}." for note in notes)


def sections(result: Sweep) -> list[Section]:
    """Return the result for a terminal or a page."""
    return [
        Section("Result", [Text(line) for line in result.sentences]),
        *(
            Section(f"Weight of {line.task}", [_table(result, line), *_charts(result, line)])
            for line in result.lines
        ),
        Section("Figures", [score_table(result.trials)]),
        method(result.trials),
    ]


def _table(result: Sweep, line: Line) -> Table:
    measures = result.trials.exam.measures
    head = ["weight", *(word for measure in measures for word in (measure, *INTERVAL))]
    columns = [result.last(line, measure) for measure in measures]
    rows = [
        (weight, *(cell for column in columns for cell in cells(column[place])))
        for place, weight in enumerate(line.weights)
    ]
    step = result.trials.exam.steps[-1]
    return Table(head, rows, caption=f"Scores after step {step}; all other tasks weigh as the recipe says")


def _charts(result: Sweep, line: Line) -> list[Chart]:
    """Scores over the weight, and the trade-off: short answers over what the weighed task itself scores."""
    found = {measure: result.last(line, measure) for measure in measured(result.trials)}
    curves = {measure: curve(line.weights, column) for measure, column in found.items()}
    intervals = {measure: bars(line.weights, column) for measure, column in found.items()}
    charts = [Chart("Mean and 95 % interval", curves, f"weight of {line.task}", "score", intervals)]
    own = _OWN[line.task]
    if own in found and SHORT in found:
        places = [one.value for one in found[own]]
        name = f"from {line.weights[0]:g} to {line.weights[-1]:g}"
        trade, ends = {name: curve(places, found[SHORT])}, {name: bars(places, found[SHORT])}
        charts.append(Chart("Trade-off", trade, own, SHORT, ends))
    return charts
