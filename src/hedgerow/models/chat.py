"""How conversations are written for the model of a folder, and what is written there for who serves it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from hedgerow.errors import DataError, HedgerowError, RecipeError
from hedgerow.models.folder import placed
from hedgerow.text import TINY, ChatFormat, ChatML, Rendered, load_tokenizer
from hedgerow.tree import Message

TURN = ("<|im_start|>", "<|im_end|>")  # around each turn of ChatML
CHAT = "chat"  # the key of hedgerow.json
SETTINGS = "hedgerow.json"
_TOKENIZER, _JINJA = "tokenizer_config.json", "chat_template.jinja"

# ChatML as `hedgerow.encode` writes it: what a user shows stands before the header of the turn, and a message
# that shows and does not speak has no header.
_CHATML = """\
{%- set shown = namespace(images=0) -%}
{%- for message in messages -%}
{%- set typed = message.content is not string -%}
{%- if typed -%}
{%- set several = message.content | selectattr('type', 'equalto', 'image') | list | length > 1 -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}
{%- set shown.images = shown.images + 1 -%}
{%- if several -%}Image {{ shown.images }}{%- endif -%}
<|image|>
{%- elif part.type == 'video' -%}<|video|>
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- if not typed or message.content | selectattr('type', 'equalto', 'text') | list -%}
<|im_start|>{{ message.role }}
{% if typed -%}
{%- for part in message.content -%}
{%- if part.type == 'text' -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- else -%}
{{ message.content }}
{%- endif -%}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""


def read_chat(
    folder: str | Path,
    *,
    family: str,
    template: Literal["auto", "chatml", "tokenizer"] = "auto",
    bos: str | None = "auto",
) -> ChatFormat:
    """Return how conversations are written for the model of a folder.

    With `bos` "auto" every conversation begins with what the model saw first in its training. Where hedgerow
    saved the model, that is what `hedgerow.json` says, nothing if it says nothing; for another Molmo2 it is
    `bos_token` of `tokenizer_config.json`, or else its `eos_token`, as `Molmo2Processor` of `transformers`
    puts it; for other models what the tokenizer puts before every text, or, with the tokenizer's own
    template, what that writes.

    Args:
        folder: with the tokenizer, the path of a `tokenizer.json`, or "tiny" for the shipped one.
        family: of the model, as in `vision.family`.
        template: ChatML, the tokenizer's own, or "auto": what hedgerow trained the folder's model with, or
            else the tokenizer's own where that writes what a user says otherwise than ChatML does.
        bos: the token that every conversation begins with, None for none, or "auto".

    Raises:
        DataError: there is no tokenizer, or its files cannot be read.
        RecipeError: the tokenizer lacks the tokens around a turn, the `bos`, or a template.
    """
    tokenizer = load_tokenizer(folder)
    place = TINY if str(folder) == "tiny" else placed(Path(folder))
    place = place if place.is_dir() else place.parent
    has_turns = all(tokenizer.token_to_id(name) is not None for name in TURN)
    usual = {"template": "chatml", "bos": None} if has_turns and (place / SETTINGS).is_file() else {}
    saved = _fields(place / SETTINGS).get(CHAT, usual)
    if template == "auto":
        template = saved.get("template") or _usual(place, family=family, has_turns=has_turns)
    if bos == "auto":
        same = saved.get("template") == template
        bos = saved["bos"] if same else _trained_bos(place, tokenizer, family=family, template=template)
    if template == "chatml" and not has_turns:
        raise RecipeError(_turnless(tokenizer, folder))
    if bos and tokenizer.token_to_id(bos) is None:
        raise RecipeError(
            f"{folder}: the tokenizer has no token {bos} to begin a conversation with; name another as "
            "model.bos, or null for none"
        )
    if template == "tokenizer":
        if bos and family != "molmo2":
            raise RecipeError(
                f"model.bos is {bos}, and with model.template: tokenizer that says what stands first; leave "
                "bos out"
            )
        return ChatFormat(tokenizer, Rendered(_own(place), bos or ""))
    return ChatFormat(tokenizer, ChatML(bos or ""))


