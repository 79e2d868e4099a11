"""The files beside the weights: tokenizer, chat template and processors, for whoever serves the model."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from hedgerow.models.assemble.tokens import TURN_END, TURN_START
from hedgerow.vision.processor import Molmo2Processor

# The format of `hedgerow.text.ChatML`; media stand where the message has them.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}<|image|>
{%- elif part.type == 'video' -%}<|video|>
{%- elif part.type == 'text' -%}{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""
_PAD = "<|endoftext|>"


def write_tokenizer(folder: Path, tokenizer: Any, *, longest: int) -> None:
    """Write the tokenizer, and the chat template where it has none of its own.

    A `tokenizers.Tokenizer` gets `<|im_start|>` as the token at the beginning: the processor of
    `transformers` puts that token before a prompt that does not begin with it, and ours all do.

    Args:
        folder: exists.
        tokenizer: a `tokenizers.Tokenizer` or a tokenizer of `transformers`.
        longest: tokens that the model takes.
    """
    if not hasattr(tokenizer, "save_pretrained"):
        named = {"bos_token": TURN_START, "eos_token": TURN_END, "pad_token": _PAD}
        known = {name: token for name, token in named.items() if tokenizer.token_to_id(token) is not None}
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, chat_template=CHAT_TEMPLATE, model_max_length=longest, **known
        )
    tokenizer.save_pretrained(folder)


def write_processors(folder: Path, processor: Molmo2Processor) -> None:
    """Write what `Molmo2Processor`, `Molmo2ImageProcessor` and `Molmo2VideoProcessor` of `transformers` read.

    Sampling with the last frame, another number of crops where there are several images, and keeping damaged
    videos have no field there.
    """
    side = {"height": processor.crop_size, "width": processor.crop_size}
    pixels = {
        "size": side,
        "do_convert_rgb": True,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,  # bilinear
        "rescale_factor": 1 / 255,
        "patch_size": processor.patch_size,
        "processor_class": "Molmo2Processor",
    }
    image = pixels | {
        "image_processor_type": "Molmo2ImageProcessor",
        "max_crops": processor.max_crops,
        "overlap_margins": list(processor.margins),
        "pooling_size": [processor.image_pooling, processor.image_pooling],
    }
    video = pixels | {
        "video_processor_type": "Molmo2VideoProcessor",
        "do_sample_frames": True,
        "num_frames": processor.max_frames,
        "max_fps": int(processor.fps) if processor.fps.is_integer() else processor.fps,
        "pooling_size": [processor.video_pooling, processor.video_pooling],
    }
    layout = {
        "processor_class": "Molmo2Processor",
        "image_use_col_tokens": True,
        "use_single_crop_col_tokens": False,
        "use_single_crop_start_token": True,
        "video_use_col_tokens": False,
        "use_frame_special_tokens": True,
    }
    _write(folder / "preprocessor_config.json", image)
    _write(folder / "video_preprocessor_config.json", video)
    _write(folder / "processor_config.json", layout)


def _write(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
