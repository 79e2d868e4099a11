"""Attention on packed message trees: backends of one rule (`hedgerow.visibility`) and a hook into models."""

from hedgerow.attention.dense import Dense, Masked
from hedgerow.attention.flex import Flex
from hedgerow.attention.register import BACKENDS, Backend, Visibility, adopt, choose, register
from hedgerow.attention.segmented import Segmented

__all__ = [
    "BACKENDS", "Backend", "Dense", "Flex", "Masked", "Segmented", "Visibility", "adopt", "choose",
    "register",
]  # fmt: skip
