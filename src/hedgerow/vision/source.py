"""What is asked of a video file, whoever decodes it."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hedgerow.errors import MediaError
from hedgerow.sequence import Array

SLACK = 5e-4  # seconds; frames later by less count as shown, for times written with three decimals
Damaged = Literal["refuse", "keep"]
_LOG = logging.getLogger("hedgerow")
_warned: set[str] = set()


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """A whole video file, whatever clip of it is used.

    Attributes:
        path: of the file.
        width: in pixels, seen upright.
        height: likewise.
        start: presentation time of the first frame in seconds.
        duration: seconds from the first frame to the last that can be seen.
        rate: frames a second on average; 0 where that is unknown.
        cuts: seconds from the first frame to the first of each further scene; None where nobody looked.
        damage: time and kind of what is wrong with the file, if not all of it can be seen.
    """

    path: str
    width: int
    height: int
    start: float
    duration: float
    rate: float = 0.0
    cuts: tuple[float, ...] | None = None
    damage: str | None = None


def accept(facts: VideoFacts, *, damaged: Damaged) -> None:
    """Refuse a file that is damaged, or name it once in a process, as `damaged` says.

    Raises:
        MediaError: it is refused.
    """
    if facts.damage is None:
        return
    if damaged == "refuse":
        raise MediaError(
            f"{facts.path}, {facts.damage}; copy or encode the video again, or set vision.damaged to keep to "
            "use what is good of it"
        )
    warn(facts.path, f"{facts.damage}; what is good of it is shown")


def warn(path: str, what: str) -> None:
    """Log what is wrong with a file that is used all the same, once in a process."""
    if path not in _warned:
        _warned.add(path)
        _LOG.warning("%s, %s", path, what)


class VideoSource(Protocol):
    """Reads video files. Times are seconds from a file's first frame."""

    def facts(self, path: str) -> VideoFacts:
        """Look a file up without decoding more than its first frame, and without trusting its header.

        Damage that shows itself in this is told, not raised. Cuts are left to `hedgerow.vision.scenes`.

        Raises:
            MediaError: the file is missing, is no video, or has no frame that can be decoded.
        """
        ...

    def shown(self, path: str, moments: Sequence[float], *, damaged: Damaged) -> Iterator[Array]:
        """Give the frame shown at each of some rising moments: the last one that starts no later.

        Args:
            path: of the file.
            moments: rising; as late as `SLACK` after one of them a frame still counts as shown.
            damaged: "refuse", or "keep": in place of a frame that is missing or damaged the nearest good one
                before is given (the first good one where there is none before), and one warning a file is
                logged.

        Returns:
            Uint8 [H, W, 3] upright; the same object as long as it is the same frame.

        Raises:
            MediaError: the file is missing or no video; or "refuse", and a frame is missing or damaged.
        """
        ...

    def every(self, path: str, size: tuple[int, int]) -> Iterator[tuple[float, Array]]:
        """Give the time of every good frame and a small picture of it, uint8 [height, width, 3].

        Raises:
            MediaError: the file is missing, is no video, or has no frame that can be decoded.
        """
        ...
