"""Molmo2 models: fresh ones of any size, ones put together from public parts, and their folders."""

from hedgerow.models.assemble.checkpoint import load, save
from hedgerow.models.assemble.fresh import build
from hedgerow.models.assemble.parts import Assembly, Parts, assemble
from hedgerow.models.assemble.tokens import VISUAL_TOKENS, visual_ids
from hedgerow.models.chat import read_settings
from hedgerow.models.spec import ModelSpec

__all__ = [
    "VISUAL_TOKENS",
    "Assembly",
    "ModelSpec",
    "Parts",
    "assemble",
    "build",
    "load",
    "read_settings",
    "save",
    "visual_ids",
]
