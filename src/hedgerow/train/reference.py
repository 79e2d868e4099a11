"""Reference values of a whole data set: what a model says of every target before it is trained on them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from hedgerow.build import build_encoder, build_model, device, training_examples
from hedgerow.data.index import Examples
from hedgerow.data.lines import Line
from hedgerow.data.measure import Progress
from hedgerow.data.mixture import DataSet
from hedgerow.data.references import References
from hedgerow.errors import DataError, RecipeError
from hedgerow.models.rows import RowModel
from hedgerow.packing.loader import RowLoader
from hedgerow.recipe import Loss, Recipe
from hedgerow.sequence import Array, Row
from hedgerow.train.loss import trees_of
from hedgerow.train.objective import reference_logps
from hedgerow.train.run import explained, row_loader


def write_references(recipe: Recipe, path: Path, *, progress: Progress | None = None) -> References:
    """Store log p of every target of a recipe's training data under the model the recipe starts from.

    Each tree is looked at once, as it stands: rates, repeats and transforms of the recipe have no part in it.

    Args:
        recipe: names the data, the model and the settings of rows.
        path: the file to write, for `data.references`.
        progress: called with how many trees are done, and how many there are.

    Raises:
        DataError: the data are bad, or two trees have one id; the message names the lines of both.
        RecipeError: the recipe has transforms, so that its targets change from epoch to epoch.
    """
    if recipe.data.transforms:
        raise RecipeError("data.transforms change the targets from epoch to epoch; leave them out")
    sets = tuple(DataSet(file) for file in dict.fromkeys(one.path for one in recipe.data.train))
    plain: dict[str, object] = {"train": sets, "groups": {}, "epoch": None, "references": None}
    loss = Loss(chunk=recipe.loss.chunk)  # one that needs no reference values itself
    once = recipe.model_copy(update={"data": recipe.data.model_copy(update=plain), "loss": loss})
    examples = training_examples(once, build_encoder(once))
    _check_ids(examples)
    model = build_model(once).eval()
    rows = row_loader(once, examples)
    with explained(rows):
        named = recipe.origin if recipe.model.spec is None else f"{recipe.origin} of seed {recipe.seed}"
        found = References.of(_values(once, model, rows, len(examples), progress), model=named)
    found.save(path)
    return found


def _check_ids(examples: Examples) -> None:
    seen: dict[str, Line] = {}
    for line in examples.lines:
        first = seen.setdefault(line.read().id, line)
        if first is not line:
            raise DataError(
                f"{line}: this tree has the id of that at {first}, and reference values are found by it; "
                "rename one"
            )


def _values(
    recipe: Recipe, model: RowModel, rows: RowLoader, total: int, progress: Progress | None
) -> Iterator[tuple[str, Array, Array]]:
    done = 0
    for loaded in rows:
        if loaded.epoch:
            return
        if loaded.row is not None:
            row = loaded.row.to(device())
            with torch.autocast(device().type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                logps = reference_logps(model, row, chunk=recipe.loss.chunk)
            yield from _by_example(row, logps.float().cpu().numpy())
            done += len(row.examples)
        done += len(loaded.dropped)
        if progress is not None:
            progress(done, total)


def _by_example(row: Row, logps: Array) -> Iterator[tuple[str, Array, Array]]:
    counts = np.bincount(trees_of(row).cpu().numpy(), minlength=len(row.examples))
    cuts = np.cumsum(counts)[:-1]
    ends = np.cumsum(row.lengths)
    tokens = np.split(row.tokens.cpu().numpy()[: ends[-1]], ends[:-1])
    yield from zip(row.examples, tokens, np.split(logps, cuts), strict=True)
