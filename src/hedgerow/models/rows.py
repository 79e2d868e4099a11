"""A model of `transformers` on packed rows: called part by part, with the visibility of the row.

Letters for shapes as in `hedgerow.sequence`; D is the width of the language model, E that of what it reads:
D, or more where visual features also enter deeper layers.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hedgerow.attention.register import Backend, Visibility, adopt, choose, default
from hedgerow.attention.ulysses import Context, Ulysses
from hedgerow.sequence import Row, VisionInput


class RowModel(nn.Module, ABC):
    """A model of `transformers` (attribute `hf`), for rows.

    The configs of `hf` become private copies, for a second model built from a shared config would switch this
    one back to a causal mask. Only the language model gets the registered attention.

    Args:
        hf: the model, with a head.
        attention: name of a backend of `hedgerow.attention.register`; None takes the one that suits the row.
        gradient_checkpointing: run each layer again in the backward pass instead of keeping its activations.

    Attributes:
        axes: how many numbers the position of a token has.
        width: E.
        context: the processes that share each row with this one.

    Raises:
        RecipeError: there is no such backend.
        VisibilityError: the model cannot take a visibility.
    """

    axes = 1

    def __init__(
        self, hf: Any, *, attention: str | None = None, gradient_checkpointing: bool = False
    ) -> None:
        super().__init__()
        if attention is not None:
            choose(attention)
        self._layers = adopt(hf)
        if gradient_checkpointing:
            hf.activation_checkpointing_enable()
        self.hf = hf
        self.attention = attention
        self.context: Context | None = None

    @abstractmethod
    def features(self, vision: VisionInput) -> Tensor:
        """Return a feature per slot, [V, E]."""

    @abstractmethod
    def place(self, embeddings: Tensor, slot: Tensor, features: Tensor) -> Tensor:
        """Return what the language model reads, [n, E]: token embeddings [n, D] with features at slots."""

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """Return the modules with rates of their own, by name; what is in none of the others is the last."""

    def forward(self, row: Row) -> Tensor:
        """Return the final hidden states [N, D] of a row.

        Args:
            row: as joined, or already on the model's device.

        Raises:
            VisibilityError: attention was not what the row asks for.
            RecipeError: the row was encoded for another model.
            ValueError: slots and features do not match, or positions have another number of axes.
        """
        row = row.to(self.device)
        hidden = self.language(self.embed(row), row)
        return hidden if self.context is None else self.context.gather_tokens(hidden, len(row))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.head.weight.device

    @property
    def head(self) -> nn.Linear:
        """The layer from hidden states [M, D] to logits."""
        return self.hf.lm_head  # type: ignore[no-any-return]

    @property
    def width(self) -> int:
        """Channels of what the language model reads where visual features take part."""
        return int(self.head.weight.shape[1])

    def embed(self, row: Row) -> Tensor:
        """Return what the language model reads, [N, E]; in a context, of this process's stretch of the row.

        Vision does not run for a row without media, of which the language model reads [N, D].
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
        return self.place(embeddings, row.slot[here] - own.start, features[here].to(embeddings.dtype))

    def _own(self, row: Row) -> slice:
        """The tokens of a row that this process computes: all of them where it shares none."""
        return slice(0, len(row)) if self.context is None else self.context.own(len(row))

    def _shared_features(self, vision: VisionInput) -> Tensor:
        """A feature per slot, [V, E]; the processes of a context make each a part of them."""
        if self.context is None:
            return self.features(vision)
        part, slots = self.context.crops(vision)
        weight = self.head.weight  # of the dtype that all agree on
        found = weight.new_zeros(0, self.width) if part is None else self.features(part)
        gathered = self.context.gather(found.to(weight.dtype), [len(places) for places in slots])
        order = torch.from_numpy(np.argsort(np.concatenate(slots))).to(gathered.device)
        return gathered[order]

    def language(self, embeddings: Tensor, row: Row, *, cache: Any = None) -> Tensor:
        """Run the language model on a row.

        Args:
            embeddings: float [N, E] of the row.
            row: on the model's device.
            cache: an empty key-value cache of `transformers`, which is filled.

        Returns:
            final hidden states, float [N, D].

        Raises:
            VisibilityError: attention was not what the row asks for.
            ValueError: positions have another number of axes than the model's.
        """
        axes = 1 if row.position.ndim == 1 else len(row.position)
        if axes != self.axes:
            raise ValueError(
                f"position {list(row.position.shape)}: {type(self).__name__} numbers tokens along "
                f"{self.axes} {'axis' if self.axes == 1 else 'axes'}; encode with the processor of this model"
            )
        backend = choose(self.attention or default(row))(row)
        if self.context is not None:
            backend = Ulysses(backend, self.context, length=len(row))
        position = row.position[..., self._own(row)].unsqueeze(-2)
        return self.attend(embeddings[None], position, backend=backend, cache=cache)[0]

    def attend(self, embeddings: Tensor, position: Tensor, *, backend: Backend, cache: Any = None) -> Tensor:
        """Run the language model with a visibility, and check that every layer used it.

        Args:
            embeddings: float [B, Q, E].
            position: int64 [B, Q], or [3, B, Q] for three axes.
            backend: who sees whom.
            cache: a key-value cache of `transformers`, filled by the call.

        Returns:
            final hidden states, float [B, Q, D].

        Raises:
            VisibilityError: a layer ran without this visibility.
        """
        visibility = Visibility(backend, layers=self._layers)
        found = self.hf.get_decoder()(
            **self.read(embeddings),
            position_ids=position,
            past_key_values=cache,
            use_cache=cache is not None,
            visibility=visibility,
        )
        visibility.check()
        return found.last_hidden_state  # type: ignore[no-any-return]

    def read(self, embeddings: Tensor) -> dict[str, Any]:
        """Return the arguments by which the language model is given what it reads, [B, Q, E]."""
        return {"inputs_embeds": embeddings}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return every trainable parameter once, by the name of its part."""
        groups: dict[str, list[nn.Parameter]] = {}
        taken: set[int] = set()
        for name, part in self.parts().items():
            groups[name] = [p for p in part.parameters() if p.requires_grad and id(p) not in taken]
            taken |= {id(p) for p in groups[name]}
        return groups
