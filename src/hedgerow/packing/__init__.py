"""Packing: which examples share a row, decided from their costs alone, and the loader that follows the plan."""
