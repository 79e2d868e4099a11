"""Folders of models: written whole or not at all, and read with every tensor accounted for."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hedgerow.errors import DataError, RecipeError


@contextlib.contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write a model to; afterwards it stands in place of an earlier one.

    It is `.FOLDER.new`, synced to disk and put in place by two renames. A save that is interrupted, or
    killed, leaves the earlier model or the whole new one.

    Args:
        folder: new, empty, or an earlier model.

    Raises:
        RecipeError: the folder holds something that is no model.
    """
    if (place := placed(folder)) != folder:  # an earlier save was killed
        place.replace(folder)
    remove(_old(folder))
    if folder.exists() and not (folder / "config.json").is_file() and any(folder.iterdir()):
        raise RecipeError(f"{folder} is not empty and holds no model; give a new folder")
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
        f"{what} {', '.join(sorted(map(str, info[key]))[:3])} ({len(info[key])} in all)"
        for key, what in kinds.items()
        if info[key]
    ]
    if wrong:
        raise DataError(
            f"{folder}: tensors {'; '.join(wrong)}; the weights do not belong to this config.json"
        )


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
