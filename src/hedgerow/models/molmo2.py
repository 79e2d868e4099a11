"""Molmo2 on packed rows: the modules of `transformers`, called part by part with the visibility of the row.

Letters for shapes as in `hedgerow.sequence`; D is the width of the language model.
"""

import dataclasses
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hedgerow.attention.register import Backend, Visibility, adopt, choose, default
from hedgerow.attention.ulysses import Context, Ulysses
from hedgerow.errors import RecipeError
from hedgerow.sequence import Array, Row, VisionInput

QUIET, LOUD = 0.05, 100.0  # features outside this share of the embeddings' scale are reported
ALIKE = 0.01  # and so are features of which less than this share tells crops apart


@dataclasses.dataclass(frozen=True, slots=True)
class ScaleReport:
    """How loud vision is beside text, as standard deviations over all channels and slots of a row.

    `features` is the connector's output, `embeddings` the token embeddings it is added to. `between` is the
    part of the features that differs between crops that are not the same: what is left after taking away, for
    each place in a crop, its mean over these crops; None where no place occurs in two of them.
    """

    features: float
    embeddings: float
    between: float | None

    @property
    def ratio(self) -> float:
        """Features over embeddings; about 1 is healthy."""
        return self.features / max(self.embeddings, torch.finfo(torch.float32).tiny)

    @property
    def problem(self) -> str:
        """One line for the user, or an empty string."""
        if not QUIET <= self.ratio <= LOUD:
            given = f"{self.features:.1e} beside {self.embeddings:.1e} of the token embeddings"
        elif self.between is not None and self.between < ALIKE * self.embeddings:
            given = f"{self.between:.1e} between crops beside {self.embeddings:.1e} of the token embeddings"
        else:
            return ""
        return (
            f"visual features have scale {given} (allowed: {QUIET} to {LOUD} times, {ALIKE} between crops), "
            "so the model will hardly learn to see; set initialization: fan_in, or another initializer_range"
        )


