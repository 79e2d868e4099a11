"""What a run leaves: `OUT/model`, as plain `transformers` reads it, and `OUT/adapter`, as `peft` does."""

from pathlib import Path

import torch

from hedgerow.build import MODEL, build_chat, origin_of
from hedgerow.models.folder import remove
from hedgerow.models.pretrained import save
from hedgerow.models.rows import RowModel
from hedgerow.recipe import Recipe

ADAPTER = "adapter"  # where a finished run keeps its adapters


def save_run(model: RowModel, recipe: Recipe) -> None:
    """Write what a recipe has trained to the run's folder, each part whole or not at all; merge adapters."""
    if recipe.lora is None:
        remove(recipe.out / ADAPTER)  # of an earlier run here, which is replaced
    else:
        save_adapters(model, recipe, recipe.out / ADAPTER)
    save_model(model, recipe, recipe.out / MODEL)


def save_model(model: RowModel, recipe: Recipe, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Merge the adapters of a model, if it has any, and write it; the model is changed in place.

    Args:
        model: in fp32, so that adapters are added exactly before weights are rounded.
        recipe: that trained it.
        folder: new, empty, or an earlier model.
        dtype: of the weights that are written.

    Raises:
        RecipeError: the folder holds something that is no model.
    """
    if recipe.lora is not None:
        from hedgerow.models.lora import merge

        merge(model)
    config = model.hf.config
    for one in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if one is not None:
            one.dtype = dtype  # a reader may go by any of them
    save(
        model.to(dtype),
        folder,
        tokenizer=build_chat(recipe),
        settings=recipe.to_dict()["vision"],
        origin=origin_of(recipe),
    )


def save_adapters(model: RowModel, recipe: Recipe, folder: Path) -> None:
    """Write the adapters of a model that are not merged yet.

    Raises:
        RecipeError: the folder holds something else.
    """
    from hedgerow.models.lora import save_adapter

    save_adapter(model, folder, base=origin_of(recipe))
