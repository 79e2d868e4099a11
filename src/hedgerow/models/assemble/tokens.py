"""The visual tokens of a tokenizer: found, or added behind the rows of a language model."""

from typing import Any

from tokenizers import AddedToken, Tokenizer

from hedgerow.errors import RecipeError
from hedgerow.models.chat import TURN, tokenizer_of, written_ids

# Rows of the embedding table beyond the base vocabulary; the head has none, so they are never generated.
VISUAL_TOKENS = (
    "<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>",
    "<|image|>", "<im_low>", "<frame_start>", "<frame_end>", "<|video|>",
)  # fmt: skip
TURN_START, TURN_END = TURN


def visual_ids(tokenizer: Any) -> dict[str, int]:
    """Return the ids of the visual tokens by name.

    Special tokens behind them, which nothing writes, are of no harm; published tokenizers have some.

    Raises:
        RecipeError: one is missing, or another token that text can give stands behind the first of them.
    """
    tokenizer = tokenizer_of(tokenizer)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    missing = [name for name in VISUAL_TOKENS if name not in vocabulary]
    if missing:
        raise RecipeError(f"the tokenizer lacks {', '.join(missing)}; add them as its last tokens")
    ids = {name: vocabulary[name] for name in VISUAL_TOKENS}
    written = written_ids(tokenizer) | {name: vocabulary[name] for name in TURN if name in vocabulary}
    behind = [token for token, place in written.items() if place > min(ids.values()) and token not in ids]
    if behind:
        raise RecipeError(
            f"the tokenizer has {behind[0]} behind its first visual token, where the head has no rows, so it "
            "could never be generated; put the visual tokens last"
        )
    return ids


def with_visual_tokens(tokenizer: Tokenizer, rows: int) -> Tokenizer:
    """Return a copy of a tokenizer with the visual tokens at the ids `rows`, `rows + 1`, ...

    Embedding tables are often padded, so ids between the last token and `rows` get names of no use.

    Args:
        tokenizer: with or without visual tokens.
        rows: of the language model's embedding table.

    Raises:
        RecipeError: it has more tokens than the table rows, visual tokens elsewhere, or no chat tokens.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    lacking = [name for name in (TURN_START, TURN_END) if name not in vocabulary]
    if lacking:
        raise RecipeError(
            f"the tokenizer lacks {' and '.join(lacking)}, around which conversations are written; give the "
            "tokenizer of a chat model"
        )
    present = {name: vocabulary[name] for name in VISUAL_TOKENS if name in vocabulary}
    if present:
        name, place = min(present.items(), key=lambda item: item[1])
        if place != rows:
            raise RecipeError(
                f"the tokenizer has {name} as id {place}, but the visual tokens of this language model start "
                f"behind its {rows} rows; give its own tokenizer"
            )
        visual_ids(tokenizer)
        return tokenizer
    used = max(vocabulary.values()) + 1
    if used > rows:
        raise RecipeError(
            f"the tokenizer has ids up to {used - 1}, but the language model has {rows} rows; give its own "
            "tokenizer"
        )
    longer = Tokenizer.from_str(tokenizer.to_str())
    padding = [f"<|unused_{number}|>" for number in range(used, rows)]
    longer.add_special_tokens([AddedToken(name, normalized=False) for name in (*padding, *VISUAL_TOKENS)])
    placed = min(visual_ids(longer).values())
    if placed != rows:
        raise RecipeError(
            f"the tokenizer puts new tokens at {placed} instead of {rows}: its ids have gaps; fill them first"
        )
    return longer
