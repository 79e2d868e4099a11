"""ShareGPT and LLaVA: `conversations` of `from` and `value`, with `image` and `video` beside them.

Format: github.com/haotian-liu/LLaVA, docs/Finetune_Custom_Data.md; system prompts and several media as
github.com/hiyouga/LLaMA-Factory, data/README.md and github.com/QwenLM/Qwen3-VL, qwen-vl-finetune.
"""

from typing import Any

from hedgerow.content import Text
from hedgerow.data.adapters.columns import texts, turn_list
from hedgerow.data.adapters.conversation import Shelf, content, planted, untagged
from hedgerow.data.adapters.piece import Adapter, Options, Piece, Values
from hedgerow.data.adapters.records import Record
from hedgerow.errors import DataError
from hedgerow.tree import Message, Role

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def _misfit(values: Values) -> str:
    return "" if isinstance(values.get("conversations"), list) else "there is no list 'conversations'"


def _piece(record: Record, values: Values, options: Options) -> Piece:
    shelf = Shelf(
        [*texts(values, "image"), *texts(values, "images")],
        [*texts(values, "video"), *texts(values, "videos")],
    )
    messages = [_message(turn, shelf) for turn in turn_list(values, "conversations", ("from", "value"))]
    shelf.check_empty()
    if values.get("system"):
        messages.insert(0, Message("system", str(values["system"])))
    name = str(values.get("id") or record.id)
    return planted(name, record.source, messages, turns=options.turns)


def _message(turn: dict[str, Any], shelf: Shelf) -> Message:
    role = _ROLES.get(str(turn["from"]))
    if role is None:
        raise DataError(
            f"conversations: a turn is from '{turn['from']}'; allowed are {', '.join(_ROLES)}; correct it"
        )
    media, text = untagged(str(turn["value"]), shelf)
    return Message(role, content([*media, Text(text)]))


LLAVA = Adapter("llava", _misfit, _piece, known=("conversations", "image", "images", "video", "videos"))