def chat_settings(chat: ChatFormat) -> dict[str, str | None]:
    """Return what `read_chat` reads of a saved model: the name of its template, and its `bos`."""
    name = "tokenizer" if isinstance(chat.template, Rendered) else "chatml"
    return {"template": name, "bos": chat.template.bos or None}


def chat_template(chat: ChatFormat) -> str:
    """Return the template, in Jinja, by which `transformers` writes what `chat` writes.

    That of ChatML begins with `bos`. For Molmo2 it writes `<|image|>` and `<|video|>`, which its processor
    replaces.
    """
    if isinstance(chat.template, Rendered):
        return str(chat.template.tokenizer.chat_template)
    first = f"{{{{- {json.dumps(chat.template.bos)} -}}}}\n" if chat.template.bos else ""
    return first + _CHATML


def write_chat(folder: Path, tokenizer: Any, *, reads_text_only: bool) -> None:
    """Write the tokenizer beside a model that is no Molmo2, and the chat template it was trained with.

    With ChatML, a template that writes the same stays, and so does that of a model that sees, for it says
    where media stand.

    Args:
        folder: with all other files of the model.
        tokenizer: a `ChatFormat`, or what `tokenizer_of` takes, which says nothing of templates.
        reads_text_only: whether the model sees nothing.
    """
    chat = tokenizer if isinstance(tokenizer, ChatFormat) else None
    if chat is not None and isinstance(chat.template, Rendered):
        chat.template.tokenizer.save_pretrained(folder)
    tokenizer_of(tokenizer).save(str(folder / "tokenizer.json"))
    if chat is not None and reads_text_only and not _writes(folder, chat):
        (folder / _JINJA).write_text(chat_template(chat), encoding="utf-8")


def write_settings(folder: Path, tokenizer: Any, settings: Mapping[str, Any]) -> None:
    """Write `hedgerow.json`: how media are encoded, and of a `ChatFormat` how conversations are written."""
    chat = {CHAT: chat_settings(tokenizer)} if isinstance(tokenizer, ChatFormat) else {}
    text = json.dumps({**settings, **chat}, indent=2) + "\n"
    (folder / SETTINGS).write_text(text, encoding="utf-8")


def read_settings(folder: str | Path) -> dict[str, Any]:
    """Return the settings of media that a model was saved with.

    Raises:
        DataError: there are none, or they are broken.
    """
    path = placed(Path(folder)) / SETTINGS
    if not path.is_file():
        raise DataError(f"{path} does not exist; only models saved by hedgerow have settings")
    return {name: value for name, value in _fields(path).items() if name != CHAT}


def tokenizer_of(tokenizer: Any) -> Any:
    """Return the `tokenizers.Tokenizer` of a `ChatFormat` or a `transformers` tokenizer, or the argument."""
    if isinstance(tokenizer, ChatFormat):
        return tokenizer.tokenizer
    return getattr(tokenizer, "backend_tokenizer", tokenizer)


def _writes(folder: Path, chat: ChatFormat) -> bool:
    """Whether the template of a folder writes conversations and prompts as `chat` does."""
    turns = [Message(role, "?") for role in ("system", "user", "assistant", "user")]
    try:
        own = _own(folder)
        for asked in (turns, turns[1:], turns[1:2]):
            shown = [{"role": turn.role, "content": "?"} for turn in asked]
            found = own.apply_chat_template(shown, tokenize=False, add_generation_prompt=True)
            if found != _prompt(chat, asked):
                return False
    except HedgerowError:
        return False
    return True


def _prompt(chat: ChatFormat, asked: list[Message]) -> str:
    whole = [*asked, Message("assistant", "")]
    around = [chat.template.around(whole, number) for number in range(len(whole))]
    return "".join(f"{before}?{after}" for before, after in around[:-1]) + around[-1][0]


