"""Tokenizer and chat format: messages become tokens, and every answer token is known as one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer

from hedgerow.content import Image, Text, Video
from hedgerow.errors import DataError, RecipeError
from hedgerow.tree import Message

TINY = Path(__file__).with_name("tokenizer")


class Template(Protocol):
    """How a chat template surrounds one message."""

    @property
    def bos(self) -> str:
        """The token that every conversation begins with, empty for none."""
        ...

    @property
    def opening(self) -> str:
        """What stands before the header of a first turn of the user; `around` counts it to that header."""
        ...

    def around(self, messages: Sequence[Message], number: int) -> tuple[str, str]:
        """Return the text before and after the content of message `number`."""
        ...


@dataclass(frozen=True, slots=True)
class ChatML:
    """`<|im_start|>role`, newline, content, `<|im_end|>`, newline: the format of Qwen and of Molmo2.

    `bos` is the token that every conversation begins with, empty for none.
    """

    bos: str = ""

    @property
    def opening(self) -> str:
        """What stands before the first header: `bos`."""
        return self.bos

    def around(self, messages: Sequence[Message], number: int) -> tuple[str, str]:
        """Return the header and the end-of-turn of a message."""
        return f"{'' if number else self.bos}<|im_start|>{messages[number].role}\n", "<|im_end|>\n"


@dataclass(frozen=True, slots=True)
class Rendered:
    """The chat template of a `transformers` tokenizer that renders each message the same whatever follows.

    A tree shares the tokens of its root among branches, so the rendering of a conversation must be a prefix
    of that of every longer one. Templates that rewrite earlier turns are refused. Content is shown to the
    template as a string or, where it does not write that, as typed parts.

    Attributes:
        tokenizer: with a chat template.
        bos: put before what the template writes where that does not begin with it, empty for none.
    """

    tokenizer: Any
    bos: str = ""
    _known: dict[tuple[tuple[str, ...], bool], "_Turn"] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def opening(self) -> str:
        """What the template writes before the header of a first turn: a BOS, a default system text.

        Raises:
            RecipeError: it writes the header of a first turn in another way than that of a later one.
        """
        first = self._turn(("user",))
        for roles in (("user", "user"), ("user", "assistant", "user")):  # not all take two users in a row
            header = self._later_header(roles)
            if header is not None and first.header.endswith(header):
                return first.header.removesuffix(header)
        raise RecipeError(
            f"the tokenizer's chat template begins a conversation with {first.header!r}, in which the header "
            "of the turn cannot be found, so media cannot stand before it; use model.template: chatml"
        )

    def _later_header(self, roles: tuple[str, ...]) -> str | None:
        """Return the header of the last turn, None where it cannot be told from the end of the one before."""
        try:
            before = self._turn(roles[:-1])
            text = self._render(_shown(roles, typed=before.typed))
        except RecipeError:
            return None
        between = text[: text.rfind(_mark(len(roles) - 1))].rpartition(_mark(len(roles) - 2))[2]
        return between.removeprefix(before.tail) if between.startswith(before.tail) else None

    def around(self, messages: Sequence[Message], number: int) -> tuple[str, str]:
        """Return the text the template puts before and after the content of a message.

        Raises:
            RecipeError: the template fails, rewrites earlier messages, changes the content, or ends an answer
                with nothing.
            DataError: the template trims content, and this one begins or ends with white space.
        """
        message = messages[number]
        turn = self._turn(
            tuple(item.role for item in messages[: number + 1]),
            media=bool(message.parts) and isinstance(message.parts[0], Image | Video),
        )
        if turn.trimmed and (edge := _white_edge(message)):
            raise DataError(
                f"the tokenizer's chat template trims what is said, and the {message.role} says {edge!r}; "
                "trim it in the data, or use model.template: chatml"
            )
        return turn.header, turn.tail

    def _turn(self, roles: tuple[str, ...], *, media: bool = False) -> "_Turn":
        """Look at the last turn; `media` says that an image stands first in it."""
        if (roles, media) not in self._known:
            self._known[roles, media] = self._look(roles, media=media)
        return self._known[roles, media]

    def _look(self, roles: tuple[str, ...], *, media: bool) -> "_Turn":
        number = len(roles) - 1
        typed = self._wants_parts(roles)
        before = self._render(_shown(roles[:-1], typed=typed)) if number else ""
        after = self._render(_shown(roles, typed=typed))
        mark, wide = _mark(number), f" {_mark(number)} "
        if not after.startswith(before):
            problem = (
                f"rewrites message {number - 1} once message {number} follows, so branches cannot share it"
            )
        elif after.count(mark) != 1:
            problem = f"changes the content of message {number}, so its tokens cannot be told apart"
        else:
            header, tail = after[len(before) :].split(mark)
            if tail or roles[-1] != "assistant":
                trimmed = wide not in self._render(_shown(roles, typed=typed, last=wide))
                if media and typed:
                    seen = self._render(_shown(roles, typed=True, media=True))[len(before) :]
                    same = (place for place in range(len(header), 0, -1) if seen.startswith(header[:place]))
                    header = header[: next(same, 0)]
                return _Turn(header, tail, typed, trimmed)
            problem = "writes nothing after an answer, so the model could not learn to stop"
        raise RecipeError(
            f"the tokenizer's chat template {problem}; use model.template: chatml, or a tokenizer whose "
            "template only appends"
        )

    def _wants_parts(self, roles: tuple[str, ...]) -> bool:
        """Whether the template writes typed parts and no string."""

        def writes(*, typed: bool) -> bool:
            try:
                return _mark(len(roles) - 1) in self._render(_shown(roles, typed=typed))
            except RecipeError:
                return False

        return not writes(typed=False) and writes(typed=True)

    def _render(self, shown: list[dict[str, Any]]) -> str:
        try:
            text = str(self.tokenizer.apply_chat_template(shown, tokenize=False))
        except Exception as error:  # a template is a program and may raise anything
            roles = ", ".join(message["role"] for message in shown)
            told = " ".join(str(error).split())
            raise RecipeError(
                f"the tokenizer's chat template fails on turns of {roles} ({told}); use model.template: "
                "chatml"
            ) from error
        return text if text.startswith(self.bos) else self.bos + text


@dataclass(frozen=True, slots=True)
class _Turn:
    """What a template writes around a message; whether it wants typed parts, and trims what is said."""

    header: str
    tail: str
    typed: bool
    trimmed: bool


def _mark(number: int) -> str:
    return f"[content {number}]"


def _shown(roles: Sequence[str], *, typed: bool, last: str = "", media: bool = False) -> list[dict[str, Any]]:
    """Messages as a template is given them, with a mark for content; `last` is that of the last one."""
    marks = [_mark(number) for number in range(len(roles))]
    marks[-1:] = [last or one for one in marks[-1:]]
    if not typed:
        return [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    parts = [[{"type": "text", "text": mark}] for mark in marks]
    if media:
        parts[-1].insert(0, {"type": "image"})
    return [{"role": role, "content": own} for role, own in zip(roles, parts, strict=True)]


def _white_edge(message: Message) -> str:
    """Return the text of a message that begins or ends with white space, an empty string for none."""
    texts = [part.text if isinstance(part, Text) else "" for part in message.parts]
    ends = [text for text, edge in ((texts[0], 0), (texts[-1], -1)) if text and text[edge].isspace()]
    return ends[0][:40] if ends else ""


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one stretch of text, each with its first character and the one after its last."""

    tokens: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]


