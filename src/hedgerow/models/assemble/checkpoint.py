"""Writing a Molmo2 to a folder in the public layout, whole or not at all, and reading such folders.

FOLDER/config.json                    fields as in the published checkpoints
       model.safetensors              or several of them and an index
       generation_config.json
       tokenizer.json, tokenizer_config.json, chat_template.jinja
       processor_config.json, preprocessor_config.json, video_preprocessor_config.json
       hedgerow.json                  how media are encoded for this model
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from transformers import Molmo2Config

from hedgerow.errors import DataError, RecipeError
from hedgerow.models.assemble.public import public_config, public_map, public_shapes
from hedgerow.models.assemble.serving import write_processors, write_tokenizer
from hedgerow.models.assemble.tokens import visual_ids
from hedgerow.models.chat import write_settings
from hedgerow.models.connector import LEARNED, MODEL_TYPE, model_class
from hedgerow.models.folder import placed, replaced
from hedgerow.models.molmo2 import Molmo2
from hedgerow.models.reading import read_model
from hedgerow.vision.processor import Molmo2Processor

SHARD = 10**9  # bytes of a file of tensors, about; what is written lies in memory a second time


def save(model: Molmo2, folder: str | Path, *, tokenizer: Any, settings: Mapping[str, Any]) -> None:
    """Write a folder that `Molmo2ForConditionalGeneration` and `AutoTokenizer` of `transformers` read.

    A save that is interrupted, or killed, leaves the earlier model or the whole new one. Beyond the model,
    one file of tensors lies in memory. With a learned query `transformers` refuses the folder, for it
    would pool with the mean.

    Args:
        model: its tensors are written in the dtype they have.
        folder: new, empty, or an earlier model, which is replaced.
        tokenizer: as for `build`, or a `ChatFormat`, whose template and `bos` are written too.
        settings: fields of `Molmo2Processor`, how to encode for this model; those left out have their
            defaults, crops and patches are the model's. Written as given to `hedgerow.json`, beside the
            chat format.

    Raises:
        RecipeError: the folder holds something that is no model, or settings do not fit the model.
        DataError: the model has tensors that the layout has no place for.
    """
    processor = _processor(model.hf.config, settings)
    with replaced(Path(folder)) as fresh:
        _write(model.hf, fresh, tokenizer, processor)
        write_settings(fresh, tokenizer, settings)


def load(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    vision_attention: Literal["sdpa", "eager"] = "sdpa",
    gradient_checkpointing: bool = False,
) -> Molmo2:
    """Read a Molmo2 in the public layout or that of `transformers`; nothing is fetched.

    Args:
        folder: with `config.json` and safetensors.
        dtype: of the weights in memory.
        attention: as for `Molmo2`.
        vision_attention: as for `Molmo2`.
        gradient_checkpointing: as for `Molmo2`.

    Raises:
        DataError: there is no model, or tensors are missing, surplus or of the wrong shape.
    """
    folder = placed(Path(folder))
    config = read_config(folder)
    hf = read_model(model_class(config), folder, dtype=dtype, config=config)
    return Molmo2(
        hf,
        attention=attention,
        vision_attention=vision_attention,
        gradient_checkpointing=gradient_checkpointing,
    )


def _processor(config: Molmo2Config, settings: Mapping[str, Any]) -> Molmo2Processor:
    tower = config.vision_config
    own = {"crop_size": tower.image_size[0], "patch_size": tower.patch_size}
    wrong = [name for name, value in own.items() if settings.get(name, value) != value]
    if wrong:
        raise RecipeError(
            f"settings have {wrong[0]} {settings[wrong[0]]}, the model {own[wrong[0]]}; give those the model "
            "was made for"
        )
    fields = own | dict(settings)
    if "margins" in fields:
        fields["margins"] = tuple(fields["margins"])
    try:
        return Molmo2Processor(**fields)
    except TypeError as error:
        raise RecipeError(f"settings are fields of Molmo2Processor: {error}") from error


def _write(hf: Any, folder: Path, tokenizer: Any, processor: Molmo2Processor) -> None:
    config = public_config(hf.config, visual_ids(tokenizer))
    config["dtype"] = str(hf.lm_head.weight.dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    hf.generation_config.save_pretrained(folder)
    write_tokenizer(folder, tokenizer, longest=hf.config.text_config.max_position_embeddings)
    write_processors(folder, processor)
    _write_tensors(hf, folder)


def _write_tensors(hf: Any, folder: Path) -> None:
    tensors = hf.state_dict()
    mapped = public_map(hf.config)
    shapes = public_shapes(mapped, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    rules = {rule.target: rule for rule in mapped.rules}
    size = hf.lm_head.weight.element_size()
    files = _files({name: torch.Size(shape).numel() * size for name, shape in shapes.items()})
    for file, names in files.items():
        made = {name: rules[name].transform(*(tensors[one] for one in rules[name].sources)) for name in names}
        save_file(
            {name: tensor.contiguous() for name, tensor in made.items()}, folder / file, {"format": "pt"}
        )
        del made
    if len(files) > 1:
        index = {
            "metadata": {"total_size": sum(torch.Size(shape).numel() for shape in shapes.values()) * size},
            "weight_map": {name: file for file, names in files.items() for name in names},
        }
        path = folder / "model.safetensors.index.json"
        path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _files(sizes: Mapping[str, int]) -> dict[str, list[str]]:
    """Share tensors among files of about `SHARD` bytes, in order; a larger tensor has its own."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > SHARD:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    count = len(groups)
    return {f"model-{number:05d}-of-{count:05d}.safetensors": one for number, one in enumerate(groups, 1)}


def read_config(folder: Path) -> Molmo2Config:
    """Return the configuration of the Molmo2 in a folder.

    Raises:
        DataError: there is none, or it is of another model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise DataError(f"{folder} has no config.json; give the folder of a model")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        kind = fields.get("model_type")
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if kind not in (Molmo2Config.model_type, MODEL_TYPE):
        raise DataError(f"{folder} is a {kind}, not a molmo2; give a Molmo2, or assemble one of its parts")
    try:
        config: Molmo2Config = Molmo2Config.from_dict(fields | {"model_type": Molmo2Config.model_type})
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise DataError(f"{path} is no config of a Molmo2: {str(error).strip().splitlines()[-1]}") from error
    learned = getattr(config.adapter_config, "query", None)
    if learned not in (None, LEARNED):
        raise DataError(f"{path} asks for a query called {learned}; this version knows {LEARNED}")
    return config
