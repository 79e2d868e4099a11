"""Experiments: each one the public API, run in order."""
