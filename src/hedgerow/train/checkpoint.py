"""Checkpoints of a run: written whole or not at all, and found again.

    OUT/checkpoints/step-00000100/model.safetensors    weights that are trained, and buffers
                                  state.pt             optimisers, loader, step
                                  recipe.json          the recipe
                                  manifest.json        fingerprint of the run and of what is not
                                                       trained, size of each file
    OUT/checkpoints/latest                             name of the newest folder

A folder is written under another name, synced to disk and renamed: one that has its name is complete. A
folder that was copied here only in part is told by the sizes in its manifest, and passed over.

What is not trained is the same at every step, so it is not written: a run that goes on has it from where its
model comes from, and its content must be that of the run's start.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hedgerow.errors import DataError, RecipeError
from hedgerow.models.folder import remove, sync
from hedgerow.recipe import Recipe
from hedgerow.vision.hf import HFProcessor
from hedgerow.vision.plain import settings_files

# What may change between two legs of one run: it changes no row, no loss and no weight on one machine.
FREE = (
    "out", "init", "save_every", "keep", "log_every", "threads", "packing.workers", "data.evaluate",
    "model.checkpoint", "model.gradient_checkpointing", "vision.folder",
)  # fmt: skip
_FILES = ("model.safetensors", "state.pt", "recipe.json")
_NEW = ".new-"


@dataclass(frozen=True, slots=True)
class State:
    """What a run needs to go on, besides its weights; `optimizers` and `loader` are state dicts.

    `frozen` is the digest of the weights that are not trained, empty where all are.
    """

    step: int
    optimizers: Mapping[str, Any]
    loader: Mapping[str, Any]
    frozen: str = ""


def save(out: Path, model: nn.Module, state: State, recipe: Recipe) -> Path:
    """Write a checkpoint, remove all but the last `recipe.keep`, and return its folder.

    Of the model all is written but parameters that need no gradient.
    """
    folder = _folders(out) / f"step-{state.step:08d}"
    fresh = folder.with_name(_NEW + folder.name)
    remove(fresh)
    fresh.mkdir(parents=True)
    write_weights(fresh / "model.safetensors", model)
    parts = {"step": state.step, "optimizers": dict(state.optimizers), "loader": dict(state.loader)}
    torch.save(parts, fresh / "state.pt")
    (fresh / "recipe.json").write_text(json.dumps(recipe.to_dict(), indent=2), encoding="utf-8")
    sizes = {name: (fresh / name).stat().st_size for name in _FILES}
    manifest = {"fingerprint": fingerprint(recipe), "frozen": state.frozen, "sizes": sizes}
    (fresh / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    for path in (*fresh.iterdir(), fresh):
        sync(path)
    remove(folder)  # of an earlier, abandoned leg: a resumed run starts behind every complete one
    fresh.replace(folder)
    _point(folder)
    _tidy(folder, keep=recipe.keep)
    return folder


def newest(out: Path) -> Path | None:
    """Return the newest complete checkpoint of a run, None if there is none."""
    complete = (folder for folder in reversed(_saved(out)) if _is_complete(folder))
    return next(complete, None)


def at(out: Path, step: int) -> Path:
    """Return the complete checkpoint of a step.

    Raises:
        RecipeError: there is none; the message says of which steps there are.
    """
    complete = {int(folder.name.rpartition("-")[2]): folder for folder in _saved(out) if _is_complete(folder)}
    if step not in complete:
        there = ", ".join(map(str, complete)) or "none at all"
        raise RecipeError(f"{out} has no checkpoint of step {step}; there are {there}")
    return complete[step]


def load_state(folder: Path, recipe: Recipe) -> State:
    """Read the state of a checkpoint.

    Raises:
        DataError: data, references or tokenizer are no file.
        RecipeError: it belongs to a run of another recipe or other data; the message says what differs.
    """
    check_run(folder, recipe)
    parts = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    frozen = _manifest(folder).get("frozen", "")
    return State(parts["step"], parts["optimizers"], parts["loader"], frozen)


def check_run(folder: Path, recipe: Recipe) -> None:
    """Refuse a checkpoint of another run; a field that recipes did not have then had its default.

    Raises:
        DataError: data, references or tokenizer are no file.
        RecipeError: the recipe or the data are others; the message says what differs.
    """
    for name, path in _inputs(recipe).items():
        if not path.is_file():
            raise DataError(f"{name}: {path}: no such file; correct the path, or put the file there")
    saved = _manifest(folder)["fingerprint"]
    now, usual = fingerprint(recipe), _defaults()
    then = {name: saved.get(name, usual.get(re.sub(r"\.\d+\.", ".0.", name))) for name in (*saved, *now)}
    changed = [name for name in then if then[name] != now.get(name)]
    if changed:
        shown = "; ".join(f"{name} was {then[name]}, is {now.get(name)}" for name in changed[:3])
        raise RecipeError(f"{folder} is of another run: {shown}; set it back, or give a new folder as 'out'")


def _defaults() -> dict[str, str]:
    spec = {"crop_size": 378, "patch_size": 14}  # those of `vision`
    least = {"data": {"train": [{"path": ""}]}, "model": {"spec": spec}, "steps": 1, "out": ""}
    return dict(_flat(Recipe.model_validate(least).to_dict()))


def load_weights(folder: Path, model: nn.Module) -> str:
    """Read the weights of a checkpoint into a model, and return the digest of those that are not trained.

    Args:
        folder: of the checkpoint.
        model: as in the run: what it does not train needs no gradient, and is already there.

    Raises:
        RecipeError: they are of another model, or what is not trained is other than in the run; the message
            says what differs.
    """
    wrong = read_weights(folder / "model.safetensors", model)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise RecipeError(
            f"{folder} holds another model: {'; '.join(wrong[:3])}{more}; use its recipe's model"
        )
    frozen, then = frozen_digest(model), _manifest(folder).get("frozen")
    if then not in (None, frozen):  # None: of a time when checkpoints held all weights
        raise RecipeError(
            f"{folder}: the weights that are not trained are not those of the run (content {then or 'none'} "
            f"then, {frozen or 'none'} now); put back what model.checkpoint or init named"
        )
    return frozen


def write_weights(file: Path, model: nn.Module) -> None:
    """Write a safetensors file of the parameters that are trained, and of buffers; tied ones once."""
    kept = {name: tensor.detach().contiguous() for name, tensor in _kept(model).items()}
    save_file(kept, file, {"format": "pt"})


@torch.no_grad()
def read_weights(file: Path, model: nn.Module) -> list[str]:
    """Copy what `write_weights` wrote into a model, one tensor at a time.

    A file that holds more, such as what is not trained now, is read whole.

    Returns:
        what is wrong, nothing if all fits: tensors that the model has not, that the file has not, or of other
        shapes; or why the file cannot be read. What fits is copied even so.
    """
    state, wrong, filled = model.state_dict(keep_vars=True), list[str](), set[int]()
    try:
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118  # no mapping
                tensor, place = stored.get_tensor(name), state.get(name)
                if place is None:
                    wrong.append(f"surplus {name}")
                elif place.shape != tensor.shape:
                    wrong.append(f"size mismatch for {name}: {list(tensor.shape)}, not {list(place.shape)}")
                else:
                    place.copy_(tensor)
                    filled.add(id(place))
    except (OSError, SafetensorError) as error:
        return [" ".join(str(error).split())]
    return [*wrong, *(f"missing {name}" for name, one in _kept(model).items() if id(one) not in filled)]


def _kept(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a checkpoint by name: parameters that are trained, and buffers; tied ones once."""
    found: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        if tensor.requires_grad or not isinstance(tensor, nn.Parameter):
            found.setdefault(id(tensor), name)
    return {name: state[name] for name in found.values()}


