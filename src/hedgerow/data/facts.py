"""Facts of media files, each looked at once."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hedgerow.content import Media, Video
from hedgerow.vision.facts import Facts, ImageFacts, VideoFacts, probe

Known = tuple[list[int], Facts]  # size and time of the file when it was looked at, and what it was
_KINDS: dict[str, type[Any]] = {"ImageFacts": ImageFacts, "VideoFacts": VideoFacts}


class MediaFacts:
    """Facts of media files, each looked at once; kept in a file, valid while size and time of a file stay.

    Args:
        cache: JSON file to read facts from and save them to; None keeps them in memory. One that cannot be
            read is made again.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache
        self._known = _read_facts(cache) if cache is not None and cache.is_file() else {}
        self._news: dict[str, Known] = {}

    def __call__(self, media: Media) -> Facts:
        """Return the facts of a file.

        Raises:
            MediaError: the file is missing or cannot be read.
        """
        key = f"{media.type} {media.name}"  # a file may be shown as either
        if isinstance(media, Video) and media.sampling == "scene":
            key = f"scenes {media.name}"
        path = None if media.path is None else Path(media.path)
        stamp = [] if path is None or not path.is_file() else [path.stat().st_size, path.stat().st_mtime_ns]
        known = self._known.get(key)
        if known is None or known[0] != stamp:
            known = self._known[key] = self._news[key] = (stamp, probe(media))
        return known[1]

    def news(self) -> dict[str, Known]:
        """Return what was learned since this was last asked, for `learn` of another process."""
        news, self._news = self._news, {}
        return news

    def learn(self, news: Mapping[str, Known]) -> None:
        """Take over what another process has looked up."""
        self._known.update(news)

    def save(self) -> None:
        """Write the facts to the cache file, if there is one."""
        if self._cache is None:
            return
        values = {
            key: (stamp, type(facts).__name__, dataclasses.asdict(facts))
            for key, (stamp, facts) in self._known.items()
        }
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._cache.with_name(f"{self._cache.name}.{os.getpid()}")  # ranks write the same file
        temporary.write_text(json.dumps(values), encoding="utf-8")
        temporary.replace(self._cache)


def _read_facts(cache: Path) -> dict[str, Known]:
    try:
        found = json.loads(cache.read_text(encoding="utf-8"))
        return {key: (stamp, _restored(kind, values)) for key, (stamp, kind, values) in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}  # cut off, or of another version: facts can be looked up again


def _restored(kind: str, values: dict[str, Any]) -> Facts:
    made = _KINDS[kind]
    if values.keys() != {field.name for field in dataclasses.fields(made)}:
        raise ValueError(f"{kind} of another version: {sorted(values)}")
    # JSON has no tuples.
    facts: Facts = made(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    return facts
