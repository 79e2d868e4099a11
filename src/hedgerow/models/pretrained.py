"""A model of any family from a folder that `transformers` wrote, and back to one."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    Molmo2Config,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from hedgerow.errors import DataError
from hedgerow.models import assemble
from hedgerow.models.chat import write_chat, write_settings
from hedgerow.models.connector import MODEL_TYPE
from hedgerow.models.folder import placed, replaced
from hedgerow.models.molmo2 import Molmo2
from hedgerow.models.processor import ProcessorModel
from hedgerow.models.qwen3_vl import Qwen3VL
from hedgerow.models.reading import read_model
from hedgerow.models.rows import RowModel
from hedgerow.models.text import TextModel

Family = Literal["molmo2", "qwen3_vl", "processor", "text"]
_KEPT = (".json", ".jinja", ".txt", ".model")  # of a checkpoint, beside its weights


def family_of(folder: str | Path) -> Family:
    """Return the family of the model in a folder, by the `model_type` of its `config.json`.

    Raises:
        DataError: there is no config, or it is of a model that no family runs.
    """
    fields = _config(placed(Path(folder)))
    kind = fields.get("model_type")
    if kind in (Molmo2Config.model_type, MODEL_TYPE):
        return "molmo2"
    if kind == Qwen3VLConfig.model_type:
        return "qwen3_vl"
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and "vision_config" not in fields:
        return "text"
    if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return "processor"
    raise DataError(
        f"{folder} is a {kind}; give a molmo2, a qwen3_vl, another model for images and text such as "
        "smolvlm or gemma3, or a language model without vision such as qwen3, olmo3 or llama"
    )


def load(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    vision_attention: Literal["sdpa", "eager"] = "sdpa",
    gradient_checkpointing: bool = False,
) -> RowModel:
    """Read a model of any family; nothing is fetched.

    Args:
        folder: with `config.json` and safetensors.
        dtype: of the weights in memory.
        attention: as for `RowModel`.
        vision_attention: of the vision tower; nothing to a model that reads text only.
        gradient_checkpointing: as for `RowModel`.

    Raises:
        DataError: there is no model, or tensors are missing, surplus or of the wrong shape.
        VisibilityError: the model cannot hide the branches of a row from each other.
    """
    family = family_of(folder)
    shared: dict[str, Any] = {"attention": attention, "gradient_checkpointing": gradient_checkpointing}
    if family == "molmo2":
        return assemble.load(folder, dtype=dtype, vision_attention=vision_attention, **shared)
    place = placed(Path(folder))
    if family == "qwen3_vl":
        hf = read_model(Qwen3VLForConditionalGeneration, place, dtype=dtype)
        return Qwen3VL(hf, vision_attention=vision_attention, **shared)
    if family == "processor":
        hf = read_model(AutoModelForImageTextToText, place, dtype=dtype)
        return ProcessorModel(hf, vision_attention=vision_attention, **shared)
    return TextModel(read_model(AutoModelForCausalLM, place, dtype=dtype), **shared)


def save(
    model: RowModel,
    folder: str | Path,
    *,
    tokenizer: Any,
    settings: Mapping[str, Any],
    origin: str | Path | None = None,
) -> None:
    """Write a folder that `transformers` reads: an earlier model there is replaced, whole or not at all.

    Args:
        model: its tensors are written in the dtype they have.
        folder: new, empty, or an earlier model.
        tokenizer: a `tokenizers.Tokenizer`, or a `ChatFormat`, whose template and `bos` are written too.
        settings: how media are encoded for it, written to `hedgerow.json`; those of Molmo2 as
            `hedgerow.models.assemble.save` takes them.
        origin: the checkpoint the model came from; what else stands there, such as the settings of its
            processor, is copied. A Molmo2 has its own written.

    Raises:
        RecipeError: the folder holds something that is no model.
    """
    if isinstance(model, Molmo2):
        assemble.save(model, folder, tokenizer=tokenizer, settings=settings)
        return
    with replaced(Path(folder)) as fresh:
        model.hf.save_pretrained(fresh)
        for path in () if origin is None else placed(Path(origin)).iterdir():
            is_index = path.name.endswith(".index.json")
            if path.suffix in _KEPT and not is_index and not (fresh / path.name).exists():
                shutil.copyfile(path, fresh / path.name)
        write_chat(fresh, tokenizer, reads_text_only=isinstance(model, TextModel))
        write_settings(fresh, tokenizer, settings)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise DataError(f"{folder} has no config.json; give the folder of a model")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}; copy the folder again") from error
    if not isinstance(fields, dict) or "model_type" not in fields:
        raise DataError(f"{path} names no model_type; give the folder of a model that transformers saved")
    return fields