def published_bos(folder: Path) -> str | None:
    """Return the token that `Molmo2Processor` of `transformers` puts first: `bos_token`, or `eos_token`.

    Args:
        folder: with `tokenizer_config.json`, or a file beside it; without it there is no such token.

    Raises:
        DataError: `tokenizer_config.json` cannot be read.
    """
    folder = folder if folder.is_dir() else folder.parent
    fields = _fields(folder / _TOKENIZER)
    named = (fields.get("bos_token"), fields.get("eos_token"))
    tokens = [token["content"] if isinstance(token, dict) else token for token in named if token]
    return str(tokens[0]) if tokens else None


def _usual(folder: Path, *, family: str, has_turns: bool) -> Literal["chatml", "tokenizer"]:
    """The template of a model that hedgerow has not trained; one that cannot be used is none."""
    if not has_turns:
        return "tokenizer"
    if family == "molmo2" or not _has_template(folder):
        return "chatml"
    try:
        before, after = Rendered(_own(folder)).around([Message("user", "?")], 0)
    except HedgerowError:
        return "chatml"
    header, end = ChatML().around([Message("user", "?")], 0)
    return "chatml" if before.endswith(header) and after.startswith(end) else "tokenizer"


def _has_template(folder: Path) -> bool:
    return (folder / _JINJA).is_file() or "chat_template" in _fields(folder / _TOKENIZER)


def _trained_bos(folder: Path, tokenizer: Tokenizer, *, family: str, template: str) -> str | None:
    if family == "molmo2":
        return published_bos(folder)
    if template == "tokenizer":
        return None
    plain, full = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
    first = tokenizer.id_to_token(full[0])
    return str(first) if full[0] != plain[0] else None


def _turnless(tokenizer: Tokenizer, folder: str | Path) -> str:
    missing = [name for name in TURN if tokenizer.token_to_id(name) is None]
    return (
        f"{folder}: the tokenizer has no token {' and '.join(missing)}, with which the chatml format is "
        "written; set model.template: tokenizer for the tokenizer's own chat template, or give another one"
    )


def check_vocabulary(chat: ChatFormat, rows: int, *, where: str | Path) -> None:
    """Hold that a model has an embedding for every token that text, a header or an end of a turn can give.

    Special tokens beyond, which nothing writes, are of no harm; some published tokenizers have them.

    Args:
        chat: the model's.
        rows: of its embedding table.
        where: what the error names.

    Raises:
        RecipeError: it has not.
    """
    last = max(*written_ids(chat.tokenizer).values(), chat.stop, *chat.markup(chat.template.bos))
    if last >= rows:
        raise RecipeError(
            f"{where}: the tokenizer has ids up to {last}, and the model's embedding table {rows} rows; give "
            "the tokenizer that belongs to the model"
        )


def written_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the ids of all tokens that plain text can give: those that are not special."""
    special = {place for place, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return {token: place for token, place in vocabulary.items() if place not in special}


def _own(folder: Path) -> Any:
    """Load the tokenizer as `transformers` does, for its chat template."""
    from transformers import AutoTokenizer  # slow, and not needed for ChatML

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder}: transformers cannot load this tokenizer ({' '.join(str(error).split())}); use "
            "model.template: chatml, or copy tokenizer_config.json beside tokenizer.json"
        ) from error
    if not tokenizer.chat_template:
        raise RecipeError(
            f"{folder}: the tokenizer has no chat template, neither {_JINJA} nor one in {_TOKENIZER}; copy "
            "one there, or use model.template: chatml with a tokenizer that has <|im_start|> and <|im_end|>"
        )
    return tokenizer


def _fields(path: Path) -> Mapping[str, Any]:
    """Read a JSON file that need not be there."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}); copy the folder again") from error
