"""Random inputs for tests."""

import dataclasses

import numpy as np

from hedgerow.linearize import linearize
from hedgerow.sequence import Array, Budget, Cost, Row


@dataclasses.dataclass(frozen=True, slots=True)
class Forest:
    """Random packed trees, reduced to the integers that decide visibility. N tokens in physical order.

    `parents` holds for each node of all trees its parent, -1 for roots; `owner` int32 [N] the node of each
    token; `text` bool [N] marks tokens outside vision blocks, which may be answers. The rest is as in `Row`.
    """

    parents: tuple[int, ...]
    owner: Array
    order: Array
    end: Array
    group: Array
    position: Array
    text: Array

    def __len__(self) -> int:
        return len(self.order)

    def path(self, node: int) -> list[int]:
        """Return the node and its ancestors, the root first."""
        found = [node]
        while self.parents[found[0]] >= 0:
            found.insert(0, self.parents[found[0]])
        return found

    def row(self) -> Row:
        """Return a row of this layout as tensors on the CPU: token 0 everywhere, no target, no media."""
        none, amount = np.zeros(0, np.int32), len(self)
        row = Row(
            examples=("forest",), lengths=(amount,), tokens=np.zeros(amount, np.int32),
            position=self.position, order=self.order, end=self.end, group=self.group,
            slot=none, source=none, target=none, weight=np.zeros(0, np.float32), sample=none, samples=(),
            cost=Cost(tokens=amount), budget=Budget(tokens=amount),
        )  # fmt: skip
        return row.to("cpu")

    def take(self, where: Array) -> "Forest":
        """Return the forest with its tokens in another physical order."""
        return dataclasses.replace(self, **{name: getattr(self, name)[where] for name in _ARRAYS})


_ARRAYS = ("owner", "order", "end", "group", "position", "text")


def random_forest(
    rng: np.random.Generator, *, trees: int = 2, nodes: int = 5, messages: int = 2, vision: int = 6
) -> Forest:
    """Draw packed trees of any depth in logical order; `take(rng.permutation(len(forest)))` shuffles them.

    Args:
        rng: source of all choices.
        trees: number of trees.
        nodes: most nodes of a tree.
        messages: most messages of a node; each is a vision block or none, then text.
        vision: most tokens of a vision block, causal ones in between included; 0 for no groups.
    """
    drawn = [_random_tree(rng, nodes=nodes, messages=messages, vision=vision) for _ in range(trees)]
    tokens = np.cumsum([0, *(len(tree) for tree in drawn[:-1])])
    owners = np.cumsum([0, *(len(tree.parents) for tree in drawn[:-1])])
    groups = owners * messages
    moved = [
        dataclasses.replace(
            tree,
            parents=tuple(parent + int(owner) if parent >= 0 else -1 for parent in tree.parents),
            owner=tree.owner + owner,
            order=tree.order + token,
            end=tree.end + token,
            group=np.where(tree.group < 0, -1, tree.group + group),
        )
        for tree, token, owner, group in zip(drawn, tokens, owners, groups, strict=True)
    ]
    joined = {name: np.concatenate([getattr(tree, name) for tree in moved]) for name in _ARRAYS}
    integers = {name: joined[name].astype(np.int32) for name in _ARRAYS if name != "text"}
    return Forest(tuple(parent for tree in moved for parent in tree.parents), text=joined["text"], **integers)


def _random_tree(rng: np.random.Generator, *, nodes: int, messages: int, vision: int) -> Forest:
    parents = _random_parents(rng, int(rng.integers(1, nodes + 1)))
    content = [_random_node(rng, messages, vision) for _ in parents]
    lengths = [len(is_text) for _, is_text in content]
    order, position, end, _ = linearize(parents, lengths)
    group = [np.where(local < 0, -1, local + messages * node) for node, (local, _) in enumerate(content)]
    return Forest(
        parents=tuple(parents),
        owner=np.repeat(np.arange(len(parents)), lengths),
        order=order,
        end=end,
        group=np.concatenate(group),
        position=position,
        text=np.concatenate([is_text for _, is_text in content]),
    )


def _random_parents(rng: np.random.Generator, count: int) -> list[int]:
    parents, path = [-1], [0]
    for node in range(1, count):
        path = path[: int(rng.integers(1, len(path) + 1))]
        parents.append(path[-1])
        path.append(node)
    return parents


def _random_node(rng: np.random.Generator, messages: int, vision: int) -> tuple[Array, Array]:
    """Return the group of each token, counted from 0 in the node, and whether it is text."""
    group: list[int] = []
    is_text: list[bool] = []
    for message in range(int(rng.integers(1, messages + 1))):
        shown, said = int(rng.integers(0, vision + 1)), int(rng.integers(1, 5))
        group += [message if rng.random() < 0.8 else -1 for _ in range(shown)] + [-1] * said
        is_text += [False] * shown + [True] * said
    return np.array(group), np.array(is_text)
