"""Questions that ask for points, tracks, counts and captions, in several wordings each."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from hedgerow.content import Points, Text
from hedgerow.errors import DataError

Ask = Literal[
    "pointing",
    "counting",
    "point_then_count",
    "count_then_point",
    "tracking",
    "first_and_last",
    "single_point",
    "image_caption",
    "video_caption",
]

USUAL_FPS = 2.0  # what a question that names no rate means, as for the models of arXiv 2601.10611

# `{label}` is what is asked for, `{point}` where the input point is shown.
WORDINGS: Mapping[Ask, tuple[str, ...]] = MappingProxyType(
    {
        "pointing": (
            "Point to {label}.",
            "Mark every instance of: {label}.",
            "Where can {label} be seen? Answer with points.",
            "Put one point on each of these: {label}.",
            "Find {label} and give the coordinates.",
        ),
        "counting": (
            "How many of these are there: {label}?",
            "Give the number of {label}.",
            "What is the count of {label}?",
            "Count {label}; a number is enough.",
        ),
        "point_then_count": (
            "Count {label} by pointing.",
            "Mark each of {label}, then give the total.",
            "Point at {label} one by one and say at the end how many that makes.",
        ),
        "count_then_point": (
            "Say how many of {label} there are, then point to them.",
            "Give the number of {label} first and their places after it.",
            "State the count of {label} and show each with a point.",
        ),
        "tracking": (
            "Track {label}.",
            "Follow {label} through the video with points.",
            "Give the position of {label} in every frame that shows it.",
            "Where does {label} go? Keep a point on it as long as it is visible.",
        ),
        "first_and_last": (
            "Where is {label} when it first shows, and where when it is last seen?",
            "Point to {label} at its first and at its last appearance only.",
            "Give the first and the last visible position of {label}.",
        ),
        "single_point": (
            "Track what is marked here: {point}",
            "Starting from {point}, follow this object through the video.",
            "Keep following the object at {point}.",
        ),
        "image_caption": (
            "Describe this image.",
            "What does the picture show? Be thorough.",
            "Write down everything worth knowing about this image.",
        ),
        "video_caption": (
            "Describe this video.",
            "What happens in the clip, from beginning to end?",
            "Tell in detail what the video shows.",
        ),
    }
)
_TASKS: tuple[Ask, ...] = ("pointing", "counting", "tracking", "image_caption", "video_caption")

# By task of a tree, for `data.transforms.templates` of a recipe: replies of these tasks have one form.
TEMPLATES: Mapping[str, tuple[str, ...]] = MappingProxyType({task: WORDINGS[task] for task in _TASKS})


def prompt(
    ask: Ask, label: str = "", *, number: int = 0, fps: float | None = None, point: Points | None = None
) -> tuple[Text | Points, ...]:
    """Return the content of a question: text, and the input point where one object is to be tracked.

    Args:
        ask: what is asked for.
        label: of what; captions and an input point need none.
        number: which wording, modulo their count; draw it from a seed.
        fps: points wanted a second of tracks; None or 2 is not said, for it is what is meant.
        point: the object to track, for `single_point` (see `tracks.visible_point`).

    Raises:
        DataError: a label or an input point is missing or not used, or a rate is asked of other than tracks.
    """
    wording = WORDINGS[ask][number % len(WORDINGS[ask])]
    for name, given in (("label", bool(label)), ("point", point is not None)):
        if (f"{{{name}}}" in wording) != given and not (name == "label" and ask == "single_point"):
            raise DataError(f"a question for {ask} {'takes no' if given else 'needs a'} {name}; correct it")
    timed = ask in ("tracking", "first_and_last", "single_point")
    if fps is not None and not timed:
        raise DataError(f"a question for {ask} has no rate, got fps={fps:g}; leave it out")
    rate = "" if fps in (None, USUAL_FPS) else f" Give points {fps:g} times a second."
    before, _, after = wording.replace("{label}", label).partition("{point}")
    if point is None:
        return (Text(before + rate),)
    pieces = (Text(before), point, Text(after + rate))
    return tuple(piece for piece in pieces if not isinstance(piece, Text) or piece.text)
