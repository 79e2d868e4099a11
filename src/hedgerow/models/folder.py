"""Folders of models: written whole or not at all, and read with every tensor accounted for."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hedgerow.errors import DataError, RecipeError

MODEL_MARK, ADAPTER_MARK = "config.json", "adapter_config.json"  # files by which folders are known


@contextlib.contextmanager
def replaced(folder: Path, *, mark: str = MODEL_MARK) -> Iterator[Path]:
    """Give an empty folder to write a model to; afterwards it stands in place of an earlier one.

    It is `.FOLDER.new`, synced to disk and put in place by two renames. A save that is interrupted, or
    killed, leaves the earlier model or the whole new one.

    Args:
        folder: new, empty, or an earlier model.
        mark: the file by which an earlier one is known.

    Raises:
        RecipeError: the folder holds something that is no model.
    """
    if (place := placed(folder)) != folder:  # an earlier save was killed
        place.replace(folder)
    remove(_old(folder))
    check_replaceable(folder, mark=mark)
    fresh = _fresh(folder)
    remove(fresh)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        for path in (*fresh.iterdir(), fresh):
            sync(path)
    except Exception:
        remove(fresh)
        raise
    if folder.exists():
        folder.replace(_old(folder))
    fresh.replace(folder)
    sync(folder.parent)
    remove(_old(folder))


def check_replaceable(folder: Path, *, mark: str = MODEL_MARK) -> None:
    """Refuse a folder that `replaced` would refuse, before anything is made to be written there.

    Raises:
        RecipeError: it holds something that is no model.
    """
    place = placed(folder)
    if place.is_file() or (place.exists() and not (place / mark).is_file() and any(place.iterdir())):
        what = "adapters" if mark == ADAPTER_MARK else "model"
        raise RecipeError(f"{folder} is not empty and holds no {what}; give a new folder")


def placed(folder: Path) -> Path:
    """Return where the model of a folder lies: beside it, if a save was killed between its two renames."""
    return _fresh(folder) if not folder.exists() and _old(folder).exists() else folder


def check_tensors(info: Mapping[str, Any], folder: Path) -> None:
    """Hold that a folder had the tensors of its model, no more and no less.

    Args:
        info: what `from_pretrained` returns of the loading.
        folder: that was read.

    Raises:
        DataError: tensors are missing, surplus or of the wrong shape.
    """
    kinds = {"missing_keys": "missing", "unexpected_keys": "surplus", "mismatched_keys": "misshapen"}
    wrong = [
        f"{what} {', '.join(sorted(map(_named, info[key]))[:3])} ({len(info[key])} in all)"
        for key, what in kinds.items()
        if info[key]
    ]
    if wrong:
        raise DataError(
            f"{folder}: tensors {'; '.join(wrong)}; the weights do not belong to this config.json"
        )


def _named(tensor: str | tuple[str, Any, Any]) -> str:
    """Name a tensor; one of the wrong shape comes with that of the file and that of the model."""
    if isinstance(tensor, str):
        return tensor
    name, found, expected = tensor
    return f"{name} {list(found)} for {list(expected)}"


def _fresh(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.new")


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def remove(folder: Path) -> None:
    """Remove a folder, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
