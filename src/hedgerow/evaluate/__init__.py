"""Scores of what a model wrote."""
