"""The processor of a checkpoint, run by `transformers` on one image at a time, with Pillow.

`transformers` is imported where a processor is loaded and nowhere else. Letters for shapes as in
`hedgerow.sequence`.
"""

import hashlib
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
# Settings of an image processor: of what it does to each value, and those all of them take.
ARITHMETIC = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
_BASE = ("do_resize", "size", "resample", *ARITHMETIC)
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
        before: text that begins it, which may be tokens together with the text it follows; mostly none.
        runs: its other tokens by name, each with how often it stands there in a row.
        after: text that ends it, likewise.
        patch: the name of those that receive a feature.
        crops: number of inputs of the vision tower.
        grids: of slots, as in `VisionInput`.
        slots: number of tokens that receive a feature.
        merged: how many crops make the feature of a slot, where each crop is one patch; else 1.
        patches: of one crop; the most features it may give where these are counted.
        whole: which crop shows the whole image, -1 for none.
    """

    before: str
    runs: tuple[tuple[str, int], ...]
    after: str
    patch: str
    crops: int
    grids: tuple[Grid, ...]
    slots: int
    merged: int
    patches: int
    whole: int

    @property
    def names(self) -> tuple[str, ...]:
        """All tokens between `before` and `after`, by name."""
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
        except Exception as error:  # files that are wrong fail `transformers` in every way
            raise RecipeError(
                f"{folder}: its processor cannot be loaded ({_told(error)}); give the folder of a "
                "checkpoint with config.json, preprocessor_config.json and its tokenizer"
            ) from error
        self.tokenizer = self.processor.tokenizer
        self.images = self.processor.image_processor
        self.image = self._image()
        self._marks = set(self.tokenizer.added_tokens_decoder)

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
        before, own, after = self._edges(ids.tolist())
        names = self.tokenizer.convert_ids_to_tokens(own)
        slots = int((ids == self.config.image_token_id).sum())
        grid = found.get("image_grid_thw")
        if grid is not None:
            merge = int(self.images.merge_size)
            frames, rows, columns = (int(n) for n in np.asarray(grid)[0])
            grids: tuple[Grid, ...] = ((frames, rows // merge, columns // merge),)
            merged, patches, whole = merge**2, 1, -1
        else:
            grids = _grids(slots, len(crops))
            merged, patches, whole = 1, self._patches(slots, len(crops)), _whole(crops)
        return Written(
            before=before,
            runs=tuple((name, len(list(run))) for name, run in itertools.groupby(names)),
            after=after,
            patch=self.tokenizer.convert_ids_to_tokens(self.config.image_token_id),
            crops=len(crops),
            grids=grids,
            slots=slots,
            merged=merged,
            patches=patches,
            whole=whole,
        )

    def see(self, pixels: Array, settings: Mapping[str, Any]) -> Array:
        """Return the crops of an image uint8 [H, W, 3], before their values are rescaled and normalised.

        Returns:
            uint8 [C, H, W, 3]; or [C, P] where it is cut into patches.

        Raises:
            MediaError: the processor refuses it.
            RecipeError: it refuses the settings.
        """
        return _crops(self._run(PIL.Image.fromarray(np.ascontiguousarray(pixels)), settings))

    def levels(self, settings: Mapping[str, Any]) -> Array:
        """Return what the processor makes of each value of a channel, float32 [3, 256].

        Raises:
            RecipeError: mean or deviation are not of three channels.
        """
        values = np.tile(np.arange(256, dtype=np.uint8), (3, 1))[:, None]
        chosen = {name: settings.get(name, getattr(self.images, name, None)) for name in ARITHMETIC}
        if chosen["do_rescale"]:
            values = self.images.rescale(values, chosen["rescale_factor"])
        try:
            if chosen["do_normalize"]:
                values = self.images.normalize(values, chosen["image_mean"], chosen["image_std"])
        except ValueError as error:
            raise RecipeError(
                f"{self.folder}: image_mean {chosen['image_mean']}, image_std {chosen['image_std']}: "
                f"{_told(error)}; give three numbers each"
            ) from error
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

    def _edges(self, ids: list[int]) -> tuple[str, list[int], str]:
        """Tell the text at the edges of an image from the tokens between."""
        marks = [place for place, token in enumerate(ids) if token in self._marks]
        first, last = marks[0], marks[-1] + 1
        before, after = (self.tokenizer.decode(part) for part in (ids[:first], ids[last:]))
        same = [self.tokenizer.encode(text, add_special_tokens=False) for text in (before, after)]
        if same != [ids[:first], ids[last:]]:  # not every tokenizer gives back what it was given
            return "", ids, ""
        return before, ids[first:last], after

    def _patches(self, slots: int, crops: int) -> int:
        if not slots:
            raise RecipeError(
                f"{self.folder}: its tokenizer writes no {self.processor.image_token} for an image; give the "
                "tokenizer that belongs to the model"
            )
        most: int | None = getattr(self.processor, "num_image_tokens", None)
        if most is not None:  # a line of features is closed by one more
            return most + math.isqrt(most)
        if slots % crops:
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
                f"pixels: {_told(error)}"
            ) from error
        except Exception as error:  # values of settings are checked with classes of errors of their own
            raise RecipeError(
                f"{self.folder}: {type(self.images).__name__} fails with {dict(settings) or 'its settings'} "
                f"({_told(error)}); correct vision.images and vision.frames"
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


@cache
def plain(folder: str) -> Plain:
    """Return the processor of a folder; a process loads each once."""
    return Plain(folder)


@lru_cache(maxsize=65536)
def written(folder: str, settings: str, size: tuple[int, int]) -> Written:
    """Return what the processor of a folder makes of an image of a size; `settings` are JSON."""
    return plain(folder).write(size, json.loads(settings))


def settings_files(folder: str | Path) -> list[Path]:
    """Return the files of a folder that say what its processor does to pixels."""
    names = ("preprocessor_config.json", "processor_config.json")
    return [path for path in (Path(folder) / name for name in names) if path.is_file()]


def settings_digest(folder: str | Path) -> str:
    """Return 16 hex digits of what `settings_files` hold."""
    found = hashlib.sha256()
    for path in settings_files(folder):
        found.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return found.hexdigest()[:16]


@cache
def model_type(folder: str) -> str:
    """Return the kind of model in a folder.

    Raises:
        RecipeError: there is no `config.json` that says it.
    """
    path = Path(folder) / "config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
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


def _told(error: Exception) -> str:
    return " ".join(str(error).split())


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
