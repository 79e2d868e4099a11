"""From a Qwen3 or OLMo 3 language model to that of Molmo2."""

from dataclasses import dataclass
from typing import Any

from hedgerow.errors import DataError
from hedgerow.models.assemble.rules import Extend, Rule, TensorMap
from hedgerow.models.assemble.source import Checkpoint

MODEL, HEAD = "model.language_model.", "lm_head.weight"
_SHARED = (
    "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight",
    "self_attn.o_proj.weight", "self_attn.q_norm.weight", "self_attn.k_norm.weight",
    "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight",
)  # fmt: skip
_BIASES = ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias")
# Each block of OLMo 3 has its norms behind attention and MLP; Molmo2 keeps the names of norms before them.
_NORMS = {
    "qwen3": ("input_layernorm", "post_attention_layernorm"),
    "olmo3": ("post_attention_layernorm", "post_feedforward_layernorm"),
}


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary positions: `parameters` of the scaled ones, and the `layers` that use them."""

    parameters: dict[str, Any]
    layers: list[int]


def text_config(checkpoint: Checkpoint, *, extra_rows: int) -> dict[str, Any]:
    """Return the fields of `Molmo2TextConfig` for a language model.

    Raises:
        DataError: it is neither a Qwen3 nor an OLMo 3, or has what Molmo2 has not.
    """
    config = checkpoint.config
    if config.model_type not in _NORMS:
        raise DataError(
            f"{checkpoint.folder} is a {config.model_type}; give a language model of {' or '.join(_NORMS)}"
        )
    olmo = config.model_type == "olmo3"
    rotary = _rotary(checkpoint)
    heads = config.num_attention_heads
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": config.hidden_act,
        "rms_norm_eps": config.rms_norm_eps,
        "max_position_embeddings": config.max_position_embeddings,
        "attention_bias": config.attention_bias,
        "initializer_range": config.initializer_range,
        "qk_norm_type": "olmo" if olmo else "qwen3",
        "norm_after": olmo,
        "rope_parameters": rotary.parameters,
        "rope_scaling_layers": rotary.layers,
        "vocab_size": config.vocab_size,
        "additional_vocab_size": extra_rows,
    }


def language_map(checkpoint: Checkpoint, *, extra_rows: int) -> TensorMap:
    """Return the rules for all layers, the longer embedding table, and the head.

    A head tied to the embeddings becomes a table of its own, for the head has no rows for visual tokens.
    """
    config, names = checkpoint.config, checkpoint.shapes
    first, second = _NORMS[config.model_type]
    norms = {"input_layernorm.weight": first, "post_attention_layernorm.weight": second}
    kept = _SHARED + (_BIASES if config.attention_bias else ())
    embedding = "model.embed_tokens.weight"
    head = embedding if config.tie_word_embeddings and HEAD not in names else HEAD
    rules = [
        Rule(f"{MODEL}embed_tokens.weight", (embedding,), Extend(extra_rows)),
        Rule(f"{MODEL}norm.weight", ("model.norm.weight",)),
        Rule(HEAD, (head,)),
    ]
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"{MODEL}layers.{layer}.", f"model.layers.{layer}."
        rules += [Rule(f"{ours}{name}", (f"{theirs}{name}",)) for name in kept]
        rules += [Rule(f"{ours}{name}", (f"{theirs}{norm}.weight",)) for name, norm in norms.items()]
    return TensorMap(tuple(rules))


def window_note(checkpoint: Checkpoint) -> str:
    """Return a line about sliding windows, which Molmo2 has not; an empty string where there are none."""
    config = checkpoint.config
    layers = list(config.layer_types).count("sliding_attention")
    if not layers or config.sliding_window is None:
        return ""
    return (
        f"{layers} of {config.num_hidden_layers} layers look back {config.sliding_window} tokens in "
        f"{checkpoint.folder}; Molmo2 has no windows, so longer rows give other logits, as in the published "
        "model"
    )


def _rotary(checkpoint: Checkpoint) -> Rotary:
    config = checkpoint.config
    every = list(range(config.num_hidden_layers))
    given = config.rope_parameters
    if config.model_type != "olmo3":
        return Rotary(dict(given), every)
    full, sliding = dict(given["full_attention"]), dict(given["sliding_attention"])
    if sliding["rope_type"] != "default" or sliding["rope_theta"] != full["rope_theta"]:
        raise DataError(
            f"{checkpoint.folder}: rotary positions of layers with windows are {sliding} and of the others "
            f"{full}; Molmo2 takes one rope_theta, and scales the others only"
        )
    scaled = [layer for layer in every if config.layer_types[layer] == "full_attention"]
    return Rotary(full, every if full["rope_type"] == "default" else scaled)
