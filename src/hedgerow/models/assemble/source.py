"""A checkpoint in a folder: its config, and its tensors by name without reading them all."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig

from hedgerow.errors import DataError
from hedgerow.models.assemble.rules import Shape

_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"


class Checkpoint:
    """A folder that `save_pretrained` of `transformers` wrote; one file of tensors, or several and an index.

    Args:
        folder: with `config.json` and safetensors.

    Attributes:
        config: the config, as `AutoConfig` reads it.
        shapes: of all tensors, by name.

    Raises:
        DataError: something is missing or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "config.json").is_file():
            raise DataError(f"{folder} has no config.json; give the folder of a model")
        try:
            self.config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, TypeError, StrictDataclassError) as error:
            last = str(error).strip().splitlines()[-1].strip()
            raise DataError(f"{folder}: config.json cannot be read: {last}") from error
        self._files: dict[str, Any] = {}
        self.shapes: dict[str, Shape] = {}
        for path in _tensor_files(folder):
            try:
                file: Any = safe_open(path, "pt")
            except (OSError, SafetensorError) as error:
                raise DataError(f"{path} cannot be read: {error}") from error
            for name in file.keys():  # noqa: SIM118  (the file is no mapping)
                self._files[name] = file
                self.shapes[name] = tuple(file.get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """Return a tensor, which lies in the mapped file."""
        found: Tensor = self._files[name].get_tensor(name)
        return found


def _tensor_files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if not index.is_file():
        if not (folder / _ONE).is_file():
            raise DataError(f"{folder} has no {_ONE}; save the model with transformers 5 first")
        return [folder / _ONE]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{index} is no index of tensors: {error}") from error
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise DataError(
            f"{folder} lacks {', '.join(absent[:3])}, which its index names; copy the whole folder"
        )
    return [folder / name for name in names]
