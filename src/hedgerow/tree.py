"""Message trees: a root with media, and branches that continue it and never see each other."""

import base64
import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from hedgerow import content as parts
from hedgerow.content import STRICT, Image, Media, Part, Points, Text, Tracks, Video, Weight
from hedgerow.errors import DataError
from hedgerow.validation import explain

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True, config=STRICT)
class Message:
    """One turn. `content` is a string or parts; `weight` multiplies the loss weight of its tokens."""

    role: Role
    content: str | tuple[Part, ...]
    weight: Weight | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts, a plain string as one text."""
        return (Text(self.content),) if isinstance(self.content, str) else self.content

    @property
    def media(self) -> tuple[Media, ...]:
        """Images and videos, in order."""
        return tuple(part for part in self.parts if isinstance(part, Image | Video))


@dataclass(frozen=True, slots=True, config=STRICT, repr=False)
class Branch:
    """A conversation that continues its parent's; the assistant's messages are supervised.

    `rank` orders sibling branches that answer the same question (0 is best); `weight` multiplies the loss
    weights.
    """

    messages: tuple[Message, ...] = Field(min_length=1)
    branches: tuple["Branch", ...] = ()
    task: str | None = None
    weight: Weight | None = None
    rank: int | None = Field(default=None, ge=0)

    def __repr__(self) -> str:
        """Show one line a node."""
        return "\n".join(_draw(self.task or "branch", self))


@dataclass(frozen=True, slots=True, config=STRICT, repr=False)
class MessageTree:
    """A root conversation, often with media, and the branches that share it. `source` names the data set."""

    id: str
    messages: tuple[Message, ...] = Field(min_length=1)
    branches: tuple[Branch, ...] = ()
    source: str = "data"
    task: str | None = None
    weight: Weight | None = None

    def __post_init__(self) -> None:
        """Refuse conversations no chat can hold."""
        for node in self.nodes():
            _check_roles(node)

    def nodes(self) -> tuple["Node", ...]:
        """All nodes, depth first; the root is node 0. A parent stands before its children."""
        found: list[Node] = []
        weight = 1.0 if self.weight is None else self.weight
        root = Node(0, -1, (), self.messages, self.task, weight, None, "")
        _collect(root, self.branches, found)
        return tuple(found)

    @property
    def media(self) -> tuple[Media, ...]:
        """All images and videos, in depth-first order."""
        return tuple(item for node in self.nodes() for message in node.messages for item in message.media)

    def to_dict(self) -> dict[str, Any]:
        """Return the tree in the native format; keys at their defaults are left out."""
        return dict(_plain(self))

    @classmethod
    def from_dict(cls, value: object, *, where: str = "tree") -> "MessageTree":
        """Build a tree from the native format.

        Args:
            value: one decoded JSON object.
            where: what an error names, such as `data.jsonl:12`.

        Raises:
            DataError: the value is not a tree; the message names the key and the nearest valid one.
        """
        try:
            return _ADAPTER.validate_python(value)
        except ValidationError as error:
            raise DataError(f"{where}: {explain(error, _KEYS, MessageTree)}") from None

    def place(self, node: "Node") -> str:
        """Name the tree and one of its nodes, for errors."""
        return f"{self.id}, branch {node.address}" if node.address else f"{self.id}, root"

    def __repr__(self) -> str:
        """Draw the tree, one line a message."""
        return "\n".join(_draw(f"{self.id} ({self.source})", self))


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One node: `path` are the messages above it, `messages` its own; `task` and `weight` as inherited."""

    index: int
    parent: int
    path: tuple[Message, ...]
    messages: tuple[Message, ...]
    task: str | None
    weight: float
    rank: int | None
    address: str


