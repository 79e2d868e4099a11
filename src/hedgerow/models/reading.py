"""Reading the weights of a folder that `transformers` wrote, with every file looked at first."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers.utils import logging

from hedgerow.errors import DataError
from hedgerow.models.folder import check_tensors

_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_OLD = "pytorch_model.bin"


def tensor_files(folder: Path) -> list[Path]:
    """Return the files of tensors of a folder, as `transformers` finds them.

    Raises:
        DataError: there is none, or one that the index names is not there.
    """
    index = folder / _INDEX
    if (folder / _ONE).is_file():
        return [folder / _ONE]
    if not index.is_file():
        old = f", only {_OLD}" if (folder / _OLD).is_file() else ""
        raise DataError(f"{folder} has no {_ONE}{old}; save the model with transformers 5 first")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index} is no index of tensors ({error}); copy it again") from error
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise DataError(
            f"{folder} lacks {', '.join(absent[:3])}, which its index names; copy the whole folder"
        )
    return [folder / name for name in names]


def open_tensors(path: Path) -> Any:
    """Open a file of tensors; nothing is read but its header.

    Raises:
        DataError: it is damaged, or cut off.
    """
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: damaged or cut off ({error}); copy it again") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep `transformers` from a table of tensors on stderr: an error of ours names them in one line."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def read_model(kind: Any, folder: Path, *, dtype: torch.dtype, **options: Any) -> Any:
    """Read a model of `transformers`; each weight owns its memory.

    Args:
        kind: a class with `from_pretrained`.
        folder: with `config.json` and safetensors.
        dtype: of the weights in memory.
        options: more of `from_pretrained`.

    Raises:
        DataError: a file is missing or damaged, or tensors are missing, surplus or of the wrong shape.
    """
    for path in tensor_files(folder):
        open_tensors(path)
    try:
        with _quiet():
            hf, info = kind.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        told = str(error).strip().splitlines()[-1].strip()
        raise DataError(f"{folder} holds no model that can be read: {told}; copy the folder again") from error
    check_tensors(info, folder)
    for parameter in hf.parameters():
        # What was read lies in the mapped file, and fused tensors share memory.
        parameter.data = parameter.data.clone()
    return hf
