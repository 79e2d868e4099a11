"""Writes docs/errors.md: makes each mistake of tests/errors_cases.py and tells what was said."""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from errors_cases import CASES
from errors_met import Case, met
from hedgerow import errors

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"

HEAD = """\
# Errors: what they mean and what to do

A message is one line: where, what was given, what is allowed, what to do. What comes from a file begins with
file and line. This page is made by `python scripts/errors_page.py`, which makes each mistake and writes down
what was said.

| exit code | when |
|---|---|
| 0 | all went well |
| 1 | a check ran and found something: `CheckError` |
| 2 | something given is wrong: every other error, an unknown command, a path that cannot be used |
| 130 | it was interrupted |

On the command line an error is one line on stderr that begins with `hedgerow:`, without a traceback. In
Python it is an exception, and `hedgerow.HedgerowError` catches them all. Values made in Python, such as
`Point(x="left", y=0.2)`, are checked by pydantic: what is wrong with them is a `ValidationError`, a kind of
`ValueError`, that names the field.

By default the first bad example stops a run. With `data.on_bad: skip` bad examples are left out, counted and
named. `hedgerow data check` names all of them at once ([check.md](check.md)).

In what follows the folder holds `trees.jsonl` with a good first line and a bad second one, `recipe.yaml`,
`cat.png` of 60 x 40 pixels and `clip.mp4`, whose last frame is at 1.5 s.
"""


def page() -> str:
    """Make every mistake and return the text of the page."""
    lines = [HEAD, *_contents(), *(line for leaf in _leaves() for line in _section(leaf))]
    return "\n".join(lines).rstrip("\n") + "\n"


def _leaves() -> list[type[errors.HedgerowError]]:
    """The classes that have cases, as errors.py lists them."""
    found = {case.leaf for cases in CASES.values() for case in cases}
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and kind in found]


def _contents() -> Iterator[str]:
    yield from ("| class | meaning | mistakes |", "|---|---|---|")
    for leaf in _leaves():
        count = sum(case.leaf is leaf for cases in CASES.values() for case in cases)
        yield f"| [`{leaf.__name__}`](#{leaf.__name__.lower()}) | {_meaning(leaf)} | {count} |"
    yield ""


def _meaning(leaf: type[errors.HedgerowError]) -> str:
    if leaf is errors.HedgerowError:  # the root; what is none of the others
        return "Anything else, such as a package that is not installed."
    return (leaf.__doc__ or "").strip()


def _section(leaf: type[errors.HedgerowError]) -> Iterator[str]:
    yield from (f"## {leaf.__name__}", "", _meaning(leaf), "")
    for when, cases in CASES.items():
        own = [case for case in cases if case.leaf is leaf]
        if own:
            yield from (f"### {when}", "")
        for case in own:
            yield from _told(case)


def _told(case: Case) -> Iterator[str]:
    yield from (f"**{case.title}**", "", "```text")
    yield from _calls(case)
    yield from (met(case).message, "```", "", case.why, "")


def _calls(case: Case) -> Iterator[str]:
    for line in case.call.splitlines():
        yield f"$ {line}" if case.is_command else f">>> {line}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
