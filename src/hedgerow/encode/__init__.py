"""From message trees to sequences, for one tokenizer and one vision processor."""

from hedgerow.encode.draft import written
from hedgerow.encode.encoder import Encoder, Survey

__all__ = ["Encoder", "Survey", "written"]
