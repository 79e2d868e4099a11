"""How much each answer token counts in the loss."""

from hedgerow.weights.rules import TASKS, sample_weight

__all__ = ["TASKS", "sample_weight"]
