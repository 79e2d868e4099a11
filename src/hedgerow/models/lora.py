"""LoRA on parts of a model, by `peft`: put in, merged, and written in its layout.

The model of `transformers` keeps its class: each chosen linear layer gets adapters beside it, under names
that `peft` gives them, and is found again where it was once they are merged.
"""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hedgerow.errors import RecipeError
from hedgerow.models.folder import ADAPTER_MARK, replaced
from hedgerow.models.lora_spec import LoraSpec
from hedgerow.models.rows import RowModel

try:
    from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer
except ImportError:  # pragma: no cover
    raise RecipeError("lora needs the package peft; run: pip install 'hedgerow[lora]'") from None

_LOG = logging.getLogger("hedgerow")
_WEIGHTS = "adapter_model.safetensors"  # the name that peft reads
_NAME = "default"  # of the one adapter a model has here
_ROOT = "base_model.model."  # what a model that peft loads puts before the names of `transformers`


def adapt(model: RowModel, lora: LoraSpec, *, seed: int) -> None:
    """Give parts of a model adapters, which do nothing yet; all else of these parts is frozen.

    Other parts stay as they are. Adapters are drawn from the seed alone.

    Args:
        model: without adapters, on the CPU.
        lora: parts, layers and sizes.
        seed: of A; B is 0.

    Raises:
        RecipeError: the model has no such part, or a part no such layer; the message says what there is.
    """
    layers = _chosen(model, lora)
    whole = [p for name, group in model.parameter_groups().items() if name not in lora.parts for p in group]
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=layers, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model.hf)
    for parameter in whole:  # peft freezes all that is no adapter
        parameter.requires_grad_(True)


@torch.no_grad()
def merge(model: RowModel) -> None:
    """Add each adapter to the weight it stands beside, in place, and leave the plain model of `transformers`.

    One matrix at a time lies in memory besides.
    """
    hf = model.hf
    for name, layer in [found for found in hf.named_modules() if isinstance(found[1], LoraLayer)]:
        layer.merge()
        above, _, last = name.rpartition(".")
        setattr(hf.get_submodule(above), last, layer.get_base_layer())
    del hf.peft_config


def save_adapter(model: RowModel, folder: str | Path, *, base: str | Path | None) -> None:
    """Write the adapters of a model as `peft.PeftModel.from_pretrained(hf, folder)` reads them.

    Modules that were trained whole are written beside them (`modules_to_save` of peft). A parameter that is
    trained and stands in no such module has no place there: it is named in a warning.

    Args:
        model: with adapters, not merged.
        folder: new, empty, or of earlier adapters, which are replaced whole or not at all.
        base: the checkpoint the model came from, named in the folder; None for fresh weights.

    Raises:
        RecipeError: the folder holds something else.
    """
    hf = model.hf
    whole = _trained_whole(hf)
    _warn_of_lost(hf, whole)
    config = copy.copy(hf.peft_config[_NAME])
    config.modules_to_save = whole or None
    config.target_modules = sorted(config.target_modules)
    config.base_model_name_or_path = None if base is None else str(base)
    config.inference_mode = True
    tensors = get_peft_model_state_dict(hf, adapter_name=_NAME, save_embedding_layers=False)
    for name in whole:
        tensors |= {f"{name}.{key}": one for key, one in hf.get_submodule(name).state_dict().items()}
    with replaced(Path(folder), mark=ADAPTER_MARK) as fresh:
        config.save_pretrained(fresh)
        named = {f"{_ROOT}{name}": tensor for name, tensor in _untied(tensors).items()}
        save_file(named, fresh / _WEIGHTS, {"format": "pt"})


def _untied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory, as the file asks for."""
    seen: dict[int, str] = {}
    return {
        name: one.contiguous() if seen.setdefault(one.data_ptr(), name) == name else one.clone()
        for name, one in tensors.items()
    }


def _trained_whole(module: nn.Module, above: str = "") -> list[str]:
    """The names of the outermost modules all of whose parameters are trained, adapters aside."""
    found: list[str] = []
    for last, inner in module.named_children():
        name, parameters = f"{above}{last}", list(inner.parameters())
        if isinstance(inner, LoraLayer) or not parameters:
            continue
        adapted = any(isinstance(one, LoraLayer) for one in inner.modules())
        if not adapted and not isinstance(inner, nn.ModuleList) and all(p.requires_grad for p in parameters):
            found.append(name)
        else:
            found += _trained_whole(inner, f"{name}.")
    return found


def _warn_of_lost(hf: nn.Module, whole: list[str]) -> None:
    inside = tuple(f"{name}." for name in whole)
    lost = [
        name
        for name, parameter in hf.named_parameters()
        if parameter.requires_grad and not name.startswith(inside) and f".{_NAME}." not in name
    ]
    if lost:
        _LOG.warning(
            "the adapters alone are not the trained model: peft has no place for %s, which %s trained too; "
            "use the merged model",
            ", ".join(lost[:3]),
            "was" if len(lost) == 1 else "were",
        )


def _chosen(model: RowModel, lora: LoraSpec) -> list[str]:
    """The names in `hf` of the layers that get adapters."""
    there = _linears(model)
    found: list[str] = []
    for part in lora.parts:
        if part not in there:
            raise RecipeError(
                f"lora.parts: the model has no linear layer in {part}; it has some in "
                f"{', '.join(sorted(there))}"
            )
        own = [name for name in there[part] if lora.targets is None or _is_one(name, lora.targets)]
        if not own:
            raise RecipeError(f"lora.targets names no layer of {part}; it has {_last(there[part])}")
        found += own
    for target in lora.targets or ():
        if not any(_is_one(name, (target,)) for name in found):
            several = [name for part in lora.parts for name in there[part]]
            raise RecipeError(
                f"lora.targets: {', '.join(lora.parts)} has no linear layer '{target}'; give some of "
                f"{_last(several)}"
            )
    return found


def _linears(model: RowModel) -> dict[str, list[str]]:
    """The names in `hf` of the linear layers of each part that has any, without the head."""
    names = {module: name for name, module in model.hf.named_modules() if isinstance(module, nn.Linear)}
    names.pop(model.head, None)
    found: dict[str, list[str]] = {}
    for part, module in model.parts().items():
        own = [names.pop(inner) for inner in module.modules() if inner in names]
        if own:
            found[part] = own
    return found


def _is_one(name: str, targets: tuple[str, ...]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _last(names: list[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in names}))
