"""Sections of a page as text: tables with `rich` on a terminal, aligned lines elsewhere."""

import sys
from collections.abc import Sequence as Listing

from hedgerow.data.measure import Progress
from hedgerow.report.page import Section, Table, Text, show

try:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text as RichText
except ImportError:  # comes with the extra `cli`; without it a terminal gets plain lines
    Console = None  # type: ignore[assignment,misc]


def print_sections(sections: Listing[Section]) -> None:
    """Print texts and tables; what only a page can show, such as charts, is left out."""
    if Console is None or not sys.stdout.isatty():
        print("\n".join(lines(sections)))
        return
    console = Console()
    for section in sections:
        console.print(RichText(f"\n{section.title}", style="bold green"))
        for block in section.blocks:
            if isinstance(block, Table):
                console.print(_rich(block))
            elif isinstance(block, Text):
                console.print(RichText(block.text))


def measuring() -> Progress | None:
    """Return what counts measured trees on a terminal, on a line of its own; None where there is none."""
    if not sys.stderr.isatty():
        return None

    def tell(done: int, total: int) -> None:
        end = "\n" if done == total else ""
        print(f"\rmeasured {done:,} of {total:,} trees", end=end, file=sys.stderr, flush=True)

    return tell


def lines(sections: Listing[Section]) -> list[str]:
    """Return texts and tables as plain lines, columns aligned."""
    found: list[str] = []
    for section in sections:
        found += ["", section.title.upper()]
        for block in section.blocks:
            if isinstance(block, Table):
                found += _aligned(block)
            elif isinstance(block, Text):
                found.append(block.text)
    return found[1:]


def _aligned(table: Table) -> list[str]:
    cells = [list(table.head), *([show(cell) for cell in row] for row in table.rows)]
    right = _numeric(table)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    caption = [f"({table.caption})"] if table.caption else []
    return caption + [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]


def _rich(table: Table) -> "RichTable":
    found = RichTable(title=table.caption or None, title_justify="left", title_style="dim")
    for name, number in zip(table.head, _numeric(table), strict=True):
        found.add_column(name, justify="right" if number else "left")
    for row in table.rows:
        found.add_row(*(RichText(show(cell)) for cell in row))
    return found


def _numeric(table: Table) -> list[bool]:
    """Which columns hold nothing but numbers and gaps."""
    return [
        all(cell is None or isinstance(cell, int | float) for cell in column)
        for column in zip(*table.rows, strict=True)
    ] or [False] * len(table.head)
