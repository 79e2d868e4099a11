"""The laws on the user's own model and data: packing, trees and masks change nothing they must not change."""

import dataclasses
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Listing
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hedgerow import visibility
from hedgerow.attention.register import trains_on
from hedgerow.build import build_encoder, build_model, training_examples
from hedgerow.data.measure import Progress
from hedgerow.errors import DataError, RecipeError, VisibilityError
from hedgerow.recipe import Recipe
from hedgerow.report.isolation import Isolation
from hedgerow.report.laws import Finding, Verification, check_name
from hedgerow.sequence import Array, Budget, Cost, Row, Sequence
from hedgerow.tree import MessageTree

TOLERANCE = 1e-5  # relative to the norm, fp32
Say = Callable[[str], None]
REFUSALS = (VisibilityError, ValueError)  # what models and backends raise on integers that are no trees


class PackedModel(Protocol):
    """What a model must have to be verified; `attention` names its backend, None leaves it the choice.

    N tokens of a row, D channels, M supervised positions.
    """

    training: bool
    attention: str | None

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        ...

    def embed(self, row: Row) -> Tensor:
        """Return what the language model reads, float [N, D]."""
        ...

    def language(self, embeddings: Tensor, row: Row) -> Tensor:
        """Return the final hidden states, float [N, D]."""
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Return logits [M, vocabulary] of hidden states [M, D]."""
        ...

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters, each once."""
        ...

    def eval(self) -> Any:
        """Leave the training mode."""
        ...

    def train(self) -> Any:
        """Enter the training mode."""
        ...


class TreeEncoder(Protocol):
    """What encodes the trees, such as `hedgerow.encode.Encoder`."""

    def __call__(self, tree: MessageTree) -> Sequence:
        """Encode a tree."""
        ...

    def lengths(self, tree: MessageTree) -> tuple[int, ...]:
        """Return how many tokens each node of a tree has, in the order of `tree.nodes()`."""
        ...


@dataclasses.dataclass(frozen=True)
class _Case:
    """What is verified: a model, and trees encoded one by one and packed into one row."""

    model: PackedModel
    encoder: TreeEncoder
    trees: tuple[MessageTree, ...]
    sequences: tuple[Sequence, ...]
    row: Row

    @cached_property
    def layout(self) -> "_Layout":
        return _layout(self.encoder, self.trees, self.sequences)

    @cached_property
    def isolation(self) -> Isolation:
        return _isolation(self.model, self.row, self.layout)


@dataclasses.dataclass(frozen=True, slots=True)
class _Layout:
    """Where the n nodes of a row stand, from the trees and the lengths of their nodes alone.

    `start`, `stop`, `last` int [n]: first logical place of a node, first behind it, first behind its subtree.
    `sample` int [S]: the node of each sample.
    """

    names: tuple[str, ...]
    start: Array
    stop: Array
    last: Array
    sample: Array

    def owner(self, order: Array) -> Array:
        """Return the node of each token, int [N]."""
        return np.repeat(np.arange(len(self.names)), self.stop - self.start)[order]

    def path(self, nodes: Array) -> Array:
        """Return bool [L, n]: whether the second is the first or stands above it."""
        first = self.start[nodes][:, None]
        return (self.start <= first) & (first < self.last)

    def places(self, row: Row) -> Array:
        """Return the logical place of each target, int [M]; -1 where its token is not on the row."""
        node = self.sample[row.sample]
        place = np.maximum(row.order[row.source] + 1, self.start[node])
        return np.where(place < self.stop[node], place, -1)


