"""`hedgerow data view`: trees and packed rows of a file as one page."""

from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path

from hedgerow.build import budget_of, build_encoder, maker_of
from hedgerow.data.index import Examples
from hedgerow.data.lines import Dropped, told
from hedgerow.data.mixture import DataSet
from hedgerow.models.spec import ModelSpec
from hedgerow.packing.plan import plan_epoch
from hedgerow.recipe import Data, Model, Packing, Recipe
from hedgerow.report.page import Section, Table, Text, write_page
from hedgerow.report.trees import row_block, tree_block
from hedgerow.sequence import Budget, Row, Sequence
from hedgerow.vision.processor import Molmo2Processor


@dataclass(frozen=True, slots=True)
class Viewed:
    """What was written; the figures are of all trees and rows, `dropped` of those that were looked at."""

    page: Path
    trees: int
    rows: int
    dropped: tuple[Dropped, ...]

    def __str__(self) -> str:
        bad = "".join(f"\n  {line}" for line in told(self.dropped, whole=str(self.page)))
        lost = f", {len(self.dropped)} dropped" if self.dropped else ""
        return f"{self.page}: {self.trees} trees, {self.rows} packed rows{lost}{bad}"


def view_file(file: Path, recipe: Recipe | None, *, out: Path) -> Viewed:
    """Write a page that shows the trees of a file as a recipe encodes and packs them.

    Args:
        file: trees in the native format.
        recipe: how trees are transformed, encoded and packed, and what becomes of bad ones; None takes the
            sizes of the default model and leaves out what is bad or too large, naming it on the page.
        out: the page.

    Raises:
        DataError: an example is bad and `on_bad` is raise, or none is left.
    """
    recipe = recipe or _small(file)
    budget = budget_of(recipe)
    maker = maker_of(recipe, build_encoder(recipe))
    return view(Examples.read([DataSet(file)], maker), budget, out=out)


def _small(file: Path) -> Recipe:
    spec = ModelSpec()
    return Recipe(
        data=Data(train=(DataSet(file),), on_bad="skip"),
        packing=Packing(oversize="drop"),
        model=Model(spec=spec),
        vision=Molmo2Processor(crop_size=spec.crop_size, patch_size=spec.patch_size),
        steps=1,
        out=Path("runs/view"),
    )


def view(examples: Examples, budget: Budget, *, out: Path, most: int = 24) -> Viewed:
    """Write a page that shows trees as they are encoded, and the rows they are packed into.

    Args:
        examples: indexed trees.
        budget: what a row may hold.
        out: the page.
        most: how many trees and rows to show; the figures are of all.
    """
    costs = examples.costs(0)
    plan = plan_epoch(costs, budget, seed=0, epoch=0)
    rows, bad = _rows(examples, budget, plan.rows[: most // 2])
    shown = []
    for number in range(min(most, len(costs))):
        outcome = examples.attempt(0, number)
        if isinstance(outcome, Sequence):
            shown.append(examples.tree(0, number))
        else:
            bad.append(outcome)
    dropped = (*examples.dropped, *examples.epoch(0).dropped, *dict.fromkeys(bad))
    summary = Text(
        f"Showing {len(shown)} of {len(costs)} trees and {len(rows)} of {len(plan.rows)} rows. {plan!r}"
    )
    sections = [
        Section("Packed rows", [summary, *(row_block(row, number) for number, row in rows.items())]),
        Section("Trees", [tree_block(tree, examples.encoder) for tree in shown]),
    ]
    if dropped:
        sections.append(dropped_section(dropped))
    subtitle = ", ".join(sorted({line.path for line in examples.lines}))
    write_page(out, "Message trees", sections, subtitle=subtitle)
    return Viewed(out, len(costs), len(plan.rows), dropped)


def _rows(
    examples: Examples, budget: Budget, planned: Listing[Listing[int]]
) -> tuple[dict[int, Row], list[Dropped]]:
    """Join the planned rows, by number, and say which examples are missing from them."""
    rows: dict[int, Row] = {}
    bad: list[Dropped] = []
    for number, row in enumerate(planned):
        outcomes = [examples.attempt(0, example) for example in row]
        bad += [outcome for outcome in outcomes if isinstance(outcome, Dropped)]
        found = [outcome for outcome in outcomes if isinstance(outcome, Sequence)]
        if found:
            rows[number] = Row.join(found, budget)
    return rows, bad


def dropped_section(dropped: Listing[Dropped]) -> Section:
    """Name the examples that were left out."""
    return Section("Dropped", [Table(("where", "why"), [(item.where, item.reason) for item in dropped])])
