"""Asks a saved model about images and videos, and draws what it points at."""

from hedgerow.ask.asking import Asked, Said, View, ask, look, shown
from hedgerow.ask.drawing import check_drawable, draw
from hedgerow.ask.opened import encoder_of, model_folder

__all__ = [
    "Asked",
    "Said",
    "View",
    "ask",
    "check_drawable",
    "draw",
    "encoder_of",
    "look",
    "model_folder",
    "shown",
]
