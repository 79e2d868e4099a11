"""Trees that hold more than a row may: left whole, or shortened by whole branches."""

import dataclasses
from typing import Literal

from hedgerow.encode import Encoder
from hedgerow.errors import BudgetError
from hedgerow.sequence import Budget, Cost
from hedgerow.tree import MessageTree, Node

Oversize = Literal["raise", "drop", "shorten"]


def check_fits(tree: MessageTree, cost: Cost, budget: Budget, *, oversize: Oversize = "raise") -> None:
    """Refuse a tree that holds more than a row may.

    Args:
        tree: at any size.
        cost: of it.
        budget: what a row may hold.
        oversize: what becomes of it; the advice leaves out what is already done.

    Raises:
        BudgetError: it does; the message names the tree, its cost and the budget.
    """
    if not budget.fits(cost):
        counted = Cost(**{name: cost.get(name, 0) for name in budget})
        others = "shorten" if oversize == "drop" else "drop or shorten"
        raise BudgetError(
            f"{tree.id}: {budget.excess(cost)} of a row (it takes {counted}, of {budget}); "
            f"raise packing.budget, or set packing.oversize to {others}"
        )


def shortened(tree: MessageTree, encoder: Encoder, budget: Budget) -> MessageTree:
    """Leave branches of the root out until the tree fits into a row.

    Branches are looked at in order; each is kept, with all below it, if the tree still fits with it. The root
    stays whole, so that no visual token and no answer is cut.

    Args:
        tree: at any size.
        encoder: tells the costs.
        budget: what a row may hold.

    Raises:
        BudgetError: the root alone holds too much, or nothing that is left has an answer.
        DataError: as encoding would.
    """
    costs = encoder.node_costs(tree)
    held = root = costs[0]
    if not budget.fits(held):
        raise BudgetError(
            f"{tree.id}: its root alone holds {budget.excess(root)} of a row and is not cut; {_remedy(root)}"
        )
    kept = []
    for branch, cost in zip(tree.branches, _branch_costs(tree.nodes(), costs), strict=True):
        if budget.fits(held + cost):
            held += cost
            kept.append(branch)
    found = dataclasses.replace(tree, branches=tuple(kept))
    if not any(message.role == "assistant" for node in found.nodes() for message in node.messages):
        raise BudgetError(
            f"{tree.id}: no branch with an answer fits beside its root into {budget}; {_remedy(root)}"
        )
    return found


def _remedy(root: Cost) -> str:
    smaller = "show fewer or smaller media" if root.get("crops", 0) else "write less text in the tree"
    return f"raise packing.budget, or {smaller}"


def _branch_costs(nodes: tuple[Node, ...], costs: tuple[Cost, ...]) -> list[Cost]:
    """Return what each branch of the root takes, with all below it; nodes are depth first."""
    found: list[Cost] = []
    for node, cost in zip(nodes[1:], costs[1:], strict=True):
        if node.parent == 0:
            found.append(cost)
        else:
            found[-1] += cost
    return found
