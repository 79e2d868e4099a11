"""A Molmo2 of any size with fresh weights."""

from typing import Any, Literal

import torch
from transformers import Molmo2Config

from hedgerow.models.assemble.tokens import TURN_END, visual_ids
from hedgerow.models.chat import tokenizer_of
from hedgerow.models.connector import LEARNED, model_class
from hedgerow.models.initialize import fan_in
from hedgerow.models.molmo2 import Molmo2
from hedgerow.models.spec import ModelSpec


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
    config = spec_config(spec, visual_ids(tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = model_class(config)(config)
        if spec.initialization == "fan_in":
            fan_in(hf)
    # Saved with the model, so that `generate` of plain transformers knows where an answer ends.
    hf.generation_config.eos_token_id = tokenizer_of(tokenizer).token_to_id(TURN_END)
    return Molmo2(
        hf,
        attention=attention,
        vision_attention=vision_attention,
        gradient_checkpointing=gradient_checkpointing,
    )


def adapter_config(
    *, vision: dict[str, Any], text: dict[str, Any], layers: list[int], query: str
) -> dict[str, Any]:
    """Return the fields of `Molmo2AdapterConfig` that connect a vision tower to a language model.

    The connector has the heads and the width of the tower and the MLP width of the language model.
    """
    fields = {name: vision[name] for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")}
    fields |= {
        "vision_feature_layer": layers,
        "head_dim": vision["head_dim"],
        "intermediate_size": text["intermediate_size"],
        "text_hidden_size": text["hidden_size"],
        "initializer_range": text["initializer_range"],
    }
    return fields | ({"query": LEARNED} if query == LEARNED else {})


def token_fields(ids: dict[str, int]) -> dict[str, int]:
    """Return the fields of `Molmo2Config` that name visual tokens."""
    return {
        "image_start_token_id": ids["<im_start>"],
        "low_res_image_start_token_id": ids["<low_res_im_start>"],
        "image_end_token_id": ids["<im_end>"],
        "image_patch_id": ids["<im_patch>"],
        "frame_start_token_id": ids["<frame_start>"],
        "frame_end_token_id": ids["<frame_end>"],
    }


def spec_config(spec: ModelSpec, ids: dict[str, int]) -> Molmo2Config:
    """Return the configuration of a model with fresh weights; `ids` are those of the visual tokens."""
    base = min(ids.values())
    shared = {"initializer_range": spec.initializer_range}
    text = {
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
    }
    vision = {
        "hidden_size": spec.vision_hidden,
        "num_hidden_layers": spec.vision_layers,
        "num_attention_heads": spec.vision_heads,
        "num_key_value_heads": spec.vision_heads,
        "head_dim": spec.vision_hidden // spec.vision_heads,
        "intermediate_size": spec.vision_mlp,
        "image_size": [spec.crop_size, spec.crop_size],
        "patch_size": spec.patch_size,
        **shared,
    }
    layers = [n % spec.vision_layers for n in spec.feature_layers]
    return Molmo2Config(
        text_config=text,
        vision_config=vision,
        adapter_config=adapter_config(vision=vision, text=text, layers=layers, query=spec.query),
        **token_fields(ids),
        **shared,
    )
