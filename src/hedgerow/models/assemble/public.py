"""The public layout of Molmo2: names of tensors and of config fields, as in the published checkpoints.

`transformers` reads them (checked with 5.23), and servers that read the published checkpoints do. Its own
`save_pretrained` writes other field names, and cuts the embedding table into two equal halves, where the
published checkpoints have the base vocabulary and the visual rows; so the writing is done here.
"""

from collections.abc import Mapping
from typing import Any

import transformers
from transformers import Molmo2Config, PreTrainedConfig

from hedgerow.errors import DataError
from hedgerow.models.assemble.rules import Join, Rows, Rule, Shape, TensorMap
from hedgerow.models.connector import MODEL_TYPE, is_learned, model_class

_LANGUAGE, _TOWER, _CONNECTOR = "model.language_model.", "model.vision_tower.", "model.multi_modal_projector."
_TRANSFORMER, _BACKBONE = "model.transformer.", "model.vision_backbone."
_BLOCK = {
    "attn_norm.weight": "input_layernorm.weight",
    "ff_norm.weight": "post_attention_layernorm.weight",
    "self_attn.attn_out.weight": "self_attn.o_proj.weight",
    "self_attn.q_norm.weight": "self_attn.q_norm.weight",
    "self_attn.k_norm.weight": "self_attn.k_norm.weight",
    "mlp.ff_out.weight": "mlp.down_proj.weight",
}
_RESBLOCK = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "attention_norm": "layer_norm1",
    "ffn_norm": "layer_norm2",
    "feed_forward.w1": "mlp.fc1",
    "feed_forward.w2": "mlp.fc2",
}
_POOLING = {"wq": "q_proj", "wk": "k_proj", "wv": "v_proj", "wo": "o_proj"}
_PROJECTOR = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_BOTH = ("weight", "bias")

_VIT_FIELDS = {
    "image_size": "image_default_input_size",
    "patch_size": "image_patch_size",
    "num_position_embeddings": "image_num_pos",
}
_ADAPTER_FIELDS = {"vision_feature_layer": "vit_layers"}
_TEXT_FIELDS = {"attention_bias": "qkv_bias", "rms_norm_eps": "layer_norm_eps"}


def public_map(config: Molmo2Config) -> TensorMap:
    """Return the rules from the tensors of a model in memory to those of a file."""
    text, tower = config.text_config, config.vision_config
    base = text.vocab_size
    table = (f"{_LANGUAGE}embed_tokens.weight",)
    rules = [
        Rule(f"{_TRANSFORMER}wte.embedding", table, Rows(0, base)),
        Rule(f"{_TRANSFORMER}wte.new_embedding", table, Rows(base, base + text.additional_vocab_size)),
        Rule(f"{_TRANSFORMER}ln_f.weight", (f"{_LANGUAGE}norm.weight",)),
        Rule("lm_head.weight", ("lm_head.weight",)),
        Rule(f"{_BACKBONE}image_vit.positional_embedding", (f"{_TOWER}positional_embedding",)),
    ]
    rules += [
        Rule(f"{_BACKBONE}image_vit.patch_embedding.{kind}", (f"{_TOWER}patch_embedding.{kind}",))
        for kind in _BOTH
    ]
    for layer in range(text.num_hidden_layers):
        rules += _block(layer, bias=text.attention_bias)
    rules += [
        Rule(
            f"{_BACKBONE}image_vit.transformer.resblocks.{layer}.{theirs}.{kind}",
            (f"{_TOWER}layers.{layer}.{ours}.{kind}",),
        )
        for layer in range(tower.num_hidden_layers)
        for theirs, ours in _RESBLOCK.items()
        for kind in _BOTH
    ]
    return TensorMap((*rules, *_connector(config)))


def _block(layer: int, *, bias: bool) -> list[Rule]:
    theirs, ours = f"{_TRANSFORMER}blocks.{layer}.", f"{_LANGUAGE}layers.{layer}."
    rules = [Rule(f"{theirs}{public}", (f"{ours}{name}",)) for public, name in _BLOCK.items()]
    rules += [
        Rule(
            f"{theirs}self_attn.att_proj.{kind}",
            tuple(f"{ours}self_attn.{one}_proj.{kind}" for one in "qkv"),
            Join(),
        )
        for kind in (_BOTH if bias else _BOTH[:1])
    ]
    # The published order: first what is multiplied, then the gate.
    halves = (f"{ours}mlp.up_proj.weight", f"{ours}mlp.gate_proj.weight")
    return [*rules, Rule(f"{theirs}mlp.ff_proj.weight", halves, Join())]


