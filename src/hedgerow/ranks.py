"""Ranked answers: which siblings a preference loss compares, and which trees it can use."""

import logging
from itertools import takewhile

from hedgerow.errors import DataError
from hedgerow.tree import Message, MessageTree, Node

_LOG = logging.getLogger("hedgerow")
_unranked: set[str] = set()  # data sets that were named


def _name_unranked(source: str, place: str) -> None:
    if source not in _unranked:
        _unranked.add(source)
        _LOG.warning(
            "%s has no rank, and answers beside it have one: in a preference run it is not trained, nor are "
            "others like it in data set '%s'",
            place,
            source,
        )


def pair_of(node: Node, told: list[Node]) -> int:
    """Return what a node's answer is compared under: the index of its parent, or -1.

    Args:
        node: any.
        told: the nodes of its tree with an answer that weighs something; one of weight 0 has no part.
    """
    if node.rank is None or node not in told:
        return -1
    ranks = {other.rank for other in told if other.parent == node.parent} - {None}
    return node.parent if len(ranks) > 1 else -1


def check_pairs(tree: MessageTree, told: list[Node]) -> None:
    """Refuse a tree that a preference loss cannot use, and name one of which it uses a part in the log.

    Args:
        tree: any.
        told: as for `pair_of`.

    Raises:
        DataError: there is no better and worse answer, or siblings of a rank answer different questions.
    """
    paired = [node for node in told if pair_of(node, told) >= 0]
    if not paired:
        raise DataError(
            f"{tree.id}: no better and worse answer to one question; give sibling branches a rank (0 is "
            "best) and weights above 0, or leave the tree out of a preference run"
        )
    first: dict[int, Node] = {}
    for node in paired:
        other = first.setdefault(node.parent, node)
        if _question(node) != _question(other):
            raise DataError(
                f"{tree.place(node)}: its rank compares it with branch {other.address}, which answers "
                "another question; put the question above both, or leave the ranks out"
            )
    for node in told:
        if node.rank is None and node.parent in first:
            _name_unranked(tree.source, tree.place(node))


def _question(node: Node) -> list[Message]:
    """What a branch asks before its first answer."""
    return list(takewhile(lambda message: message.role != "assistant", node.messages))
