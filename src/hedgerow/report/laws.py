"""What a check of the laws found, as text, data, picture and page."""

import dataclasses
from pathlib import Path
from typing import Any

from hedgerow.report.isolation import Isolation, finite
from hedgerow.report.mask import mask_picture
from hedgerow.sequence import Row


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One law on this model and data: the greatest error that was found, and the greatest that is allowed.

    `problem` says why the law could not be run at all; the error is infinite then.
    """

    law: int
    what: str
    error: float
    allowed: float
    cases: int
    problem: str = ""

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
        return start + (self.problem or f"{self.error:.1e} (at most {self.allowed:g}; {self.cases} cases)")


@dataclasses.dataclass(frozen=True, slots=True)
class Verification:
    """All findings; the isolation matrix, if it could be measured, and the row that they are about."""

    findings: tuple[Finding, ...]
    isolation: Isolation | None = None
    row: Row | None = None

    @property
    def passed(self) -> bool:
        """Whether no law with a case was broken."""
        return all(finding.passed for finding in self.findings if finding.cases)

    def to_dict(self) -> dict[str, Any]:
        """Return findings and matrix as plain data."""
        findings = [
            {**dataclasses.asdict(finding), "error": finite(finding.error), "passed": finding.passed}
            for finding in self.findings
        ]
        isolation = None if self.isolation is None else self.isolation.to_dict()
        return {"passed": self.passed, "findings": findings, "isolation": isolation}

    def write(self, path: Path) -> None:
        """Write the picture of the row's mask (`.png`), or a page with everything.

        Raises:
            ValueError: there is no row.
        """
        if self.row is None:
            raise ValueError("a verification without its row has no mask to draw; give row=")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            mask_picture(self.row).save(path)
        else:
            _write_page(path, self, self.row)

    def __str__(self) -> str:
        lines = [str(finding) for finding in self.findings]
        return "\n".join(lines if self.isolation is None else [*lines, str(self.isolation)])


def _write_page(path: Path, found: Verification, row: Row) -> None:
    # Here, because pages need more packages than laws.
    from hedgerow.report.page import Picture, Pictures, Section, Table, Text, data_uri, write_page

    pictures = [Picture(data_uri(mask_picture(row)), "Who sees whom: queries downwards, keys to the right")]
    if found.isolation is not None:
        matrix = data_uri(found.isolation.picture())
        pictures.append(Picture(matrix, "Whose tokens (right) move whose loss (down); a leak is red"))
    table = Table(
        ("law", "what", "state", "error", "allowed", "cases"),
        [(f.law, f.what, f.state, f.error, f.allowed, f.cases) for f in found.findings],
    )
    problems: list[Text | Table] = [Text(f"Law {f.law}: {f.problem}") for f in found.findings if f.problem]
    leaks = [] if found.isolation is None else found.isolation.leaks
    if leaks:
        problems.append(Table(("loss of", "is moved by", "greatest gradient"), leaks))
    sections = [Section("Laws", [table, *problems]), Section("Row", [Text(repr(row)), Pictures(pictures)])]
    write_page(path, "Verification", sections)
