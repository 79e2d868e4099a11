"""Models of `transformers` that see by features in place of placeholder tokens, on packed rows.

Letters for shapes as in `hedgerow.sequence`; also F features of all images of a row, and D, the width of the
language model.
"""

import inspect
from typing import Any, Literal

import torch
from torch import Tensor

from hedgerow.errors import RecipeError
from hedgerow.models.rows import RowModel
from hedgerow.sequence import VisionInput
from hedgerow.vision.plain import traits

_TOWERS = ("vision_tower", "vision_model", "visual", "vision_encoder")
_CONNECTORS = ("multi_modal_projector", "connector", "visual.merger", "merger", "embed_vision")
_GIVEN = {"pixel_values", "image_grid_thw", "image_sizes", "pixel_attention_mask"}


class ProcessorModel(RowModel):
    """Any model whose `get_image_features` gives what stands in place of its placeholder tokens.

    Args:
        hf: a model of `transformers` for images and text.
        attention: as for `RowModel`.
        vision_attention: of the vision tower.
        gradient_checkpointing: as for `RowModel`.

    Attributes:
        axes: how many numbers the position of a token has.

    Raises:
        RecipeError: there is no such backend, or the model sees in a way that no row carries.
        VisibilityError: the model cannot take a visibility.
    """

    def __init__(
        self,
        hf: Any,
        *,
        attention: str | None = None,
        vision_attention: Literal["sdpa", "eager"] = "sdpa",
        gradient_checkpointing: bool = False,
    ) -> None:
        _check(hf)
        super().__init__(hf, attention=attention, gradient_checkpointing=gradient_checkpointing)
        hf.set_attn_implementation({"vision_config": vision_attention})
        self.axes = traits(hf.config.model_type)[0]

    def features(self, vision: VisionInput) -> Tensor:
        """Return a feature per slot, [V, D], from those the model gives for all images, [F, D].

        Raises:
            RecipeError: the row was encoded for another model.
        """
        if vision.images is None or vision.levels is None:
            raise RecipeError(
                f"the row was not encoded for {type(self.hf).__name__}; encode with vision.family: processor"
            )
        found = self.hf.model.get_image_features(**self._given(vision), return_dict=True).pooler_output
        found = torch.cat(list(found)) if isinstance(found, list | tuple) else found.flatten(0, -2)
        crops, slots = vision.images[:, 0], vision.images[:, 1]
        if len(found) != int(slots.sum()):
            raise RecipeError(
                f"{type(self.hf).__name__} gives {len(found)} features for {int(slots.sum())} placeholder "
                "tokens; encode with the processor of this model"
            )
        first = (crops.cumsum(0) - crops) * vision.patches  # where the windows of each image begin
        places = vision.pooling[:, 0].contiguous()
        image = torch.searchsorted(first, places, right=True) - 1
        own = (places - first[image]) // vision.pooling.shape[1]
        return found[own + (slots.cumsum(0) - slots)[image]]

    def place(self, embeddings: Tensor, slot: Tensor, features: Tensor) -> Tensor:
        """Put features in place of the embeddings of their slots."""
        return embeddings.index_copy(0, slot, features)

    def parts(self) -> dict[str, Any]:
        """Return the connector, which may lie within the vision tower, vision and language."""
        return {
            "connector": _part(self.hf, _CONNECTORS),
            "vision": _part(self.hf, _TOWERS),
            "language": self.hf,
        }

    def _shared_features(self, vision: VisionInput) -> Tensor:
        """A feature per slot; each process of a context makes all of them."""
        return self.features(vision)

    def _given(self, vision: VisionInput) -> dict[str, Any]:
        """The arguments of `get_image_features`, as the processor of the model would give them."""
        names = inspect.signature(self.hf.model.get_image_features).parameters
        pixels = _values(vision).to(self.head.weight.dtype)
        given: dict[str, Any] = {"pixel_values": pixels}
        if "pixel_attention_mask" in names:  # crops of several samples, of which this is one
            given["pixel_values"] = pixels[None]
        if "image_grid_thw" in names:
            merge = round(vision.pooling.shape[1] ** 0.5)
            frames, rows, columns = vision.grids.unbind(dim=1)
            grids = torch.stack([torch.ones_like(rows), merge * rows, merge * columns], dim=1)
            given["image_grid_thw"] = grids.repeat_interleave(frames, dim=0)
        if "image_sizes" in names:
            given["image_sizes"] = vision.images[:, 2:4]  # type: ignore[index]
        return given


def _values(vision: VisionInput) -> Tensor:
    """What the tower reads, float32 [C, 3, H, W] or [C, P]: the level of each value of its channel."""
    crops, levels = vision.crops, vision.levels
    channels = crops.unbind(dim=-1) if crops.ndim == 4 else crops.chunk(3, dim=1)
    found = [level[channel.long()] for level, channel in zip(levels, channels, strict=True)]  # type: ignore[arg-type]
    return torch.stack(found, dim=1) if crops.ndim == 4 else torch.cat(found, dim=1)


def _part(hf: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        try:
            return hf.model.get_submodule(name)
        except AttributeError:
            continue
    raise RecipeError(
        f"{type(hf).__name__} has none of {', '.join(names)}; write a family for it, see docs/adapters.md"
    )


def _check(hf: Any) -> None:
    """Refuse a model that sees in a way that no row carries, each for its reason."""
    name, model = type(hf).__name__, getattr(hf, "model", None)
    features = getattr(model, "get_image_features", None)
    if features is None:
        raise RecipeError(f"{name} has no get_image_features; choose a model that fills placeholder tokens")
    asked = [
        key
        for key, parameter in inspect.signature(features).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    language = hf.get_decoder()
    rotary = getattr(language.config, "rope_parameters", None) or {}
    axes, groups = traits(hf.config.model_type)
    reasons = {
        f"asks for {', '.join(sorted(set(asked) - _GIVEN))} beside pixels": set(asked) - _GIVEN,
        "adds visual features in deeper layers": "deepstack_visual_embeds" in _names(language),
        "lets visual tokens see ahead by token_type_ids": "token_type_ids" in _names(hf) and groups == "none",
        "numbers tokens along several axes": "mrope_section" in rotary and axes == 1,
    }
    wrong = [reason for reason, holds in reasons.items() if holds]
    if wrong:
        raise RecipeError(
            f"{name} {' and '.join(wrong)}, which family processor does not do; choose another model, or "
            "write a family for it, see docs/adapters.md"
        )
    _part(hf, _TOWERS)
    _part(hf, _CONNECTORS)


def _names(module: Any) -> set[str]:
    return set(inspect.signature(module.forward).parameters)
