"""The processor of a checkpoint, run by `transformers` on one image at a time, with Pillow.

`transformers` is imported where a processor is loaded and nowhere else. Letters for shapes as in
`hedgerow.sequence`.
"""

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from hedgerow.errors import MediaError, RecipeError
from hedgerow.sequence import Array
from hedgerow.vision.processor import Grid, Groups

_AXES = {"qwen2_vl": 3, "qwen2_5_vl": 3}
_GROUPS: dict[str, Groups] = {"gemma3": "runs"}
# Of what a processor gives: what rows carry, and what says nothing new.
_CARRIED = {"pixel_values", "image_grid_thw", "image_sizes", "pixel_attention_mask"}
_SILENT = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "batch_num_images"}
_RAW = {"do_rescale": False, "do_normalize": False}
_BEFORE, _AFTER = "[before]", "[after]"
_CORNER = 24  # of 255: how far the corner of a crop may be from that of the image it shows whole


def traits(model_type: str) -> tuple[int, Groups]:
    """Return how many numbers the position of a token has, and which visual tokens see each other."""
    return _AXES.get(model_type, 1), _GROUPS.get(model_type, "none")


@dataclass(frozen=True, slots=True)
class Written:
    """What a processor makes of an image of one size, but for its pixels.

    Attributes:
        runs: its tokens by name, each with how often it stands there in a row.
        patch: the name of those that receive a feature.
        crops: number of inputs of the vision tower.
        grids: of slots, as in `VisionInput`.
        window: int32 [V, K], the patches that make the feature of each slot, or the number of the feature.
        patches: of one crop; the most features it may give where these are counted.
        whole: which crop shows the whole image, -1 for none.
    """

    runs: tuple[tuple[str, int], ...]
    patch: str
    crops: int
    grids: tuple[Grid, ...]
    window: Array
    patches: int
    whole: int

    @property
    def slots(self) -> int:
        """Number of tokens that receive a feature."""
        return len(self.window)

    @property
    def names(self) -> tuple[str, ...]:
        """All tokens, by name."""
        return tuple(name for name, count in self.runs for _ in range(count))


class Plain:
    """The processor of a checkpoint.

    Args:
        folder: of the checkpoint.

    Raises:
        RecipeError: there is no processor that can be loaded.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        try:
            self.processor, self.config = _loaded(folder)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise RecipeError(
                f"{folder}: its processor cannot be loaded ({str(error).strip()}); give the folder of a "
                "checkpoint with config.json, preprocessor_config.json and its tokenizer"
            ) from error
        self.tokenizer = self.processor.tokenizer
        self.images = self.processor.image_processor
        self.image = self._image()

    def write(self, size: tuple[int, int], settings: Mapping[str, Any]) -> Written:
        """Write down an image of a size, (width, height).

        Args:
            size: in pixels.
            settings: of the image processor, in place of its own.

        Raises:
            RecipeError: it takes no such settings, or gives what no `VisionInput` carries.
            MediaError: it refuses an image of this size.
        """
        found = self._run(_ramp(size), settings)
        crops = _crops(found)
        ids = np.asarray(found["input_ids"][0])
        names = self.tokenizer.convert_ids_to_tokens(ids.tolist())
        slots = int((ids == self.config.image_token_id).sum())
        grid = found.get("image_grid_thw")
        if grid is not None:
            merge = int(self.images.merge_size)
            frames, rows, columns = (int(n) for n in np.asarray(grid)[0])
            grids: tuple[Grid, ...] = ((frames, rows // merge, columns // merge),)
            window = np.arange(len(crops)).reshape(-1, merge**2)
            patches, whole = 1, -1
        else:
            patches = self._patches(slots, len(crops))
            grids = _grids(slots, len(crops))
            window, whole = np.arange(slots)[:, None], _whole(crops)
        return Written(
            runs=tuple((name, len(list(run))) for name, run in itertools.groupby(names)),
            patch=self.tokenizer.convert_ids_to_tokens(self.config.image_token_id),
            crops=len(crops),
            grids=grids,
            window=window.astype(np.int32),
            patches=patches,
            whole=whole,
        )

    def see(self, pixels: Array, settings: Mapping[str, Any]) -> Array:
        """Return the crops of an image uint8 [H, W, 3], before their values are rescaled and normalised.

        Returns:
            uint8 [C, H, W, 3]; or [C, P] where it is cut into patches.

        Raises:
            MediaError: the processor refuses it.
        """
        return _crops(self._run(PIL.Image.fromarray(np.ascontiguousarray(pixels)), settings))

    def levels(self, settings: Mapping[str, Any]) -> Array:
        """Return what the processor makes of each value of a channel, float32 [3, 256]."""
        values = np.tile(np.arange(256, dtype=np.uint8), (3, 1))[:, None]
        chosen = {name: settings.get(name, getattr(self.images, name, None)) for name in _ARITHMETIC}
        if chosen["do_rescale"]:
            values = self.images.rescale(values, chosen["rescale_factor"])
        if chosen["do_normalize"]:
            values = self.images.normalize(values, chosen["image_mean"], chosen["image_std"])
        return np.asarray(values[:, 0], np.float32)

    def _image(self) -> str:
        """How the checkpoint's chat template writes an image, or its placeholder alone."""
        token, template = str(self.processor.image_token), self.processor.chat_template
        template = template or self.tokenizer.chat_template
        if not template:
            return token
        shown = [{"type": "text", "text": _BEFORE}, {"type": "image"}, {"type": "text", "text": _AFTER}]
        turn = [{"role": "user", "content": shown}]
        text = str(self.tokenizer.apply_chat_template(turn, chat_template=template, tokenize=False))
        between = text.partition(_BEFORE)[2].partition(_AFTER)[0]
        return between if between.count(token) == 1 else token

    def _patches(self, slots: int, crops: int) -> int:
        most: int | None = getattr(self.processor, "num_image_tokens", None)
        if most is not None:  # a line of features is closed by one more
            return most + math.isqrt(most)
        if slots % crops or not slots:
            raise RecipeError(
                f"{self.folder}: {slots} features of {crops} crops, which {type(self.processor).__name__} "
                "does not share out evenly; write a family for this model, see docs/adapters.md"
            )
        return slots // crops

    def _run(self, picture: PIL.Image.Image, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        self._check(settings)
        try:
            found: Mapping[str, Any] = self.processor(
                images=[picture],
                text=[self.image],
                images_kwargs={**settings, **_RAW},
                text_kwargs={"add_special_tokens": False},
            )
        except ValueError as error:
            raise MediaError(
                f"{type(self.processor).__name__} refuses an image of {picture.width} x {picture.height} "
                f"pixels: {error}"
            ) from error
        mask = found.get("pixel_attention_mask")
        padded = mask is not None and not np.asarray(mask).all()
        foreign = sorted(set(found) - _CARRIED - _SILENT)
        if foreign or padded:
            what = ", ".join(foreign) if foreign else "crops with padding"
            raise RecipeError(
                f"{self.folder}: {type(self.processor).__name__} gives {what}, which this family does not "
                "carry; write a family for this model, see docs/adapters.md"
            )
        return found

    def _check(self, settings: Mapping[str, Any]) -> None:
        allowed = set(self.images.valid_kwargs.__annotations__) | set(_BASE)
        unknown = sorted(set(settings) - allowed)
        if unknown:
            raise RecipeError(
                f"{self.folder}: {type(self.images).__name__} has no setting {', '.join(unknown)}; give some "
                f"of {', '.join(sorted(allowed))}"
            )


_ARITHMETIC = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
_BASE = ("do_resize", "size", "resample", *_ARITHMETIC)


@cache
def plain(folder: str) -> Plain:
    """Return the processor of a folder; a process loads each once."""
    return Plain(folder)


@lru_cache(maxsize=65536)
def written(folder: str, settings: str, size: tuple[int, int]) -> Written:
    """Return what the processor of a folder makes of an image of a size; `settings` are JSON."""
    return plain(folder).write(size, json.loads(settings))


@cache
def model_type(folder: str) -> str:
    """Return the kind of model in a folder.

    Raises:
        RecipeError: there is no `config.json` that says it.
    """
    path = Path(folder) / "config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(
            f"{path}: no config that names a model_type; give the folder of a checkpoint as vision.folder"
        ) from error


