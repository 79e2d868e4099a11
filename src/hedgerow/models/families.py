"""Prompts about the same media as one tree: their common start is the root, the rest of each a branch.

Letters for shapes as in `hedgerow.sequence`.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from collections.abc import Sequence as Listing

import numpy as np

from hedgerow.linearize import linearize
from hedgerow.sequence import Array, Cost, Sequence, VisionInput


@dataclasses.dataclass(frozen=True, slots=True)
class Family:
    """Prompts as a tree.

    `members` are the prompts' places in the caller's list. All read the first `root` tokens of the tree, and
    each those of its own slice of `branches`, which may be empty.
    """

    tree: Sequence
    members: tuple[int, ...]
    root: int
    branches: tuple[slice, ...]

    def split(self, *, most: int, limit: int) -> Iterator["Family"]:
        """Part the members so that root, branches and `most` more tokens for each stay within a limit.

        A part has one member at least. `tree` stays whole.
        """
        start, size = 0, self.root
        for place, branch in enumerate(self.branches):
            own = branch.stop - branch.start + most
            if place > start and size + own > limit:
                yield self._part(slice(start, place))
                start, size = place, self.root
            size += own
        yield self._part(slice(start, len(self.members)))

    def _part(self, chosen: slice) -> "Family":
        return dataclasses.replace(self, members=self.members[chosen], branches=self.branches[chosen])

    @property
    def owner(self) -> Array:
        """For the root -1, then for each token of the branches which of the members reads it."""
        sizes = [branch.stop - branch.start for branch in self.branches]
        return np.repeat(np.arange(-1, len(sizes)), [self.root, *sizes])

    @property
    def index(self) -> Array:
        """Places in the tree of the tokens that `owner` tells of."""
        return np.concatenate([np.arange(self.root), *(np.r_[branch] for branch in self.branches)])

    @property
    def last(self) -> list[int]:
        """Place in the tree of each member's last token."""
        return [(branch.stop if branch.stop > branch.start else self.root) - 1 for branch in self.branches]


def families(prompts: Listing[Sequence]) -> list[Family]:
    """Make a tree of all prompts about one example with the same media; the shortest tree first.

    Raises:
        ValueError: a prompt is empty, or is no single conversation in logical order.
    """
    groups: dict[tuple[str, bytes], list[int]] = {}
    for place, prompt in enumerate(prompts):
        own = np.arange(len(prompt))
        if not len(own) or (prompt.order != own).any() or (prompt.end != len(own)).any():
            raise ValueError(f"prompt of {prompt.example}: give a conversation in logical order, not a tree")
        groups.setdefault((prompt.example, _digest(prompt.vision)), []).append(place)
    found = [_family(prompts, members) for members in groups.values()]
    return sorted(found, key=lambda family: len(family.tree))


def _digest(vision: VisionInput | None) -> bytes:
    if vision is None:
        return b""
    arrays = (vision.crops, vision.pooling)
    found = hashlib.blake2b(repr([array.shape for array in arrays]).encode())
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    return found.digest()


def _family(prompts: Listing[Sequence], members: list[int]) -> Family:
    group = [prompts[member] for member in members]
    tables = [_table(prompt) for prompt in group]
    root = _common(tables)
    layout = linearize([-1] + [0] * len(group), [root, *(len(prompt) - root for prompt in group)])
    ids = max(int(table[1].max()) for table in tables) + 1
    for place, table in enumerate(tables):  # groups of different branches are different groups
        table[1, root:] += np.where(table[1, root:] >= 0, place * ids, 0)
    parts = [tables[0], *(table[:, root:] for table in tables[1:])]
    tokens, groups, slot, *position = np.concatenate(parts, axis=1)
    tree = dataclasses.replace(
        group[0],
        tokens=tokens,
        position=position[0] if group[0].position.ndim == 1 else np.stack(position),
        order=layout.order,
        end=layout.end,
        group=groups,
        slot=np.flatnonzero(slot),
        vision=_vision(group, root),
        cost=Cost(tokens=len(tokens)),
    )
    edges = [*map(int, layout.start[1:]), len(layout.order)]
    return Family(tree, tuple(members), root, tuple(map(slice, edges, edges[1:])))


def _table(prompt: Sequence) -> Array:
    """Return int32 [3 + axes, N]: token, group, 1 where a slot is, and position."""
    slot = np.zeros(len(prompt), np.int32)
    slot[prompt.slot] = 1
    return np.stack([prompt.tokens, prompt.group, slot, *np.atleast_2d(prompt.position)])


def _common(tables: list[Array]) -> int:
    """Count the first tokens that all prompts share, such that no bidirectional group is cut."""
    root = min(table.shape[1] for table in tables)
    same = np.logical_and.reduce([(table[:, :root] == tables[0][:, :root]).all(0) for table in tables])
    root = root if same.all() else int(np.argmin(same))
    for _, group, *_ in tables:
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
