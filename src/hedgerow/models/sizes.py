"""Configurations of the published Molmo2 models, of any checkpoint, and of a tiny twin of each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Molmo2Config
from transformers.initialization import no_init_weights

from hedgerow.errors import RecipeError
from hedgerow.flops import PUBLISHED, Sizes
from hedgerow.models.assemble.checkpoint import read_config
from hedgerow.models.assemble.fresh import adapter_config, spec_config, token_fields
from hedgerow.models.assemble.tokens import visual_ids
from hedgerow.models.connector import model_class
from hedgerow.models.lora_spec import LoraSpec
from hedgerow.models.molmo2 import Molmo2
from hedgerow.models.spec import ModelSpec

_CROP, _PATCH = 378, 14  # pixels, of the published vision tower
_BASES = {"4B": 5e6, "8B": 1e6, "O-7B": 5e5}  # of the rotary positions
_OLMO = "O-7B"
_EVERY = 4  # of OLMo 3's layers one without a window, whose rotary positions are scaled
_YARN = {
    "rope_type": "yarn", "factor": 8.0, "attention_factor": 1.2079441541679836, "beta_fast": 32.0,
    "beta_slow": 1.0, "original_max_position_embeddings": 8192,
}  # fmt: skip
# The twin: few layers and channels, the tower's grid of patches and the language model's structure kept.
_TWIN_LAYERS, _TWIN_HEADS, _TWIN_HEAD, _TWIN_VISION = 2, 2, 16, 32
_TWIN_RANGE = 0.08  # deviation of fresh weights that suits these widths


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many parameters the parts of a Molmo2 have, by the rates they train with.

    `language` counts all of the language model, `embedding` and `head` say what of it are these tables.
    """

    vision: int
    connector: int
    language: int
    embedding: int
    head: int

    @property
    def total(self) -> int:
        """All of the model."""
        return self.vision + self.connector + self.language


def published_config(size: str) -> Molmo2Config:
    """Return the configuration of a published model, as `assemble` makes it.

    Args:
        size: "4B", "8B" or "O-7B".

    Raises:
        RecipeError: there is no such size.
    """
    if size not in PUBLISHED:
        raise RecipeError(f"size '{size}' is unknown; give one of {', '.join(PUBLISHED)}")
    sizes, olmo = PUBLISHED[size], size == _OLMO
    text = {
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim,
        "intermediate_size": sizes.mlp,
        "vocab_size": sizes.vocabulary,
        "additional_vocab_size": sizes.extra,
        "qk_norm_type": "olmo" if olmo else "qwen3",
        "norm_after": olmo,
        "rope_parameters": {"rope_theta": _BASES[size], **(_YARN if olmo else {"rope_type": "default"})},
        "max_position_embeddings": 65536,
        "rope_scaling_layers": [n for n in range(sizes.layers) if not olmo or n % _EVERY == _EVERY - 1],
        "initializer_range": 0.02,
    }
    vision = _vision(sizes.vision_hidden, sizes.vision_layers, sizes.vision_heads, sizes.vision_mlp)
    vision |= {"image_size": [_CROP, _CROP], "patch_size": _PATCH}
    layers = [sizes.vision_layers - 1, sizes.vision_layers - 7]
    return _joined(text, vision, layers, query="mean")


def config_of(origin: Path | ModelSpec, tokenizer: Any) -> Molmo2Config:
    """Return the configuration of a checkpoint, or of a model with fresh weights.

    Args:
        origin: a folder, or sizes.
        tokenizer: of the fresh model.

    Raises:
        DataError: the folder holds no Molmo2.
    """
    if isinstance(origin, ModelSpec):
        return spec_config(origin, visual_ids(tokenizer))
    return read_config(origin)


def sizes_of(config: Molmo2Config) -> Sizes:
    """Return the widths and depths of a configuration."""
    text, tower = config.text_config, config.vision_config
    return Sizes(
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
        mlp=text.intermediate_size,
        vocabulary=text.vocab_size,
        extra=text.additional_vocab_size,
        vision_hidden=tower.hidden_size,
        vision_layers=tower.num_hidden_layers,
        vision_mlp=tower.intermediate_size,
        vision_heads=tower.num_attention_heads,
        side=tower.image_size[0] // tower.patch_size,
        patch=tower.patch_size**2 * tower.num_channels,
        joined=len(config.adapter_config.vision_feature_layer),
    )