def _loaded(folder: str) -> tuple[Any, Any]:
    """The processor without its video half, which asks for torchvision, and the config of the model."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    public = getattr(transformers, PROCESSOR_MAPPING_NAMES[config.model_type])

    class Unchecked(public):  # type: ignore[misc,valid-type]
        """Takes no video processor where the public one insists on it."""

        @classmethod
        def _get_arguments_from_pretrained(cls, place: str, *_: Any, **__: Any) -> list[Any]:
            images = transformers.AutoImageProcessor.from_pretrained(
                place, backend="pil", local_files_only=True
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True)
            parts = {"image_processor": images, "tokenizer": tokenizer}
            return [parts.get(name) for name in public.get_attributes()]

        def check_argument_for_proper_class(self, _: str, argument: Any) -> Any:
            return type(argument)

    Unchecked.__name__ = public.__name__
    return Unchecked.from_pretrained(folder, local_files_only=True), config


def _crops(found: Mapping[str, Any]) -> Array:
    """Crops as uint8 [C, H, W, 3], or [C, P]."""
    pixels = np.asarray(found["pixel_values"])
    pixels = pixels[0] if pixels.ndim == 5 else pixels
    whole = pixels.astype(np.uint8)
    if (whole != pixels).any():
        raise RecipeError("the image processor gives values between whole ones; it cannot be used here")
    return np.ascontiguousarray(whole.transpose(0, 2, 3, 1)) if whole.ndim == 4 else whole


def _ramp(size: tuple[int, int]) -> PIL.Image.Image:
    """A picture that grows brighter to the right in red, and downwards in green."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return PIL.Image.fromarray(pixels)


def _whole(crops: Array) -> int:
    """Which crop of a ramp reaches from its first corner to its last, -1 for none."""
    first, last = crops[:, 0, 0, :2].max(axis=1), crops[:, -1, -1, :2].min(axis=1)
    found = np.flatnonzero((first <= _CORNER) & (last >= 255 - _CORNER))
    return int(found[0]) if len(found) else -1


def _grids(slots: int, crops: int) -> tuple[Grid, ...]:
    side = math.isqrt(slots // crops)
    return ((1, side, side),) * crops if side**2 * crops == slots else ((1, 1, slots),)
