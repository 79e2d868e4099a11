"""Which packets of a video must be decoded to see some of its frames, and which need not.

A group (a key frame and what follows it, up to the next one) in which no frame is wanted is left out whole.
Inside a group, a frame that no other refers to is left out unless it is wanted itself.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hedgerow.errors import MediaError

_MOST = 600  # packets of a stretch
_BYTES = 16 << 20  # of a stretch


@dataclass
class Stretch:
    """Packets read together: a group, or a part of one that is long.

    Attributes:
        packets: in the order in which they are decoded.
        until: presentation time of the key frame behind them; infinite where another packet follows, or none.
        after: the next stretch, once it is known.
    """

    packets: list[Any]
    until: float
    after: "Stretch | None" = None

    @property
    def key(self) -> bool:
        """Whether decoding may begin here."""
        return bool(self.packets[0].is_keyframe)

    @cached_property
    def _times(self) -> list[int]:
        """Presentation times, rising; none where some are unknown."""
        times = [packet.pts for packet in self.packets]
        return [] if None in times else sorted(times)

    @property
    def low(self) -> float:
        """The least presentation time."""
        return self._times[0] if self._times else -math.inf

    def shows(self, packet: Any, wanted: Sequence[float]) -> bool:
        """Say whether the frame of a packet may be shown at one of some rising times.

        The frame after it may stand in the next stretch; then it counts as shown for longer than it is.
        """
        if not self._times:
            return True
        behind = bisect_right(self._times, packet.pts)
        later = self._times[behind] if behind < len(self._times) else self.until
        return bisect_left(wanted, packet.pts) < bisect_left(wanted, later)

    def last(self, wanted: Sequence[float]) -> int:
        """Return the place of the last packet that is needed for what is shown at some rising times, or -1.

        A wanted frame of the next group that is shown before its key frame needs this whole group.
        """
        after = self.after
        if after is not None and any(after.leads(one) and after.shows(one, wanted) for one in after.packets):
            return len(self.packets) - 1
        places = reversed(range(len(self.packets)))
        return next((place for place in places if self.shows(self.packets[place], wanted)), -1)

    def leads(self, packet: Any) -> bool:
        """Say whether a frame is shown before the key frame: it refers to the group before."""
        return self.key and bool(self._times) and packet.pts < self.packets[0].pts


def stretches(packets: Iterable[Any]) -> Iterator[Stretch]:
    """Gather packets into stretches. An error in reading is raised after what was read before it is given."""
    before = None
    try:
        for stretch in _gathered(packets):
            if before is not None:
                before.after = stretch
                yield before
            before = stretch
    except MediaError:
        if before is not None:
            yield before
        raise
    if before is not None:
        yield before


def _gathered(packets: Iterable[Any]) -> Iterator[Stretch]:
    held: list[Any] = []
    size = 0
    try:
        for packet in packets:
            if held and (packet.is_keyframe or len(held) >= _MOST or size > _BYTES):
                known = packet.is_keyframe and packet.pts is not None
                yield Stretch(held, packet.pts if known else math.inf)
                held, size = [], 0
            held.append(packet)
            size += packet.size
    except MediaError:
        if held:
            yield Stretch(held, math.inf)
        raise
    if held:
        yield Stretch(held, math.inf)
