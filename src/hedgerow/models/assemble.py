"""Building a Molmo2 of any size; writing it to a folder that plain `transformers` reads, and reading it."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import Molmo2Config, Molmo2ForConditionalGeneration, PreTrainedTokenizerFast

from hedgerow.errors import DataError, RecipeError
from hedgerow.models.initialize import fan_in
from hedgerow.models.molmo2 import Molmo2
from hedgerow.models.spec import ModelSpec

SETTINGS = "hedgerow.json"

# Rows of the embedding table beyond the base vocabulary; the head has none, so they are never generated.
VISUAL_TOKENS = (
    "<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>",
    "<|image|>", "<im_low>", "<frame_start>", "<frame_end>", "<|video|>",
)  # fmt: skip


def build(
    spec: ModelSpec,
    *,
    tokenizer: Any,
    seed: int,
    attention: str | None = None,
    vision_attention: Literal["sdpa", "eager"] = "sdpa",
    gradient_checkpointing: bool = False,
) -> Molmo2:
    """Build a model with fresh weights, in float32 on the CPU; the same seed gives the same weights.

    Args:
        spec: sizes.
        tokenizer: a `tokenizers.Tokenizer` or a fast tokenizer of `transformers`. Its visual tokens must be
            its last: the base vocabulary ends where they begin.
        seed: of the weights; torch's own random state is left as it was.
        attention: as for `Molmo2`.
        vision_attention: as for `Molmo2`.
        gradient_checkpointing: as for `Molmo2`.

    Raises:
        RecipeError: a visual token is missing, or another token stands behind one.
    """
    config = _config(spec, _visual_ids(tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = Molmo2ForConditionalGeneration(config)
        if spec.initialization == "fan_in":
            fan_in(hf)
    # Saved with the model, so that `generate` of plain transformers knows where an answer ends.
    hf.generation_config.eos_token_id = _backend(tokenizer).token_to_id("<|im_end|>")
    return Molmo2(
        hf,
        attention=attention,
        vision_attention=vision_attention,
        gradient_checkpointing=gradient_checkpointing,
    )


def save(model: Molmo2, folder: str | Path, *, tokenizer: Any, settings: Mapping[str, object]) -> None:
    """Write a folder that `Molmo2ForConditionalGeneration` and `AutoTokenizer` of `transformers` read.

    Everything is written to a folder beside it first and then renamed, so that no half model is ever there.

    Args:
        model: its tensors are written in the dtype they have.
        folder: new, empty, or an earlier model, which is replaced.
        tokenizer: as for `build`.
        settings: how to encode for this model (processor, chat format); written as JSON to `hedgerow.json`.

    Raises:
        RecipeError: the folder holds something that is no model.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "config.json").is_file() and any(folder.iterdir()):
        raise RecipeError(f"{folder} is not empty and holds no model; give a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as place:
        fresh = Path(place) / "new"
        model.hf.save_pretrained(fresh)
        if not hasattr(tokenizer, "save_pretrained"):
            tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
        tokenizer.save_pretrained(fresh)
        (fresh / SETTINGS).write_text(json.dumps(dict(settings), indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.replace(Path(place) / "old")
        fresh.replace(folder)


def load(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    vision_attention: Literal["sdpa", "eager"] = "sdpa",
    gradient_checkpointing: bool = False,
) -> Molmo2:
    """Read a Molmo2 in the layout of `transformers`, ours or a public checkpoint; nothing is fetched.

    Args:
        folder: with `config.json` and safetensors.
        dtype: of the weights in memory.
        attention: as for `Molmo2`.
        vision_attention: as for `Molmo2`.
        gradient_checkpointing: as for `Molmo2`.

    Raises:
        DataError: there is no model, or tensors are missing, surplus or of the wrong shape.
    """
    if not (Path(folder) / "config.json").is_file():
        raise DataError(f"{folder} has no config.json; give the folder of a model")
    try:
        hf, info = Molmo2ForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except OSError as error:
        raise DataError(f"{folder} holds no model that can be read: {error}") from error
    wrong = [
        f"{what} {', '.join(sorted(map(str, info[key]))[:3])} ({len(info[key])} in all)"
        for key, what in (
            ("missing_keys", "missing"),
            ("unexpected_keys", "surplus"),
            ("mismatched_keys", "misshapen"),
        )
        if info[key]
    ]
    if wrong:
        raise DataError(
            f"{folder}: tensors {'; '.join(wrong)}; the weights do not belong to this config.json"
        )
    for parameter in hf.parameters():
        # What was read lies in the mapped file, and fused tensors share memory; weights own theirs.
        parameter.data = parameter.data.clone()
    return Molmo2(
        hf,
        attention=attention,
        vision_attention=vision_attention,
        gradient_checkpointing=gradient_checkpointing,
    )


def read_settings(folder: str | Path) -> dict[str, Any]:
    """Return the settings a model was saved with.

    Raises:
        DataError: there are none.
    """
    path = Path(folder) / SETTINGS
    if not path.is_file():
        raise DataError(f"{path} does not exist; only models saved by hedgerow have settings")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _backend(tokenizer: Any) -> Any:
    return getattr(tokenizer, "backend_tokenizer", tokenizer)


def _visual_ids(tokenizer: Any) -> dict[str, int]:
    vocabulary = _backend(tokenizer).get_vocab(with_added_tokens=True)
    missing = [name for name in VISUAL_TOKENS if name not in vocabulary]
    if missing:
        raise RecipeError(f"the tokenizer lacks {', '.join(missing)}; add them as its last tokens")
    ids = {name: vocabulary[name] for name in VISUAL_TOKENS}
    behind = [token for token, place in vocabulary.items() if place > min(ids.values()) and token not in ids]
    if behind:
        raise RecipeError(
            f"the tokenizer has {behind[0]} behind its first visual token, where the head has no rows, so it "
            "could never be generated; put the visual tokens last"
        )
    return ids


def _config(spec: ModelSpec, ids: dict[str, int]) -> Any:
    base = min(ids.values())
    vision_head = spec.vision_hidden // spec.vision_heads
    shared = {"initializer_range": spec.initializer_range}
    return Molmo2Config(
        text_config={
            "hidden_size": spec.hidden,
            "num_hidden_layers": spec.layers,
            "num_attention_heads": spec.heads,
            "num_key_value_heads": spec.kv_heads,
            "head_dim": spec.head_dim,
            "intermediate_size": spec.mlp,
            "vocab_size": base,
            "additional_vocab_size": max(ids.values()) + 1 - base,
            "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_theta},
            **shared,
        },
        vision_config={
            "hidden_size": spec.vision_hidden,
            "num_hidden_layers": spec.vision_layers,
            "num_attention_heads": spec.vision_heads,
            "num_key_value_heads": spec.vision_heads,
            "head_dim": vision_head,
            "intermediate_size": spec.vision_mlp,
            "image_size": [spec.crop_size, spec.crop_size],
            "patch_size": spec.patch_size,
            **shared,
        },
        adapter_config={
            "vision_feature_layer": [n % spec.vision_layers for n in spec.feature_layers],
            "hidden_size": spec.vision_hidden,
            "num_attention_heads": spec.vision_heads,
            "num_key_value_heads": spec.vision_heads,
            "head_dim": vision_head,
            "intermediate_size": spec.mlp,
            "text_hidden_size": spec.hidden,
            **shared,
        },
        image_start_token_id=ids["<im_start>"],
        low_res_image_start_token_id=ids["<low_res_im_start>"],
        image_end_token_id=ids["<im_end>"],
        image_patch_id=ids["<im_patch>"],
        frame_start_token_id=ids["<frame_start>"],
        frame_end_token_id=ids["<frame_end>"],
        **shared,
    )