def verify_recipe(
    recipe: Recipe,
    *,
    name: str = "recipe",
    trees: int = 8,
    out: Path | None = None,
    say: Say | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check the laws on the first trees of a recipe's training data and on its model, in fp32.

    One process checks whole rows: `context` of the recipe is left out.

    Args:
        recipe: names the model and the data.
        name: of the recipe.
        trees: how many trees to check on.
        out: where to write a page (`.html`) or the picture of the row's mask (`.png`).
        say: is given what is found, in lines of text, as soon as it is.
        progress: called while the data are indexed, with how many trees are measured and how many there are.

    Raises:
        DataError: the data are bad.
        RecipeError: no tree is asked for, or `out` is neither a page nor a picture.
    """
    say = say or _silent
    if out is not None:
        check_name(out)
    if trees < 1:
        raise RecipeError(f"{trees} trees prove nothing; give at least 1")
    if recipe.context > 1:
        say(f"context: {recipe.context} is left out: the laws are checked by one process on whole rows")
    encoder = build_encoder(recipe)
    examples = training_examples(recipe, encoder, progress=progress)
    usable = (n for n in range(len(examples.costs(0))) if isinstance(examples.attempt(0, n), Sequence))
    chosen = [examples.tree(0, number) for number in islice(usable, trees)]
    if not chosen:
        raise DataError("no example can be decoded; see what `hedgerow data view` says of them")
    model = build_model(recipe)
    subject = _subject(recipe, name, model, len(chosen))
    say(subject)
    found = dataclasses.replace(verify(model, encoder, chosen, say=say), subject=subject)
    say(found.summary)
    if out is not None:
        found.write(out)
        say(f"wrote {out}")
    return found


def _silent(_: str) -> None:
    return None


def _subject(recipe: Recipe, name: str, model: PackedModel, trees: int) -> str:
    origin = recipe.init or recipe.model.checkpoint or "fresh weights"
    size = sum(p.numel() for group in model.parameter_groups().values() for p in group)
    data = ", ".join(str(source.path) for source in recipe.data.train)
    return (
        f"{name}: model {origin} ({size / 1e6:.3g}M parameters, {model.device}), data {data}, {trees} trees"
    )


def verify(
    model: PackedModel, encoder: TreeEncoder, trees: Listing[MessageTree], *, say: Say | None = None
) -> Verification:
    """Check laws 1, 2, 3, 4 and 13 on a model and trees; 3 and 13 by gradients and on the integers alone.

    Which token belongs to which branch is taken from the trees and the lengths of their nodes, not from the
    integers under test.

    Args:
        model: in fp32; nothing of it is changed.
        encoder: encodes the trees.
        trees: at least one; they are packed into one row.
        say: is given each finding as text as soon as there is one.
    """
    sequences = tuple(encoder(tree) for tree in trees)
    case = _Case(model, encoder, tuple(trees), sequences, _row(sequences))
    was_training = model.training
    model.eval()
    findings = []
    try:
        for law in _LAWS:
            findings.append(law.finding(case))
            (say or _silent)(str(findings[-1]))
        leaks = next(finding for finding in findings if finding.what == _NO_LEAK)
        return Verification(tuple(findings), None if leaks.problem else case.isolation, case.row)
    finally:
        if was_training:
            model.train()


def losses(model: PackedModel, row: Row) -> Tensor:
    """Return the cross entropy of every target of a row, float32 [M]."""
    row = row.to(model.device)
    hidden = model.language(model.embed(row), row)
    return F.cross_entropy(model.head(hidden[row.source]).float(), row.target, reduction="none")


def _layout(encoder: TreeEncoder, trees: Listing[MessageTree], sequences: Listing[Sequence]) -> _Layout:
    names: list[str] = []
    table: list[tuple[int, int, int]] = []
    samples: list[int] = []
    place = 0
    for tree, sequence in zip(trees, sequences, strict=True):
        nodes, lengths = tree.nodes(), encoder.lengths(tree)
        if sum(lengths) != len(sequence):
            raise VisibilityError(
                f"{tree.id}: the encoder makes {len(sequence)} tokens of it, and its nodes have "
                f"{sum(lengths)}; let both agree"
            )
        samples += [
            len(names) + next(node.index for node in nodes if node.address == sample.branch)
            for sample in sequence.samples
        ]
        names += [f"{tree.id} {node.address}".rstrip() for node in nodes]
        stops = place + np.cumsum(lengths)
        lasts = stops.copy()
        for node in reversed(nodes[1:]):
            lasts[node.parent] = max(lasts[node.parent], lasts[node.index])
        table += zip((stops - lengths).tolist(), stops.tolist(), lasts.tolist(), strict=True)
        place += len(sequence)
    start, stop, last = np.array(table).T
    return _Layout(tuple(names), start, stop, last, np.array(samples))


def _packed_is_alone(case: _Case) -> tuple[float, int]:
    with torch.no_grad():
        alone = torch.cat([losses(case.model, _row([sequence])) for sequence in case.sequences])
        packed = losses(case.model, case.row)
    return _error(packed, alone), len(alone)


def _tree_is_separate(case: _Case) -> tuple[float, int]:
    errors, cases = [0.0], 0
    for tree, sequence in zip(case.trees, case.sequences, strict=True):
        whole = losses(case.model, _row([sequence]))
        weight = torch.as_tensor(sequence.weight).to(whole)
        separate = [_separate(case, tree, sequence, number) for number in range(len(sequence.samples))]
        together = torch.cat([whole[sequence.sample == number] for number in range(len(sequence.samples))])
        errors.append(_error(together.detach(), torch.cat(separate).detach()))
        weights = torch.cat([weight[sequence.sample == number] for number in range(len(sequence.samples))])
        one = _gradient(case.model, (whole * weight).sum())
        other = _gradient(case.model, (torch.cat(separate) * weights).sum())
        errors.append(_error(one, other))
        cases += len(separate)
    return _greatest(errors), cases


def _separate(case: _Case, tree: MessageTree, sequence: Sequence, number: int) -> Tensor:
    """Losses of one sample, from its conversation run as a tree without branches."""
    address = sequence.samples[number].branch
    node = next(node for node in tree.nodes() if node.address == address)
    alone = dataclasses.replace(tree, messages=node.path + node.messages, branches=())
    count = int((sequence.sample == number).sum())
    return losses(case.model, _row([case.encoder(alone)]))[-count:]


def _no_leak(case: _Case) -> tuple[float, int]:
    return case.isolation.error, case.isolation.cases


def _isolation(model: PackedModel, given: Row, layout: _Layout) -> Isolation:
    row, embeddings, hidden = _watched(model, given)
    owner = torch.as_tensor(layout.owner(given.order), device=embeddings.device)
    greatest = embeddings.new_zeros(len(row.samples), len(layout.names))
    for number in range(len(row.samples)):
        own = row.sample == number
        loss = F.cross_entropy(model.head(hidden[row.source[own]]).float(), row.target[own], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, embeddings, retain_graph=True)
        greatest[number].scatter_reduce_(0, owner, gradient.abs().amax(dim=1), "amax")
    path = layout.path(layout.sample)
    return Isolation(layout.names, tuple(layout.sample.tolist()), greatest.cpu().numpy(), path)


def _ends_are_right(case: _Case) -> tuple[float, int]:
    """Count tokens that end elsewhere than the subtree of their node, or stand in another node's group."""
    row = case.row
    if not np.array_equal(np.sort(row.order), np.arange(len(row))):
        raise VisibilityError("order does not hold each logical place of the row once")
    owner = case.layout.owner(row.order)
    wrong = row.end != case.layout.last[owner]
    grouped = np.flatnonzero(row.group >= 0)
    lowest = np.full(int(row.group.max(initial=0)) + 1, len(row))
    np.minimum.at(lowest, row.group[grouped], owner[grouped])
    wrong[grouped] |= owner[grouped] != lowest[row.group[grouped]]
    return float(wrong.sum()), len(row)


def _backends_agree(case: _Case) -> tuple[float, int]:
    dense = _backend_result(case, "dense")
    others = [_backend_result(case, name) for name in trains_on(case.model.device) if name != "dense"]
    errors = [_error(ours, theirs) for other in others for ours, theirs in zip(other, dense, strict=True)]
    return _greatest(errors), len(others)


def _backend_result(case: _Case, name: str) -> tuple[Tensor, Tensor]:
    model = case.model
    was, model.attention = model.attention, name
    try:
        _, embeddings, hidden = _watched(model, case.row)
        # A fixed mixture of channels: the norm of a state is what the last layer keeps constant.
        mixture = torch.linspace(-1.0, 1.0, hidden.numel(), device=hidden.device).reshape(hidden.shape).sin()
        (gradient,) = torch.autograd.grad((hidden * mixture).sum(), embeddings)
    finally:
        model.attention = was
    return hidden.detach(), gradient


def _no_target_is_seen(case: _Case) -> tuple[float, int]:
    row, places = case.row, case.layout.places(case.row)
    where = np.argsort(row.order)
    shown = places >= 0
    errors = [] if (row.tokens[where[places[shown]]] == row.target[shown]).all() else [float("inf")]
    _, embeddings, hidden = _watched(case.model, row)
    for number, target in _some_targets(row):
        logits = case.model.head(hidden[int(row.source[target])])
        (gradient,) = torch.autograd.grad(logits.square().sum(), embeddings, retain_graph=True)
        own = np.flatnonzero(row.sample == number)
        later = places[own[own >= target]]
        tokens = torch.as_tensor(where[later[later >= 0]], device=gradient.device)
        if len(tokens):
            errors.append(float(gradient[tokens].abs().max()))
    return _greatest(errors), len(errors)


def _no_target_is_reached(case: _Case) -> tuple[float, int]:
    row, places = case.row, case.layout.places(case.row)
    farthest = visibility.reach(row.order, row.end, row.group)[row.source]
    return float(((farthest >= places) & (places >= 0)).sum()), int((places >= 0).sum())


def _some_targets(row: Row) -> Iterator[tuple[int, int]]:
    """First, middle and last target of each sample."""
    for number in range(len(row.samples)):
        places = np.flatnonzero(row.sample == number).tolist()
        for place in sorted({places[0], places[len(places) // 2], places[-1]}):
            yield number, place


def _watched(model: PackedModel, row: Row) -> tuple[Row, Tensor, Tensor]:
    row = row.to(model.device)
    embeddings = model.embed(row).detach().requires_grad_()
    return row, embeddings, model.language(embeddings, row)


def _row(sequences: Listing[Sequence]) -> Row:
    total = sum((sequence.cost for sequence in sequences), Cost())
    return Row.join(sequences, Budget(**total))


def _gradient(model: PackedModel, loss: Tensor) -> Tensor:
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


_NO_LEAK = "no branch and no tree moves another's loss"


@dataclasses.dataclass(frozen=True, slots=True)
class _Law:
    """A law, how it is checked, and its words; see `Finding` for the fields."""

    number: int
    what: str
    allowed: float
    check: Callable[[_Case], tuple[float, int]]
    unit: str
    means: str
    look: str

    def finding(self, case: _Case) -> Finding:
        try:
            (error, cases), problem = self.check(case), ""
        except REFUSALS as refusal:
            error, cases, problem = float("inf"), 1, str(refusal)
        return Finding(
            self.number, self.what, error, self.allowed, cases, problem, self.unit, self.means, self.look
        )


_LAWS = (
    _Law(
        1, "a packed row's losses are those of its trees alone", TOLERANCE, _packed_is_alone, "targets",
        "packing changes nothing: a tree has the losses it has alone (relative difference)",
        "what differs in a row: positions must restart with each tree, visual features must reach their own "
        "slots, attention must end where a tree ends",
    ),
    _Law(
        2, "a tree's losses and gradients are those of its conversations", TOLERANCE, _tree_is_separate,
        "samples",
        "a tree trains as its branches would as conversations of their own (relative difference)",
        "positions (a branch goes on where its parent ends), the tokens a branch begins with, and attention "
        "between branches",
    ),
    _Law(
        3, _NO_LEAK, 0.0, _no_leak, "losses",
        "no answer is learnt from another branch's text (greatest gradient where none may be)",
        "the pairs named as leaks, then the model: a layer that ignores the visibility or mixes tokens by "
        "itself; if the next check fails too, the encoder",
    ),
    _Law(
        3, "each token is shown to the subtree of its node and to nothing else", 0.0, _ends_are_right,
        "tokens",
        "the same without the model, on what the encoder made (number of wrong tokens)",
        "end and group of the encoder: end is the first place behind the subtree of a token's node, a group "
        "stays in one node",
    ),
    _Law(
        4, "every backend equals the dense reference", TOLERANCE, _backends_agree, "backend",
        "the fast attention computes what the slow and plain one does (relative difference)",
        "the backend itself; train with model.attention: dense until it agrees",
    ),
    _Law(
        13, "no target is visible to its own source", 0.0, _no_target_is_seen, "targets",
        "no answer can be copied from the input it is predicted from (greatest gradient where none may be)",
        "groups that span an answer, and targets that stand at their own source",
    ),
    _Law(
        13, "no target is reached by its own source through any number of layers", 0.0, _no_target_is_reached,
        "targets",
        "the same without the model, on what the encoder made (number of targets reached)",
        "group of the encoder: no group may hold tokens on both sides of an answer",
    ),
)  # fmt: skip
