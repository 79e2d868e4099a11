"""Packing: which examples share a row, decided from costs alone, and the loader that follows the plan."""
