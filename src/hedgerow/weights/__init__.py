"""How much each answer token counts in the loss."""

from hedgerow.weights.rules import PRESETS, TASKS, sample_weight

__all__ = ["PRESETS", "TASKS", "sample_weight"]
