"""HF and TRL: messages with typed parts, media in them or in columns beside; prompts and preferences.

Format: github.com/huggingface/trl, docs/source/dataset_formats.md; parts as in the chat templates of
`transformers` (`path`, `url`, `image`, `base64`) and of OpenAI (`image_url`).
"""

from collections.abc import Iterator
from typing import Any

from hedgerow.content import Image, Part, Text, Video
from hedgerow.data.adapters.columns import texts
from hedgerow.data.adapters.conversation import Shelf, content, planted
from hedgerow.data.adapters.piece import Adapter, Options, Piece, Values
from hedgerow.data.adapters.records import Record
from hedgerow.data.adapters.swift import OWN, TAGS
from hedgerow.errors import DataError
from hedgerow.tree import Branch, Message, Role

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
_PLACES = ("path", "url", "image", "video", "image_url", "base64")  # of a part that shows something


def _misfit(values: Values) -> str:
    if isinstance(values.get("messages"), list):
        texts_of = [turn.get("content") for turn in values["messages"] if isinstance(turn, dict)]
        tagged = any(tag in text for text in texts_of if isinstance(text, str) for tag in TAGS)
        swift = tagged or any(values.get(column) is not None for column in OWN)
        return "its messages have tags such as <image>, or objects beside them" if swift else ""
    given = {column for column in ("prompt", "completion", "chosen", "rejected") if values.get(column)}
    if given >= {"prompt", "completion"} or given >= {"chosen", "rejected"}:
        return ""
    return "there is no 'messages', 'prompt' with 'completion', or 'chosen' with 'rejected'"


def _piece(record: Record, values: Values, options: Options) -> Piece:
    if isinstance(values.get("label"), bool):
        raise DataError("label: an answer without its rival cannot be ranked; give 'chosen' and 'rejected'")
    shelf = Shelf(
        [*texts(values, "image"), *texts(values, "images")],
        [*texts(values, "video"), *texts(values, "videos")],
    )
    name = str(values.get("id") or record.id)
    if values.get("chosen") is not None:
        said, ranked = _preference(values)
    else:
        said, ranked = _said(values), []
    messages = [_message(one, shelf) for one in said]
    branches = [
        Branch(tuple(_message(one, shelf) for one in answer), rank=rank) for rank, answer in enumerate(ranked)
    ]
    messages = _shown_first(messages, shelf)
    shelf.check_empty()
    return planted(name, record.source, messages, ranked=branches, turns=options.turns)


def _said(values: Values) -> list[dict[str, Any]]:
    if values.get("messages") is not None:
        return _turns(values["messages"], "user", "messages")
    prompt = _turns(values["prompt"], "user", "prompt")
    return prompt + _turns(values["completion"], "assistant", "completion")


def _preference(values: Values) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """Return the prompt, the chosen and the rejected answer; a prompt not given is what both share."""
    if values.get("rejected") is None:
        raise DataError("rejected: there is nothing; a 'chosen' answer needs a 'rejected' one")
    prompt = [] if values.get("prompt") is None else _turns(values["prompt"], "user", "prompt")
    pair = [_turns(values[column], "assistant", column) for column in ("chosen", "rejected")]
    if not prompt:
        shared = 0
        while shared < min(map(len, pair)) and pair[0][shared] == pair[1][shared]:
            shared += 1
        prompt, pair = pair[0][:shared], [answer[shared:] for answer in pair]
    if not prompt or not all(pair):
        raise DataError("chosen: it must answer a prompt, and otherwise than 'rejected'; give 'prompt'")
    return prompt, pair


def _turns(value: object, role: Role, column: str) -> list[dict[str, Any]]:
    """Return messages; a text is one message of this role."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(
            f"{column}: {type(value).__name__} is no conversation; give a text or a list of messages"
        )
    return value


def _message(turn: dict[str, Any], shelf: Shelf) -> Message:
    role = _ROLES.get(str(turn.get("role")))
    if role is None:
        raise DataError(f"messages: a role is '{turn.get('role')}'; allowed: {', '.join(_ROLES)}")
    given = turn.get("content")
    if isinstance(given, str):
        return Message(role, given)
    if not isinstance(given, list):
        raise DataError(f"messages: a content is {given!r}; give a text or a list of parts")
    return Message(role, content(part for one in given for part in _parts(one, shelf)))


def _parts(given: object, shelf: Shelf) -> Iterator[Part]:
    if isinstance(given, str):
        given = {"type": "text", "text": given}
    kind = given.get("type") if isinstance(given, dict) else None
    if not isinstance(given, dict) or kind not in ("text", "image", "video", "image_url"):
        raise DataError(f"messages: a part has the type '{kind}'; allowed: text, image, video, image_url")
    if kind == "text":
        yield Text(str(given.get("text") or ""))
        return
    place = next((given[key] for key in _PLACES if given.get(key) is not None), None)
    if isinstance(place, dict):  # {"url": ...} of OpenAI, {"path": ...} of datasets
        place = next((place[key] for key in _PLACES if place.get(key) is not None), None)
    if given.get("base64") is not None:
        place = f"data:;base64,{given['base64']}"
    if place is None:
        yield shelf.take("video" if kind == "video" else "image")
    else:
        yield Video(str(place)) if kind == "video" else Image(str(place))


def _shown_first(messages: list[Message], shelf: Shelf) -> list[Message]:
    """Put media that no part asks for before the first question, where messages show none themselves."""
    first = next((number for number, message in enumerate(messages) if message.role == "user"), None)
    if first is None or any(message.media for message in messages):
        return messages
    shown = Message("user", content([*shelf.rest(), *messages[first].parts]))
    return [*messages[:first], shown, *messages[first + 1 :]]


_COLUMNS = ("messages", "prompt", "completion", "chosen", "rejected", "image", "images", "video", "videos")
TYPED = Adapter("trl", _misfit, _piece, known=_COLUMNS)
