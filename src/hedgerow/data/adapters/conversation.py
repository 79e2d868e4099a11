"""Conversations of foreign rows: media taken out of the text, a root that other rows can share."""

import re
from collections.abc import Iterable
from collections.abc import Sequence as Listing

from hedgerow.content import Image, Media, Part, Points, Text, Tracks, Video
from hedgerow.data.adapters.piece import Piece, Turns
from hedgerow.data.shares import counted
from hedgerow.errors import DataError
from hedgerow.tree import Branch, Message, MessageTree

_TAG = re.compile(r"<(image|video)>")
_LEADING = re.compile(r"(?:\s*<(?:image|video)>)+\s*")
_TRAILING = re.compile(r"\s*(?:<(?:image|video)>\s*)+$")


class Shelf:
    """The media of a row, taken in order by the tags of its text.

    Args:
        images: paths.
        videos: paths.
    """

    def __init__(self, images: Iterable[str], videos: Iterable[str] = ()) -> None:
        self._media: dict[str, list[Media]] = {
            "image": [Image(path) for path in images],
            "video": [Video(path) for path in videos],
        }
        self._taken = {"image": 0, "video": 0}

    def take(self, kind: str) -> Media:
        """Return the next image or video.

        Raises:
            DataError: there is none left.
        """
        self._taken[kind] += 1
        if self._taken[kind] > len(self._media[kind]):
            raise DataError(self._uneven(kind, "or more"))
        return self._media[kind][self._taken[kind] - 1]

    def rest(self) -> tuple[Media, ...]:
        """Take all that is left."""
        left = [media for kind in self._media for media in self._media[kind][self._taken[kind] :]]
        self._taken = {kind: len(media) for kind, media in self._media.items()}
        return tuple(left)

    def check_empty(self) -> None:
        """Refuse media that no tag has taken.

        Raises:
            DataError: there are any.
        """
        for kind, media in self._media.items():
            if self._taken[kind] < len(media):
                raise DataError(self._uneven(kind, ""))

    def _uneven(self, kind: str, more: str) -> str:
        tags = f"{self._taken[kind]} {more}".strip()
        return (
            f"{counted(len(self._media[kind]), kind)} and {tags} <{kind}> in the text; give one tag for each"
        )


def untagged(text: str, shelf: Shelf) -> tuple[tuple[Media, ...], str]:
    """Take the media that a text names by `<image>` and `<video>` out of it.

    Tags before and behind the text go; one inside it becomes words: "the image", or "Image 2" where the
    message shows several.

    Raises:
        DataError: there are more tags than media.
    """
    media = tuple(shelf.take(tag[1]) for tag in _TAG.finditer(text))
    leading = _LEADING.match(text)
    number = len(_TAG.findall(leading[0])) if leading else 0
    inner = _TRAILING.sub("", text[leading.end() :] if leading else text)
    kinds = [str(item.type) for item in media]

    def words(tag: re.Match[str]) -> str:
        nonlocal number
        number += 1
        if kinds.count(tag[1]) == 1:
            return f"the {tag[1]}"
        return f"{tag[1].capitalize()} {kinds[:number].count(tag[1])}"

    return media, _TAG.sub(words, inner)


def content(parts: Iterable[Part]) -> str | tuple[Part, ...]:
    """Return the content of a message; what is one plain text is written as a string."""
    parts = tuple(part for part in parts if not (isinstance(part, Text) and not part.text))
    if len(parts) == 1 and isinstance(parts[0], Text) and parts[0].weight is None:
        return parts[0].text
    return parts


def spliced(parts: Iterable[Part]) -> list[Part]:
    """Make one text of texts side by side; where both have a space at the seam, one of them goes."""
    found: list[Part] = []
    for part in parts:
        before = found[-1] if found else None
        if not (isinstance(part, Text) and isinstance(before, Text)):
            found.append(part)
            continue
        text = part.text.lstrip(" ") if before.text[-1:].isspace() else part.text
        found[-1] = Text(before.text + text)
    return found


def told_task(messages: Iterable[Message]) -> str | None:
    """Return the task of a branch by its answers: `pointing` or `tracking` where they are nothing else."""
    answers = [message.parts for message in messages if message.role == "assistant"]
    said = [
        part for parts in answers for part in parts if not (isinstance(part, Text) and not part.text.strip())
    ]
    for kind, task in ((Points, "pointing"), (Tracks, "tracking")):
        if said and all(isinstance(part, kind) for part in said):
            return task
    return None


def planted(
    name: str,
    source: str,
    messages: Listing[Message],
    *,
    ranked: Listing[Branch] = (),
    turns: Turns = "together",
) -> Piece:
    """Make a tree of a conversation: what it shows first is the root, the rest a branch.

    So other conversations about the same media find the same root. One that shows nothing is a root as it is.

    Args:
        name: id of the tree.
        source: data set.
        messages: the conversation, system message first.
        ranked: branches that continue it, the best first.
        turns: "apart" makes each question with its answer a branch.

    Raises:
        DataError: there is no message.
    """
    if not messages:
        raise DataError("the conversation is empty; give at least a question and its answer")
    lead = 1 if messages[0].role == "system" else 0
    first = messages[lead] if len(messages) > lead else messages[0]
    if first.role != "user" or not first.media:
        return Piece(MessageTree(name, tuple(messages), tuple(ranked), source=source))
    said = content(part for part in first.parts if not isinstance(part, Image | Video))
    rest = [*([Message("user", said, first.weight)] if said else []), *messages[lead + 1 :]]
    root = (*messages[:lead], Message("user", first.media))
    if not rest:
        return Piece(MessageTree(name, root, tuple(ranked), source=source))
    answers = [*rest, *(message for branch in ranked for message in branch.messages)]
    branches = [Branch(tuple(rest), tuple(ranked), task=told_task(answers))]
    if turns == "apart" and not ranked and _is_pairs(rest):
        pairs = [tuple(rest[at : at + 2]) for at in range(0, len(rest), 2)]
        branches = [Branch(pair, task=told_task(pair)) for pair in pairs]
    return Piece(MessageTree(name, root, tuple(branches), source=source), key="")


def _is_pairs(messages: Listing[Message]) -> bool:
    """Whether these are questions, each with its answer, that show nothing more."""
    roles = [message.role for message in messages]
    return roles == ["user", "assistant"] * (len(roles) // 2) and not any(m.media for m in messages)
