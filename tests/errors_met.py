"""Makes the mistakes of `errors_cases.py` for real, and keeps what was said."""

import contextlib
import functools
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hedgerow import cli
from hedgerow.errors import HedgerowError
from hedgerow.testing import tiny_recipe, write_jsonl, write_mp4, write_png

Json = dict[str, Any]
Make = Callable[[Path], object]

TRAIN = "hedgerow train recipe.yaml"


@dataclass(frozen=True, eq=False)
class Case:
    """A mistake, and what must be said of it.

    Attributes:
        title: the mistake, in the words of who made it.
        leaf: class of the error.
        call: a command line, or lines of Python in which `h` is hedgerow.
        given, allowed, remedy: pieces of the message.
        why: what it means and what to do, beyond the message.
        row: a line for trees.jsonl, after a good one.
        files: makes other files in the folder of the call.
        place: file and line that the message begins with.
        without: a package that is not installed.
        code: exit code of a command.
    """

    title: str
    leaf: type[HedgerowError]
    call: str
    given: str
    allowed: str
    remedy: str
    why: str
    row: Json | str | None = None
    files: Make | None = None
    place: str = ""
    without: str = ""
    code: int = 2

    @property
    def is_command(self) -> bool:
        """Whether the mistake is made on the command line."""
        return self.call.startswith("hedgerow ")


@dataclass(frozen=True)
class Met:
    """An error as it was met: its class, its message without the folder, and the exit code of a command."""

    leaf: type[BaseException] | None
    message: str
    code: int | None = None


@functools.cache
def met(case: Case) -> Met:
    """Make the mistake of a case, once, in a folder of its own."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name), _hidden(case.without):
        _furnish(Path(name), case)
        found = command(case.call) if case.is_command else _python(case.call)
    return Met(found.leaf, found.message.replace(f"{name}/", ""), found.code)


def command(call: str) -> Met:
    """Run a command line in this process; of what it says to stderr the last line is kept."""
    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", call.split()),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            cli.main()
        except SystemExit as stop:
            met_with = stop.__context__
            *_, last = said.getvalue().splitlines()
            return Met(met_with and type(met_with), last.removeprefix("hedgerow: "), stop.code)
    return Met(None, said.getvalue(), 0)


@contextlib.contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let imports of a package fail; what is imported meanwhile stays, as torch cannot be loaded twice."""
    held = sys.modules.pop(package, None)
    if package:
        sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(package, None)
        if held is not None:
            sys.modules[package] = held


def _python(call: str) -> Met:
    try:
        exec(call, {})
    except HedgerowError as error:
        return Met(type(error), str(error))
    return Met(None, "")


def _furnish(folder: Path, case: Case) -> None:
    """Make a good image, clip, recipe and tree, and what is wrong with them."""
    write_png(folder / "cat.png")
    write_mp4(folder / "clip.mp4")
    tiny_recipe(folder, folder / "trees.jsonl", evaluate=folder / "trees.jsonl")
    lines = [json.dumps({"id": "good", "messages": _GOOD}), *([] if case.row is None else [_line(case.row)])]
    (folder / "trees.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if case.files is not None:
        case.files(folder)


_GOOD = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]


def _line(row: Json | str) -> str:
    return row if isinstance(row, str) else json.dumps(row)


def told(answer: object = "Me.", **more: object) -> Json:
    """A tree of text."""
    return {"id": "bad", "messages": [_GOOD[0], {"role": "assistant", "content": answer}], **more}


def shown(media: Json, answer: object = "A square.") -> Json:
    """A tree about one image or video."""
    tree = told(answer)
    return tree | {
        "messages": [{"role": "user", "content": [media]}],
        "branches": [{"messages": tree["messages"]}],
    }


def spots(*points: Json, kind: str = "points", **more: object) -> list[Json]:
    """Points as an answer."""
    return [{"type": kind, "label": "cat", "points": list(points), **more}]


def changed(**sections: object) -> Make:
    """Change sections of the recipe."""

    def make(folder: Path) -> None:
        path = folder / "recipe.yaml"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | sections), encoding="utf-8")

    return make


def wrote(name: str, text: str) -> Make:
    """Write a text file."""
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def lines(name: str, *rows: Json) -> Make:
    """Write a JSONL file."""
    return lambda folder: write_jsonl(folder / name, rows)


def cut(name: str) -> Make:
    """Cut the second half of a file off."""

    def make(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])

    return make
