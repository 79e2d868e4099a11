"""Train vision-language models on packed message trees.

The names below are what users hold; each is loaded at its first use, and none needs torch or transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hedgerow import grounding, visibility, vision, weights
    from hedgerow.content import Image, Point, Points, Text, Tracks, Video
    from hedgerow.encode import Encoder
    from hedgerow.errors import HedgerowError
    from hedgerow.packing.plan import plan_rows
    from hedgerow.packing.pool import Packer
    from hedgerow.sequence import Budget, Cost, Row, Sequence
    from hedgerow.text import ChatFormat, load_tokenizer
    from hedgerow.tree import Branch, Message, MessageTree, read_trees, write_trees
    from hedgerow.vision.processor import Molmo2Processor

_HOMES = {
    "Branch": "tree",
    "Budget": "sequence",
    "ChatFormat": "text",
    "Cost": "sequence",
    "Encoder": "encode",
    "HedgerowError": "errors",
    "Image": "content",
    "Message": "tree",
    "MessageTree": "tree",
    "Molmo2Processor": "vision.processor",
    "Packer": "packing.pool",
    "Point": "content",
    "Points": "content",
    "Row": "sequence",
    "Sequence": "sequence",
    "Text": "content",
    "Tracks": "content",
    "Video": "content",
    "load_tokenizer": "text",
    "plan_rows": "packing.plan",
    "read_trees": "tree",
    "write_trees": "tree",
}
_MODULES = ("grounding", "vision", "visibility", "weights")

__all__ = [
    "Branch", "Budget", "ChatFormat", "Cost", "Encoder", "HedgerowError", "Image", "Message", "MessageTree",
    "Molmo2Processor", "Packer", "Point", "Points", "Row", "Sequence", "Text", "Tracks", "Video", "grounding",
    "load_tokenizer", "plan_rows", "read_trees", "visibility", "vision", "weights", "write_trees",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"hedgerow.{_HOMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"hedgerow.{name}")
    raise AttributeError(f"module 'hedgerow' has no attribute '{name}'; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
