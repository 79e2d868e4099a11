"""Verbs about data: convert, check, plan, view, reference."""

import itertools
import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from hedgerow.cli.given import AsJson, Overrides, check_readable, fields, load, settings_of
from hedgerow.errors import RecipeError

data = App(name="data", help="Convert, check and look at data before training.")


@data.command
def convert(
    *sources: str,
    out: Path,
    format: str | None = None,
    media: str | None = None,
    turns: Literal["together", "apart"] = "together",
    per_tree: int | None = None,
    on_bad: Literal["raise", "skip"] = "raise",
    hub: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Convert files of other formats, or folders of them, into one file of trees.

    Parameters
    ----------
    sources
        JSON, JSONL, Parquet, CSV and TSV files, or folders; the format of each is told by its columns.
    out
        The JSONL file to write; embedded images and videos go beside it.
    format
        Name of a format for all sources, or a mapping: a YAML file that says what the columns mean.
    media
        Folder of the media files, with a pattern of their names where rows hold no paths:
        'videos/{video_id}.mp4'.
    turns
        Questions of one conversation stay together, or each becomes a branch of its own (apart).
    per_tree
        The most rows that share a tree.
    on_bad
        Stop at the first bad row, or skip and count bad ones.
    hub
        The sources are names of data sets on the hub, OWNER/SET@CONFIG:SPLIT.
    """
    from hedgerow.data.adapters import convert as convert_files

    result = convert_files(
        sources, out, format=format, media=media, turns=turns, per_tree=per_tree, on_bad=on_bad, from_hub=hub
    )
    print(json.dumps(result.to_dict()) if as_json else result)


@data.command
def check(
    *files: Annotated[str, Parameter(allow_leading_hyphen=True)],
    recipe: Path | None = None,
    media: Literal["pixels", "facts", "none"] = "pixels",
    fix: Path | None = None,
    as_json: AsJson = False,
) -> None:
    """Check every row: schema, media, points, times, answers, duplicates, sizes. Exit code 1 with problems.

    Parameters
    ----------
    files
        Trees in the native format; none takes the training data of the recipe.
    recipe
        The recipe whose tokenizer, vision settings and budget are used; those of Molmo2 without one.
        Any field can be set by a dotted flag, such as `--packing.budget.tokens 8192`; without a recipe, too,
        those of vision, packing, weights, loss and data, and the tokenizer.
    media
        Decode what the model would see (pixels), only open each file and read it to its end (facts), or none.
    fix
        A file to write the good rows to.
    """
    from hedgerow.report.check import Json, Screen, check_files, require_good
    from hedgerow.report.terminal import measuring

    named = list(itertools.takewhile(lambda word: not word.startswith("--"), files))
    paths = [Path(word) for word in named]
    chosen = settings_of(recipe, files[len(named) :], paths)
    told = Json() if as_json else Screen()
    result = check_files(paths, chosen, media=media, fix=fix, tell=told.tell, progress=measuring())
    told.finish(result, fix)
    require_good(result, fix)


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
        Dotted flags are as those of `data check`.
    out
        An HTML page to write as well, NAME.html.
    """
    from hedgerow.report.plan import plan_files
    from hedgerow.report.plan_page import check_page, sections, write_plan
    from hedgerow.report.terminal import measuring, print_sections

    named = list(itertools.takewhile(lambda word: not word.startswith("--"), files))
    paths = [Path(word) for word in named]
    page = None if out is None else check_page(out)
    if recipe is not None and recipe.suffix.lower() == ".jsonl":
        raise RecipeError(f"--recipe {recipe}: data are not a recipe; name them without --recipe")
    chosen = settings_of(recipe, files[len(named) :], paths)
    result = plan_files(paths, chosen, progress=measuring())
    if page is not None:
        write_plan(result, page)
    if as_json:
        print(json.dumps(result.to_dict()))
        return
    print_sections(sections(result))
    if page is not None:
        print(f"\nwrote {page}")


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
        The recipe whose tokenizer, vision settings, weights and budget are used; those of Molmo2 without one.
        Dotted flags are as those of `data check`, such as `--weights.preset uniform`.
    out
        The page to write.
    trees
        How many trees to show, the first ones of the file, 50 a page; pictures are made of up to 200 of them.
    """
    check_readable(file)
    chosen = settings_of(recipe, overrides, [file], oversize="drop")
    from hedgerow.report.terminal import measuring
    from hedgerow.report.view import view_file

    result = view_file(file, chosen, out=out, most=trees, progress=measuring())
    print(fields(result) if as_json else result)


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
    made = load(recipe, overrides)
    from hedgerow.report.terminal import measuring
    from hedgerow.train.reference import write_references

    found = write_references(made, out, progress=measuring())
    figures = {"examples": len(found), "targets": len(found.values), "path": str(out)}
    print(json.dumps(figures) if as_json else f"wrote {out}: {found}")
