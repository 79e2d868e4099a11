"""Media of foreign rows: embedded ones become files, paths become relative to the trees."""

import base64
import binascii
import dataclasses
import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from hedgerow.content import Image, Media, Video
from hedgerow.errors import DataError
from hedgerow.tree import Branch, Message, MessageTree

N = TypeVar("N", MessageTree, Branch)
_MAGIC = (
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"\x89PNG\r\n\x1a\n", ".png"),
    (0, b"GIF8", ".gif"),
    (8, b"WEBP", ".webp"),
    (0, b"BM", ".bmp"),
    (0, b"II*\x00", ".tif"),
    (0, b"MM\x00*", ".tif"),
    (4, b"ftyp", ".mp4"),
    (0, b"\x1aE\xdf\xa3", ".mkv"),
    (8, b"AVI ", ".avi"),
)


class Files:
    """Where media are and where embedded ones go.

    Args:
        out: the file of trees; paths in it are relative to its folder.
        folder: what paths in rows are relative to; None: the folder of their file.
    """

    def __init__(self, out: Path, folder: Path | None) -> None:
        self._home = out.absolute().parent
        self._embedded = self._home / f"{out.stem}_media"
        self._folder = folder
        self._own_folder = False
        self._new: dict[str, bool] = {}  # embedded files, and whether this run wrote them
        self._seen: set[int] = set()  # hashes of paths
        self.missing, self.first_missing = 0, ""

    def __enter__(self) -> "Files":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was written if all was in vain."""
        if kind is None:
            return
        for name in (name for name, is_new in self._new.items() if is_new):
            (self._embedded / name).unlink(missing_ok=True)
        if self._own_folder and not any(self._embedded.iterdir()):
            self._embedded.rmdir()

    @property
    def embedded(self) -> int:
        """How many embedded files the rows hold, each counted once."""
        return len(self._new)

    @property
    def shown(self) -> int:
        """How many files the trees name, each counted once; of these `missing` are not there."""
        return len(self._seen)

    def unpacked(self, value: Any) -> Any:
        """Return a row with the path of a file in place of each embedded image or video.

        Raises:
            DataError: bytes are of no known kind of file.
        """
        if isinstance(value, bytes):  # a column of files, or of something else that is bytes
            return self._save(value, None) if _suffix(value) else value
        if isinstance(value, list):
            return [self.unpacked(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "bytes" in value and value.keys() <= {"bytes", "path"}:
            data = value["bytes"]
            return self._save(data, value.get("path")) if isinstance(data, bytes) else value.get("path")
        found = {key: self.unpacked(item) for key, item in value.items()}
        if isinstance(value.get("data"), bytes) and value.get("type") == "image":  # of a native tree
            found["path"] = found.pop("data")
        return found

    def settled(self, tree: MessageTree, folder: Path) -> MessageTree:
        """Return a tree whose media are found from the file of trees.

        Args:
            tree: media paths stand as in the row.
            folder: of the row's file.

        Raises:
            DataError: a path is an address on the web.
        """
        if not tree.media:
            return tree
        return self._settled(tree, (self._folder or folder).absolute())

    def _settled(self, node: N, folder: Path) -> N:
        messages = tuple(self._message(message, folder) for message in node.messages)
        branches = tuple(self._settled(branch, folder) for branch in node.branches)
        return dataclasses.replace(node, messages=messages, branches=branches)

    def _message(self, message: Message, folder: Path) -> Message:
        if not message.media:
            return message
        parts = tuple(
            self._part(part, folder) if isinstance(part, Image | Video) else part for part in message.parts
        )
        return dataclasses.replace(message, content=parts)

    def _part(self, part: Media, folder: Path) -> Media:
        if isinstance(part, Image) and part.data is not None:
            path = self._save(part.data, None)
            return dataclasses.replace(part, path=self._relative(path, folder), data=None)
        moved = dataclasses.replace(part, path=self._relative(part.path or "", folder))
        if isinstance(moved, Video) and isinstance(moved.subtitles, str):
            return dataclasses.replace(moved, subtitles=self._relative(moved.subtitles, folder))
        return moved

    def _relative(self, path: str, folder: Path) -> str:
        if path.startswith("data:"):
            path = self._save(_decoded(path), None)
        path = path.removeprefix("file://")
        if "://" in path:
            raise DataError(
                f"{path}: an address on the web, nothing is fetched; download it and give its path"
            )
        inside = Path(path).is_relative_to(self._home)
        outside = Path(path).is_absolute() and not inside
        found = path if outside else os.path.relpath(folder / path, self._home)
        self._look_up(found)
        return found

    def _look_up(self, path: str) -> None:
        key = hash(path)
        if key in self._seen:
            return
        self._seen.add(key)
        if not (self._home / path).exists():
            self.missing += 1
            self.first_missing = self.first_missing or path

    def _save(self, data: bytes, hint: str | None) -> str:
        suffix = _suffix(data) or Path(hint or "").suffix
        if not suffix:
            raise DataError(
                f"embedded bytes start with {data[:8]!r}: no image or video that is known; give its path"
            )
        path = self._embedded / (hashlib.sha256(data).hexdigest()[:32] + suffix.lower())
        if path.name not in self._new:
            self._new[path.name] = not path.exists()
            if self._new[path.name]:
                self._write(path, data)
        return str(path)

    def _write(self, path: Path, data: bytes) -> None:
        if not self._embedded.exists():
            self._embedded.mkdir(parents=True)
            self._own_folder = True
        temporary = path.with_suffix(".part")  # a run that is cut off leaves no half of a file
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _decoded(address: str) -> bytes:
    head, _, text = address.partition(",")
    try:
        if not head.endswith(";base64"):
            raise binascii.Error("no base64")
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise DataError(
            f"{address[:40]}: no embedded file ({error}); give data:image/png;base64,..."
        ) from None


def _suffix(data: bytes) -> str:
    """What a file of these bytes is called behind its name; empty where that is not known."""
    return next((suffix for at, magic, suffix in _MAGIC if data[at : at + len(magic)] == magic), "")
