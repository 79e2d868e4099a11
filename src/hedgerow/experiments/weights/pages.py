"""What the pages of both experiments share: charts with error bars, and how to read them."""

from collections.abc import Iterable
from collections.abc import Sequence as Listing

from hedgerow.experiments.weights.exam import MEASURES
from hedgerow.experiments.weights.figures import Estimate
from hedgerow.experiments.weights.trials import Trials
from hedgerow.report.page import Section, Table, Text

INTERVAL = ("low", "high")
Curve = list[tuple[float, float]]


def curve(places: Iterable[float], estimates: Iterable[Estimate]) -> Curve:
    """Return the values as a line."""
    return [(x, one.value) for x, one in zip(places, estimates, strict=True)]


def bars(places: Iterable[float], estimates: Iterable[Estimate]) -> list[tuple[float, float, float]]:
    """Return the intervals as (x, low, high)."""
    return [(x, one.low, one.high) for x, one in zip(places, estimates, strict=True)]


def level_line(places: Listing[float], level: float) -> Curve:
    """Return a line at one height."""
    return [(places[0], level), (places[-1], level)]


def cells(estimate: Estimate) -> tuple[float, float, float]:
    """Return value, low and high."""
    return estimate.value, estimate.low, estimate.high


def measured(trials: Trials) -> list[str]:
    """Return the measures that have questions, without the tasks they are made of."""
    return [measure for measure in MEASURES if measure in trials.exam.measures]


def change(estimate: Estimate, *, what: str) -> str:
    """Say which way a difference goes, or that it cannot be told, and from how few seeds."""
    word = {1: "higher", -1: "lower", 0: "no difference can be told"}[estimate.sign]
    return f"{word} {what}{few(estimate)}: {signed(estimate)}"


def few(estimate: Estimate) -> str:
    """Name the seeds that an estimate is made of, where they are fewer than three."""
    count = len(estimate.by_seed)
    if count == 1:
        return " (one seed, over trees alone)"
    return f" ({count} seeds)" if count < 3 else ""


def signed(estimate: Estimate) -> str:
    """Write a difference with its interval."""
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def method(trials: Trials) -> Section:
    """Say what was done alike, what was asked, and what the intervals hold."""
    exam, count = trials.exam, len(trials.seeds)
    trees = len({question.tree.id for question in exam.questions})
    alike = (
        f"{len(trials.scores)} arms, {count} {'seed' if count == 1 else 'seeds'} each "
        f"({', '.join(map(str, trials.seeds))}). Runs of one seed begin with the same weights and see the "
        "same rows in the same order; only the weights of the loss differ."
    )
    asked = (
        f"Each run was asked the same questions about {trees} held-out trees after step "
        f"{', '.join(map(str, exam.steps))}. Short answers count as right or wrong; captions by the F1 of "
        "their words; pointing by the F1 of hits. Other tasks were not asked, such as tracking. A reply is "
        f"cut off at {exam.most} tokens, twice the longest true one."
    )
    over = (
        "t intervals over seeds and trees, both taken as drawn at random (variances of their means added)"
        if count > 1
        else "t intervals over trees alone: one seed says nothing of how much another would differ"
    )
    intervals = f"Intervals are 95 %: {over}. Differences are paired by seed and question."
    constant = (
        "The best constant reply is what can be scored without looking: for each data set, task and question "
        "(numbers and options aside), the one answer of the training data that scores best there."
    )
    rows = [(measure, len(places), trials.floor(measure)) for measure, places in exam.measures.items()]
    table = Table(("measure", "questions", "best constant reply"), rows)
    said = (alike, asked, f"{intervals} Nothing is corrected for looking at several.", constant)
    return Section("How", [*map(Text, said), table])


def score_rows(trials: Trials, arms: Listing[str]) -> list[tuple[object, ...]]:
    """Return one row for each arm, measure and step: mean, interval, and the mean of each seed."""
    return [
        (arm, measure, step, *cells(one), *one.by_seed)
        for arm in arms
        for measure in trials.exam.measures
        for step, one in zip(trials.exam.steps, trials.score(arm, measure), strict=True)
    ]


def score_table(trials: Trials) -> Table:
    """Return the scores of all arms at all steps."""
    seeds = [f"seed {seed}" for seed in trials.seeds]
    head = ("arm", "measure", "step", "score", *INTERVAL, *seeds)
    return Table(head, score_rows(trials, list(trials.scores)), caption="Scores")