def frozen_digest(model: nn.Module) -> str:
    """Return 16 hex digits of the names and bytes of the parameters that need no gradient, "" for none.

    About 2 GB a second on one core.
    """
    found = hashlib.sha256()
    frozen = [(name, one) for name, one in model.named_parameters() if not one.requires_grad]
    for name, parameter in frozen:
        found.update(f"{name} {parameter.dtype} {list(parameter.shape)}\n".encode())
        found.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16] if frozen else ""


def discard(out: Path) -> None:
    """Remove all checkpoints of a run, to start it over."""
    remove(_folders(out))


def fingerprint(recipe: Recipe) -> dict[str, str]:
    """Return by dotted name what decides the result of a run; files count by content, wherever they lie."""
    found = {name: value for name, value in _flat(recipe.to_dict()) if not _is_free(name)}
    return found | {name: _digest(path) for name, path in _inputs(recipe).items()}


def _inputs(recipe: Recipe) -> dict[str, Path]:
    """The files whose content decides the result of a run, by dotted name."""
    found = {f"data.train.{number}.path": source.path for number, source in enumerate(recipe.data.train)}
    if recipe.data.references is not None:
        found["data.references"] = recipe.data.references
    if recipe.model.tokenizer != "tiny":
        path = Path(recipe.model.tokenizer)
        found["model.tokenizer"] = path / "tokenizer.json" if path.is_dir() else path
    if isinstance(recipe.vision, HFProcessor):
        found |= {f"vision.folder.{path.name}": path for path in settings_files(recipe.vision.folder)}
    return found


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in FREE)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, json.dumps(value)


def _digest(path: Path) -> str:
    if not path.is_file():
        return "no file"
    with path.open("rb") as file:
        return f"content {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def _folders(out: Path) -> Path:
    return out / "checkpoints"


def _saved(out: Path) -> list[Path]:
    return sorted(_folders(out).glob("step-*"))


def _manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))


def _is_complete(folder: Path) -> bool:
    try:
        sizes = _manifest(folder)["sizes"]
        return all((folder / name).stat().st_size == sizes[name] for name in _FILES)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _point(folder: Path) -> None:
    fresh = folder.with_name(f"{_NEW}latest")
    fresh.write_text(folder.name + "\n", encoding="utf-8")
    sync(fresh)
    fresh.replace(folder.with_name("latest"))
    sync(folder.parent)


def _tidy(folder: Path, *, keep: int) -> None:
    """Remove all checkpoints but the last ones up to `folder`; one behind it cannot be complete."""
    saved = sorted(folder.parent.glob("step-*"))
    last = saved.index(folder) + 1
    for old in (*saved[: max(last - keep, 0)], *saved[last:], *folder.parent.glob(f"{_NEW}*")):
        remove(old)
