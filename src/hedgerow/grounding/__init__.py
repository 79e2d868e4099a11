"""Points and tracks: units, canonical order, text and back, sampled frames; `draw.py` paints them."""

from hedgerow.grounding.align import align
from hedgerow.grounding.codec import Parsed, format_points, format_tracks, parse
from hedgerow.grounding.points import to_fractions

__all__ = ["Parsed", "align", "format_points", "format_tracks", "parse", "to_fractions"]
