"""What is said in the log of a trainer of what it was trained on."""

import math
from collections.abc import Mapping
from collections.abc import Sequence as Listing
from dataclasses import dataclass

from hedgerow.errors import RecipeError
from hedgerow.sequence import Budget, Cost, Row
from hedgerow.train.loss import Key, RowLoss, Sums, by_task, merged


@dataclass(frozen=True, slots=True)
class Seen:
    """What a row says in the log."""

    sums: Mapping[Key, Sums]
    cost: Cost
    budget: Budget

    @classmethod
    def of(cls, row: Row, found: RowLoss) -> "Seen":
        """Read it from the device.

        Raises:
            RecipeError: the loss is not finite.
        """
        if not math.isfinite(float(found.numerator.detach())):
            raise RecipeError(
                f"the loss is not finite on the row of {', '.join(row.examples)}; lower the learning rate, "
                "or look at these examples"
            )
        return cls(by_task(found, row.samples), row.cost, row.budget)

    @staticmethod
    def figures(parts: Listing["Seen"]) -> dict[str, float]:
        """Return costs, the share used of each budget, and the loss of each task."""
        cost = sum((part.cost for part in parts), Cost())
        budget = sum((part.budget for part in parts), Budget())
        tasks: dict[str, list[Sums]] = {}
        for (task, _), sums in merged(part.sums for part in parts).items():
            tasks.setdefault(task, []).append(sums)
        totals = {task: Sums.total(found) for task, found in sorted(tasks.items())}
        return {
            **{name: cost.get(name, 0) for name in budget},
            **{f"fill/{name}": cost.get(name, 0) / most for name, most in budget.items() if most},
            **{f"loss/{task}": sums.weighted / sums.weight for task, sums in totals.items() if sums.weight},
        }
