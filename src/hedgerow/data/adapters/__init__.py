"""Foreign formats, converted once into the native one, which is all that the library reads."""

from hedgerow.data.adapters.convert import Conversion, convert
from hedgerow.data.adapters.registry import formats

__all__ = ["Conversion", "convert", "formats"]
