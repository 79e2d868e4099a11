"""Trains the small tokenizer that demo and tests use on the text shipped beside it, and writes it there."""

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

FOLDER = Path(__file__).parents[1] / "src" / "hedgerow" / "tokenizer"
BASE = 768
TEXT_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Molmo2's visual specials stand after the base vocabulary, where the output head cannot produce them.
VISUAL_SPECIALS = [
    "<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>", "<|image|>", "<im_low>",
    "<frame_start>", "<frame_end>", "<|video|>",
]  # fmt: skip


def main() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # One token a digit; the digit that opens a number takes the space before it.
            pre_tokenizers.Split(Regex(r" ?\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BASE,
        special_tokens=TEXT_SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(FOLDER / "corpus.txt")], trainer)
    if tokenizer.get_vocab_size() != BASE:
        raise SystemExit(f"only {tokenizer.get_vocab_size()} of {BASE} tokens: lengthen corpus.txt")
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in VISUAL_SPECIALS]
    )
    tokenizer.save(str(FOLDER / "tokenizer.json"))


if __name__ == "__main__":
    main()
