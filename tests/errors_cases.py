"""Mistakes that users make, each made for real: what was done, and what the error must say.

Tests hold each message to its case; `scripts/errors_page.py` writes docs/errors.md of both.
"""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import hedgerow as h
from hedgerow import cli
from hedgerow.errors import (
    BudgetError,
    CheckError,
    DataError,
    HedgerowError,
    MediaError,
    RecipeError,
    VisibilityError,
)
from hedgerow.testing import tiny_recipe, write_jsonl, write_mp4, write_png

Json = dict[str, Any]
Make = Callable[[Path], None]

TRAIN = "hedgerow train recipe.yaml"


@dataclass(frozen=True)
class Case:
    """A mistake and what is said of it.

    Attributes:
        title: what is wrong, in the words of who did it.
        when: what one was doing; the page groups by it.
        leaf: class of the error.
        call: a command line, or an expression of Python in which `h` is hedgerow.
        given, allowed, remedy: what the message says, as it says it; `allowed` is None where anything else is.
        place: file and line that it names.
        why: what it means and what to do, beyond the message.
        row: a second line for trees.jsonl, whose first is good.
        files: makes other files in the folder of the call.
        without: a package that is not installed.
    """

    title: str
    when: str
    leaf: type[HedgerowError]
    call: str
    given: str
    allowed: str | None
    remedy: str
    why: str
    place: str | None = None
    row: Json | str | None = None
    files: Make = field(default=lambda _: None)
    without: str | None = None


@dataclass(frozen=True)
class Met:
    """An error as it was met: its class, its message without the folder, and the exit code of a command."""

    leaf: type[BaseException] | None
    message: str
    code: int | None


def good(name: str = "good", question: str = "Who?", answer: object = "Me.", **more: object) -> Json:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": name, "messages": turns, **more}


def shown(media: Json, answer: object = "A square.", **branch: object) -> Json:
    """A tree that shows one image or video."""
    asked = good(question="What is there?", answer=answer)["messages"]
    messages = [{"role": "user", "content": [media]}]
    return {"id": "bad", "messages": messages, "branches": [{"messages": asked, **branch}]}


def image(path: str = "cat.png", **more: object) -> Json:
    return {"type": "image", "path": path, **more}


def video(path: str = "clip.mp4", **more: object) -> Json:
    return {"type": "video", "path": path, **more}


def spots(*points: Json, kind: str = "points", **more: object) -> list[Json]:
    return [{"type": kind, "label": "cat", "points": list(points), **more}]


def furnish(folder: Path, case: Case) -> None:
    """Make what a case needs: a good image, clip and recipe, and its own files."""
    write_png(folder / "cat.png")
    write_mp4(folder / "clip.mp4")
    tiny_recipe(folder, folder / "trees.jsonl", evaluate=folder / "trees.jsonl")
    write_jsonl(folder / "trees.jsonl", [good()])
    if case.row is not None:
        line = case.row if isinstance(case.row, str) else json.dumps(case.row)
        with (folder / "trees.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    case.files(folder)


def provoke(case: Case, folder: Path) -> Met:
    """Make the mistake of a case in an empty folder."""
    furnish(folder, case)
    hidden = mock.patch.dict(sys.modules, {case.without: None}) if case.without else contextlib.nullcontext()
    with contextlib.chdir(folder), hidden:
        met = _command(case.call) if case.call.startswith("hedgerow ") else _expression(case.call)
    message = met.message.replace(f"{folder}/", "").replace(str(folder), ".")
    return Met(met.leaf, message, met.code)


def _command(call: str) -> Met:
    said = io.StringIO()
    quiet = contextlib.redirect_stdout(io.StringIO())
    with mock.patch.object(sys, "argv", call.split()), contextlib.redirect_stderr(said), quiet:
        try:
            cli.main()
        except SystemExit as stop:
            last = said.getvalue().splitlines()[-1]
            return Met(type(stop.__context__), last.removeprefix("hedgerow: "), stop.code)
    return Met(None, said.getvalue(), 0)


def _expression(call: str) -> Met:
    try:
        eval(call, {"h": h, "np": np})
    except HedgerowError as error:
        return Met(type(error), str(error), None)
    return Met(None, "", None)


def _png_as_video(folder: Path) -> None:
    (folder / "photo.mp4").write_bytes((folder / "cat.png").read_bytes())


def _cut(folder: Path) -> None:
    whole = (folder / "clip.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])


def _half(folder: Path) -> None:
    write_png(folder / "half.png", size=(300, 300))
    whole = (folder / "half.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])


def _changed(**sections: object) -> Make:
    """Change sections of the recipe."""

    def make(folder: Path) -> None:
        recipe = json.loads((folder / "recipe.yaml").read_text(encoding="utf-8"))
        (folder / "recipe.yaml").write_text(json.dumps(recipe | sections, indent=1), encoding="utf-8")

    return make


def _wrote(name: str, text: str) -> Make:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8") and None


def _lines(name: str, *lines: Json) -> Make:
    return lambda folder: write_jsonl(folder / name, lines) and None
