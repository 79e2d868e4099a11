"""The command line. Heavy modules are imported by the verb that needs them, so that help is instant."""

import dataclasses
import itertools
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hedgerow.errors import CheckError, DataError, HedgerowError, RecipeError

if TYPE_CHECKING:
    from hedgerow.recipe import Recipe

try:
    from cyclopts import App, CycloptsError, Parameter
except ImportError:  # pragma: no cover
    raise SystemExit("the command line needs more packages: pip install 'hedgerow[cli]'") from None

app = App(name="hedgerow", help="Train vision-language models on packed message trees.")
data = App(name="data", help="Look at data before training on it.")
app.command(data)
experiment = App(name="experiment", help="Experiments on your own recipe and data.")
app.command(experiment)
weights = App(name="weights", help="What the weights of the loss do.")
experiment.command(weights)

Overrides = Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]
AsJson = Annotated[
    bool, Parameter(name="--json", negative="", help="Print one JSON object and nothing else.")
]


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

    result = run_demo(out, quick=quick, setup_seconds=setup_seconds, say=_quiet if as_json else print)
    print(json.dumps(result.to_dict()) if as_json else result)


@app.command
def train(
    recipe: Path,
    /,
    *overrides: Overrides,
    fresh: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Train as a recipe says; a run that was cut off goes on where it was.

    Parameters
    ----------
    recipe
        YAML file. Any field can be set by a dotted flag, such as `--optimizer.language.lr 1e-4`.
    fresh
        Start over, even if the run's folder holds a checkpoint.
    """
    made = _recipe(recipe, overrides)
    from hedgerow.report.terminal import measuring
    from hedgerow.train.run import run

    result = run(made, fresh=fresh, progress=measuring())
    if os.environ.get("RANK", "0") == "0":  # of the processes of torchrun one speaks
        print(_fields(result) if as_json else result)


@app.command(name="eval")
def evaluate(recipe: Path, /, *overrides: Overrides, as_json: AsJson = False) -> None:
    """Evaluate the trained model of a recipe on the recipe's evaluation data.

    Parameters
    ----------
    recipe
        The recipe the model was trained with. Any field can be set by a dotted flag.
    """
    made = _recipe(recipe, overrides)
    from hedgerow.evaluate.run import evaluate_recipe

    result = evaluate_recipe(made)
    print(json.dumps(result.to_dict()) if as_json else result)


@data.command
def view(
    file: Path,
    /,
    *overrides: Overrides,
    recipe: Path | None = None,
    out: Path = Path("view.html"),
    trees: int = 24,
    as_json: AsJson = False,
) -> None:
    """Write trees and packed rows of a JSONL file as one HTML page.

    Parameters
    ----------
    file
        Trees in the native format.
    recipe
        The recipe whose tokenizer, vision settings, weights and budget are used; small defaults without one.
        Any field of it can be set by a dotted flag, such as `--weights.preset uniform`.
    out
        The page to write.
    trees
        How many trees to show, the first ones of the file; each adds about 10 KB and its pictures.
    """
    _check_readable(file)
    settings = _settings(recipe, overrides)
    from hedgerow.report.view import view_file

    result = view_file(file, settings, out=out, most=trees)
    print(_fields(result) if as_json else result)


@data.command
def plan(
    *files: Annotated[str, Parameter(allow_leading_hyphen=True)],
    recipe: Path | None = None,
    out: Path | None = None,
    as_json: AsJson = False,
) -> None:
    """Tell lengths by kind, which budgets and pool suit the data, and what packing saves. Decodes no pixel.

    Parameters
    ----------
    files
        Trees in the native format; none takes the training data of the recipe, with its mixture.
    recipe
        The recipe whose tokenizer, vision settings and budget are used; those of Molmo2 without one.
    out
        An HTML page to write as well, NAME.html.
    """
    from hedgerow.report.plan import plan_files
    from hedgerow.report.plan_page import check_page, sections, write_plan
    from hedgerow.report.terminal import measuring, print_sections

    named = list(itertools.takewhile(lambda word: not word.startswith("--"), files))
    page = None if out is None else check_page(out)
    if recipe is not None and recipe.suffix.lower() == ".jsonl":
        raise RecipeError(f"--recipe {recipe}: data are not a recipe; name them without --recipe")
    settings = _settings(recipe, files[len(named) :])
    result = plan_files([Path(word) for word in named], settings, progress=measuring())
    if page is not None:
        write_plan(result, page)
    if as_json:
        print(json.dumps(result.to_dict()))
        return
    print_sections(sections(result))
    if page is not None:
        print(f"\nwrote {page}")


@data.command
def reference(recipe: Path, /, *overrides: Overrides, out: Path, as_json: AsJson = False) -> None:
    """Write what the model a recipe starts from says of every target, for `data.references`.

    Parameters
    ----------
    recipe
        YAML file. Any field can be set by a dotted flag: `--model.checkpoint` takes another model.
    out
        The file to write.
    """
    made = _recipe(recipe, overrides)
    from hedgerow.report.terminal import measuring
    from hedgerow.train.reference import write_references

    found = write_references(made, out, progress=measuring())
    figures = {"examples": len(found), "targets": len(found.values), "path": str(out)}
    print(json.dumps(figures) if as_json else f"wrote {out}: {found}")


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
    made = _recipe(recipe, overrides)
    from hedgerow.report.terminal import measuring
    from hedgerow.verify import verify_recipe

    say = _quiet if as_json else _at_once
    result = verify_recipe(made, name=str(recipe), trees=trees, out=out, say=say, progress=measuring())
    if as_json:
        print(json.dumps(result.to_dict()))
    if not result.passed:
        raise CheckError("a law is broken; the lines above say which and by how much")


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
    made = _recipe(recipe, overrides)
    from hedgerow.experiments.weights.ablate import ablate, sections
    from hedgerow.experiments.weights.trials import Settings

    settings = Settings(out or made.out / "ablate", seeds=seeds, points=points, trees=trees)
    result = ablate(made, settings, say=_aside)
    _tell(result, sections(result), as_json=as_json)


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
    made = _recipe(recipe, overrides)
    from hedgerow.experiments.weights.sweep import sections, sweep
    from hedgerow.experiments.weights.trials import Settings

    settings = Settings(out or made.out / "sweep", seeds=seeds, points=points, trees=trees)
    result = sweep(made, settings, say=_aside)
    _tell(result, sections(result), as_json=as_json)


def main() -> None:
    """Run the command line; 0 is success, 1 a failed check, 2 bad input."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CheckError as error:
        _fail(error, code=1)
    except (HedgerowError, CycloptsError) as error:
        _fail(error, code=2)
    except BrokenPipeError:  # whoever reads has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; give a path that can be used", code=2)
    except KeyboardInterrupt:
        _fail("interrupted", code=130)


def _settings(recipe: Path | None, words: tuple[str, ...]) -> "Recipe | None":
    """Load a recipe that need not be given, with its overrides."""
    if recipe is not None:
        return _recipe(recipe, words)
    changed = _overrides(words)
    if changed:
        raise RecipeError(f"--{next(iter(changed))} changes a recipe, and none is given; add --recipe FILE")
    return None


def _recipe(path: Path, words: tuple[str, ...]) -> "Recipe":
    """Load a recipe with its overrides; what is no YAML is told before anything heavy is imported."""
    from hedgerow.validation import read_yaml

    changed = _overrides(words)
    read_yaml(path)
    from hedgerow.recipe import load_recipe

    return load_recipe(path, changed)


def _check_readable(file: Path) -> None:
    try:
        file.open("rb").close()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); give a JSONL file in UTF-8") from None


def _fields(result: Any) -> str:
    return json.dumps(dataclasses.asdict(result), default=str)


def _tell(result: Any, sections: Any, *, as_json: bool) -> None:
    """Print a result as one JSON object, or as text with the path of its page."""
    from hedgerow.report.terminal import print_sections

    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        print_sections(sections)
        print(f"\nreport: {result.report}")


def _aside(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _at_once(line: str) -> None:
    print(line, flush=True)


def _overrides(words: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise RecipeError(
                f"unexpected '{word}'; write fields of the recipe as --name value or --name=value"
            )
        name, sign, value = word[2:].partition("=")
        if not sign:
            if not rest:
                raise RecipeError(f"--{name} has no value; write --{name} VALUE")
            value = rest.pop(0)
        found[name] = value
    return found


def _fail(error: Any, *, code: int) -> None:
    print("hedgerow:", " ".join(str(error).splitlines()), file=sys.stderr)
    raise SystemExit(code)


def _quiet(*_: object) -> None:
    return None


if __name__ == "__main__":
    main()
