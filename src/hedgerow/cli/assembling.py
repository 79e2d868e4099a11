"""The verb that makes a Molmo2 of a vision model and a language model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hedgerow.cli.given import AsJson
from hedgerow.errors import RecipeError

if TYPE_CHECKING:
    from hedgerow.models.assemble import Assembly


def assemble(
    *,
    vision: Path,
    language: Path,
    to: Path | None = None,
    tokenizer: Path | None = None,
    crop_size: int = 378,
    feature_layers: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="")] = (-3, -9),
    margins: tuple[int, int] = (4, 4),
    query: Literal["mean", "learned"] = "mean",
    dtype: Literal["bf16", "fp32"] = "fp32",
    seed: int = 0,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a Molmo2 together from a SigLIP vision model and a Qwen3 or OLMo 3 language model.

    Parameters
    ----------
    vision
        Folder of a SigLIP or SigLIP 2 model.
    language
        Folder of a Qwen3 or OLMo 3 model with its tokenizer.
    to
        Folder to write; an earlier model there is replaced.
    tokenizer
        Another place of the language model's tokenizer.
    crop_size
        Side of a crop in pixels.
    feature_layers
        Vision layers whose features are joined; negative ones count from the last.
    margins
        Patches of a crop (left and top, right and bottom) that its neighbours also see.
    query
        What a pooling window is asked with: the mean of its patches, or a learned vector.
    dtype
        Of the weights that are written; training reads them as fp32.
    seed
        Of the connector and the extra rows.
    dry_run
        Print where every tensor comes from, and write nothing.
    """
    if to is None and not dry_run:
        raise RecipeError("--to is missing; name the folder to write, or add --dry-run")
    import torch

    from hedgerow.models.assemble import Parts, save
    from hedgerow.models.assemble import assemble as plan_of

    parts = Parts(vision, language, tokenizer, crop_size, feature_layers, margins, query=query)
    plan = plan_of(parts)
    written = None if dry_run else to
    if written is not None:
        made = plan.make(seed=seed, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
        save(made, written, tokenizer=plan.chat, settings=plan.settings)
    print(_told(plan, written, as_json=as_json))


def _told(plan: "Assembly", written: Path | None, *, as_json: bool) -> str:
    if as_json:
        found = {
            "tensors": {name: list(shape) for name, shape in plan.shapes.items()},
            "initialised": list(plan.fresh),
            "notes": plan.notes,
            "settings": plan.settings,
            "model": None if written is None else str(written),
        }
        return json.dumps(found)
    if written is None:
        return plan.table()
    notes = "".join(f"\nnote: {note}" for note in plan.notes)
    return f"{written}: {len(plan.shapes)} tensors, {len(plan.fresh)} of them initialised{notes}"
