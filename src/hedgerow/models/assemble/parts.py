"""A Molmo2 from a SigLIP vision model and a language model: planned and checked first, then made."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import Molmo2Config
from transformers.initialization import no_init_weights

from hedgerow.errors import RecipeError
from hedgerow.models.assemble.fresh import adapter_config, token_fields
from hedgerow.models.assemble.language import HEAD, MODEL, language_map, text_config, window_note
from hedgerow.models.assemble.rules import Shape, TensorMap
from hedgerow.models.assemble.siglip import TOWER, chosen_layers, grid_side, vision_config, vision_map
from hedgerow.models.assemble.source import Checkpoint
from hedgerow.models.assemble.tokens import TURN_END, VISUAL_TOKENS, visual_ids, with_visual_tokens
from hedgerow.models.chat import published_bos
from hedgerow.models.connector import model_class
from hedgerow.models.initialize import connect
from hedgerow.models.molmo2 import Molmo2
from hedgerow.text import ChatFormat, ChatML, load_tokenizer
from hedgerow.vision.processor import Molmo2Processor


@dataclass(frozen=True, slots=True)
class Parts:
    """What a Molmo2 is put together from.

    Attributes:
        vision: folder of a SigLIP or SigLIP 2 vision model.
        language: folder of a Qwen3 or OLMo 3 model with its tokenizer.
        tokenizer: another place of the language model's tokenizer.
        crop_size: side of a crop in pixels; positions are resized to its grid of patches.
        feature_layers: vision layers whose features are joined (negative: from the last); deeper ones are
            left out. Those of arXiv 2601.10611, section 3.1.
        margins: patches of a crop that its neighbours also see, as in `Molmo2Processor`.
        extra_rows: rows of the embedding table beyond the base vocabulary, 128 as in the published models.
        query: as in `ModelSpec`.
    """

    vision: str | Path
    language: str | Path
    tokenizer: str | Path | None = None
    crop_size: int = 378
    feature_layers: tuple[int, ...] = (-3, -9)
    margins: tuple[int, int] = (4, 4)
    extra_rows: int = 128
    query: Literal["mean", "learned"] = "mean"


@dataclass(frozen=True, slots=True)
class Assembly:
    """A checked plan of a Molmo2; no weight has been read yet.

    Attributes:
        config: of the model.
        chat: the language model's tokenizer with the visual tokens, and ChatML with the token that
            conversations begin with: `bos_token` of its `tokenizer_config.json`, or else its `eos_token`.
        vision: the vision checkpoint and its map.
        language: the same of the language model.
        fresh: names and shapes of the tensors that are initialised.
        shapes: of all tensors of the model, by name.
        margins: as in `Parts`.
        notes: what the user should know.
    """

    config: Molmo2Config
    chat: ChatFormat
    vision: tuple[Checkpoint, TensorMap]
    language: tuple[Checkpoint, TensorMap]
    fresh: dict[str, Shape]
    shapes: dict[str, Shape]
    margins: tuple[int, int]
    notes: tuple[str, ...]

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of `chat`."""
        found: Tokenizer = self.chat.tokenizer
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """What the processor of media must have, as settings for `save`; others may be added."""
        tower = self.config.vision_config
        return {
            "crop_size": tower.image_size[0],
            "patch_size": tower.patch_size,
            "margins": self.margins,
        }

    def table(self) -> str:
        """Return the whole map as text; layers that are treated alike share a line."""
        lines = [f"{len(self.shapes)} tensors of a Molmo2"]
        for checkpoint, mapped in (self.vision, self.language):
            lines += ["", f"from {checkpoint.folder} ({checkpoint.config.model_type})"]
            lines += _folded(self._rows(checkpoint, mapped))
            out = [(name, f"left out: {reason}") for name, reason in mapped.left_out.items()]
            lines += _folded(iter(out))
        lines += ["", "initialised", *_folded((name, str(list(shape))) for name, shape in self.fresh.items())]
        lines += ["", *(f"note: {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines)

    def _rows(self, checkpoint: Checkpoint, mapped: TensorMap) -> Iterator[tuple[str, str]]:
        for rule in mapped.rules:
            given = " and ".join(f"{name} {list(checkpoint.shapes[name])}" for name in rule.sources)
            done = f", {rule.transform}" if str(rule.transform) else ""
            yield f"{rule.target} {list(self.shapes[rule.target])}", f"<- {given}{done}"

    def make(self, *, seed: int, dtype: torch.dtype = torch.float32, attention: str | None = None) -> Molmo2:
        """Read the weights into a model on the CPU, one tensor at a time.

        Args:
            seed: of the connector and the extra rows; torch's own random state is left as it was.
            dtype: of the weights in memory.
            attention: as for `Molmo2`.
        """
        with no_init_weights():
            hf = model_class(self.config)._from_config(self.config, dtype=dtype)
        parameters = dict(hf.named_parameters())
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            for checkpoint, mapped in (self.vision, self.language):
                for name, tensor in mapped.make(checkpoint.read):
                    parameters[name].copy_(tensor)
            connect(hf)
        hf.generation_config.eos_token_id = self.tokenizer.token_to_id(TURN_END)
        return Molmo2(hf, attention=attention)


def assemble(parts: Parts) -> Assembly:
    """Plan a Molmo2 and hold that every tensor of both checkpoints and of the model is accounted for.

    Only configs, the tokenizer and the heads of the tensor files are read. `Assembly.table` shows the plan,
    `Assembly.make` makes the model, `save` writes it.

    Raises:
        DataError: a folder cannot be read, holds another kind of model, or tensors are missing, surplus or
            of another shape; one line for each folder.
        RecipeError: sizes, layers or the tokenizer do not fit.
    """
    vision, language = Checkpoint(Path(parts.vision)), Checkpoint(Path(parts.language))
    extra = max(parts.extra_rows, len(VISUAL_TOKENS))
    layers = chosen_layers(vision, parts.feature_layers)
    side = grid_side(vision, parts.crop_size)
    tower = _tower(vision, depth=max(layers) + 1, crop_size=parts.crop_size)
    Molmo2Processor(
        parts.crop_size, tower["patch_size"], margins=parts.margins
    )  # refuses what leaves nothing
    text = text_config(language, extra_rows=extra)
    place = Path(parts.tokenizer or parts.language)
    tokenizer = with_visual_tokens(load_tokenizer(place), text["vocab_size"])
    config = Molmo2Config(
        text_config=text,
        vision_config=tower,
        adapter_config=adapter_config(vision=tower, text=text, layers=layers, query=parts.query),
        **token_fields(visual_ids(tokenizer)),
    )
    shapes = _shapes(config)
    maps = (
        (vision, vision_map(vision, layers=max(layers) + 1, side=side), (TOWER,)),
        (language, language_map(language, extra_rows=extra), (MODEL, HEAD)),
    )
    for checkpoint, mapped, own in maps:
        targets = {name: shape for name, shape in shapes.items() if name.startswith(own)}
        mapped.check(checkpoint.shapes, targets, where=str(checkpoint.folder))
    made = maps[0][1].targets | maps[1][1].targets
    return Assembly(
        config=config,
        chat=ChatFormat(tokenizer, ChatML(_first_token(place, tokenizer))),
        vision=maps[0][:2],
        language=maps[1][:2],
        fresh={name: shape for name, shape in shapes.items() if name not in made},
        shapes=shapes,
        margins=parts.margins,
        notes=tuple(filter(None, (window_note(language),))),
    )


def _first_token(folder: Path, tokenizer: Tokenizer) -> str:
    """The token that conversations begin with, as in the published models."""
    bos = published_bos(folder) or TURN_END
    if tokenizer.token_to_id(bos) is None:
        raise RecipeError(
            f"{folder}: tokenizer_config.json names {bos} as bos_token or eos_token, which the tokenizer "
            "lacks; correct it"
        )
    return bos


def _tower(checkpoint: Checkpoint, *, depth: int, crop_size: int) -> dict[str, Any]:
    config = vision_config(checkpoint)
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": depth,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_attention_heads,
        "head_dim": config.hidden_size // config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
        "image_size": [crop_size, crop_size],
        "patch_size": config.patch_size,
    }


def _shapes(config: Molmo2Config) -> dict[str, Shape]:
    with torch.device("meta"), no_init_weights():
        model: nn.Module = model_class(config)(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _folded(rows: Iterator[tuple[str, str]]) -> list[str]:
    """Write rows, one line for all that differ in the number of their layer only."""
    alike: dict[tuple[str, str], list[str]] = {}
    for left, right in rows:
        layer = re.search(r"layers\.(\d+)\.", left)
        own = layer.group(0) if layer else ""
        key = (left.replace(own, "layers.*."), right.replace(own, "layers.*.")) if own else (left, right)
        alike.setdefault(key, []).append(layer.group(1) if layer else "")
    found = []
    for (left, right), layers in alike.items():
        if len(layers) == 1:
            found.append(f"  {left}  {right}".replace("layers.*.", f"layers.{layers[0]}."))
        else:
            first, *_, last = sorted(layers, key=int)
            found.append(f"  {left}  {right} (layers {first} to {last})")
    return found
