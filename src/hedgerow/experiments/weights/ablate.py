"""With and without weights: what short answers, captions and pointing gain or lose."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hedgerow.experiments.weights.arms import UNIFORM, WEIGHTED, ablation_arms
from hedgerow.experiments.weights.exam import CAPTION, SHORT
from hedgerow.experiments.weights.figures import Estimate
from hedgerow.experiments.weights.pages import (
    INTERVAL,
    bars,
    cells,
    change,
    curve,
    few,
    level_line,
    measured,
    method,
    score_table,
    signed,
)
from hedgerow.experiments.weights.trials import Settings, Trials, run_trials
from hedgerow.recipe import Recipe
from hedgerow.report.page import Chart, Section, Table, Text, write_page

PAPER = {SHORT: 1, CAPTION: -1}  # which way weights moved them in arXiv 2601.10611, table 8


@dataclass(frozen=True, slots=True)
class Ablation:
    """Runs with the recipe's weights beside runs in which every token weighs 1."""

    trials: Trials
    report: Path

    def gain(self, measure: str) -> list[Estimate]:
        """Return at each step the score with weights less that without, paired by seed and question."""
        return self.trials.gain(WEIGHTED, UNIFORM, measure)

    def mean_gain(self, measure: str) -> Estimate:
        """Return their mean over the steps: what is learnt sooner gains, though both arms end alike."""
        return self.trials.mean_gain(WEIGHTED, UNIFORM, measure)

    @property
    def sentences(self) -> list[str]:
        """The result at the last step in words, and how it compares with the paper's."""
        step = self.trials.exam.steps[-1]
        said = []
        for measure in measured(self.trials):
            with_weights, without = (self.trials.score(arm, measure)[-1] for arm in (WEIGHTED, UNIFORM))
            said.append(
                f"{measure.capitalize()} at step {step}: {with_weights} with weights, {without} without; "
                f"{change(self.gain(measure)[-1], what='with weights')}. Mean difference over the "
                f"{len(self.trials.exam.steps)} steps: {signed(self.mean_gain(measure))}."
            )
        return [*said, self._beside_the_paper()]

    def _beside_the_paper(self) -> str:
        words = {1: "the same way", -1: "the other way", 0: "nothing can be told"}
        found = {
            measure: words[self.gain(measure)[-1].sign * way] + few(self.gain(measure)[-1])
            for measure, way in PAPER.items()
            if measure in self.trials.exam.measures
        }
        told = "; ".join(f"{measure}: {word}" for measure, word in found.items())
        return (
            "In arXiv 2601.10611 (table 8) weights moved the mean of QA from 64.0 to 64.8 and the caption F1 "
            f"from 40.0 to 39.5{'. Here, ' + told if told else ''}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        gains = {measure: self.trials.by_step(self.gain(measure)) for measure in self.trials.exam.measures}
        return {
            **self.trials.to_dict(),
            "differences": gains,
            "mean differences": {name: asdict(self.mean_gain(name)) for name in self.trials.exam.measures},
            "result": self.sentences,
            "report": str(self.report),
        }


def ablate(recipe: Recipe, settings: Settings, *, say: Callable[[str], object]) -> Ablation:
    """Train with and without weights, ask both on the way, and write `report.html` into the folder.

    Raises:
        RecipeError: see `run_trials`; or the recipe has no weights to leave out.
        DataError: the data are bad.
    """
    trials = run_trials(recipe, ablation_arms(recipe.weights), settings, say=say)
    result = Ablation(trials, settings.out / "report.html")
    write_page(result.report, "Loss weights: with and without", sections(result), subtitle=str(settings.out))
    return result


def sections(result: Ablation) -> list[Section]:
    """Return the result for a terminal or a page."""
    steps, measures = result.trials.exam.steps, result.trials.exam.measures
    rows = [
        (measure, step, *cells(one), *one.by_seed)
        for measure in measures
        for step, one in zip(steps, result.gain(measure), strict=True)
    ]
    seeds = [f"seed {seed}" for seed in result.trials.seeds]
    caption = "Scores with weights less scores without"
    gains = Table(("measure", "step", "difference", *INTERVAL, *seeds), rows, caption=caption)
    charts = [chart for measure in measures for chart in _charts(result, measure)]
    return [
        Section("Result", [Text(line) for line in result.sentences]),
        Section("Over training", [*charts, gains, score_table(result.trials)]),
        method(result.trials),
    ]


def _charts(result: Ablation, measure: str) -> tuple[Chart, Chart]:
    trials = result.trials
    steps = trials.exam.steps
    scores = {arm: trials.score(arm, measure) for arm in (WEIGHTED, UNIFORM)}
    curves = {arm: curve(steps, found) for arm, found in scores.items()}
    flat = {"best constant reply": level_line(steps, trials.floor(measure))}
    gain, name = result.gain(measure), "with less without"
    drawn = {name: curve(steps, gain), "no difference": level_line(steps, 0.0)}
    return (
        Chart(
            f"{measure}: mean and 95 % interval", curves | flat, "step", "score",
            {arm: bars(steps, found) for arm, found in scores.items()},
        ),
        Chart(f"{measure}: difference", drawn, "step", "difference", {name: bars(steps, gain)}),
    )  # fmt: skip
