"""What is wrong with a row that is no tree: every node and every message is looked at alone."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from hedgerow.errors import DataError
from hedgerow.tree import MessageTree, Role

Kind = Literal["schema", "media", "place", "time", "answer", "duplicate", "size"]
KINDS: dict[Kind, str] = {
    "schema": "the row is not JSON, or not a tree: an unknown key, a wrong type, roles in a wrong order",
    "media": "an image, video or subtitle file cannot be read, lacks the clip, or kills what reads it",
    "place": "a point stands outside its frame, on an image that is not shown, or twice under an id",
    "time": "points are at times that no sampled frame shows",
    "answer": "an answer is empty or missing, or ranks compare nothing",
    "duplicate": "an id, or the messages of a row, stand in the data twice",
    "size": "a tree, or a branch with its root, holds more than a row of the budget",
}
_FILLER = {"role": "user", "content": "-"}
_ROLES = get_args(Role)
HINT = "if this is another format: hedgerow data convert"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a row: its kind, the node it is about (empty: all), and what to do."""

    kind: Kind
    place: str
    text: str


def place_of(address: str) -> str:
    """Name a node by its address, as errors do."""
    return f"branch {address}" if address else "root"


def schema_faults(line: str) -> list[Fault]:
    """Return what is wrong with a line that is no tree, node by node and message by message.

    Empty where only the whole of it says what is wrong, as with a line that is not JSON.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return []
    return [fault for piece in _pieces(value) for fault in piece.faults()] if isinstance(value, dict) else []


def is_foreign(line: str, path: Path) -> bool:
    """Whether a line that is no tree looks like one of another format.

    That is a row without messages, with a message of another role or without the keys of one; and a line that
    is no row at all of a file that is not named as JSONL.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return path.suffix.lower() != ".jsonl"
    messages = value.get("messages")
    if not isinstance(messages, list):
        return True
    return any(isinstance(one, dict) and not _is_turn(one) for one in messages)


def _is_turn(message: dict[str, Any]) -> bool:
    return message.get("role") in _ROLES and "content" in message


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a row in a tree that is right otherwise. `message` is its number where it is a message."""

    address: str
    value: dict[str, Any]
    message: int | None = None

    def faults(self) -> Iterator[Fault]:
        try:
            MessageTree.from_dict(self.value, where="row")
        except DataError as error:
            text = str(error).removeprefix("row: ").removeprefix("branches.0.")
            text = text.removeprefix("branches.0: ").removeprefix("branch 0: ").removeprefix("root: ")
            if self.message is not None:  # it stands alone, and is called 0
                text = _renumbered(text, self.message)
            yield Fault("schema", place_of(self.address), text)


def _renumbered(text: str, number: int) -> str:
    for before in ("messages.0", "message 0"):
        if text.startswith(before):
            return before[:-1] + str(number) + text.removeprefix(before)
    return text


def _pieces(row: dict[str, Any]) -> Iterator[_Piece]:
    """Take a row apart; a hostile one may be deep, so that no function calls itself."""
    nodes: list[tuple[str, Any, str | None]] = [("", row, None)]
    while nodes:
        address, node, before = nodes.pop()
        if not isinstance(node, dict):
            yield _Piece(address, _tree(node, before="user"))
            continue
        messages, branches = node.get("messages"), node.get("branches", [])
        yield _Piece(address, _own(address, node))
        for number, message in enumerate(messages if isinstance(messages, list) else []):
            yield _Piece(address, _tree({"messages": [message]}, before=before), number)
            before = _role(message)
        below = enumerate(branches if isinstance(branches, list) else [])
        parted = f"{address}." if address else ""
        nodes += [(f"{parted}{number}", branch, before) for number, branch in below][::-1]


def _own(address: str, node: dict[str, Any]) -> dict[str, Any]:
    """A tree with the keys of a node, and of its messages and branches no more than that there are some."""
    own = dict(node)
    if isinstance(node.get("messages"), list) and node["messages"]:
        own["messages"] = [_FILLER]
    if isinstance(node.get("branches"), list):
        own["branches"] = []
    return _tree(own, before="user") if address else own


def _tree(branch: Any, *, before: str | None) -> dict[str, Any]:
    """A tree with one branch below a message of a role, or with its messages in the root if none is above."""
    if before is None:
        return {"id": "row", **branch}
    last = [_FILLER | {"role": before}] if before in ("system", "assistant") else []
    root = last if before == "system" else [_FILLER, *last]
    return {"id": "row", "messages": root, "branches": [branch]}


def _role(message: Any) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    return role if isinstance(role, str) else "user"