def parameters_of(config: Molmo2Config) -> Parameters:
    """Count the parameters of a model that is built without memory for its weights."""
    hf = _weightless(config)
    tables = {"embedding": hf.get_input_embeddings().weight, "head": hf.lm_head.weight}
    if tables["embedding"] is tables["head"]:
        tables["head"] = tables["head"][:0]
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in _parts(hf).items()}
    counts |= {name: table.numel() for name, table in tables.items()}
    counts["language"] += counts["head"]
    return Parameters(**counts)


def adapters_of(config: Molmo2Config, lora: LoraSpec) -> int:
    """Count the parameters of the adapters that `hedgerow.models.lora.adapt` gives a model."""
    hf = _weightless(config)
    inside = {module for name in lora.parts for module in _parts(hf)[name].modules()}
    layers = {f".{n}": m for n, m in hf.named_modules() if m in inside and isinstance(m, nn.Linear)}
    ends = ("",) if lora.targets is None else tuple(f".{target}" for target in lora.targets)
    sides = (m.in_features + m.out_features for name, m in layers.items() if name.endswith(ends))
    return lora.rank * sum(sides)


def _weightless(config: Molmo2Config) -> Any:
    with torch.device("meta"), no_init_weights():
        return model_class(config)(config)


def _parts(hf: Any) -> dict[str, nn.Module]:
    """The parts without the head, which is of the language model too."""
    inner = hf.model
    return {
        "vision": inner.vision_tower,
        "connector": inner.multi_modal_projector,
        "language": inner.language_model,
    }


def twin_config(config: Molmo2Config, tokenizer: Any) -> Molmo2Config:
    """Return a configuration of the same structure with few layers and channels.

    Kept are the placement of norms, the kind of q/k norms, how query heads share key heads, which layers have
    scaled rotary positions (the first of two does where the first of the original does, and so the last), the
    crop and its patches, how many layers give features, and the connector's query.

    Args:
        config: of the original.
        tokenizer: of the twin, with visual tokens.
    """
    given, tower, adapter = config.text_config, config.vision_config, config.adapter_config
    ids = visual_ids(tokenizer)
    base = min(ids.values())
    ends = (0, given.num_hidden_layers - 1)
    shared = given.num_attention_heads // given.num_key_value_heads
    text = given.to_dict() | {
        "hidden_size": _TWIN_HEADS * _TWIN_HEAD,
        "num_hidden_layers": _TWIN_LAYERS,
        "num_attention_heads": _TWIN_HEADS,
        "num_key_value_heads": max(_TWIN_HEADS // shared, 1),
        "head_dim": _TWIN_HEAD,
        "intermediate_size": 3 * _TWIN_HEADS * _TWIN_HEAD,
        "vocab_size": base,
        "additional_vocab_size": max(ids.values()) + 1 - base,
        "rope_scaling_layers": [n for n, end in enumerate(ends) if end in given.rope_scaling_layers],
        "initializer_range": _TWIN_RANGE,
    }
    layers = list(range(len(adapter.vision_feature_layer)))[::-1]
    vision = _vision(_TWIN_VISION, len(layers), 2, 3 * _TWIN_VISION)
    vision |= {"image_size": tower.image_size, "patch_size": tower.patch_size}
    vision |= {"initializer_range": _TWIN_RANGE}
    query = getattr(adapter, "query", "mean")
    made = _joined(text, vision, layers, query=query)
    return Molmo2Config.from_dict(made.to_dict() | token_fields(ids))


def twin(config: Molmo2Config, *, seed: int) -> Molmo2:
    """Build a model of such a configuration with fresh weights; torch's own random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Molmo2(model_class(config)(config))


def _vision(hidden: int, layers: int, heads: int, mlp: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
        "intermediate_size": mlp,
    }


def _joined(text: dict[str, Any], vision: dict[str, Any], layers: list[int], *, query: str) -> Molmo2Config:
    adapter = adapter_config(vision=vision, text=text, layers=layers, query=query)
    return Molmo2Config(text_config=text, vision_config=vision, adapter_config=adapter)
