"""What a check of the laws found, as text, data, picture and page."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.errors import RecipeError
from hedgerow.report.isolation import Isolation, finite
from hedgerow.report.mask import mask_figure
from hedgerow.sequence import Row

_MOST_NAMES = 40  # nodes that a page names beside the picture


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One law on this model and data: the greatest error that was found, and the greatest that is allowed.

    `problem` says why the law could not be run at all; the error is infinite then. `unit` is what the cases
    are, `means` what the law says in plain words, `look` where to search when it is broken.
    """

    law: int
    what: str
    error: float
    allowed: float
    cases: int
    problem: str = ""
    unit: str = "cases"
    means: str = ""
    look: str = ""

    @property
    def passed(self) -> bool:
        """Whether the law held."""
        return self.cases > 0 and self.error <= self.allowed

    @property
    def state(self) -> str:
        """One word."""
        return "holds" if self.passed else "BROKEN" if self.cases else "----"

    def __str__(self) -> str:
        start = f"law {self.law:>2}  {self.state}  {self.what}: "
        if not self.cases:
            return f"{start}nothing to check in these trees"
        error = (
            self.problem or f"error {self.error:.2g} (at most {self.allowed:g}) in {self.cases} {self.unit}"
        )
        return "\n".join([start + error, *(" " * 15 + line for line in self.explained)])

    @property
    def explained(self) -> list[str]:
        """What the law means, and where to look if it is broken."""
        lines = [self.means] if self.means else []
        return [*lines, f"look at {self.look}"] if self.look and self.state == "BROKEN" else lines


@dataclasses.dataclass(frozen=True, slots=True)
class Verification:
    """All findings; the isolation matrix, if it could be measured, and the row that they are about.

    `subject` names the model and the data.
    """

    findings: tuple[Finding, ...]
    isolation: Isolation | None = None
    row: Row | None = None
    subject: str = ""

    @property
    def passed(self) -> bool:
        """Whether no law with a case was broken."""
        return not self._broken

    @property
    def verdict(self) -> str:
        """Whether it passed, and what was broken if not."""
        if self.passed:
            return f"passed: {sum(finding.passed for finding in self.findings)} checks, none broken"
        laws = ", ".join(str(law) for law in sorted({finding.law for finding in self._broken}))
        return f"FAILED: {len(self._broken)} of {len(self.findings)} checks, of law {laws}"

    @property
    def _broken(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.state == "BROKEN"]

    def to_dict(self) -> dict[str, Any]:
        """Return findings and matrix as plain data."""
        findings = [
            {**dataclasses.asdict(finding), "error": finite(finding.error), "passed": finding.passed}
            for finding in self.findings
        ]
        isolation = None if self.isolation is None else self.isolation.to_dict()
        return {
            "passed": self.passed, "subject": self.subject, "findings": findings, "isolation": isolation,
        }  # fmt: skip

    def write(self, path: Path) -> None:
        """Write the picture of the row's mask (`.png`), or a page with everything.

        Raises:
            RecipeError: the name is that of neither.
            ValueError: there is no row.
        """
        check_name(path)
        if self.row is None:
            raise ValueError("a verification without its row has no mask to draw; give row=")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".png":
            mask_figure(self.row).drawn().save(path)
        else:
            _write_page(path, self, self.row)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.findings), self.summary])

    @property
    def summary(self) -> str:
        """What is to be said after the findings: the matrix and the verdict."""
        return self.verdict if self.isolation is None else f"{self.isolation}\n{self.verdict}"


def check_name(path: Path) -> None:
    """Make sure that a name is one that a verification can be written to.

    Raises:
        RecipeError: it ends on neither `.html` nor `.png`.
    """
    if path.suffix.lower() not in (".html", ".png"):
        raise RecipeError(f"--out {path}: name a page (.html) or a picture of the mask (.png)")


def _write_page(path: Path, found: Verification, row: Row) -> None:
    # Here, because pages need more packages than laws.
    from hedgerow.report.page import Section, Text, write_page

    pictures: list[Any] = [mask_figure(row)]
    if found.isolation is not None:
        pictures += [found.isolation.figure(), *_names(found.isolation)]
    sections = [
        Section("Laws", [_table(found), *_leaks(found)]),
        Section("What they mean", _explained(found)),
        Section("Row", [Text(repr(row).splitlines()[0]), _trees(row), *pictures]),
    ]
    write_page(path, f"Verification {found.verdict}", sections, subtitle=found.subject)


def _table(found: Verification) -> Any:
    from hedgerow.report.page import Table

    return Table(
        ("law", "state", "what", "error", "allowed", "checked on"),
        [
            (f.law, f.state, f.what, f.error, f.allowed, f"{f.cases} {f.unit}" if f.cases else None)
            for f in found.findings
        ],
    )


def _leaks(found: Verification) -> list[Any]:
    from hedgerow.report.page import Table

    leaks = [] if found.isolation is None else found.isolation.leaks
    return [Table(("loss of", "is moved by", "greatest gradient"), leaks)] if leaks else []


def _explained(found: Verification) -> list[Any]:
    from hedgerow.report.page import Text

    return [
        Text(f"Law {f.law}, {f.state}: " + "; ".join([f"{f.problem}."] * bool(f.problem) + f.explained))
        for f in found.findings
    ]


def _trees(row: Row) -> Any:
    from hedgerow.report.page import Table

    lines, stop = [], 0
    for name, length in zip(row.examples, row.lengths, strict=True):
        start, stop = stop, stop + length
        own = np.unique(row.sample[(row.source >= start) & (row.source < stop)]).tolist()
        answers = ", ".join(f"{row.samples[number].task} x{row.samples[number].n}" for number in own)
        lines.append((name, length, answers or None))
    return Table(("tree", "tokens", "answers and their tokens"), lines)


def _names(found: Isolation) -> list[Any]:
    from hedgerow.report.page import Text

    if len(found.names) > _MOST_NAMES:
        return []
    losses = ", ".join(found.names[node] for node in found.losses)
    return [Text(f"Nodes, from left to right: {', '.join(found.names)}. Losses, downwards: {losses}.")]
