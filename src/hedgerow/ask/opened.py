"""From the folder of a run or of a model to what encodes for it."""

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from hedgerow.build import MODEL
from hedgerow.encode import Encoder
from hedgerow.errors import DataError
from hedgerow.models.chat import SETTINGS, read_chat, read_settings
from hedgerow.models.folder import ADAPTER_MARK, placed
from hedgerow.models.pretrained import family_of
from hedgerow.recipe.sections import Vision
from hedgerow.validation import explain
from hedgerow.vision.facts import probe
from hedgerow.vision.processor import VisionProcessor

_VISION: TypeAdapter[VisionProcessor] = TypeAdapter(Vision, config=ConfigDict(extra="forbid"))
_CONFIG = "config.json"


def model_folder(folder: str | Path) -> Path:
    """Return where a model lies: in the folder itself, or in the folder of a run that is finished.

    Raises:
        DataError: the folder holds no model, or the run is not finished.
    """
    folder = placed(Path(folder))
    for place in (folder, placed(folder / MODEL)):
        if (place / _CONFIG).is_file():
            return place
    if (folder / "metrics.jsonl").is_file() or (folder / "checkpoints").is_dir():
        raise DataError(
            f"{folder}: this run is not finished, it has no {MODEL} yet; go on with `hedgerow train`, or "
            "take its newest checkpoint with `hedgerow export`"
        )
    if (folder / ADAPTER_MARK).is_file():
        raise DataError(
            f"{folder} holds adapters alone; give a model with them merged, as a run leaves it and `hedgerow "
            "export` writes it without --adapter"
        )
    raise DataError(
        f"{folder} holds no model, neither {_CONFIG} nor {MODEL}/{_CONFIG}; give the folder of a finished "
        "run or of a saved model"
    )


def encoder_of(folder: Path) -> Encoder:
    """Return the encoder of a saved model: conversations and media as it was trained on them.

    A folder without `hedgerow.json` was not saved by hedgerow: media are encoded as its family does by
    default, and conversations written as `read_chat` says.

    Args:
        folder: with the model's files, as `model_folder` gives it.

    Raises:
        DataError: the folder has no tokenizer, or its settings are none of a processor.
        RecipeError: the tokenizer lacks what conversations are written with, or settings do not fit together.
    """
    chat = read_chat(folder, family=family_of(folder))
    return Encoder(chat, _processor(folder), facts=cache(probe))  # a file is looked up once, not per question


def _processor(folder: Path) -> VisionProcessor:
    family: dict[str, Any] = {"family": family_of(folder)}
    own = read_settings(folder) if (folder / SETTINGS).is_file() else {}
    if family["family"] == "processor":  # its processor was saved with it
        own = {**own, "folder": str(folder)}
    try:
        return _VISION.validate_python(family | own)
    except ValidationError as error:
        raise DataError(f"{folder / SETTINGS}: {explain(error, ())}; save the model again") from None
