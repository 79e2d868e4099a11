"""Verbs about models: demo, train, eval, verify."""

import json
import os
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from hedgerow.cli.given import AsJson, Overrides, at_once, fields, load, quiet
from hedgerow.errors import CheckError, RecipeError

app = App(name="hedgerow", help="Train vision-language models on packed message trees.")


@app.command
def demo(
    out: Path = Path("runs/demo"),
    *,
    quick: Annotated[bool, Parameter(negative="")] = False,
    setup_seconds: float | None = None,
    as_json: AsJson = False,
) -> None:
    """Record Atari clips, train a small Molmo2 on them in two stages, evaluate it, and write report.html.

    Parameters
    ----------
    out
        Folder for clips, runs and the report.
    quick
        Everything with few clips and few steps, in under a minute.
    setup_seconds
        How long the set-up took, to be printed with the other figures.
    """
    from hedgerow.experiments.demo.run import run_demo

    result = run_demo(out, quick=quick, setup_seconds=setup_seconds, say=quiet if as_json else print)
    print(json.dumps(result.to_dict()) if as_json else result)


@app.command
def train(
    recipe: Path,
    /,
    *overrides: Overrides,
    fresh: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    size: str | None = None,
    gpus: int | None = None,
    tflops: float | None = None,
    as_json: AsJson = False,
) -> None:
    """Train as a recipe says; a run that was cut off goes on where it was.

    Parameters
    ----------
    recipe
        YAML file. Any field can be set by a dotted flag, such as `--optimizer.language.lr 1e-4`.
    fresh
        Start over, even if the run's folder holds a checkpoint.
    dry_run
        Walk the mixture, take two steps with a tiny twin of the model, and print what the run would take.
    size
        Of a Molmo2 that is not there yet, for a dry run: 4B, 8B or O-7B.
    gpus
        How many the run would have, for a dry run.
    tflops
        What a GPU does in a second, 10^12 FLOPs, for a dry run that is to tell hours.
    """
    made = load(recipe, overrides)
    if dry_run:
        from hedgerow.train.dryrun import dry_run as tried

        found = tried(made, size=size, gpus=gpus, tflops=tflops)
        print(json.dumps(found.to_dict()) if as_json else found)
        return
    idle = [name for name, value in (("size", size), ("gpus", gpus), ("tflops", tflops)) if value is not None]
    if idle:
        raise RecipeError(f"--{idle[0]} is for a dry run; add --dry-run, or leave it out")
    from hedgerow.report.terminal import measuring
    from hedgerow.train.run import run

    result = run(made, fresh=fresh, progress=measuring())
    if os.environ.get("RANK", "0") == "0":  # of the processes of torchrun one speaks
        print(fields(result) if as_json else result)


@app.command(name="eval")
def evaluate(recipe: Path, /, *overrides: Overrides, as_json: AsJson = False) -> None:
    """Evaluate the trained model of a recipe on the recipe's evaluation data.

    Parameters
    ----------
    recipe
        The recipe the model was trained with. Any field can be set by a dotted flag.
    """
    made = load(recipe, overrides)
    from hedgerow.evaluate.run import evaluate_recipe

    result = evaluate_recipe(made)
    print(json.dumps(result.to_dict()) if as_json else result)


@app.command
def verify(
    recipe: Path, /, *overrides: Overrides, trees: int = 8, out: Path | None = None, as_json: AsJson = False
) -> None:
    """Prove on your own model and data that packing and masking change nothing: laws 1 to 4 and 13.

    Parameters
    ----------
    recipe
        The recipe whose model and data are checked.
    trees
        How many trees to check on.
    out
        Page (.html) or picture of the row's mask (.png) to write.
    """
    if os.environ.get("RANK", "0") != "0":
        return  # of the processes of torchrun one is enough
    if out is not None:
        from hedgerow.report.laws import check_name

        check_name(out)
    made = load(recipe, overrides)
    from hedgerow.report.terminal import measuring
    from hedgerow.verify import verify_recipe

    say = quiet if as_json else at_once
    result = verify_recipe(made, name=str(recipe), trees=trees, out=out, say=say, progress=measuring())
    if as_json:
        print(json.dumps(result.to_dict()))
    if not result.passed:
        raise CheckError("a law is broken; the lines above say which and by how much")
