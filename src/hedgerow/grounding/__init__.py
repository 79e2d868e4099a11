"""Points and tracks: units, order, text and back, questions, counts, degenerate replies, sampled frames.

`draw.py` paints them.
"""

from hedgerow.grounding.align import align
from hedgerow.grounding.checks import Finding, degenerate
from hedgerow.grounding.codec import Parsed, format_points, format_tracks, parse
from hedgerow.grounding.counting import count_of, counted
from hedgerow.grounding.points import to_fractions
from hedgerow.grounding.prompts import prompt
from hedgerow.grounding.reader import Problem
from hedgerow.grounding.tracks import first_and_last, of_object, visible_point

__all__ = [
    "Finding",
    "Parsed",
    "Problem",
    "align",
    "count_of",
    "counted",
    "degenerate",
    "first_and_last",
    "format_points",
    "format_tracks",
    "of_object",
    "parse",
    "prompt",
    "to_fractions",
    "visible_point",
]
