"""The hook into `transformers` models: an attention function that needs a `visibility` and counts its calls.

`adopt(model)` gives its language model `attn_implementation="hedgerow"`. Such a model gets no mask from
`transformers`; its forward takes `visibility=Visibility(backend, layers=...)` and hands it on to every layer.
"""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hedgerow.attention.dense import Dense, Masked
from hedgerow.attention.flex import Flex
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


BACKENDS: dict[str, Callable[[Row], Backend]] = {"dense": Dense, "segmented": Segmented, "flex": Flex}
_ONLY_ON = {"segmented": "cpu", "flex": "cuda"}  # the one type of device on which these can train


def choose(name: str) -> Callable[[Row], Backend]:
    """Return the backend of a name; called with a row it gives the attention of that row.

    Raises:
        RecipeError: no backend has that name.
    """
    if name not in BACKENDS:
        raise RecipeError(f"attention backend '{name}' does not exist; choose one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


def default(row: Row) -> str:
    """Return the name of the backend that suits a row, which must be on the device of the model.

    "segmented" on the CPU; on CUDA "flex" for a row that brings its blocks, as rows of one length do in
    training, for each other length would be compiled anew; "dense" else.
    """
    if row.order.device.type == "cpu":
        return "segmented"
    return "flex" if row.order.device.type == "cuda" and row.blocks is not None else "dense"


def trains_on(device: torch.device) -> tuple[str, ...]:
    """Return the names of the backends that compute gradients on a device."""
    return tuple(name for name in BACKENDS if _ONLY_ON.get(name, device.type) == device.type)


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
                "let nothing change the attention after adopt(model), make a Visibility for each forward, "
                "and check before the backward (checkpointing runs layers again)"
            )


def register() -> None:
    """Make `attn_implementation="hedgerow"` known to `transformers`; doing it again changes nothing."""
    from transformers import AttentionInterface  # here, because it takes seconds and backends work without it

    AttentionInterface.register(NAME, attend)


def adopt(model: Any) -> int:
    """Give the language model of a `transformers` model the registered attention, and no other part of it.

    All configs of the model become private copies first: attention is chosen by config, so a second model
    built from a shared one would switch this model back to a causal mask. Then two tokens that see only
    themselves run through the language model, to prove that each layer honours a visibility. From then on a
    forward with a visibility refuses an attention mask, and asks for `position_ids`. A model that is refused
    stays as it was.

    Args:
        model: a model of `transformers`, with or without head and vision tower, in the mode (training or not)
            it will run in.

    Returns:
        how many layers attend, for `Visibility(backend, layers=...)`.

    Raises:
        VisibilityError: it is no such model, layers mix tokens by other means than the registered attention
            (linear attention, convolutions, attention code of their own), or need arithmetic that no backend
            has.
    """
    register()
    language = _language(model)
    configs = _configs(model)
    try:
        copies: dict[int, Any] = {}  # shared, so that one config of several modules stays one
        for module, config in configs.items():
            module.config = copy.deepcopy(config, copies)
        _refuse_kinds(language)
        language.set_attn_implementation(NAME)
        windows = _probe(language)
        _refuse_lost_windows(language, windows)
    except BaseException:
        for module, config in configs.items():
            module.config = config
        raise
    _guard(model, language)
    return len(windows)


def _language(model: Any) -> Any:
    from transformers import PreTrainedModel

    find = getattr(model, "get_decoder", None) if isinstance(model, nn.Module) else None
    language = None if find is None else find()
    if not isinstance(language, PreTrainedModel) or "inputs_embeds" not in _parameters(language):
        raise VisibilityError(
            f"got {type(model).__name__}, which has no language model of transformers; give a model such as "
            "AutoModelForCausalLM.from_pretrained(...) returns"
        )
    return language


def _parameters(module: nn.Module) -> tuple[str, ...]:
    return tuple(inspect.signature(module.forward).parameters)


def _configs(model: nn.Module) -> dict[Any, Any]:
    """Return the config of each module that has one."""
    from transformers import PreTrainedConfig

    found = {module: getattr(module, "config", None) for module in model.modules()}
    return {module: config for module, config in found.items() if isinstance(config, PreTrainedConfig)}