class Molmo2(nn.Module):
    """The Molmo2 of `transformers` (attribute `hf`), for rows.

    The configs of `hf` become private copies, for a second model built from a shared config would switch this
    one back to a causal mask. Only the language model gets the registered attention.

    Args:
        hf: a model from `hedgerow.models.assemble`, or from `from_pretrained`.
        attention: name of a backend of `hedgerow.attention.register`; None takes the one that
            suits the row.
        vision_attention: of the vision tower and the connector. "eager" trains faster in bf16 on a CPU.
        gradient_checkpointing: run each layer again in the backward pass instead of keeping its activations.

    Raises:
        RecipeError: there is no such backend.
    """

    def __init__(
        self,
        hf: Any,
        *,
        attention: str | None = None,
        vision_attention: Literal["sdpa", "eager"] = "sdpa",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if attention is not None:
            choose(attention)
        self._layers = adopt(hf)
        hf.set_attn_implementation({"vision_config": vision_attention, "adapter_config": vision_attention})
        if gradient_checkpointing:
            hf.activation_checkpointing_enable()
        self.hf = hf
        self.attention = attention
        self.context: Context | None = None  # the processes that share each row with this one

    def forward(self, row: Row) -> Tensor:
        """Return the final hidden states [N, D] of a row.

        Args:
            row: as joined, or already on the model's device.

        Raises:
            VisibilityError: attention was not what the row asks for.
            RecipeError: the row was encoded for another crop or patch size.
            ValueError: slots and features do not match, or positions have three axes.
        """
        row = row.to(self.device)
        hidden = self.language(self.embed(row), row)
        return hidden if self.context is None else self.context.gather_tokens(hidden, len(row))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.hf.lm_head.weight.device  # type: ignore[no-any-return]

    def embed(self, row: Row) -> Tensor:
        """Return what the language model reads, [N, D]: token embeddings plus visual features at the slots.

        The vision tower and the connector do not run for a row without media. In a context, D of this
        process's stretch of the row, [n, D].
        """
        own = self._own(row)
        embeddings: Tensor = self.hf.get_input_embeddings()(row.tokens[own])
        if row.vision is None:
            return embeddings
        features = self._shared_features(row.vision)
        if len(features) != len(row.slot):
            raise ValueError(
                f"{len(features)} features for {len(row.slot)} slots; give each slot one pooling window"
            )
        here = slice(*torch.searchsorted(row.slot, row.slot.new_tensor([own.start, own.stop])).tolist())
        return embeddings.index_add(0, row.slot[here] - own.start, features[here].to(embeddings.dtype))

    def _own(self, row: Row) -> slice:
        """The tokens of a row that this process computes: all of them where it shares none."""
        return slice(0, len(row)) if self.context is None else self.context.own(len(row))

    def _shared_features(self, vision: VisionInput) -> Tensor:
        """A feature per slot, [V, D]; the processes of a context make each a part of them."""
        if self.context is None:
            return self.features(vision)
        part, slots = self.context.crops(vision)
        weight = self.hf.lm_head.weight  # of the dtype and width that all agree on
        found = weight.new_zeros(0, weight.shape[1]) if part is None else self.features(part)
        gathered = self.context.gather(found.to(weight.dtype), [len(places) for places in slots])
        order = torch.from_numpy(np.argsort(np.concatenate(slots))).to(gathered.device)
        return gathered[order]

    def features(self, vision: VisionInput) -> Tensor:
        """Return a feature per slot, [V, D]: layers of the vision tower, pooled and projected."""
        config = self.hf.config
        pixels = _patches(vision.crops, config.vision_config)
        seen = self.hf.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        chosen = [seen[n + 1 if n >= 0 else n] for n in config.adapter_config.vision_feature_layer]
        pooled = self.hf.model.multi_modal_projector(torch.cat(chosen, dim=-1), vision.pooling)
        return pooled.last_hidden_state  # type: ignore[no-any-return]

    def language(self, embeddings: Tensor, row: Row, *, cache: Any = None) -> Tensor:
        """Run the language model on a row.

        Args:
            embeddings: float [N, D] of the row.
            row: on the model's device.
            cache: an empty key-value cache of `transformers`, which is filled.

        Returns:
            final hidden states, float [N, D].

        Raises:
            VisibilityError: attention was not what the row asks for.
            ValueError: positions have three axes.
        """
        if row.position.ndim != 1:
            raise ValueError(
                f"position {list(row.position.shape)}: Molmo2 numbers tokens along one axis, give [N]"
            )
        backend = choose(self.attention or default(row))(row)
        if self.context is not None:
            backend = Ulysses(backend, self.context, length=len(row))
        position = row.position[self._own(row)]
        return self.attend(embeddings[None], position[None], backend=backend, cache=cache)[0]

    def attend(self, embeddings: Tensor, position: Tensor, *, backend: Backend, cache: Any = None) -> Tensor:
        """Run the language model with a visibility, and check that every layer used it.

        Args:
            embeddings: float [B, Q, D].
            position: int64 [B, Q].
            backend: who sees whom.
            cache: a key-value cache of `transformers`, filled by the call.

        Returns:
            final hidden states, float [B, Q, D].

        Raises:
            VisibilityError: a layer ran without this visibility.
        """
        visibility = Visibility(backend, layers=self._layers)
        found = self.hf.model.language_model(
            inputs_embeds=embeddings,
            position_ids=position,
            past_key_values=cache,
            use_cache=cache is not None,
            visibility=visibility,
        )
        visibility.check()
        return found.last_hidden_state  # type: ignore[no-any-return]

    @property
    def head(self) -> nn.Linear:
        """The layer from hidden states [M, D] to logits [M, base vocabulary]; visual tokens have none."""
        return self.hf.lm_head  # type: ignore[no-any-return]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return every trainable parameter once, as "vision", "connector" and "language".

        The rows of the visual tokens are part of the one embedding table, so they train with the language
        model; in arXiv 2601.10611 they have the connector's rate.
        """
        model = self.hf.model
        parts = {"vision": model.vision_tower, "connector": model.multi_modal_projector, "language": self.hf}
        groups: dict[str, list[nn.Parameter]] = {}
        taken: set[int] = set()
        for name, part in parts.items():
            groups[name] = [p for p in part.parameters() if p.requires_grad and id(p) not in taken]
            taken |= {id(p) for p in groups[name]}
        return groups

    @torch.no_grad()
    def scale_report(self, row: Row) -> ScaleReport:
        """Measure how loud vision is beside text, on a row with media; worth a look before training starts.

        With the usual initializer_range of 0.02 a model of width 128 starts with features of 6e-7 beside
        embeddings of 0.02: nothing fails, it only never sees.

        Raises:
            ValueError: the row has no media.
        """
        if row.vision is None:
            raise ValueError("the row has no media; give one with an image or a video")
        row = row.to(self.device)
        features = self.features(row.vision).float()  # type: ignore[arg-type]
        embeddings = self.hf.get_input_embeddings()(row.tokens[row.slot]).float()
        crop = row.vision.pooling.amax(dim=1) // row.vision.patches  # type: ignore[union-attr]
        first = _first_alike(row.vision.crops)[crop] == crop  # type: ignore[union-attr]
        return ScaleReport(
            features=float(features.std(correction=0)),
            embeddings=float(embeddings.std(correction=0)),
            between=_between(features[first], crop[first]),
        )


def _patches(crops: Array, config: Any) -> Tensor:
    """Turn uint8 [C, H, W, 3] into float32 [C, patches, P * P * 3] in [-1, 1]; all orders are row by row."""
    count, height, width, channels = crops.shape
    size = config.patch_size
    if [height, width] != list(config.image_size):
        raise RecipeError(
            f"crops of {height}x{width} pixels, but the vision tower takes "
            f"{'x'.join(map(str, config.image_size))}; encode with the processor of this model"
        )
    pixels = crops.reshape(count, height // size, size, width // size, size, channels).transpose(2, 3)
    flat: Tensor = pixels.reshape(count, -1, size * size * channels)
    return flat.float() / 127.5 - 1.0


def _first_alike(crops: Array) -> Tensor:
    """For each crop the first that holds the same pixels: a small image is its own overview."""
    seen: dict[bytes, int] = {}
    found = [seen.setdefault(crop.tobytes(), number) for number, crop in enumerate(crops.cpu().numpy())]
    return torch.tensor(found, device=crops.device)


def _between(features: Tensor, crop: Tensor) -> float | None:
    by_crop = torch.argsort(crop, stable=True)
    counts = torch.bincount(crop)
    place = torch.empty_like(crop)
    place[by_crop] = torch.arange(len(crop), device=crop.device) - (counts.cumsum(0) - counts)[crop[by_crop]]
    times = torch.bincount(place)
    sums = features.new_zeros(len(times), features.shape[1]).index_add(0, place, features)
    left = (features - sums[place] / times[place, None])[times[place] > 1]
    return float(left.square().mean().sqrt()) if len(left) else None
