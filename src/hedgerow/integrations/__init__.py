"""Packed rows in the training loops of other libraries."""
