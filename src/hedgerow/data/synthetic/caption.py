"""A paragraph that is true of a scene."""

from collections import Counter
from collections.abc import Sequence

from hedgerow.data.synthetic.draws import Draws
from hedgerow.data.synthetic.story import Story
from hedgerow.grounding.points import thousandths
from hedgerow.tree import Branch, Message

_ASKED = ("Describe the video.", "What happens in this video?", "Tell what the video shows.")
_SHOWS = ("The video shows {}.", "Seen in the video: {}.", "At one time or another these are in view: {}.")
_ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
)  # fmt: skip
_COVERS = 3  # told of, the rest would make a list


def captioned(story: Story, draws: Draws) -> Branch:
    """Ask for a caption: what is there, how it moves, who leaves and returns, who covers whom."""
    messages = (Message("user", draws.pick(_ASKED)), Message("assistant", caption(story, draws)))
    return Branch(messages, task="video_caption")


def caption(story: Story, draws: Draws) -> str:
    """Return the paragraph; it speaks of annotated times, as all answers do."""
    names = _names(story)
    counts = {kind: len(story.appearing(kind)) for kind in story.scene.asked}
    extra = Counter(actor.kind for actor in story.scene.actors if not actor.asked and story.seen(actor.id))
    there = _listed([kind.number(count) for kind, count in counts.items() if count])
    besides = _listed([kind.number(count) for kind, count in extra.items()])
    if not there and not besides:
        return "Nothing but the background is seen."
    sentences = [draws.pick(_SHOWS).format(there or besides)]
    sentences += [_way(story, id, name) for id, name in names.items()]
    sentences += _covering(story, names)
    if there and besides:
        sentences.append(f"Apart from that, {besides} can be seen.")
    return " ".join(sentences)


def _names(story: Story) -> dict[int, str]:
    """What the caption calls asked objects that are ever visible, those of one kind in the order of tracks.

    Kinds with more objects than there are ordinals are only counted.
    """
    names = {}
    for kind in story.scene.asked:
        ids = sorted(story.appearing(kind), key=lambda id: _appearance(story, id))
        for ordinal, id in zip(_ORDINALS, ids if len(ids) <= len(_ORDINALS) else (), strict=False):
            names[id] = f"The {kind.name}" if len(ids) == 1 else f"The {ordinal} {kind.name}"
    return names


def _appearance(story: Story, id: int) -> tuple[int, int, int, int]:
    """What tracks are numbered by: the first frame, then the place there (`hedgerow.grounding.tracks`)."""
    first = story.seen(id)[0]
    point = story.point(first, id)
    return first, thousandths(point.x), thousandths(point.y), id


def _way(story: Story, id: int, name: str) -> str:
    seen = story.seen(id)
    first, last = seen[0], seen[-1]
    start, end = story.place(first, id), story.place(last, id)
    told = [
        f"{name} is first seen at {story.when(first)} seconds" if first else f"{name} is there from the start"
    ]
    told[0] += f" ({_at(start)})" if start else ""
    away = story.away(id)
    if away is not None:
        out, back = (story.when(frame) for frame in away)
        told.append(f"is out of the picture at {out} seconds and back at {back} seconds")
    if last != story.frames[-1]:
        told.append(f"is last seen at {story.when(last)} seconds")
    elif end and end != start:
        told.append(f"ends at the {end}" if end != "middle" else "ends in the middle")
    return ", ".join(told[:-1]) + (" and " if len(told) > 1 else "") + told[-1] + "."


def _at(place: str) -> str:
    return "in the middle" if place == "middle" else f"at the {place}"


def _covering(story: Story, names: dict[int, str]) -> list[str]:
    told = []
    for cover in story.covers():
        front, back = names.get(cover.front), names.get(cover.back)
        if front and back:
            told.append(f"At {story.when(cover.frame)} seconds {_low(front)} covers a part of {_low(back)}.")
    return told[:_COVERS]


def _low(name: str) -> str:
    return name[0].lower() + name[1:]


def _listed(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
