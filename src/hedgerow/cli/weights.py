"""Experiments on the weights of the loss."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from hedgerow.cli.given import AsJson, Overrides, aside, load, tell

weights = App(name="weights", help="What the weights of the loss do.")

Seeds = Annotated[int, Parameter(help="Runs of each arm; the first has the seed of the recipe.")]
Points = Annotated[
    int,
    Parameter(help="At how many steps each run is asked the questions of data.evaluate; the last is one."),
]
Trees = Annotated[
    int | None, Parameter(help="Ask about so many trees of data.evaluate, evenly spread; all without it.")
]


@weights.command
def ablate(
    recipe: Path,
    /,
    *overrides: Overrides,
    seeds: Seeds = 3,
    points: Points = 4,
    trees: Trees = None,
    out: Path | None = None,
    as_json: AsJson = False,
) -> None:
    """Train with the recipe's weights and without: short answers against captions and pointing.

    An experiment that was cut off goes on where it was.

    Parameters
    ----------
    recipe
        Any recipe with data.evaluate. Any field can be set by a dotted flag.
    out
        Folder for runs and report.html; `ablate` in the recipe's folder without it.
    """
    made = load(recipe, overrides)
    from hedgerow.experiments.weights.ablate import ablate, sections
    from hedgerow.experiments.weights.trials import Settings

    settings = Settings(out or made.out / "ablate", seeds=seeds, points=points, trees=trees)
    result = ablate(made, settings, say=aside)
    tell(result, sections(result), as_json=as_json)


@weights.command
def sweep(
    recipe: Path,
    /,
    *overrides: Overrides,
    seeds: Seeds = 1,
    points: Points = 1,
    trees: Trees = None,
    out: Path | None = None,
    as_json: AsJson = False,
) -> None:
    """Train with captions weighed 0.05 to 0.5, then pointing 0.1 to 1.0: the trade-off.

    Captions are those of videos, or those of images where the training data have no others. An experiment
    that was cut off goes on where it was.

    Parameters
    ----------
    recipe
        Any recipe with data.evaluate. Any field can be set by a dotted flag.
    out
        Folder for runs and report.html; `sweep` in the recipe's folder without it.
    """
    made = load(recipe, overrides)
    from hedgerow.experiments.weights.sweep import sections, sweep
    from hedgerow.experiments.weights.trials import Settings

    settings = Settings(out or made.out / "sweep", seeds=seeds, points=points, trees=trees)
    result = sweep(made, settings, say=aside)
    tell(result, sections(result), as_json=as_json)
