"""Optimisers: own rates for vision, connector and language; AdamW, or Muon for matrices and AdamW else."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hedgerow.errors import RecipeError
from hedgerow.recipe import Optimizer, Rate, Recipe, Schedule

GROUPS = ("vision", "connector", "language")


class Grouped(Protocol):
    """What the optimisers need of a model."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return every trainable parameter once, under `vision`, `connector` or `language`."""
        ...

    def named_parameters(self) -> Any:
        """As `torch.nn.Module`."""
        ...

    def named_modules(self) -> Any:
        """As `torch.nn.Module`."""
        ...


def learning_rate(step: int, rate: Rate, schedule: Schedule, *, steps: int) -> float:
    """Return the learning rate of a step, a pure function of it.

    Warm-up is linear from 0, which no step has, to the peak at step `warmup`. Then the rate is constant until
    `hold` of all steps, and falls to `floor` times the peak at the last step.

    Args:
        step: from 1 to `steps`.
        rate: peak and warm-up.
        schedule: the shape after warm-up.
        steps: length of the run.
    """
    if step < rate.warmup:
        return rate.lr * step / rate.warmup
    start = max(rate.warmup, schedule.hold * steps)
    if step <= start:
        return rate.lr
    progress = (step - start) / (steps - start)
    falling = 0.5 * (1 + math.cos(math.pi * progress)) if schedule.kind == "cosine" else 1 - progress
    return rate.lr * (schedule.floor + (1 - schedule.floor) * falling)


class Optimizers:
    """The optimisers of a run, stepped together.

    Parameters with one dimension are not decayed. With `muon` the weights of all `nn.Linear` but the output
    head go to `torch.optim.Muon`, its update scaled to AdamW's size; embeddings, tables, the head and all
    else stay with AdamW. A group whose rate is 0 is frozen: its parameters get `requires_grad=False`.

    Args:
        model: with its parameters in fp32 (or fp64), where they will be trained.
        recipe: sections optimizer and schedule, and `steps`.

    Raises:
        RecipeError: all rates of the model's groups are 0.
        ValueError: the model's groups are not its trainable parameters, each once, or a parameter is not
            fp32.
    """

    def __init__(self, model: Grouped, recipe: Recipe) -> None:
        freeze(model, recipe.optimizer)
        _check(model)
        section = recipe.optimizer
        self._recipe = recipe
        matrices = linear_matrices(model) if section.name == "muon" else set()
        adamw: list[dict[str, Any]] = []
        muon: list[dict[str, Any]] = []
        for name, group in model.parameter_groups().items():
            parameters = [p for p in group if p.requires_grad]
            matrix = [p for p in parameters if id(p) in matrices]
            rest = [p for p in parameters if id(p) not in matrices]
            muon.append({"params": matrix, "name": f"{name}.muon"})
            adamw.append({"params": [p for p in rest if p.ndim > 1], "name": name})
            adamw.append({"params": [p for p in rest if p.ndim < 2], "name": name, "weight_decay": 0.0})
        self._optimizers = _build(section, adamw=_filled(adamw), muon=_filled(muon))
        if not self._optimizers:
            given = ", ".join(f"optimizer.{name}.lr" for name in model.parameter_groups() or GROUPS)
            raise RecipeError(f"nothing would be trained: {given} are 0; give one of them a rate")

    @property
    def parameters(self) -> list[Tensor]:
        """What is trained, always in the same order."""
        return [parameter for group in self._groups for parameter in group["params"]]

    def zero_grad(self) -> None:
        """Set all gradients to zeros: a parameter that a step does not reach has one too, on any process."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            else:
                parameter.grad.zero_()

    def rates(self, step: int) -> dict[str, float]:
        """Return the learning rate of every group at a step, `NAME` for AdamW and `NAME.muon` for Muon."""
        return {group["name"]: self._rate_at(group["name"], step) for group in self._groups}

    def step(self, step: int) -> None:
        """Update the parameters from their gradients at the rates of a step, numbered from 1."""
        for group in self._groups:
            group["lr"] = self._rate_at(group["name"], step)
        for optimizer in self._optimizers.values():
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each optimiser by its name."""
        return {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned for the same model and recipe."""
        if state.keys() != self._optimizers.keys():
            raise ValueError(f"state of {', '.join(state)} for optimisers {', '.join(self._optimizers)}")
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name])

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers.values() for group in optimizer.param_groups]

    def _rate_at(self, name: str, step: int) -> float:
        group, _, kind = name.partition(".")
        rate = _rate(self._recipe.optimizer, group)
        if kind == "muon":
            rate = rate.model_copy(update={"lr": self._recipe.optimizer.muon.lr})
        return learning_rate(step, rate, self._recipe.schedule, steps=self._recipe.steps)


def freeze(model: Grouped, section: Optimizer) -> None:
    """Let what has a rate of 0 need no gradient: it takes no memory for one, nor for an optimiser's state."""
    for name, parameters in model.parameter_groups().items():
        if name in GROUPS and _rate(section, name).lr == 0.0:
            for parameter in parameters:
                parameter.requires_grad_(False)


def linear_matrices(model: Grouped) -> set[int]:
    """Return the ids of the weights of all `nn.Linear` but the head (`head`, `lm_head`) and tied ones."""
    inside: set[int] = set()
    outside: set[int] = set()
    for name, module in model.named_modules():
        is_head = name.rpartition(".")[2] in ("head", "lm_head")
        for key, parameter in module.named_parameters(recurse=False):
            taken = isinstance(module, nn.Linear) and key == "weight" and not is_head
            (inside if taken else outside).add(id(parameter))
    return inside - outside


def _build(
    section: Optimizer, *, adamw: list[dict[str, Any]], muon: list[dict[str, Any]]
) -> dict[str, torch.optim.Optimizer]:
    found: dict[str, torch.optim.Optimizer] = {}
    if adamw:
        found["adamw"] = torch.optim.AdamW(
            adamw, betas=section.betas, eps=section.eps, weight_decay=section.weight_decay, fused=True
        )
    if muon:
        found["muon"] = torch.optim.Muon(
            muon,
            weight_decay=section.weight_decay,
            momentum=section.muon.momentum,
            adjust_lr_fn="match_rms_adamw",
        )
    return found


def _filled(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]


def _rate(section: Optimizer, name: str) -> Rate:
    found = getattr(section, name)
    assert isinstance(found, Rate)
    return found


def _check(model: Grouped) -> None:
    groups = model.parameter_groups()
    unknown = [name for name in groups if name not in GROUPS]
    if unknown:
        raise ValueError(f"parameter groups {', '.join(unknown)}; known are {', '.join(GROUPS)}")
    given = [id(parameter) for parameters in groups.values() for parameter in parameters]
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    twice = sorted(names.get(key, "?") for key in set(given) if given.count(key) > 1)
    missing = sorted(name for key, name in names.items() if key not in given)
    if twice or missing:
        raise ValueError(
            f"parameter_groups() must hold each parameter once; missing {missing}, twice {twice}"
        )
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"{name} is {parameter.dtype}; train fp32 weights (precision bf16 computes in bf16)"
            )
