"""A checkpoint in a folder: its config, and its tensors by name without reading them all."""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import AutoConfig

from hedgerow.errors import DataError
from hedgerow.models.assemble.rules import Shape
from hedgerow.models.reading import open_tensors, tensor_files


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
        for path in tensor_files(folder):
            file = open_tensors(path)
            for name in file.keys():  # noqa: SIM118  (the file is no mapping)
                self._files[name] = file
                self.shapes[name] = tuple(file.get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """Return a tensor, which lies in the mapped file."""
        found: Tensor = self._files[name].get_tensor(name)
        return found
