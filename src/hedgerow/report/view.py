"""`hedgerow data view`: trees and packed rows of a file as one page."""

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from pathlib import Path

import numpy as np

from hedgerow.build import budget_of, build_encoder, maker_of
from hedgerow.data.index import Examples
from hedgerow.data.lines import Dropped, located, told
from hedgerow.data.measure import Maker, Progress
from hedgerow.data.mixture import DataSet
from hedgerow.data.seen import losses
from hedgerow.data.shares import counted
from hedgerow.encode import Encoder
from hedgerow.errors import RecipeError
from hedgerow.packing.plan import Plan, plan_epoch
from hedgerow.recipe import Recipe, data_recipe
from hedgerow.report.blind import blind
from hedgerow.report.page import Chart, Missing, Problem, Section, Table, Text, Tree, Trees, write_page
from hedgerow.report.shades import Shades
from hedgerow.report.trees import ROOM, row_block, tree_block
from hedgerow.sequence import Array, Budget, Costs, Row, Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Viewed:
    """What was written: a page about all trees but those `dropped`, in rows that were planned before.

    A tree that turns out bad when it is decoded is dropped if it was to be shown; the others are not decoded.
    """

    page: Path
    trees: int
    rows: int
    dropped: tuple[Dropped, ...]

    def __str__(self) -> str:
        bad = "".join(f"\n  {line}" for line in told(self.dropped, whole=str(self.page)))
        lost = f", {len(self.dropped)} dropped" if self.dropped else ""
        held = f"{counted(self.trees, 'tree')}, {counted(self.rows, 'packed row')}"
        return f"{self.page}: {held}{lost}{bad}"


MOST = 24  # trees of a page, unless told otherwise
PICTURED = 200  # trees with pictures, at most
_ROWS = 12  # of a page, at most
_PICTURES = 2_200_000  # characters that all pictures of a page take


def view_file(
    file: Path, recipe: Recipe | None, *, out: Path, most: int = MOST, progress: Progress | None = None
) -> Viewed:
    """Write a page that shows the trees of a file as a recipe encodes and packs them.

    Args:
        file: trees in the native format.
        recipe: how trees are transformed, encoded and packed, and what becomes of bad ones; None takes the
            vision settings of Molmo2 and leaves out what is bad or too large, naming it on the page.
        out: the page.
        most: how many trees to show, the first ones; pictures are made of `PICTURED` of them at most.
        progress: called with how many trees are measured, and how many there are.

    Raises:
        DataError: an example is bad and `on_bad` is raise, or none is left.
        RecipeError: `most` is below 1.
    """
    if most < 1:
        raise RecipeError(f"trees is {most}; give at least 1")
    recipe = recipe or data_recipe([file], oversize="drop")
    maker = maker_of(recipe, build_encoder(recipe))
    examples = Examples.read([DataSet(file)], maker, progress=progress)
    return view(examples, maker, budget_of(recipe), out=out, most=most, note=weights_note(recipe))


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


