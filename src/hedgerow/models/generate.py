"""Greedy decoding of many prompts at once; those about the same media become a tree with their start as root.

Letters for shapes as in `hedgerow.sequence`; also B prompts, and K tokens kept for each, padded on the left.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from hedgerow.attention.dense import Masked
from hedgerow.linearize import linearize
from hedgerow.models.molmo2 import Molmo2
from hedgerow.sequence import Array, Budget, Cost, Row, Sequence, VisionInput


class _Family(NamedTuple):
    """Prompts about the same media as one tree: their common start is the root, the rest of each a branch.

    `members` are the prompts' places in the caller's list, `paths` the places of their tokens in the tree.
    """

    tree: Sequence
    members: list[int]
    paths: list[Array]


@torch.inference_mode()
def generate(
    model: Molmo2, prompts: Listing[Sequence], *, max_new_tokens: int, stop: int, limit: int = 32768
) -> list[list[int]]:
    """Continue prompts with the most likely token at each step.

    The answers are those of one prompt at a time without a cache, but for ties that rounding decides.

    Args:
        model: left in the mode (training or not) it was in.
        prompts: encoded conversations in logical order, no trees. Those of one `example` with the same media
            share the vision tower and the reading of their common start.
        max_new_tokens: most tokens to add to each.
        stop: token that ends an answer.
        limit: most tokens read at once, and most kept in a cache, padding included; lower it where memory is
            short. What is larger alone runs alone.

    Returns:
        for each prompt the new tokens, without the stop token.

    Raises:
        ValueError: a prompt is empty, or is no single conversation in logical order.
    """
    families = [_family(prompts, members) for members in _by_media(prompts)]
    families.sort(key=lambda family: len(family.tree))
    answers: list[list[int]] = [[] for _ in prompts]
    training = model.training
    model.eval()
    try:
        for batch in _cut([len(family.tree) for family in families], limit):
            for member, answer in _answer(model, families[batch], max_new_tokens, stop=stop, limit=limit):
                answers[member] = answer
    finally:
        model.train(training)
    return answers


def _by_media(prompts: Listing[Sequence]) -> list[list[int]]:
    groups: dict[tuple[str, bytes], list[int]] = {}
    for place, prompt in enumerate(prompts):
        own = np.arange(len(prompt))
        if not len(own) or (prompt.order != own).any() or (prompt.end != len(own)).any():
            raise ValueError(f"prompt of {prompt.example}: give a conversation in logical order, not a tree")
        groups.setdefault((prompt.example, _digest(prompt.vision)), []).append(place)
    return list(groups.values())


def _digest(vision: VisionInput | None) -> bytes:
    if vision is None:
        return b""
    arrays = (vision.crops, vision.pooling)
    found = hashlib.blake2b(repr([array.shape for array in arrays]).encode())
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    return found.digest()


def _family(prompts: Listing[Sequence], members: list[int]) -> _Family:
    group = [prompts[member] for member in members]
    tables = [_table(prompt) for prompt in group]
    root = _common(tables)
    layout = linearize([-1] + [0] * len(group), [root, *(len(prompt) - root for prompt in group)])
    ends = [*layout.start[2:], len(layout.order)]
    ids = max(int(table[2].max()) for table in tables) + 1
    for place, table in enumerate(tables):  # groups of different branches are different groups
        table[2, root:] += np.where(table[2, root:] >= 0, place * ids, 0)
    parts = [tables[0], *(table[:, root:] for table in tables[1:])]
    tokens, position, groups, slot = np.concatenate(parts, axis=1)
    tree = dataclasses.replace(
        group[0],
        tokens=tokens,
        position=position,
        order=layout.order,
        end=layout.end,
        group=groups,
        slot=np.flatnonzero(slot),
        vision=_vision(group, root),
        cost=Cost(tokens=len(tokens)),
    )
    paths = [np.r_[:root, start:end] for start, end in zip(layout.start[1:], ends, strict=True)]
    return _Family(tree, members, paths)


def _table(prompt: Sequence) -> Array:
    """Return int32 [4, N]: token, position, group, and 1 where a slot is."""
    slot = np.zeros(len(prompt), np.int32)
    slot[prompt.slot] = 1
    return np.stack([prompt.tokens, prompt.position, prompt.group, slot])


def _common(tables: list[Array]) -> int:
    """Count the first tokens that all prompts share, such that no bidirectional group is cut."""
    root = min(table.shape[1] for table in tables)
    same = np.logical_and.reduce([(table[:, :root] == tables[0][:, :root]).all(0) for table in tables])
    root = root if same.all() else int(np.argmin(same))
    for _, _, group, _ in tables:
        while (cut := (group[:root] >= 0) & np.isin(group[:root], group[root:])).any():
            root = int(np.argmax(cut))
    return int(root)


def _vision(group: list[Sequence], root: int) -> VisionInput | None:
    """The crops once; the windows of every slot of the tree."""
    first = group[0].vision
    if first is None:
        return None
    shared = int(np.searchsorted(group[0].slot, root))
    windows = [first.pooling, *[first.pooling[shared:]] * (len(group) - 1)]
    return dataclasses.replace(first, pooling=np.concatenate(windows))


def _cut(sizes: list[int], limit: int) -> Iterator[slice]:
    """Cut rising sizes into runs of which the number times the largest stays within the limit, or of one."""
    start = 0
    for place, size in enumerate(sizes):
        if place > start and (place + 1 - start) * size > limit:
            yield slice(start, place)
            start = place
    if sizes:
        yield slice(start, len(sizes))


def _answer(
    model: Molmo2, families: list[_Family], most: int, *, stop: int, limit: int
) -> Iterator[tuple[int, list[int]]]:
    """Read families as one row, then continue their prompts in batches; yields (member, answer)."""
    trees = [family.tree for family in families]
    starts = np.cumsum([0, *map(len, trees[:-1])])
    row = Row.join(trees, Budget(tokens=sum(map(len, trees)))).to(model.device)
    cache = DynamicCache()
    hidden = model.language(model.embed(row), row, cache=cache)
    todo = [
        (member, path + start)
        for family, start in zip(families, starts, strict=True)
        for member, path in zip(family.members, family.paths, strict=True)
    ]
    todo.sort(key=lambda item: len(item[1]))
    for batch in _cut([len(path) + most for _, path in todo], limit):
        members, paths = zip(*todo[batch], strict=True)
        index = torch.full((len(paths), len(paths[-1])), -1)
        for place, path in enumerate(paths):
            index[place, -len(path) :] = torch.from_numpy(path)
        index = index.to(model.device)
        last, kept = index[:, -1], index.clamp(min=0)
        state = _State(_pick(cache, kept), index >= 0, row.position[kept])
        first = model.head(hidden[last]).argmax(-1)
        yield from zip(members, _continue(model, state, first, most=most, stop=stop), strict=True)


def _pick(cache: Any, index: Tensor) -> Any:
    """Return a cache of [B, heads, K, D] with the tokens `index` [B, K] of a cache of one row."""
    pairs = ((layer.keys[0], layer.values[0]) for layer in cache.layers)
    return DynamicCache([tuple(x[:, index].transpose(0, 1) for x in pair) for pair in pairs])


@dataclasses.dataclass(slots=True)
class _State:
    """What is kept of unfinished prompts: keys and values, which are real (bool [B, K]), position [B, K]."""

    cache: Any
    seen: Tensor
    position: Tensor

    def keep(self, chosen: Tensor) -> None:
        """Drop all prompts but those at the given places."""
        self.cache.batch_select_indices(chosen)
        self.seen, self.position = self.seen[chosen], self.position[chosen]


def _continue(model: Molmo2, state: _State, token: Tensor, *, most: int, stop: int) -> list[list[int]]:
    """Add tokens greedily, beginning with `token` [B], until each prompt stops or has `most`."""
    answers: list[list[int]] = [[] for _ in token]
    alive = torch.arange(len(token), device=token.device)
    for step in range(most):
        going = torch.nonzero(token != stop)[:, 0]
        if len(going) < len(token):
            alive, token = alive[going], token[going]
            state.keep(going)
        for place, new in zip(alive.tolist(), token.tolist(), strict=True):
            answers[place].append(new)
        if len(token) == 0 or step + 1 == most:
            break
        token = _next(model, state, token)
    return answers


def _next(model: Molmo2, state: _State, token: Tensor) -> Tensor:
    here = state.position[:, -1:] + 1
    state.seen = torch.cat([state.seen, state.seen.new_ones(len(token), 1)], dim=1)
    state.position = torch.cat([state.position, here], dim=1)
    embeddings = model.hf.get_input_embeddings()(token)[:, None]
    backend = Masked(state.seen[:, None, None, :], position=(here, state.position))
    hidden = model.attend(embeddings, here, backend=backend, cache=state.cache)
    best: Tensor = model.head(hidden[:, 0]).argmax(-1)
    return best
