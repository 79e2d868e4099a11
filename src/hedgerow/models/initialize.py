"""Fresh weights for small models that are to see from the first step."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from hedgerow.models.connector import LearnedQuery

# Standard deviations, or factors of them; tried on models of width 128 only, see docs/log.md.
RESIDUAL = 0.5
POSITION = 0.7
EMBEDDING = 0.5
HEAD = 0.02
_RESIDUAL_OUTPUTS = ("o_proj", "down_proj", "fc2")


@torch.no_grad()
def fan_in(hf: Any) -> None:
    """Overwrite the weight matrices of a Molmo2 such that every layer keeps the scale of its input.

    Linear layers get normal values of deviation 1 / sqrt(inputs), half of that where a block adds to the
    residual stream. The vision tower's position table becomes sines and cosines of row and column, so that
    places are told apart, and near ones are alike, before anything is learnt. With one deviation for all
    weights, a model of width 128 tends to learn the form of an answer and its best constant before it looks
    at the picture.

    Args:
        hf: `Molmo2ForConditionalGeneration`; biases and norms stay.
    """
    tower = hf.model.vision_tower
    for name, module in hf.named_modules():
        if isinstance(module, nn.Linear):
            own = name.rsplit(".", 1)[-1]
            residual = own in _RESIDUAL_OUTPUTS and "multi_modal_projector" not in name
            deviation = (RESIDUAL if residual else 1.0) / math.sqrt(module.in_features)
            nn.init.normal_(module.weight, std=deviation)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=EMBEDDING)
    nn.init.normal_(hf.lm_head.weight, std=HEAD)
    side = math.isqrt(len(tower.positional_embedding))
    tower.positional_embedding.copy_(POSITION * waves(side, tower.positional_embedding.shape[1]))


@torch.no_grad()
def connect(hf: Any) -> None:
    """Overwrite the connector of a Molmo2 whose other parts are trained.

    Linear layers get normal values of deviation 1 / sqrt(inputs), the last one of that times the deviation of
    the token embeddings, so that features start about as loud as the text they are added to. Biases are zero.

    Args:
        hf: `Molmo2ForConditionalGeneration` with its token embeddings in place.
    """
    connector = hf.model.multi_modal_projector
    loudness = float(hf.get_input_embeddings().weight[: hf.config.text_config.vocab_size].float().std())
    for module in connector.modules():
        if isinstance(module, nn.Linear):
            last = module is connector.image_projector.down_proj
            nn.init.normal_(module.weight, std=(loudness if last else 1.0) / math.sqrt(module.in_features))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, LearnedQuery):
            module.reset_query()


def waves(side: int, width: int) -> Tensor:
    """Return sines and cosines of column and row for a square grid, float32 [side * side, width].

    Wavelengths run from four sides down to four patches, in `width / 4` steps.
    """
    place = torch.linspace(0.0, 1.0, side)
    rows, columns = torch.meshgrid(place, place, indexing="ij")
    rate = math.pi * torch.logspace(-1.0, math.log2(max(side / 2, 1.0)), width // 4, base=2.0)
    turns = [axis.reshape(-1, 1) * rate for axis in (columns, rows)]
    return torch.cat([wave(turn) for turn in turns for wave in (torch.sin, torch.cos)], dim=1)
