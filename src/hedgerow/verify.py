"""The laws on the user's own model and data: packing, trees and masks change nothing they must not change."""

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hedgerow.attention.register import BACKENDS
from hedgerow.build import build_encoder, build_model, training_examples
from hedgerow.encode import Encoder
from hedgerow.errors import DataError, RecipeError
from hedgerow.models.molmo2 import Molmo2
from hedgerow.recipe import Recipe
from hedgerow.sequence import Budget, Cost, Row, Sequence
from hedgerow.tree import MessageTree

TOLERANCE = 1e-5  # relative to the norm, fp32


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One law on this model and data: the greatest error that was found, and the greatest that is allowed."""

    law: int
    what: str
    error: float
    allowed: float
    cases: int

    @property
    def passed(self) -> bool:
        """Whether the law held."""
        return self.cases > 0 and self.error <= self.allowed

    def __str__(self) -> str:
        if not self.cases:
            return f"law {self.law:>2}  ----  {self.what}: nothing to check in these trees"
        state = "holds" if self.passed else "BROKEN"
        found = f"{self.error:.1e} (at most {self.allowed:g}; {self.cases} cases)"
        return f"law {self.law:>2}  {state}  {self.what}: {found}"


@dataclasses.dataclass(frozen=True, slots=True)
class Verification:
    """All findings."""

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether no law with a case was broken."""
        return all(finding.passed for finding in self.findings if finding.cases)

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as plain data."""
        findings = [{**dataclasses.asdict(finding), "passed": finding.passed} for finding in self.findings]
        return {"passed": self.passed, "findings": findings}

    def __str__(self) -> str:
        return "\n".join(str(finding) for finding in self.findings)


def verify_recipe(recipe: Recipe, *, trees: int = 8) -> Verification:
    """Check the laws on the first trees of a recipe's training data and on its model, in fp32.

    Raises:
        DataError: the data are bad.
        RecipeError: no tree is asked for.
    """
    if trees < 1:
        raise RecipeError(f"{trees} trees prove nothing; give at least 1")
    encoder = build_encoder(recipe)
    examples = training_examples(recipe, encoder)
    usable = (n for n in range(len(examples)) if isinstance(examples.attempt(n), Sequence))
    chosen = [examples.tree(number) for number in islice(usable, trees)]
    if not chosen:
        raise DataError("no example can be decoded; see what `hedgerow data view` says of them")
    return verify(build_model(recipe), encoder, chosen)


def verify(model: Molmo2, encoder: Encoder, trees: Listing[MessageTree]) -> Verification:
    """Check laws 1, 2, 3, 4 and 13 on a model and trees.

    Args:
        model: in fp32; nothing of it is changed.
        encoder: encodes the trees.
        trees: at least one; they are packed into one row.
    """
    sequences = [encoder(tree) for tree in trees]
    row = _row(sequences)
    was_training = model.training
    model.eval()
    try:
        return Verification(
            (
                _packed_is_alone(model, sequences, row),
                _tree_is_separate(model, encoder, trees, sequences),
                _no_leak(model, row),
                _backends_agree(model, row),
                _no_target_is_seen(model, row),
            )
        )
    finally:
        model.train(was_training)


def losses(model: Molmo2, row: Row) -> Tensor:
    """Return the cross entropy of every target of a row, float32 [M]."""
    row = row.to(model.device)
    return F.cross_entropy(model.head(model(row)[row.source]).float(), row.target, reduction="none")


def _packed_is_alone(model: Molmo2, sequences: Listing[Sequence], row: Row) -> Finding:
    with torch.no_grad():
        alone = torch.cat([losses(model, _row([sequence])) for sequence in sequences])
        packed = losses(model, row)
    return Finding(
        1, "a packed row's losses are those of its trees alone", _error(packed, alone), TOLERANCE, len(alone)
    )


def _tree_is_separate(
    model: Molmo2, encoder: Encoder, trees: Listing[MessageTree], sequences: Listing[Sequence]
) -> Finding:
    errors, cases = [0.0], 0
    for tree, sequence in zip(trees, sequences, strict=True):
        whole = losses(model, _row([sequence]))
        weight = torch.as_tensor(sequence.weight).to(whole)
        separate = [
            _separate(model, encoder, tree, sequence, number) for number in range(len(sequence.samples))
        ]
        together = torch.cat([whole[sequence.sample == number] for number in range(len(sequence.samples))])
        errors.append(_error(together.detach(), torch.cat(separate).detach()))
        weights = torch.cat([weight[sequence.sample == number] for number in range(len(sequence.samples))])
        one = _gradient(model, (whole * weight).sum())
        other = _gradient(model, (torch.cat(separate) * weights).sum())
        errors.append(_error(one, other))
        cases += len(separate)
    what = "a tree's losses and gradients are those of its conversations"
    return Finding(2, what, _greatest(errors), TOLERANCE, cases)


def _separate(model: Molmo2, encoder: Encoder, tree: MessageTree, sequence: Sequence, number: int) -> Tensor:
    """Losses of one sample, from its conversation run as a tree without branches."""
    address = sequence.samples[number].branch
    node = next(node for node in tree.nodes() if node.address == address)
    alone = dataclasses.replace(tree, messages=node.path + node.messages, branches=())
    count = int((sequence.sample == number).sum())
    return losses(model, _row([encoder(alone)]))[-count:]


def _no_leak(model: Molmo2, row: Row) -> Finding:
    errors = []
    row, embeddings, hidden = _watched(model, row)
    for number in range(len(row.samples)):
        own = row.sample == number
        logits = model.head(hidden[row.source[own]])
        loss = F.cross_entropy(logits.float(), row.target[own], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, embeddings, retain_graph=True)
        source = row.source[own][:1]
        on_path = (row.order < row.end[source]) & (row.order[source] < row.end)
        if not bool(on_path.all()):
            errors.append(float(gradient[~on_path].abs().max()))
    return Finding(3, "no branch and no tree moves another's loss", _greatest(errors), 0.0, len(errors))


def _backends_agree(model: Molmo2, row: Row) -> Finding:
    found = {name: _backend_result(model, row, name) for name in BACKENDS if _runs(name, model)}
    dense = found.pop("dense")
    errors = [
        _error(ours, theirs) for other in found.values() for ours, theirs in zip(other, dense, strict=True)
    ]
    return Finding(4, "every backend equals the dense reference", _greatest(errors), TOLERANCE, len(found))


def _runs(name: str, model: Molmo2) -> bool:
    return name != "segmented" or model.device.type == "cpu"


def _backend_result(model: Molmo2, row: Row, name: str) -> tuple[Tensor, Tensor]:
    was, model.attention = model.attention, name
    try:
        row, embeddings, hidden = _watched(model, row)
        # A fixed mixture of channels: the norm of a state is what the last layer keeps constant.
        mixture = torch.linspace(-1.0, 1.0, hidden.numel(), device=hidden.device).reshape(hidden.shape).sin()
        (gradient,) = torch.autograd.grad((hidden * mixture).sum(), embeddings)
    finally:
        model.attention = was
    return hidden.detach(), gradient


def _no_target_is_seen(model: Molmo2, row: Row) -> Finding:
    row, embeddings, hidden = _watched(model, row)
    errors = [] if _targets_follow(row) else [float("inf")]
    for number, target in _some_targets(row):
        logits = model.head(hidden[row.source[target]])
        (gradient,) = torch.autograd.grad(logits.square().sum(), embeddings, retain_graph=True)
        own = torch.nonzero(row.sample == number).flatten()
        # A target stands one place after its source, in the node that ends where the last source's does.
        after = row.order[row.source[own[own >= target]]] + 1
        places = torch.isin(row.order, after) & (row.end == row.end[row.source[own[-1]]])
        if bool(places.any()):
            errors.append(float(gradient[places].abs().max()))
    return Finding(13, "no target is visible to its own source", _greatest(errors), 0.0, len(errors))


def _targets_follow(row: Row) -> bool:
    """Whether each target is the token after its source, where that stands in the same node."""
    place = torch.argsort(row.order)[(row.order[row.source] + 1).clamp(max=len(row) - 1)]
    own = row.end[place] == row.end[row.source]
    return bool((row.tokens[place] == row.target)[own].all())


def _some_targets(row: Row) -> Iterator[tuple[int, int]]:
    """First, middle and last target of each sample."""
    for number in range(len(row.samples)):
        places = torch.nonzero(row.sample == number).flatten().tolist()
        for place in sorted({places[0], places[len(places) // 2], places[-1]}):
            yield number, place


def _watched(model: Molmo2, row: Row) -> tuple[Row, Tensor, Tensor]:
    row = row.to(model.device)
    embeddings = model.embed(row).detach().requires_grad_()
    return row, embeddings, model.language(embeddings, row)


def _row(sequences: Listing[Sequence]) -> Row:
    total = sum((sequence.cost for sequence in sequences), Cost())
    return Row.join(sequences, Budget(**total))


def _gradient(model: Molmo2, loss: Tensor) -> Tensor:
    parameters = [p for group in model.parameter_groups().values() for p in group]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(parameters, found, strict=True)
        ]
    )


def _greatest(errors: Listing[float]) -> float:
    """The greatest error, NaN if there is one, 0 of none."""
    return float(torch.tensor(errors).max()) if errors else 0.0


def _error(one: Tensor, other: Tensor) -> float:
    """Distance relative to the norm of the second."""
    return float((one - other).norm() / other.norm().clamp_min(1e-30))
