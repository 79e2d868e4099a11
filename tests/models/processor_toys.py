"""Tiny random checkpoints of five kinds, saved by `transformers` with all files of their processors."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from hedgerow.text import load_tokenizer

# SmolVLM's processor wants a package that writes the number of a video's frames as a word; no test shows one.
processing_smolvlm.num2words = processing_smolvlm.num2words or str

_TEXT = {
    "vocab_size": 900, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.15,
    "max_position_embeddings": 2048, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
_TOWER = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "initializer_range": 0.15,
}  # fmt: skip
_TURNS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """What `transformers` makes a kind of: `names` are special tokens by the attribute that holds them."""

    processor: str
    names: dict[str, str]
    image: str  # how the chat template writes an image
    images: Any
    config: dict[str, Any]
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the processor
    others: tuple[str, ...] = ()
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)  # that a recipe gives its images


_SMALL = {"do_image_splitting": True, "size": {"longest_edge": 48}, "max_image_size": {"longest_edge": 24}}
KINDS = {
    "smolvlm": Kind(
        processor="SmolVLMProcessor",
        names={"image_token": "<image>"},
        others=(
            "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<video>",
            *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
        ),
        image="<image>",
        images=lambda: SmolVLMImageProcessorPil(**_SMALL),
        fields={"image_seq_len": 9},
        config={
            "text_config": {"model_type": "llama", **_TEXT},
            "vision_config": {**_TOWER, "image_size": 24, "patch_size": 4},
            "scale_factor": 2,
        },
    ),
    "gemma3": Kind(
        processor="Gemma3Processor",
        names={
            "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        image="<start_of_image>",
        images=lambda: Gemma3ImageProcessorPil(size={"height": 24, "width": 24}),
        fields={"image_seq_length": 4},
        settings={
            "do_pan_and_scan": True, "pan_and_scan_min_crop_size": 8, "pan_and_scan_max_num_crops": 2,
            "pan_and_scan_min_ratio_to_activate": 1.6,
        },
        config={
            "text_config": {
                **_TEXT, "sliding_window": 7, "sliding_window_pattern": 2, "query_pre_attn_scalar": 8,
                "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            },
            "vision_config": {
                "model_type": "siglip_vision_model", **_TOWER, "image_size": 24, "patch_size": 6,
                "vision_use_head": False,
            },
            "mm_tokens_per_image": 4,
        },
    ),
    "qwen2_5_vl": Kind(
        processor="Qwen2_5_VLProcessor",
        names={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        others=("<|vision_start|>", "<|vision_end|>"),
        image="<|vision_start|><|image_pad|><|vision_end|>",
        images=lambda: Qwen2VLImageProcessorPil(
            patch_size=4, merge_size=2, temporal_patch_size=2,
            size={"shortest_edge": 64, "longest_edge": 1024},
        ),
        config={
            "text_config": {
                **_TEXT,
                "rope_parameters": {
                    "rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]
                },
            },
            "vision_config": {
                "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
                "out_hidden_size": 32, "window_size": 16, "fullatt_block_indexes": [1],
                "initializer_range": 0.15,
            },
        },
    ),
    "internvl": Kind(
        processor="InternVLProcessor",
        names={
            "start_image_token": "<img>", "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
        },
        image="<IMG_CONTEXT>\n",
        images=lambda: GotOcr2ImageProcessorPil(
            size={"height": 24, "width": 24}, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        fields={"image_seq_length": 9},
        config={
            "text_config": {"model_type": "qwen2", **_TEXT},
            "vision_config": {**_TOWER, "image_size": [24, 24], "patch_size": [4, 4]},
        },
    ),
    "llava_onevision": Kind(
        processor="LlavaOnevisionProcessor",
        names={"image_token": "<image>", "video_token": "<video>"},
        image="<image>\n",
        images=lambda: LlavaOnevisionImageProcessorPil(
            size={"height": 24, "width": 24},
            image_grid_pinpoints=[[24, 24], [24, 48], [48, 24], [48, 48], [24, 72]],
        ),
        fields={
            "num_image_tokens": 9, "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_2",
        },
        config={
            "text_config": {"model_type": "qwen2", **_TEXT},
            "vision_config": {
                "model_type": "siglip_vision_model", **_TOWER, "image_size": 24, "patch_size": 8,
                "vision_use_head": False,
            },
            "image_grid_pinpoints": [[24, 24], [24, 48], [48, 24], [48, 48], [24, 72]],
            "vision_aspect_ratio": "anyres_max_2",
        },
    ),
}  # fmt: skip
_IDS = {  # of the config, where they are not called like the attribute of the tokenizer
    "smolvlm": {"image_token_id": "<image>"},
    "gemma3": {
        "image_token_index": "<image_soft_token>", "boi_token_index": "<start_of_image>",
        "eoi_token_index": "<end_of_image>",
    },
    "qwen2_5_vl": {
        "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>",
    },
    "internvl": {"image_token_id": "<IMG_CONTEXT>"},
    "llava_onevision": {"image_token_index": "<image>", "video_token_index": "<video>"},
}  # fmt: skip


def checkpoint(folder: Path, name: str) -> Path:
    """Let `transformers` save a tiny model, its tokenizer and the settings of its processor."""
    kind = KINDS[name]
    tokenizer = Tokenizer.from_str(_with_line_breaks(load_tokenizer("tiny")))
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in (*kind.names.values(), *kind.others)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        extra_special_tokens=kind.names,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    fast.chat_template = _TURNS.replace("IMAGE", kind.image.replace("\n", "\\n"))
    fast.save_pretrained(folder)
    kind.images().save_pretrained(folder)
    about = {"processor_class": kind.processor, **kind.fields}
    (folder / "processor_config.json").write_text(json.dumps(about), encoding="utf-8")
    ids = {field: tokenizer.token_to_id(token) for field, token in _IDS[name].items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(name, **kind.config, **ids, tie_word_embeddings=False)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
        for weight in model.model.parameters():
            if weight.ndim == 2 and not weight.any():  # Gemma's projection starts at 0, and would hide all
                torch.nn.init.normal_(weight, std=0.15)
        model.save_pretrained(folder)
    return folder


def _with_line_breaks(tokenizer: Tokenizer) -> str:
    """A tokenizer in which two and three line breaks are one token, as in Gemma's."""
    fields = json.loads(tokenizer.to_str())
    model = fields["model"]
    model["vocab"] |= {"Ċ" * count: _TEXT["vocab_size"] - count for count in (2, 3)}  # behind special ones
    model["merges"] += [["Ċ", "Ċ"], ["ĊĊ", "Ċ"]]
    return json.dumps(fields)


def public(folder: Path, name: str) -> Any:
    """The processor of `transformers`, put together by hand: its own loading asks for torchvision."""
    kind = KINDS[name]

    class Unchecked(getattr(transformers, kind.processor)):
        def check_argument_for_proper_class(self, _: str, argument: Any) -> Any:
            return type(argument)

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    parts = {"image_processor": kind.images(), "tokenizer": tokenizer, "video_processor": None}
    own = {key: part for key, part in parts.items() if key in Unchecked.get_attributes()}
    return Unchecked(**own, **kind.fields, chat_template=tokenizer.chat_template)
