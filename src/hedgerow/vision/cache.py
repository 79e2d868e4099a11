"""Pixels of videos kept on disk, for data that is gone through more than once.

A file holds what the processor made of one clip with one set of settings. Its name is a hash of all of these
and of the video's own bytes, so a video or a setting that changed is another file. Images are not kept:
their crops are many times as large as their files, and save much less work for the room they take.
"""

import dataclasses
import hashlib
import io
import os
import time
import zlib
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import numpy as np

from hedgerow.content import Image, Media, Video
from hedgerow.errors import MediaError, RecipeError
from hedgerow.sequence import VisionInput
from hedgerow.vision.processor import MediaLayout, VisionProcessor
from hedgerow.vision.wrapped import Wrapped

_FORMAT = 2  # of the files; another one makes them all again
_ENDING = ".frames"
_PART = ".part"  # a file that is being written
_ABANDONED = 3600.0  # seconds after which nobody is writing it any more
_SUM = 4  # bytes at the beginning of a file: the CRC-32 of the rest


class FrameCache(Wrapped):
    """A `VisionProcessor` that keeps what another one makes of videos.

    Any number of processes may use one folder: files are written whole or not at all. A file that cannot be
    read is made again. Those used least recently go first; whenever nobody is writing, the folder holds at
    most `limit` bytes.

    Args:
        processor: makes the pixels. Its `repr` says all its settings.
        folder: where the files go; made if it is not there.
        limit: bytes that they may take.

    Raises:
        RecipeError: the folder cannot be written.
    """

    def __init__(self, processor: VisionProcessor, folder: Path, limit: int) -> None:
        super().__init__(processor)
        self.folder, self.limit = folder, limit
        self._hashes: dict[tuple[str, int, int], str] = {}  # by path, size and time of change
        try:
            folder.mkdir(parents=True, exist_ok=True)
            trial = self._temporary()
            trial.touch()
            trial.unlink()
        except OSError as error:
            self._refuse(error)

    def visual(self, media: Media, layout: MediaLayout) -> VisionInput:
        """Read the pixels of one image or video, or what is kept of it; see `VisionProcessor`.

        Raises:
            MediaError: the file cannot be read, or is not what the layout was made from.
            RecipeError: the folder cannot be written.
        """
        if isinstance(media, Image):
            return self.processor.visual(media, layout)
        file = self.folder / f"{self._key(media, layout)}{_ENDING}"
        kept = self._load(file)
        if kept is None:
            kept = self.processor.visual(media, layout)
            self._keep(file, kept)
        return kept

    def _key(self, video: Video, layout: MediaLayout) -> str:
        settings = dataclasses.replace(video, path="", subtitles=())
        shape = (layout.times, layout.crops, layout.slots, layout.grids, layout.size)
        made = (_FORMAT, version("av"), self.processor, settings, shape)
        return hashlib.sha256(f"{self._hash(video.path)} {made!r}".encode()).hexdigest()

    def _hash(self, path: str) -> str:
        """The hash of a file's bytes, taken once as long as its size and time stay."""
        try:
            with Path(path).open("rb") as file:
                found = os.fstat(file.fileno())
                stamp = (path, found.st_size, found.st_mtime_ns)
                if stamp not in self._hashes:
                    self._hashes[stamp] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise MediaError(f"{path}: cannot be read ({error.strerror}); correct the path") from None
        return self._hashes[stamp]

    def _load(self, file: Path) -> VisionInput | None:
        try:
            data = file.read_bytes()
            os.utime(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._refuse(error)
        if zlib.crc32(memoryview(data)[_SUM:]).to_bytes(_SUM) != data[:_SUM]:
            return None
        stream = io.BytesIO(data)
        stream.seek(_SUM)
        crops, pooling, grids, patches, *told = (np.load(stream) for _ in range(6))
        images, levels = (array if array.size else None for array in told)
        return VisionInput(crops, pooling, grids, int(patches), images, levels)

    def _keep(self, file: Path, vision: VisionInput) -> None:
        stream = io.BytesIO()
        told = (np.zeros(0) if array is None else array for array in (vision.images, vision.levels))
        for values in (vision.crops, vision.pooling, vision.grids, np.array(vision.patches), *told):
            np.save(stream, values)
        data = stream.getbuffer()
        if len(data) + _SUM > self.limit:
            return
        temporary = self._temporary()
        try:
            with temporary.open("wb") as target:
                target.write(zlib.crc32(data).to_bytes(_SUM))
                target.write(data)
            temporary.replace(file)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            self._refuse(error)
        self._trim()

    def _trim(self) -> None:
        """Remove the files used least recently until the rest is within the limit."""
        found: list[tuple[float, int, str]] = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process may trim as well
                    about = entry.stat()
                    if entry.name.endswith(_ENDING):
                        found.append((about.st_mtime, about.st_size, entry.path))
                    elif entry.name.endswith(_PART) and about.st_mtime < time.time() - _ABANDONED:
                        Path(entry.path).unlink()
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                break
            Path(path).unlink(missing_ok=True)
            total -= size

    def _temporary(self) -> Path:
        return self.folder / f"{uuid4().hex}{_PART}"

    def _refuse(self, error: OSError) -> NoReturn:
        raise RecipeError(
            f"{self.folder}: frames cannot be kept there ({error.strerror}); name a folder with room that "
            "can be written as data.frames.folder, or leave data.frames out"
        ) from None