def view(
    examples: Examples, maker: Maker, budget: Budget, *, out: Path, most: int = MOST, note: str = ""
) -> Viewed:
    """Write a page that shows trees as they are encoded, and the rows they are packed into.

    Args:
        examples: indexed trees.
        maker: what they were indexed with.
        budget: what a row may hold.
        out: the page.
        most: how many trees to show; half as many rows are shown, 12 at most: those that
            hold most of these trees. The figures are of all.
        note: what to say of the weights.
    """
    costs = examples.costs(0)
    plan = plan_epoch(costs, budget, seed=0, epoch=0)
    shown, bad, weights = _trees(examples, maker, min(most, len(costs)))
    dropped = (*examples.dropped, *examples.epoch(0).dropped, *bad.values())
    links = {number: f"t{place}" for place, number in enumerate(shown)}
    planned = _fullest(plan, links, min(-(-most // 2), _ROWS))
    rows = [
        row_block(row, number, names) for number, row, names in _rows(examples, budget, planned, bad, links)
    ]
    trees = Trees(
        list(shown.values()),
        [Missing(item.where, item.reason) for item in dropped],
        Shades.of(weights),
    )
    trees_left = len(costs) - len(bad)
    said = _said(len(shown), trees_left, len(rows), plan, len(dropped))
    sections = [
        Section("Packed rows", [Text(said), *_fills(plan, costs), *rows]),
        Section("Trees", [*([Text(note)] if note else []), trees]),
    ]
    write_page(out, "Message trees", sections, subtitle=", ".join(sorted(examples.lines.paths)))
    return Viewed(out, trees_left, len(plan.rows), dropped)


def _said(shown: int, trees: int, rows: int, plan: Plan, dropped: int) -> str:
    more = "; `data view --trees` takes another number" if shown < trees else ""
    pictures = f" Pictures are of the first {PICTURED} trees." if shown > PICTURED else ""
    left = f" {counted(dropped, 'example')} dropped, named behind the trees." if dropped else ""
    packed = counted(len(plan.rows), "row")
    seen = f"Showing {shown} of {counted(trees, 'tree')} and {rows} of {packed}{more}."
    least = f"any packing needs {plan.bound:,} at least" if plan.gap else "as few as any packing needs"
    return f"{seen}{pictures}{left} All trees take {packed}: {least}."


def _trees(
    examples: Examples, maker: Maker, most: int
) -> tuple[dict[int, Tree], dict[int, Dropped], list[Array]]:
    """Show the first examples, by number; say which of them turn out bad, and which weights there are."""
    without = blind(examples.encoder)
    room = min(_PICTURES // min(most, PICTURED), ROOM)
    shown: dict[int, Tree] = {}
    bad: dict[int, Dropped] = {}
    weights = []
    for number in range(most):
        pictured = number < PICTURED
        outcome = examples.attempt(0, number) if pictured else _unseen(examples, without, number)
        if isinstance(outcome, Dropped):
            bad[number] = outcome
            continue
        tree = examples.tree(0, number)
        found = tree_block(tree, without, sequence=outcome, room=room if pictured else 0)
        shown[number] = _with_problems(found, examples, maker, number)
        weights.append(np.unique(outcome.weight))
    return shown, bad, weights


def _unseen(examples: Examples, without: Encoder, number: int) -> Sequence:
    """Encode an example but for its pixels."""
    with located(examples.where(0, number)):
        return without(examples.tree(0, number))


def _with_problems(tree: Tree, examples: Examples, maker: Maker, number: int) -> Tree:
    """Add where a tree stands, and what of it is not taught."""
    epoch = examples.epoch(0)
    known, facts = epoch.surveys, f"{tree.facts}, {examples.where(0, number)}"
    points, lost, left, cut = (
        int(column[number]) for column in (known.points, known.lost, known.left, known.cut)
    )
    found = []
    if lost:
        found.append(Problem("points lost", f"{lost:,} of {counted(points, 'point')} lost"))
    if left:
        found.append(Problem("branches left out", f"{counted(left, 'branch')} left out"))
    if cut:
        found.append(Problem("shortened", f"shortened by {counted(cut, 'branch')}"))
    notes = []
    if lost:
        line = examples.lines[int(epoch.drawn.examples[number])]
        written = maker.tree(line, int(epoch.drawn.turns[number]))
        for loss in losses(written, examples.encoder):
            where = f"branch {loss.address} of the file" if loss.address else "root"
            if loss.lost:
                notes.append(f"{where}{', left out' if loss.left_out else ''}: {loss.reason}")
    return dataclasses.replace(tree, facts=facts, problems=found, notes=notes)


def _fullest(plan: Plan, links: dict[int, str], most: int) -> dict[int, list[int]]:
    """Choose the rows that hold most of the trees that are shown, by number."""
    held = [sum(example in links for example in row) for row in plan.rows]
    chosen = sorted(range(len(held)), key=lambda number: -held[number])[:most]
    return {number: plan.rows[number] for number in sorted(chosen)}


def _rows(
    examples: Examples,
    budget: Budget,
    planned: dict[int, list[int]],
    bad: dict[int, Dropped],
    links: dict[int, str],
) -> Iterator[tuple[int, Row, list[str]]]:
    """Join planned rows without those that turned out bad; give number, row, and where its trees stand."""
    without = blind(examples.encoder)
    for number, examples_of in planned.items():
        kept = [example for example in examples_of if example not in bad]
        found = [_unseen(examples, without, example) for example in kept]
        if found:
            yield number, Row.join(found, budget), [links.get(example, "") for example in kept]


def _fills(plan: Plan, costs: Costs) -> Iterator[Table | Chart]:
    """What all rows hold together, and each of them."""
    names = list(plan.budget)
    used = {name: plan.cost.get(name, 0) for name in names}
    space = {name: plan.budget[name] * len(plan.rows) for name in names}
    yield Table(
        ("budget", "a row", "all rows", "used", "share", "waste"),
        [
            (
                name,
                plan.budget[name],
                space[name],
                used[name],
                used[name] / space[name] if space[name] else None,
                space[name] - used[name],
            )
            for name in names
        ],
        caption="What rows hold, all of them",
    )
    if len(plan.rows) > 2:
        held = costs.amounts(*names)
        sums = np.array([held[row].sum(axis=0) for row in plan.rows])
        yield Chart(
            "Share of each budget that rows use",
            {
                name: list(enumerate((sums[:, place] / plan.budget[name]).tolist()))
                for place, name in enumerate(names)
                if plan.budget[name]
            },
            "row",
            "share",
        )


def dropped_section(dropped: Listing[Dropped]) -> Section:
    """Name the examples that were left out."""
    return Section("Dropped", [Table(("where", "why"), [(item.where, item.reason) for item in dropped])])
