"""Random inputs for tests."""

import dataclasses

import numpy as np

from hedgerow.linearize import linearize
from hedgerow.sequence import Array, Budget, Cost, Row


@dataclasses.dataclass(frozen=True, slots=True)
class Forest:
    """Random packed trees, reduced to the integers that decide visibility. N tokens in physical order.

    `parents` holds for each node of all trees its parent, -1 for roots; `owner` int32 [N] the node of each token;
    `text` bool [N] marks tokens outside vision blocks, which may be answers. The rest is as in `Row`.
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
            examples=("forest",), lengths=(amount,), tokens=np.zeros(amount, np.int32), position=self.position,
            order=self.order, end=self.end, group=self.group, slot=none, source=none, target=none,
            weight=np.zeros(0, np.float32), sample=none, samples=(), cost=Cost(tokens=amount),
            budget=Budget(tokens=amount),
        )  # fmt: skip
        return row.to("cpu")

    def take(self, where: Array) -> "Forest":
        """Return the forest with its tokens in another physical order."""
        arrays = ("owner", "order", "end", "group", "position", "text")
        return dataclasses.replace(self, **{name: getattr(self, name)[where] for name in arrays})


def random_forest(
    rng: np.random.Generator, *, trees: int = 2, nodes: int = 5, messages: int = 2, vision: int = 6, text: int = 4
) -> Forest:
    """Draw packed trees of any depth in logical order; `take(rng.permutation(len(forest)))` shuffles their tokens.

    Args:
        rng: source of all choices.
        trees: number of trees.
        nodes: most nodes of a tree.
        messages: most messages of a node; each is a vision block or none, then text.
        vision: most tokens of a vision block, causal ones between the vision tokens among them; 0 for no groups.
        text: most tokens of the text of a message, at least 1.
    """
    parents: list[int] = []
    fields: dict[str, list[Array]] = {"owner": [], "order": [], "end": [], "group": [], "position": [], "text": []}
    tokens = groups = 0
    for _ in range(trees):
        own = _random_parents(rng, int(rng.integers(1, nodes + 1)))
        blocks = [_random_node(rng, messages, vision, text) for _ in own]
        layout = linearize(own, [len(group) for group, _ in blocks])
        owner = np.repeat(np.arange(len(own)), [len(group) for group, _ in blocks])
        local = np.concatenate([np.where(group < 0, -1, group + messages * n) for n, (group, _) in enumerate(blocks)])
        fields["owner"].append(owner + len(parents))
        fields["order"].append(layout.order + tokens)
        fields["end"].append(layout.end + tokens)
        fields["group"].append(np.where(local < 0, -1, local + groups))
        fields["position"].append(layout.position)
        fields["text"].append(np.concatenate([is_text for _, is_text in blocks]))
        parents += [parent + len(parents) if parent >= 0 else -1 for parent in own]
        tokens, groups = tokens + len(owner), groups + messages * len(own)
    joined = {name: np.concatenate(arrays) for name, arrays in fields.items()}
    return Forest(tuple(parents), **{k: v if k == "text" else v.astype(np.int32) for k, v in joined.items()})


def _random_parents(rng: np.random.Generator, count: int) -> list[int]:
    parents, path = [-1], [0]
    for node in range(1, count):
        path = path[: int(rng.integers(1, len(path) + 1))]
        parents.append(path[-1])
        path.append(node)
    return parents


def _random_node(rng: np.random.Generator, messages: int, vision: int, text: int) -> tuple[Array, Array]:
    """Return the group of each token, counted from 0 in the node, and whether it is text."""
    group, is_text = [], []
    for message in range(int(rng.integers(1, messages + 1))):
        shown = int(rng.integers(0, vision + 1))
        said = int(rng.integers(1, text + 1))
        group += [message if rng.random() < 0.8 else -1 for _ in range(shown)] + [-1] * said
        is_text += [False] * shown + [True] * said
    return np.array(group), np.array(is_text)
