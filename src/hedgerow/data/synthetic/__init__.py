"""Synthetic videos with exact truth: drawn shapes or cut-outs on the move, and trees about them."""

from hedgerow.data.synthetic.paint import render
from hedgerow.data.synthetic.scene import Scene, make_scene
from hedgerow.data.synthetic.settings import Scenes
from hedgerow.data.synthetic.truths import VISIBLE, Truth, truth
from hedgerow.data.synthetic.write import Written, annotate, write_scenes

__all__ = [
    "VISIBLE",
    "Scene",
    "Scenes",
    "Truth",
    "Written",
    "annotate",
    "make_scene",
    "render",
    "truth",
    "write_scenes",
]
