"""`hedgerow data view`: trees and packed rows of a file as one page."""

from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path

from hedgerow.build import budget_of, build_encoder, maker_of
from hedgerow.data.index import Examples
from hedgerow.data.lines import Dropped, told
from hedgerow.data.mixture import DataSet
from hedgerow.errors import RecipeError
from hedgerow.models.spec import ModelSpec
from hedgerow.packing.plan import plan_epoch
from hedgerow.recipe import Data, Model, Packing, Recipe
from hedgerow.report.page import Section, Table, Text, write_page
from hedgerow.report.trees import Shades, row_block, tree_block
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


MOST = 24  # trees of a page, unless told otherwise
_ROWS = 12  # of a page, at most


def view_file(file: Path, recipe: Recipe | None, *, out: Path, most: int = MOST) -> Viewed:
    """Write a page that shows the trees of a file as a recipe encodes and packs them.

    Args:
        file: trees in the native format.
        recipe: how trees are transformed, encoded and packed, and what becomes of bad ones; None takes the
            sizes of the default model and leaves out what is bad or too large, naming it on the page.
        out: the page.
        most: how many trees to show, the first ones.

    Raises:
        DataError: an example is bad and `on_bad` is raise, or none is left.
        RecipeError: `most` is below 1.
    """
    if most < 1:
        raise RecipeError(f"trees is {most}; give at least 1")
    recipe = recipe or _small(file)
    budget = budget_of(recipe)
    maker = maker_of(recipe, build_encoder(recipe))
    examples = Examples.read([DataSet(file)], maker)
    return view(examples, budget, out=out, most=most, note=weights_note(recipe))


def weights_note(recipe: Recipe) -> str:
    """Say which weights a page shows, and what the recipe does to them that it cannot show."""
    loss = recipe.loss
    if loss.preference is not None:
        return (
            f"The recipe compares ranked answers (loss.preference: {loss.preference.name}). There weights by "
            "task and length have no part; of the weights shown, only what messages, parts and weighers "
            "change about the base weight counts."
        )
    later = {
        "weights.schedule, which changes them with the step": bool(recipe.weights.schedule),
        "loss.dynamic, which changes them with what the model predicts": loss.dynamic is not None,
    }
    named = " and ".join(name for name, used in later.items() if used)
    return f"Weights are those before any step: without {named}." if named else ""


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


def view(examples: Examples, budget: Budget, *, out: Path, most: int = MOST, note: str = "") -> Viewed:
    """Write a page that shows trees as they are encoded, and the rows they are packed into.

    Args:
        examples: indexed trees.
        budget: what a row may hold.
        out: the page.
        most: how many trees to show; half as many rows are shown, 12 at most. The figures are of all.
        note: what to say of the weights.
    """
    costs = examples.costs(0)
    plan = plan_epoch(costs, budget, seed=0, epoch=0)
    rows, bad = _rows(examples, budget, plan.rows[: min(-(-most // 2), _ROWS)])
    shown, bounds = [], []
    for number in range(min(most, len(costs))):
        outcome = examples.attempt(0, number)
        if isinstance(outcome, Sequence):
            shown.append(examples.tree(0, number))
            bounds.append(outcome.weight)
        else:
            bad.append(outcome)
    shades = Shades.of(bounds)
    dropped = (*examples.dropped, *examples.epoch(0).dropped, *dict.fromkeys(bad))
    more = "; `data view --trees` takes another number" if most < len(costs) else ""
    summary = Text(
        f"Showing {len(shown)} of {len(costs)} trees and {len(rows)} of {len(plan.rows)} rows{more}. {plan!r}"
    )
    notes = [Text(note)] if note else []
    sections = [
        Section("Packed rows", [summary, *(row_block(row, number) for number, row in rows.items())]),
        Section("Trees", [*notes, *(tree_block(tree, examples.encoder, shades) for tree in shown)]),
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
