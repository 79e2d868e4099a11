"""The files beside the weights: tokenizer, chat template and processors, for whoever serves the model."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from hedgerow.models.assemble.tokens import TURN_END, TURN_START
from hedgerow.models.chat import chat_template
from hedgerow.text import ChatFormat
from hedgerow.vision.processor import Molmo2Processor

_PAD = "<|endoftext|>"


def write_tokenizer(folder: Path, tokenizer: Any, *, longest: int) -> None:
    """Write the tokenizer and the chat template.

    The processor of `transformers` puts `bos_token` before a prompt that does not begin with it. It is the
    token that conversations of the model begin with. Where there is none it is `<|im_start|>`, with which all
    prompts without media begin; before media that processor then puts one token more than was trained.

    Args:
        folder: exists.
        tokenizer: a `ChatFormat`, a `tokenizers.Tokenizer`, written as ChatML, or a tokenizer of
            `transformers`, written as it is.
        longest: tokens that the model takes.
    """
    if not hasattr(tokenizer, "save_pretrained"):
        chat = tokenizer if isinstance(tokenizer, ChatFormat) else ChatFormat(tokenizer)
        named = {"bos_token": chat.template.bos or TURN_START, "eos_token": TURN_END, "pad_token": _PAD}
        inner = chat.tokenizer
        known = {name: token for name, token in named.items() if inner.token_to_id(token) is not None}
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=inner, chat_template=chat_template(chat), model_max_length=longest, **known
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
