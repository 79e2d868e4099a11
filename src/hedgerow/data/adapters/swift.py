"""ms-swift: `messages` with tags, `images`, `videos` and `objects` beside them.

Format: github.com/modelscope/ms-swift, docs/source_en/Customization/Custom-dataset.md.
"""

import re
from collections.abc import Iterator
from typing import Any

from hedgerow.content import Frame, Part, Point, Points, Text
from hedgerow.data.adapters.columns import texts, turn_list
from hedgerow.data.adapters.conversation import Shelf, content, planted, spliced, untagged
from hedgerow.data.adapters.piece import Adapter, Options, Piece, Values
from hedgerow.data.adapters.records import Record
from hedgerow.errors import DataError
from hedgerow.tree import Branch, Message, Role

TAGS = ("<image>", "<video>", "<bbox>", "<ref-object>")
OWN = ("objects", "rejected_response")  # columns that no other format has
_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
_MARK = re.compile(r"(<ref-object>|<bbox>)")
_FRAMES: dict[str, Frame] = {"real": "pixels", "norm1": "fraction"}
_UNNAMED = "target"  # what is pointed at where no <ref-object> says it


def _misfit(values: Values) -> str:
    messages = values.get("messages")
    if not isinstance(messages, list):
        return "there is no list 'messages'"
    if not all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in messages):
        return "its messages have parts, not text with tags"
    tagged = any(tag in turn["content"] for turn in messages for tag in TAGS)
    if tagged or any(values.get(column) is not None for column in OWN):
        return ""
    return f"there is no tag such as {TAGS[0]}, and no {' or '.join(OWN)}"


def _piece(record: Record, values: Values, options: Options) -> Piece:
    shelf = Shelf(texts(values, "images"), texts(values, "videos"))
    objects = _Objects(values.get("objects") or {}, several=len(texts(values, "images")) > 1)
    messages = [_message(turn, shelf, objects) for turn in turn_list(values, "messages", ("role", "content"))]
    shelf.check_empty()
    objects.check_empty()
    name, ranked = str(values.get("id") or record.id), list[Branch]()
    rejected = values.get("rejected_response")
    if rejected is not None:
        if not messages or messages[-1].role != "assistant":
            raise DataError("rejected_response: the last message is no answer to compare it with; give one")
        answers = (messages.pop(), Message("assistant", str(rejected)))
        ranked = [Branch((answer,), rank=rank) for rank, answer in enumerate(answers)]
    return planted(name, record.source, messages, ranked=ranked, turns=options.turns)


def _message(turn: dict[str, Any], shelf: Shelf, objects: "_Objects") -> Message:
    role = _ROLES.get(str(turn["role"]))
    if role is None:
        raise DataError(f"messages: a role is '{turn['role']}'; allowed: {', '.join(_ROLES)}")
    media, text = untagged(str(turn["content"]), shelf)
    weight = 0.0 if turn.get("loss") is False else turn.get("loss_scale")
    parts = [*media, *spliced(objects.placed(text))]
    return Message(role, content(parts), None if weight is None else float(weight))


class _Objects:
    """The `objects` of a row: names and boxes, taken in order by the tags of the text.

    Args:
        given: `ref`, `bbox`, and perhaps `bbox_type` and `image_id`.
        several: the row shows several images.
    """

    def __init__(self, given: dict[str, Any], *, several: bool) -> None:
        kind = given.get("bbox_type") or "real"
        if kind not in _FRAMES:
            raise DataError(f"objects.bbox_type: '{kind}' is unknown; allowed: {', '.join(_FRAMES)}")
        self._frame = _FRAMES[kind]
        self._names, self._boxes = given.get("ref") or [], given.get("bbox") or []
        self._images = given.get("image_id") or ([0] * len(self._boxes) if several else None)
        self._named = self._boxed = 0
        self._label = _UNNAMED

    def placed(self, text: str) -> Iterator[Part]:
        """Yield the text with points in place of its boxes; each name goes to the boxes right behind it."""
        pieces = _MARK.split(text)
        at = 0
        while at < len(pieces):
            if pieces[at] == "<ref-object>":
                self._label = self._name()
                follows = at + 2 < len(pieces) and pieces[at + 2] == "<bbox>" and not pieces[at + 1].strip()
                if follows:
                    at += 1  # the points say their name themselves
                else:
                    yield Text(self._label)
            elif pieces[at] == "<bbox>":
                boxes = 1
                while at + 2 < len(pieces) and pieces[at + 2] == "<bbox>" and not pieces[at + 1].strip():
                    boxes, at = boxes + 1, at + 2
                yield Points(self._label, tuple(self._point() for _ in range(boxes)), self._frame)
            else:
                yield Text(pieces[at])
            at += 1

    def check_empty(self) -> None:
        """Refuse names and boxes that no tag has taken."""
        for tag, taken, given in (
            ("ref", self._named, self._names),
            ("bbox", self._boxed, self._boxes),
        ):
            if taken < len(given):
                raise DataError(f"objects.{tag}: {len(given)} are given and the text has tags for {taken}")

    def _name(self) -> str:
        self._named += 1
        if self._named > len(self._names):
            raise DataError(f"objects.ref: {len(self._names)} are given and the text has more <ref-object>")
        return str(self._names[self._named - 1]).strip()

    def _point(self) -> Point:
        self._boxed += 1
        if self._boxed > len(self._boxes):
            raise DataError(f"objects.bbox: {len(self._boxes)} are given and the text has more <bbox>")
        box = [float(number) for number in self._boxes[self._boxed - 1]]
        image = None if self._images is None else int(self._images[self._boxed - 1]) + 1
        if len(box) == 2:
            return Point(box[0], box[1], image=image)
        if len(box) != 4:
            raise DataError(f"objects.bbox: {box} has {len(box)} numbers; give x, y or x0, y0, x1, y1")
        x0, y0, x1, y1 = box
        return Point((x0 + x1) / 2, (y0 + y1) / 2, image=image, box=(x0, y0, x1, y1))


SWIFT = Adapter("ms-swift", _misfit, _piece, known=("messages", "images", "videos", *OWN))