class ChatFormat:
    """Any `tokenizers` or `transformers` tokenizer, with a template.

    Args:
        tokenizer: a `tokenizers.Tokenizer` or a fast tokenizer of `transformers`.
        template: `ChatML()` or `Rendered(tokenizer)`.

    Attributes:
        template: the same.
        tokenizer: the `tokenizers.Tokenizer`.

    Raises:
        RecipeError: the tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: Any, template: Template | None = None) -> None:
        self.template = template or ChatML()
        self.tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not hasattr(self.tokenizer, "token_to_id"):
            raise RecipeError(f"{type(tokenizer).__name__} has no character offsets; give a fast tokenizer")
        self._markup: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str, *, lead: str = "") -> Span:
        """Turn content into tokens with their character offsets.

        Special tokens are neither added nor read: content that spells `<|im_end|>` is so many characters.

        Args:
            text: content.
            lead: spaces before it that are tokens with it; offsets count from the text.
        """
        self.tokenizer.encode_special_tokens = True  # means: as other text
        try:
            found = self.tokenizer.encode(lead + text, add_special_tokens=False)
        finally:
            self.tokenizer.encode_special_tokens = False
        own = ((max(start - len(lead), 0), max(end - len(lead), 0)) for start, end in found.offsets)
        return Span(tuple(found.ids), tuple(own))

    def markup(self, text: str) -> tuple[int, ...]:
        """Turn what a template writes into tokens; special tokens are read, none is added.

        Templates repeat themselves, so what was turned once is remembered.
        """
        if text not in self._markup:
            self._markup[text] = tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)
        return self._markup[text]

    def decode(self, tokens: Sequence[int]) -> str:
        """Turn tokens into text, special tokens left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def show(self, token: int) -> str:
        """Return one token as readable text, special tokens included."""
        return str(self.tokenizer.decode([token], skip_special_tokens=False))

    def special(self, name: str) -> int:
        """Return the id of a special token.

        Raises:
            RecipeError: the tokenizer does not have it.
        """
        token = self.tokenizer.token_to_id(name)
        if token is None:
            raise RecipeError(
                f"the tokenizer has no token {name}; add it, or choose a tokenizer made for this model"
            )
        return int(token)

    @cached_property
    def stop(self) -> int:
        """Id of the token that ends an answer: the first one after the content of an assistant's message."""
        turns = (Message("user", "?"), Message("assistant", "!"))
        return self.markup(self.template.around(turns, 1)[1])[0]

    @cached_property
    def vocabulary(self) -> int:
        """Number of ids, special tokens included."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))


def load_tokenizer(folder: str | Path = "tiny") -> Tokenizer:
    """Load a fast tokenizer from a folder or a `tokenizer.json`; "tiny" is the small one that is shipped.

    Raises:
        DataError: there is none, or it is broken.
    """
    path = TINY if str(folder) == "tiny" else Path(folder)
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise DataError(
            f"{path}: no such tokenizer; give a folder with tokenizer.json, or 'tiny' for the shipped one"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # whatever is wrong, it is a bare Exception
        raise DataError(
            f"{path}: no tokenizer that can be read ({' '.join(str(error).split())}); copy it again, or give "
            "that of another folder"
        ) from None
