"""From message trees to sequences, for one tokenizer and one vision processor."""

from hedgerow.encode.draft import REMEDY, written
from hedgerow.encode.encoder import Encoder, Survey

__all__ = ["REMEDY", "Encoder", "Survey", "written"]
