"""`hedgerow data view`: trees and packed rows of a file as one page."""

from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path

from hedgerow.data.index import Dropped, Examples
from hedgerow.packing.plan import plan_epoch
from hedgerow.report.page import Section, Table, Text, write_page
from hedgerow.report.trees import row_block, tree_block
from hedgerow.sequence import Budget, Row


@dataclass(frozen=True, slots=True)
class Viewed:
    """What was written."""

    page: Path
    trees: int
    rows: int
    dropped: tuple[Dropped, ...]

    def __str__(self) -> str:
        bad = "".join(f"\ndropped {item.where}: {item.reason}" for item in self.dropped)
        return f"{self.page}: {self.trees} trees, {self.rows} packed rows{bad}"


def view(examples: Examples, budget: Budget, *, out: Path, most: int = 24) -> Viewed:
    """Write a page that shows trees as they are encoded, and the rows they are packed into.

    Args:
        examples: indexed trees.
        budget: what a row may hold.
        out: the page.
        most: how many trees and rows to show; the figures are of all.
    """
    plan = plan_epoch(examples.costs, budget, seed=0, epoch=0)
    rows = [Row.join([examples.encode(number) for number in row], budget) for row in plan.rows[: most // 2]]
    shown = [examples.tree(number) for number in range(min(most, len(examples)))]
    summary = Text(f"Showing {len(shown)} of {len(examples)} trees and {len(rows)} of {len(plan.rows)} rows. {plan!r}")
    sections = [
        Section("Packed rows", [summary, *(row_block(row, number) for number, row in enumerate(rows))]),
        Section("Trees", [tree_block(tree, examples.encoder) for tree in shown]),
    ]
    if examples.dropped:
        sections.append(dropped_section(examples.dropped))
    write_page(out, "Message trees", sections, subtitle=", ".join(sorted({line.path for line in examples.lines})))
    return Viewed(out, len(examples), len(plan.rows), examples.dropped)


def dropped_section(dropped: Listing[Dropped]) -> Section:
    """Name the examples that were left out."""
    return Section("Dropped", [Table(("where", "why"), [(item.where, item.reason) for item in dropped])])
