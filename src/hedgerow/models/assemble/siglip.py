"""From a SigLIP or SigLIP 2 vision model to the vision tower of Molmo2."""

import math
from typing import Any

from hedgerow.errors import DataError, RecipeError
from hedgerow.models.assemble.rules import Copy, Resize, Rule, TensorMap, Unfold
from hedgerow.models.assemble.source import Checkpoint

TOWER = "model.vision_tower."
_LAYER = {
    "layer_norm1": "layer_norm1",
    "layer_norm2": "layer_norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "self_attn.q_proj": "self_attn.q_proj",
    "self_attn.k_proj": "self_attn.k_proj",
    "self_attn.v_proj": "self_attn.v_proj",
    "self_attn.out_proj": "self_attn.o_proj",
}
_KINDS = ("siglip", "siglip_vision_model", "siglip2", "siglip2_vision_model")


def vision_config(checkpoint: Checkpoint) -> Any:
    """Return the config of the vision part of a checkpoint.

    Raises:
        DataError: it is no SigLIP.
    """
    config = checkpoint.config
    if config.model_type not in _KINDS:
        raise DataError(
            f"{checkpoint.folder} is a {config.model_type}; give a SigLIP vision model ({', '.join(_KINDS)})"
        )
    return getattr(config, "vision_config", config)


def chosen_layers(checkpoint: Checkpoint, feature_layers: tuple[int, ...]) -> list[int]:
    """Return the layers whose features are used, counted from the first.

    Raises:
        RecipeError: there is no such layer.
    """
    layers = vision_config(checkpoint).num_hidden_layers
    wrong = [layer for layer in feature_layers if not -layers <= layer < layers]
    if wrong:
        raise RecipeError(f"feature_layers {wrong}: {checkpoint.folder} has layers 0 to {layers - 1}")
    return [layer % layers for layer in feature_layers]


def grid_side(checkpoint: Checkpoint, crop_size: int) -> int:
    """Return how many patches stand side by side in a crop.

    Raises:
        RecipeError: the crop is no multiple of the patch.
    """
    patch = vision_config(checkpoint).patch_size
    if not isinstance(patch, int) or crop_size % patch:
        raise RecipeError(f"crop_size {crop_size} is no multiple of the {patch} pixels of a patch")
    return crop_size // patch


def vision_map(checkpoint: Checkpoint, *, layers: int, side: int) -> TensorMap:
    """Return the rules for the first `layers` layers and a grid of `side` x `side` patches.

    Positions are resized as the source model resizes them: SigLIP 2 with flexible sizes bilinear and
    antialiased, SigLIP with fixed ones bicubic. The last norm, the pooling head and deeper layers stay out.
    """
    names = checkpoint.shapes
    inner = "vision_model." if any(name.startswith("vision_model.") for name in names) else ""
    flexible = checkpoint.config.model_type.startswith("siglip2")
    embedding = f"{inner}embeddings.patch_embedding"
    patches = Unfold() if len(names.get(f"{embedding}.weight", ())) == 4 else Copy()
    resize = Resize(side, "bilinear" if flexible else "bicubic", antialias=flexible)
    rules = [
        Rule(f"{TOWER}patch_embedding.weight", (f"{embedding}.weight",), patches),
        Rule(f"{TOWER}patch_embedding.bias", (f"{embedding}.bias",)),
        Rule(
            f"{TOWER}positional_embedding", (f"{inner}embeddings.position_embedding.weight",),
            Copy() if _side(checkpoint, inner) == side else resize,
        ),
    ]  # fmt: skip
    rules += [
        Rule(f"{TOWER}layers.{layer}.{ours}.{kind}", (f"{inner}encoder.layers.{layer}.{theirs}.{kind}",))
        for layer in range(layers)
        for theirs, ours in _LAYER.items()
        for kind in ("weight", "bias")
    ]
    return TensorMap(tuple(rules), _left_out(checkpoint, inner, layers))


def _side(checkpoint: Checkpoint, inner: str) -> int:
    table = checkpoint.shapes.get(f"{inner}embeddings.position_embedding.weight", (0,))
    return math.isqrt(table[0])


def _left_out(checkpoint: Checkpoint, inner: str, layers: int) -> dict[str, str]:
    reasons = {
        f"{inner}post_layernorm.": "behind the layers used",
        f"{inner}head.": "the connector pools instead",
    }
    every = vision_config(checkpoint).num_hidden_layers
    deeper = {
        f"{inner}encoder.layers.{layer}.": "above the deepest layer used" for layer in range(layers, every)
    }
    reasons |= deeper
    if checkpoint.config.model_type in ("siglip", "siglip2"):
        reasons |= dict.fromkeys(("text_model.", "logit_scale", "logit_bias"), "not of the vision model")
    return {
        name: reason
        for name in checkpoint.shapes
        for start, reason in reasons.items()
        if name.startswith(start)
    }
