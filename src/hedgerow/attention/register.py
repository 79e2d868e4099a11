"""The hook into `transformers` models: an attention function that needs a `visibility` and counts its calls.

A model whose language model config has `attn_implementation="hedgerow"` gets no mask from `transformers`; its
forward takes `visibility=Visibility(backend, layers=...)` and hands it on to every layer.
"""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from hedgerow.attention.dense import Dense
from hedgerow.attention.segmented import Segmented
from hedgerow.errors import RecipeError, VisibilityError
from hedgerow.sequence import Row

NAME = "hedgerow"


class Backend(Protocol):
    """Attention with a fixed visibility; see `hedgerow.attention.dense.Dense` for the shapes."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        """Return the attention output [B, H, Q, D], or raise VisibilityError if it cannot be exact."""
        ...


BACKENDS: dict[str, Callable[[Row], Backend]] = {"dense": Dense, "segmented": Segmented}


def choose(name: str) -> Callable[[Row], Backend]:
    """Return the backend of a name; called with a row it gives the attention of that row.

    Raises:
        RecipeError: no backend has that name.
    """
    if name not in BACKENDS:
        raise RecipeError(f"attention backend '{name}' does not exist; choose one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


class Visibility:
    """What one forward of a model may see, and a count of the layers that obeyed.

    Make a new one for each forward; the backend may serve many.

    Args:
        backend: attention of the row, such as `choose("dense")(row)`.
        layers: number of attention layers of the language model.
    """

    def __init__(self, backend: Backend, *, layers: int) -> None:
        self.backend = backend
        self.layers = layers
        self.calls = 0

    def check(self) -> None:
        """Make sure that each layer attended through this object. Call it between forward and backward.

        Raises:
            VisibilityError: it ran another number of times, so some layer saw something else.
        """
        if self.calls != self.layers:
            raise VisibilityError(
                f"attention ran {self.calls} times with this visibility, the model has {self.layers} layers; "
                f"set attn_implementation='{NAME}' on the text config, make a Visibility for "
                "each forward, and check before the backward (checkpointing runs layers again)"
            )


def register() -> None:
    """Make `attn_implementation="hedgerow"` known to `transformers`; doing it again changes nothing."""
    from transformers import AttentionInterface  # here, because it takes seconds and backends work without it

    AttentionInterface.register(NAME, attend)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    visibility: Visibility | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend as a `transformers` attention function: [B, H, Q, D] in, [B, Q, H, D] and no weights out.

    Raises:
        VisibilityError: there is no visibility, or the layer asks for something no backend computes.
    """
    if visibility is None:
        raise VisibilityError(
            f"{type(module).__name__} attends with '{NAME}' but got no visibility; "
            "call the model with visibility=Visibility(choose('dense')(row), layers=...)"
        )
    if attention_mask is not None:
        raise VisibilityError("got an attention_mask beside the visibility; leave the mask out")
    if dropout > 0.0:
        raise VisibilityError(f"attention dropout {dropout} is not supported; set attention_dropout to 0")
    asked = [name for name in _REFUSED if others.get(name) is not None]
    if asked:
        raise VisibilityError(f"{type(module).__name__} needs {', '.join(asked)}; no backend has it")
    visibility.calls += 1
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = visibility.backend(query, key, value, scale=scale, window=sliding_window)
    return out.transpose(1, 2).contiguous(), None


# Soft-capped scores, attention sinks, additive biases and paged caches: other arithmetic than the backends'.
_REFUSED = ("softcap", "s_aux", "position_bias", "cache")
