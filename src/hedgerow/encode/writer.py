"""Messages to tokens: media, headers, text and answers of one node, in logical order."""

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Listing
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import NamedTuple

from hedgerow.content import Image, Media, Part, Points, Text, Tracks, Video
from hedgerow.encode.draft import Draft, Shown, written
from hedgerow.errors import HedgerowError, RecipeError
from hedgerow.text import ChatFormat
from hedgerow.tree import Message, MessageTree, Node
from hedgerow.vision.facts import Facts
from hedgerow.vision.processor import Marks, MediaLayout, VisionProcessor
from hedgerow.weights.answer import Answer, stated


class Turn(NamedTuple):
    """What stands around the content of a message: header, spaces before the content, end of the turn."""

    header: str
    lead: str
    tail: str


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes nodes for one tokenizer and one vision processor.

    `weighed` says that weighers look at every answer.
    """

    chat: ChatFormat
    processor: VisionProcessor
    facts: Callable[[Media], Facts]
    weighed: bool

    def draft(self, tree: MessageTree, node: Node, above: Shown, group: int) -> Draft:
        """Write the messages of a node.

        Args:
            tree: of the node.
            node: whose messages are written.
            above: the media of its path.
            group: the first free number of a bidirectional group.

        Raises:
            DataError: an annotation does not fit its media; the message names the node.
        """
        draft = Draft(task=node.task or "qa", source=tree.source)
        history = [*node.path, *node.messages]
        for number in range(len(node.path), len(history)):
            try:
                group = self._add(draft, history[: number + 1], above, group)
            except HedgerowError as error:
                raise type(error)(f"{tree.place(node)}: {error}") from None
        return draft

    def _add(self, draft: Draft, history: list[Message], above: Shown, group: int) -> int:
        """Write the last message; return the next free number of a group."""
        message, first = history[-1], len(draft.media)
        draft.media += self._shown(message, above + draft.media)
        own = draft.media[first:]
        inside = self.processor.placement == "inside"
        if not inside:
            if own and len(history) == 1:  # nothing stands before it, also no media
                draft.add(self.chat.markup(self.chat.template.opening))
            for _, layout in own:
                group = self._add_layout(draft, layout, group)
        if inside or _speaks(message):
            parts = message.parts if inside else _said(message.parts)
            turn = self.around(history)
            if message.role == "assistant":
                draft.add(self.chat.markup(turn.header))
                self._add_answer(draft, message, above + draft.media, turn)
            else:
                content = list(_content(draft, parts, above + draft.media, first))
                if isinstance(next(iter(parts), None), Image | Video):
                    turn = _joined(turn, content[0])
                draft.add(self.chat.markup(turn.header))
                group = self._add_content(draft, filter(None, [turn.lead, *content]), group)
                draft.add(self.chat.markup(turn.tail))
        return group + (bool(own) and self.processor.groups == "message")

    def _shown(self, message: Message, before: Shown) -> Shown:
        """Lay out the media of a message."""
        images = sum(isinstance(item, Image) for item, _ in before)
        several = sum(isinstance(item, Image) for item in message.media) > 1
        found: Shown = []
        for item in message.media:
            images += isinstance(item, Image)
            label = f"Image {images}" if several and isinstance(item, Image) else None
            filled = self.processor.filled(item, several=several)
            found.append((filled, self.processor.layout(filled, self.facts(filled), label=label)))
        return found

    def _add_layout(self, draft: Draft, layout: MediaLayout, group: int) -> int:
        groups = self.processor.groups
        own = group if groups in ("message", "per_image") else -1
        for piece in layout.pieces:
            if isinstance(piece, str):
                draft.add(self.chat.encode(piece).tokens)
                continue
            if piece.position is not None:
                draft.laid.append((len(draft.tokens), piece.position))
            for name, count in _runs(piece.names):
                alone = groups == "runs" and name == piece.patch
                draft.add(
                    [self.chat.special(name)] * count, group=group if alone else own, slot=name == piece.patch
                )
                group += alone
        return group + (groups == "per_image")

    def _add_content(self, draft: Draft, content: Iterable[str | MediaLayout], group: int) -> int:
        """Write text and media in their order, each stretch of text as one."""
        for kind, stretch in groupby(content, type):
            if kind is str:
                draft.add(self.chat.encode("".join(map(str, stretch))).tokens)
            else:
                for layout in stretch:
                    assert isinstance(layout, MediaLayout)
                    group = self._add_layout(draft, layout, group)
        return group

    def _add_answer(self, draft: Draft, message: Message, shown: Shown, turn: Turn) -> None:
        own = _said(message.parts)
        said = [(part, written(draft.place(part, shown))) for part in own]
        span = self.chat.encode("".join(text for _, text in said), lead=turn.lead)
        whole = 1.0 if message.weight is None else message.weight
        first = len(draft.tokens)
        draft.add(span.tokens, answer=whole)
        stands_out = any(map(_stands_out, own))
        if stands_out or self.weighed:
            answer = Answer.of(said, span.offsets, task=draft.task, source=draft.source)
            draft.answers.append((first, answer))
            if stands_out:
                draft.answer[first:] = (whole * stated(answer, said)).tolist()
        stop, *rest = self.chat.markup(turn.tail)
        draft.add([stop], answer=whole)
        draft.add(rest)
        draft.stops += 1

    def around(self, history: Listing[Message]) -> Turn:
        """Return what stands around the content of the last message.

        To a template a message that only shows media is no turn where media stand before the header. Inside
        it, the message opens the user's turn and leaves it open: a message of the user goes on in it, and
        any other one ends it first. Spaces that end a header are tokens with the text behind it.
        """
        header, tail = (
            self._before(history) if self.processor.placement == "before" else self._inside(history)
        )
        own = header.rstrip(" ")
        return Turn(own, header[len(own) :], tail)

    def _before(self, history: Listing[Message]) -> tuple[str, str]:
        template = self.chat.template
        turns = [_spoken(message) for message in history if _speaks(message)]
        header, tail = template.around(turns, len(turns) - 1)
        if len(turns) > 1 or not history[0].media:
            return header, tail
        if not header.startswith(template.opening):
            raise RecipeError(
                f"the chat template begins a conversation of the {turns[0].role} with {header!r}, one of the "
                f"user with {template.opening!r}, which stands before the media; use model.template: chatml"
            )
        return header.removeprefix(template.opening), tail

    def _inside(self, history: Listing[Message]) -> tuple[str, str]:
        turns = [one for one, after in pairwise(history) if _speaks(one) or after.role != one.role]
        turns.append(history[-1])
        header, tail = self.chat.template.around(turns, len(turns) - 1)
        if len(history) > 1 and not _speaks(history[-2]):
            goes_on = history[-1].role == history[-2].role
            header = "" if goes_on else self.chat.template.around(turns, len(turns) - 2)[1] + header
        return header, tail if _speaks(history[-1]) else ""


def _content(draft: Draft, parts: Iterable[Part], shown: Shown, first: int) -> Iterator[str | MediaLayout]:
    """Yield the text of parts and the layouts of media, which are those of the draft from `first` on.

    Text that begins or ends a layout is taken out of it: it is tokens with the text it stands beside.
    """
    for part in parts:
        if not isinstance(part, Image | Video):
            yield written(draft.place(part, shown))
            continue
        layout = draft.media[first][1]
        first += 1
        marks = [place for place, piece in enumerate(layout.pieces) if isinstance(piece, Marks)]
        begin, end = (marks[0], marks[-1] + 1) if marks else (0, len(layout.pieces))
        yield "".join(map(str, layout.pieces[:begin]))
        yield replace(layout, pieces=layout.pieces[begin:end])
        yield "".join(map(str, layout.pieces[end:]))


def _joined(turn: Turn, text: str | MediaLayout) -> Turn:
    """Take the white space that ends a header to text behind it that begins with such."""
    if not (isinstance(text, str) and text[:1].isspace()):
        return turn
    own = turn.header.rstrip()
    return turn._replace(header=own, lead=turn.header[len(own) :] + turn.lead)


def _speaks(message: Message) -> bool:
    """Whether a message says something, and does not only show media."""
    return not message.media or len(message.parts) > len(message.media)


def _spoken(message: Message) -> Message:
    """Return a message without its media."""
    return replace(message, content=tuple(_said(message.parts))) if message.media else message


def _said(parts: Iterable[Part]) -> list[Text | Points | Tracks]:
    return [part for part in parts if not isinstance(part, Image | Video)]


def _stands_out(part: Text | Points | Tracks) -> bool:
    """Whether the data say something of the weight or the meaning of a part."""
    return part.weight is not None or (isinstance(part, Text) and bool(part.spans))


def _runs(names: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    start = 0
    for place in range(1, len(names) + 1):
        if place == len(names) or names[place] != names[start]:
            yield names[start], place - start
            start = place