def _connector(config: Molmo2Config) -> list[Rule]:
    adapter = config.adapter_config
    pooling = [
        (f"image_pooling_2d.{theirs}.{kind}", f"image_pooling_2d.{ours}.{kind}")
        for theirs, ours in _POOLING.items()
        for kind in (_BOTH if adapter.attention_bias else _BOTH[:1])
    ]
    kinds = {"w2": _BOTH[:1]}
    projector = [
        (f"image_projector.{theirs}.{kind}", f"image_projector.{ours}.{kind}")
        for theirs, ours in _PROJECTOR.items()
        for kind in kinds.get(theirs, _BOTH if adapter.mlp_bias else _BOTH[:1])
    ]
    query = [("image_pooling_2d.query", "image_pooling_2d.query")] if is_learned(config) else []
    pairs = (*pooling, *projector, *query)
    return [Rule(f"{_BACKBONE}{theirs}", (f"{_CONNECTOR}{ours}",)) for theirs, ours in pairs]


def public_shapes(mapped: TensorMap, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shapes of the file's tensors, and hold that all of the model's are in them.

    Raises:
        DataError: the model has tensors that this layout has no place for.
    """
    used = {name for rule in mapped.rules for name in rule.sources}
    if used != shapes.keys():
        other = sorted(used ^ shapes.keys())
        raise DataError(f"the public layout of Molmo2 and this model differ in {', '.join(other[:3])}")
    found = {}
    for rule in mapped.rules:
        shape = rule.transform.shape(*(shapes[name] for name in rule.sources))
        assert shape is not None  # as the config says
        found[rule.target] = shape
    return found


def public_config(config: Molmo2Config, ids: Mapping[str, int]) -> dict[str, Any]:
    """Return `config.json` in the published field names.

    Args:
        config: of the model; what has no published name keeps its own.
        ids: of the visual tokens, for those that `Molmo2Config` does not hold.
    """
    fields = _own_fields(config)
    del fields["vision_config"]
    fields["vit_config"] = _renamed(_own_fields(config.vision_config), _VIT_FIELDS)
    fields["adapter_config"] = _renamed(_own_fields(config.adapter_config), _ADAPTER_FIELDS)
    fields["text_config"] = _text_fields(_own_fields(config.text_config))
    fields["vit_config"] |= {"float32_attention": True, "residual_dropout": 0.0}
    fields["adapter_config"] |= {
        "pooling_attention_mask": True,
        "float32_attention": True,
        "residual_dropout": 0.0,
        "image_feature_dropout": 0.0,
    }
    fields |= {
        "image_col_id": ids["<im_col>"],
        "image_low_res_id": ids["<im_low>"],
        "image_high_res_id": ids["<im_patch>"],
        "use_frame_special_tokens": True,
    }
    learned = is_learned(config)
    return fields | {
        "model_type": MODEL_TYPE if learned else Molmo2Config.model_type,
        "architectures": [model_class(config).__name__],
        "transformers_version": transformers.__version__,
    }


def _own_fields(config: Any) -> dict[str, Any]:
    """The fields of a config without those that every config has and that say nothing here."""
    usual = PreTrainedConfig().to_dict()
    return {
        name: value
        for name, value in config.to_dict().items()
        if not name.startswith("_") and (name not in usual or value != usual[name])
    }


def _text_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    renamed = _renamed(fields, _TEXT_FIELDS)
    rotary = renamed.pop("rope_parameters")
    scaled = rotary["rope_type"] != "default"
    scaling = {name: value for name, value in rotary.items() if name != "rope_theta"}
    return renamed | {
        "rope_theta": rotary["rope_theta"],
        "rope_scaling": scaling if scaled else None,
        "rope_scaling_layers": renamed["rope_scaling_layers"] if scaled else None,
        "use_qk_norm": True,
        "embedding_dropout": 0.0,
        "residual_dropout": 0.0,
    }


def _renamed(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in fields.items()}