def read_trees(path: str | Path) -> Iterator[MessageTree]:
    """Yield the trees of a JSONL file, one a line; media paths are taken relative to the file.

    Raises:
        DataError: the file cannot be read or a line is not a tree; the message names file and line.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield parse_line(line, where=f"{path}:{number}", folder=path.parent)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a JSONL file in UTF-8") from None


def parse_line(line: str, *, where: str, folder: Path) -> MessageTree:
    """Build the tree of one JSONL line; relative media paths are joined to `folder`.

    Raises:
        DataError: the line is not JSON or not a tree.
    """
    try:
        value = json.loads(line)
        json.dumps(value, ensure_ascii=False).encode()  # half a character has no tokens and cannot be printed
        value = _relocated(value, folder)
    except (ValueError, RecursionError) as error:
        told = str(error)
        if isinstance(error, json.JSONDecodeError):  # the line it names is not that of the file
            told = f"{error.msg}, at character {error.pos + 1}"
        raise DataError(f"{where}: not JSON ({told}); write one object a line") from None
    return MessageTree.from_dict(value, where=where)


def write_trees(path: str | Path, trees: Iterable[MessageTree]) -> int:
    """Write trees as JSONL, one a line, and return how many."""
    count = 0
    with Path(path).open("w", encoding="utf-8") as file:
        for tree in trees:
            file.write(json.dumps(tree.to_dict(), ensure_ascii=False) + "\n")
            count += 1
    return count


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of one line of the native format."""
    schema: dict[str, Any] = _ADAPTER.json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _relocated(value: Any, folder: Path) -> Any:
    """Return decoded JSON with relative media paths joined to a folder; what is no tree is left as it is."""
    if isinstance(value, list):
        return [_relocated(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    inner = {
        key: _relocated(value[key], folder) for key in ("messages", "branches", "content") if key in value
    }
    if value.get("type") in ("image", "video"):
        named = [key for key in ("path", "subtitles") if isinstance(value.get(key), str)]
        inner |= {key: str(folder / value[key]) for key in named}
    return {**value, **inner}


def _collect(node: Node, branches: tuple[Branch, ...], found: list[Node]) -> None:
    found.append(node)
    for number, branch in enumerate(branches):
        child = Node(
            index=len(found),
            parent=node.index,
            path=node.path + node.messages,
            messages=branch.messages,
            task=branch.task or node.task,
            weight=node.weight * (1.0 if branch.weight is None else branch.weight),
            rank=branch.rank,
            address=f"{node.address}.{number}" if node.address else str(number),
        )
        _collect(child, branch.branches, found)


def _check_roles(node: Node) -> None:
    place = f"branch {node.address}" if node.address else "root"
    before = node.path[-1].role if node.path else None
    for number, message in enumerate(node.messages):
        if message.role == "system" and before is not None:
            raise ValueError(
                f"{place}: message {number} is a system message; only the first of the root may be"
            )
        if message.role == "assistant" and before in (None, "system", "assistant"):
            raise ValueError(f"{place}: message {number} answers nothing; put a user message before it")
        if message.role != "user" and message.media:
            raise ValueError(
                f"{place}: message {number} shows media as {message.role}; only users show media"
            )
        before = message.role


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        defaults = {f.name: f.default for f in dataclasses.fields(value)}
        kept = {k: v for k, v in shown.items() if k == "type" or not _is_default(v, defaults[k])}
        return {key: _plain(item) for key, item in kept.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _is_default(value: Any, default: Any) -> bool:
    default = getattr(default, "default", default)
    return type(value) is type(default) and value == default


def _draw(title: str, node: "Branch | MessageTree") -> list[str]:
    lines = [title, *(f"  {message.role}: {_brief(message)}" for message in node.messages)]
    for number, branch in enumerate(node.branches):
        last = number == len(node.branches) - 1
        first, *rest = _draw(f"{number} {branch.task or ''}".rstrip(), branch)
        lines.append(("└─ " if last else "├─ ") + first)
        lines.extend(("   " if last else "│  ") + line for line in rest)
    return lines


def _brief(message: Message) -> str:
    return " ".join(_brief_part(part) for part in message.parts)


def _brief_part(part: Part) -> str:
    if isinstance(part, Text):
        text = part.text.replace("\n", " / ")
        return text if len(text) <= 72 else text[:69] + "..."
    if isinstance(part, Points | Tracks):
        return f"[{part.type} {part.label}: {len(part.points)}]"
    clip = ""
    if isinstance(part, Video) and (part.start is not None or part.end is not None):
        clip = f" {part.start or 0:g}-{'end' if part.end is None else format(part.end, 'g')} s"
    return f"[{part.type} {Path(part.name).name}{clip}]"


_ADAPTER: TypeAdapter[MessageTree] = TypeAdapter(MessageTree)
_KEYS = {
    field.name
    for kind in (
        MessageTree,
        Branch,
        Message,
        Text,
        parts.Span,
        Image,
        Video,
        parts.Subtitle,
        parts.Point,
        Points,
        Tracks,
    )
    for field in dataclasses.fields(kind)
}