@dataclasses.dataclass(frozen=True, slots=True)
class _Entry:
    """Refuses what is given beside a visibility, where a forward begins: inside, a mask may be dropped.

    `names` are the parameters of the forward. `numbers` says that tokens without `position_ids` may still
    get right ones, as the model around a language model may number them itself.
    """

    names: tuple[str, ...]
    numbers: bool

    def __call__(self, module: nn.Module, places: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = dict(zip(self.names, places, strict=False)) | named
        if given.get("visibility") is None:
            return
        mask = given.get("attention_mask")
        masks = mask.values() if isinstance(mask, Mapping) else [mask]  # one for each kind of layer
        if any(mask is not None for mask in masks):
            raise VisibilityError(f"{type(module).__name__} {_NO_MASK}")
        if given.get("position_ids") is None and not self.numbers:
            raise VisibilityError(
                f"{type(module).__name__} got a visibility and no position_ids, and would number the row in "
                "one go, where each branch goes on from its parent; give position_ids=row.position[None]"
            )


def _guard(model: nn.Module, language: nn.Module) -> None:
    """Let each model that holds the language model, and itself, look at what its forward is given."""
    from transformers import PreTrainedModel

    for module in model.modules():
        around = isinstance(module, PreTrainedModel) and any(part is language for part in module.modules())
        if around and not any(isinstance(hook, _Entry) for hook in module._forward_pre_hooks.values()):
            entry = _Entry(_parameters(module), numbers=module is not language)
            module.register_forward_pre_hook(entry, with_kwargs=True)


def _refuse_kinds(language: Any) -> None:
    name, kinds = type(language).__name__, getattr(language.config, "layer_types", None) or ()
    foreign = sorted(set(kinds) - {"full_attention", "sliding_attention"})
    if foreign:
        raise VisibilityError(
            f"{name} has layers of kind {', '.join(foreign)}, which cannot hide the branches of a row from "
            "each other; choose a model of full_attention and sliding_attention"
        )
    if not language._supports_attention_backend:
        raise VisibilityError(
            f"{name} does not attend through the AttentionInterface of transformers, so it cannot hide the "
            "branches of a row from each other; choose another model"
        )


class _Noted:
    """Two tokens that see only themselves; `windows` are those that the layers asked for."""

    def __init__(self, device: torch.device) -> None:
        self.position = torch.arange(2, device=device)[None]
        self.windows: list[int | None] = []
        mask = torch.eye(2, dtype=torch.bool, device=device)[None, None]
        self._masked = Masked(mask, position=(self.position, self.position))

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        self.windows.append(window)
        return self._masked(query, key, value, scale=scale, window=window)


@torch.enable_grad()
def _probe(language: Any) -> list[int | None]:
    """Return the window of each layer, or refuse a model in which tokens that are hidden reach each other."""
    table = language.get_input_embeddings().weight
    backend = _Noted(table.device)
    wave = torch.arange(2 * table.shape[1], device=table.device).sin().to(table.dtype)
    tokens = wave.reshape(1, 2, -1).requires_grad_()
    hidden = language(
        inputs_embeds=tokens,
        position_ids=backend.position,
        use_cache=False,
        visibility=Visibility(backend, layers=language.config.num_hidden_layers),
    ).last_hidden_state[0]
    mixture = wave[: hidden.shape[1]].detach()  # a plain sum is what a normalisation keeps constant
    seen = [torch.autograd.grad(token @ mixture, tokens, retain_graph=True)[0][0] for token in hidden]
    leaks = any(bool((gradient[other] != 0.0).any()) for gradient, other in zip(seen, (1, 0), strict=True))
    count, layers = len(backend.windows), language.config.num_hidden_layers
    if leaks or count != layers:
        raise VisibilityError(
            f"{type(language).__name__} attends {count} times through the AttentionInterface of transformers "
            f"in {layers} layers, and tokens hidden from each other {'' if leaks else 'do not '}meet; "
            "choose a model in which nothing else mixes tokens"
        )
    return backend.windows


def _refuse_lost_windows(language: Any, windows: list[int | None]) -> None:
    config = language.config
    kinds = getattr(config, "layer_types", None) or ()
    wanted = [config.sliding_window if kind == "sliding_attention" else None for kind in kinds]
    if wanted and wanted != windows:
        raise VisibilityError(
            f"the layers of {type(language).__name__} have windows {wanted} and ask attention for {windows}; "
            "choose another model"
        )


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
        raise VisibilityError(f"{type(module).__name__} {_NO_MASK}")
    if getattr(module, "is_causal", True) is False:
        raise VisibilityError(
            f"{type(module).__name__} attends in both directions, a row is causal outside its groups; switch "
            "the config's bidirectional attention off"
        )
    if dropout > 0.0:
        raise VisibilityError(f"attention dropout {dropout} is not supported; set attention_dropout to 0")
    asked = [f"{name} ({what})" for name, what in _REFUSED.items() if others.get(name) is not None]
    if asked:
        raise VisibilityError(
            f"{type(module).__name__} needs {', '.join(asked)}, which no backend computes; choose a model "
            "without it"
        )
    visibility.calls += 1
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = visibility.backend(query, key, value, scale=scale, window=sliding_window)
    return out.transpose(1, 2).contiguous(), None


_NO_MASK = "got an attention_mask beside the visibility, which alone says who sees whom; leave the mask out"

# Arithmetic that is not the backends'.
_REFUSED = {
    "softcap": "scores bent to stay below a cap",
    "s_aux": "attention sinks: a learnt score for each head that takes part in every softmax",
    "position_bias": "a learnt bias on the scores",
    "cache": "a paged cache of keys and values",
}
