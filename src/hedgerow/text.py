"""Tokenizer and chat format: messages become tokens, and every answer token is known as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer

from hedgerow.errors import DataError, RecipeError
from hedgerow.tree import Message

TINY = Path(__file__).with_name("tokenizer")


class Template(Protocol):
    """How a chat template surrounds one message."""

    def around(self, messages: Sequence[Message], number: int) -> tuple[str, str]:
        """Return the text before and after the content of message `number`."""
        ...


@dataclass(frozen=True, slots=True)
class ChatML:
    """`<|im_start|>role`, newline, content, `<|im_end|>`, newline: the format of Qwen and of Molmo2."""

    def around(self, messages: Sequence[Message], number: int) -> tuple[str, str]:
        """Return the header and the end-of-turn of a message."""
        return f"<|im_start|>{messages[number].role}\n", "<|im_end|>\n"


@dataclass(frozen=True, slots=True)
class Rendered:
    """The chat template of a `transformers` tokenizer that renders each message the same whatever follows.

    A tree shares the tokens of its root among branches, so the rendering of a conversation must be a prefix
    of that of every longer one. Templates that trim or rewrite earlier turns are refused.
    """

    tokenizer: Any

    def around(self, messages: Sequence[Message], number: int) -> tuple[str, str]:
        """Return the text the template puts before and after the content of a message.

        Raises:
            RecipeError: the template fails, rewrites earlier messages, changes the content, or ends an answer
                with nothing.
        """
        shown = [{"role": item.role, "content": f"[content {place}]"} for place, item in enumerate(messages)]
        before = self._render(shown[:number]) if number else ""
        after = self._render(shown[: number + 1])
        mark = f"[content {number}]"
        if not after.startswith(before):
            problem = (
                f"rewrites message {number - 1} once message {number} follows, so branches cannot share it"
            )
        elif after.count(mark) != 1:
            problem = f"changes the content of message {number}, so its tokens cannot be told apart"
        else:
            header, tail = after[len(before) :].split(mark)
            if tail or messages[number].role != "assistant":
                return header, tail
            problem = "writes nothing after an answer, so the model could not learn to stop"
        raise RecipeError(
            f"the tokenizer's chat template {problem}; use the chatml format or a template that only appends"
        )

    def _render(self, shown: list[dict[str, str]]) -> str:
        try:
            return str(self.tokenizer.apply_chat_template(shown, tokenize=False))
        except Exception as error:  # a template is a program and may raise anything
            roles = ", ".join(message["role"] for message in shown)
            raise RecipeError(
                f"the tokenizer's chat template fails on turns of {roles} ({error}); use the chatml format"
            ) from error


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

    Raises:
        RecipeError: the tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: Any, template: Template | None = None) -> None:
        self.template = template or ChatML()
        self._tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not hasattr(self._tokenizer, "token_to_id"):
            raise RecipeError(f"{type(tokenizer).__name__} has no character offsets; give a fast tokenizer")
        self._markup: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str) -> Span:
        """Turn content into tokens with their character offsets.

        Special tokens are neither added nor read: content that spells `<|im_end|>` is so many characters.
        """
        self._tokenizer.encode_special_tokens = True  # means: as other text
        try:
            found = self._tokenizer.encode(text, add_special_tokens=False)
        finally:
            self._tokenizer.encode_special_tokens = False
        return Span(tuple(found.ids), tuple(found.offsets))

    def markup(self, text: str) -> tuple[int, ...]:
        """Turn what a template writes into tokens; special tokens are read, none is added.

        Templates repeat themselves, so what was turned once is remembered.
        """
        if text not in self._markup:
            self._markup[text] = tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return self._markup[text]

    def decode(self, tokens: Sequence[int]) -> str:
        """Turn tokens into text, special tokens left out."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def show(self, token: int) -> str:
        """Return one token as readable text, special tokens included."""
        return str(self._tokenizer.decode([token], skip_special_tokens=False))

    def special(self, name: str) -> int:
        """Return the id of a special token.

        Raises:
            RecipeError: the tokenizer does not have it.
        """
        token = self._tokenizer.token_to_id(name)
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
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))


def load_tokenizer(folder: str | Path = "tiny") -> Tokenizer:
    """Load a fast tokenizer from a folder or a `tokenizer.json`; "tiny" is the small one that is shipped.

    Raises:
        DataError: there is none.
    """
    path = TINY if str(folder) == "tiny" else Path(folder)
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise DataError(
            f"{path}: no such tokenizer; give a folder with tokenizer.json, or 'tiny' for the shipped one"
        )
    return Tokenizer.from_file(str(path))
