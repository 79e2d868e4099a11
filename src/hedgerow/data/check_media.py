"""Media of data that are checked: each file is looked at once, in a child process that may die of it."""

import pickle
import sqlite3
from pathlib import Path

from hedgerow.content import Media, Video
from hedgerow.data.probes import Outcome, Prober
from hedgerow.errors import MediaError
from hedgerow.vision.facts import Facts, VideoFacts
from hedgerow.vision.processor import VisionProcessor

_LONGEST = 600.0  # seconds that reading the frames of a long video may take beyond those of any look


class Looker:
    """Looks at media, and remembers in a file what came of it: of any number, in no memory, for all workers.

    Of two workers that meet a file at the same moment, both look.

    Args:
        store: the file, which need not exist.
        processor: fills media, and reads the pixels that its model would see.
        pixels: whether to read them; otherwise only facts are looked up.
        prober: does the looking.
    """

    def __init__(self, store: Path, processor: VisionProcessor, *, pixels: bool, prober: Prober) -> None:
        self._processor = processor
        self._pixels = pixels
        self._prober = prober
        self._store = sqlite3.connect(store, isolation_level=None, timeout=60.0)
        self._store.execute("PRAGMA synchronous = OFF")  # it does not outlive the check
        self._store.execute("CREATE TABLE IF NOT EXISTS looked (key TEXT PRIMARY KEY, outcome BLOB)")

    def facts(self, media: Media) -> Facts:
        """Return the facts of a filled image or video.

        Raises:
            MediaError: it cannot be read, or its reader died of it.
        """
        scenes = isinstance(media, Video) and media.sampling == "scene"
        key = f"{'scenes' if scenes else media.type} {media.name}"
        outcome = self._known(key)
        if outcome is None:
            outcome = self._noted(key, self._prober.look(media))
        if outcome.facts is None:
            raise MediaError(outcome.reason)
        return outcome.facts

    def fault(self, media: Media) -> str:
        """Return what is wrong with a filled image or video, pixels included; empty where nothing is.

        Raises:
            MediaError: its facts cannot be had, its clip lies outside the file, or damage is refused.
        """
        facts = self.facts(media)
        self._processor.layout(media, facts, label=None)
        if not self._pixels:
            return ""
        key = f"pixels {media!r} {media.name}"
        outcome = self._known(key)
        if outcome is None:
            length = facts.duration if isinstance(facts, VideoFacts) else 0.0
            look = self._prober.look(media, self._processor, facts=facts, longer=min(length, _LONGEST))
            outcome = self._noted(key, look)
        return outcome.reason

    def close(self) -> None:
        """End the child and let go of the file."""
        self._prober.close()
        self._store.close()

    def _known(self, key: str) -> Outcome | None:
        row = self._store.execute("SELECT outcome FROM looked WHERE key = ?", (key,)).fetchone()
        found: Outcome | None = None if row is None else pickle.loads(row[0])
        return found

    def _noted(self, key: str, outcome: Outcome) -> Outcome:
        self._store.execute("INSERT OR REPLACE INTO looked VALUES (?, ?)", (key, pickle.dumps(outcome)))
        return outcome
