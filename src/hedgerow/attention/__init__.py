"""Attention on packed message trees: backends of one rule (`hedgerow.visibility`) and a hook into models."""

from hedgerow.attention.dense import Dense, Masked
from hedgerow.attention.register import BACKENDS, Backend, Visibility, choose, register
from hedgerow.attention.segmented import Segmented

__all__ = ["BACKENDS", "Backend", "Dense", "Masked", "Segmented", "Visibility", "choose", "register"]
