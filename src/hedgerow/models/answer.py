"""What a model says, and when it has said enough: stop rules, and a guard against degenerate answers."""

import dataclasses
from typing import Final

from hedgerow.grounding.checks import ROW, Kind, degenerate
from hedgerow.grounding.codec import parse
from hedgerow.models.sampling import Sampling
from hedgerow.text import ChatFormat

# Loops do not end by themselves. Ids that jump and objects too fast are faults of an answer that goes on.
LOOPS: Final[tuple[Kind, ...]] = ("row", "same_point", "repeated_text")


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it was written.

    `tokens` are without the stop token; `text` ends before a stop string. `reason` says why it ends: "stop",
    "length" (`max_new_tokens`), or "guard: " and what was found, with the character where it begins.
    """

    tokens: tuple[int, ...]
    text: str
    reason: str

    @property
    def guarded(self) -> bool:
        """Whether the guard ended it."""
        return self.reason.startswith("guard")


class Draft:
    """An answer that is being written, token by token.

    Args:
        chat: names the token that ends a turn, and turns tokens into text.
        sampling: stop rules and guard.
        frames: how many frames the model saw; an object may stand still in fewer.
    """

    def __init__(self, chat: ChatFormat, sampling: Sampling, *, frames: int = 0) -> None:
        self.tokens: list[int] = []
        self.reason = "" if sampling.max_new_tokens else "length"
        self._chat = chat
        self._sampling = sampling
        self._frames = frames
        self._stops = {chat.stop, *(stop for stop in sampling.stop if isinstance(stop, int))}
        self._strings = tuple(stop for stop in sampling.stop if isinstance(stop, str))
        # Every token but a special one writes a byte, so no more of them can hold a string. One more, for
        # some tokenizers drop a space before the first.
        self._reach = 1 + max((len(string.encode()) for string in self._strings), default=0)

    def add(self, token: int) -> bool:
        """Take the next token; return whether the answer goes on."""
        if token in self._stops:
            self.reason = "stop"
            return False
        self.tokens.append(token)
        if self._strings and self._holds_string():
            self.reason = "stop"
        elif self._sampling.guard and len(self.tokens) % self._sampling.guard == 0:
            self.reason = self._loop()
        if not self.reason and len(self.tokens) >= self._sampling.max_new_tokens:
            self.reason = "length"
        return not self.reason

    def answer(self) -> Answer:
        """Return what was written."""
        text = self._chat.decode(self.tokens)
        places = [text.find(string) for string in self._strings]
        end = min((place for place in places if place >= 0), default=len(text))
        return Answer(tuple(self.tokens), text[:end], self.reason)

    def _holds_string(self) -> bool:
        tail = self._chat.decode(self.tokens[-self._reach :])
        return any(string in tail for string in self._strings)

    def _loop(self) -> str:
        text = self._chat.decode(self.tokens)
        parsed = parse(text)
        found = degenerate(text, parsed=parsed, frames=self._frames)
        # What stands twice at one time is dropped in parsing, so a loop of it leaves nothing to find.
        twice = [problem for problem in parsed.problems if problem.kind == "duplicate_id"]
        loops = [str(finding) for finding in found if finding.kind in LOOPS]
        if len(twice) >= ROW:
            loops.append(f"character {twice[0].at}: the same object at the same time {len(twice)} times")
        return f"guard: {loops[0]}" if loops else ""
