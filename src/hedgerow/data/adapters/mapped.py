"""Rows to trees as a mapping says."""

import hashlib
import json
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from pathlib import Path

from hedgerow.content import Image, Part, Points, Subtitle, Text, Tracks, Video
from hedgerow.content import Media as Shown
from hedgerow.data.adapters.conditions import holds
from hedgerow.data.adapters.conversation import content, told_task
from hedgerow.data.adapters.mapped_points import grounded
from hedgerow.data.adapters.mapping import BranchRule, Choices, Media, RowMapping, read_mapping
from hedgerow.data.adapters.paths import HERE, Scope, expanded, filled, items, value_at
from hedgerow.data.adapters.piece import Adapter, Asked, Options, Piece, Values
from hedgerow.data.adapters.records import Record
from hedgerow.errors import DataError
from hedgerow.tree import Branch, Message, MessageTree


def adapter(path: Path) -> Adapter:
    """Return the adapter of a mapping; it is called by the name of its file.

    Raises:
        RecipeError: the mapping is wrong.
    """
    mapping = read_mapping(path)

    def misfit(values: Values) -> str:
        missing = [column for column in mapping.columns if column not in values]
        odd = [column for column in mapping.without if column in values]
        if not mapping.columns:
            return "known only by its name"
        return f"there is no '{missing[0]}'" if missing else f"it has no '{odd[0]}'" if odd else ""

    def piece(record: Record, values: Values, options: Options) -> Piece | None:
        return _piece(mapping, record, values, options)

    names = mapping.columns
    return Adapter(path.stem, misfit, piece, len(names), mapping.per_tree, known=names, needs=names)


def _piece(mapping: RowMapping, record: Record, values: Values, options: Options) -> Piece | None:
    if not holds(mapping.when, values):
        return None
    shown = [one for rule in mapping.media for one in _media(rule, values, options.pattern)]
    found = [
        one for number, rule in enumerate(mapping.branches) for one in _branches(rule, number, values, shown)
    ]
    branches, asked = [branch for branch, _ in found], tuple(one for _, one in found)
    if not branches or (mapping.media and not shown):
        return None
    name = record.id if mapping.id is None else filled(mapping.id, values)
    if not shown:
        return Piece(MessageTree(name, branches[0].messages, source=mapping.source, task=branches[0].task))
    root = (Message("user", tuple(shown)),)
    together = mapping.group_by and holds(mapping.group_when, values)
    key = json.dumps([value_at(path, values) for path in mapping.group_by], default=str) if together else None
    return Piece(MessageTree(name, root, tuple(branches), source=mapping.source), key, asked)


def _media(rule: Media, values: Values, pattern: str | None) -> Iterator[Shown]:
    for scope in _scopes(rule.each, values):
        if not holds(rule.when, scope):
            continue
        name = filled(pattern or rule.image or rule.video or "", scope)
        if rule.image is not None:
            yield Image(name)
            continue
        start, end, rate = (
            None if path is None else value_at(path, scope)
            for path in (rule.start, rule.end, rule.annotation_fps)
        )
        lines = [] if rule.subtitles is None else expanded(rule.subtitles.model_dump(), scope)
        subtitles = tuple(Subtitle(**line) for line in lines)
        yield Video(name, start=start, end=end, subtitles=subtitles, annotation_fps=rate)


def _scopes(each: str | None, values: Scope) -> list[Scope]:
    """The columns as they stand, or once for each item of a list, with the item's keys among them."""
    if each is None:
        return [values]
    found = items(value_at(each, values), each)
    return [{**values, "item": item, **(item if isinstance(item, dict) else {})} for item in found]


def _branches(
    rule: BranchRule, number: int, values: Values, shown: Listing[Shown]
) -> Iterator[tuple[Branch, Asked | None]]:
    for scope in _scopes(rule.each, values):
        if not holds(rule.when, scope):
            continue
        part: Points | Tracks | None = None
        objects: tuple[str, ...] = ()
        if rule.points is not None:
            part, objects = grounded(rule.points, scope, shown, Points)
        elif rule.tracks is not None:
            part, objects = grounded(rule.tracks, scope, shown, Tracks)
        messages = tuple(_messages(rule, scope, part))
        agree = [number, *(value_at(path, scope) for path in rule.merge_by)]
        merge = json.dumps(agree, default=str) if rule.merge_by else None
        asked = None if part is None else Asked(merge, objects)
        yield Branch(messages, task=rule.task or told_task(messages)), asked


def _messages(rule: BranchRule, scope: Scope, part: Points | Tracks | None) -> list[Message]:
    question = filled(rule.question, scope)
    if rule.choices is not None:
        return _choice(question, rule.choices, scope)
    answer = HERE if rule.answer is None else filled(rule.answer, scope)
    if rule.speakers is not None:
        asked = _dialogue(question, rule.speakers)
    else:
        first = None if part is None else Points(part.label, part.points[:1], part.frame)
        asked = [Message("user", _around(question, first))]
    return [*asked, Message("assistant", _around(answer, part))]


def _around(text: str, part: Part | None) -> str | tuple[Part, ...]:
    """A text with a part in place of `{}`."""
    before, here, after = text.partition(HERE)
    if part is None or not here:
        return text
    return content([Text(before), part, Text(after)])


def _dialogue(text: str, speakers: tuple[str, str]) -> list[Message]:
    """Split a dialogue that ends with the mark of the assistant, whose last answer stands elsewhere."""
    user, assistant = speakers
    turns = text.split(user)
    if turns[0].strip() or len(turns) < 2:
        raise DataError(f"a dialogue starts with {user}, this one with {text[:20]!r}; correct the row")
    messages: list[Message] = []
    for number, turn in enumerate(turns[1:], 2):
        asked, mark, answered = turn.partition(assistant)
        if not mark or not asked.strip() or bool(answered.strip()) == (number == len(turns)):
            raise DataError(
                f"turn {number - 1} of a dialogue lacks {assistant} or what follows; correct the row"
            )
        messages.append(Message("user", asked.strip()))
        if answered.strip():
            messages.append(Message("assistant", answered.strip()))
    return messages


def _choice(question: str, choices: Choices, scope: Scope) -> list[Message]:
    options = [str(option).strip() for option in items(value_at(choices.wrong, scope), choices.wrong)]
    right = value_at(choices.right, scope)
    if right is None or not options:
        raise DataError(f"{choices.right}: a choice needs a right option and wrong ones; correct the row")
    digest = hashlib.sha256(question.encode()).digest()
    place = int.from_bytes(digest[:8], "big") % (len(options) + 1)
    options.insert(place, str(right).strip())
    lettered = [f"{chr(ord('A') + number)}. {option}" for number, option in enumerate(options)]
    return [Message("user", "\n".join([question, *lettered])), Message("assistant", lettered[place])]
