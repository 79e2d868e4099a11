"""Branches whose answers are places and numbers: pointing, tracking, counting."""

from hedgerow.content import Points, Tracks
from hedgerow.data.synthetic.draws import Draws
from hedgerow.data.synthetic.kinds import Kind
from hedgerow.data.synthetic.story import Story
from hedgerow.tree import Branch, Message

_POINT = (
    "Point to each {one} where it is first clearly seen.",
    "Mark every {one} once, at the first time that shows it clearly.",
    "Where do the {many} first come into clear view? Point to each.",
)
_POINT_AT = (
    "Point to each {one} at {time} seconds.",
    "At {time} seconds, where are the {many}? Point to them.",
    "Mark every {one} that can be seen at {time} seconds.",
)
_TRACK = ("Track the {many}.", "Follow every {one} through the video.", "Track each {one}.")
_COUNT = (
    "How many {many} appear in the video?",
    "Count the {many} that are seen in the video.",
    "What number of different {many} does the video show?",
)
_COUNT_AT = (
    "How many {many} are visible at {time} seconds?",
    "Count the {many} that can be seen at {time} seconds.",
)


def grounded(story: Story, draws: Draws) -> list[Branch]:
    """Ask where and how many, for each kind that is there and for those that are not.

    Questions about one time take one at which no object is seen and yet not visible.
    """
    found: list[Branch | None] = []
    for kind in story.scene.asked:
        found += [_first(story, kind, draws), _at(story, kind, draws), _tracks(story, kind, draws)]
        found += [_count(story, kind, draws), _count_at(story, kind, draws)]
    for kind in story.scene.absent:
        found += [draws.pick((_first, _at, _tracks))(story, kind, draws), _count(story, kind, draws)]
    return [branch for branch in found if branch is not None]


def _first(story: Story, kind: Kind, draws: Draws) -> Branch:
    points = tuple(story.point(story.first_clear(id), id) for id in story.appearing(kind))
    return _branch("pointing", _POINT, kind, draws, Points(kind.name, points))


def _at(story: Story, kind: Kind, draws: Draws) -> Branch | None:
    plain = story.plain(kind)
    if not plain:
        return None
    frame = draws.pick(plain)
    points = tuple(story.point(frame, id) for id in story.visible(kind, frame))
    return _branch("pointing", _POINT_AT, kind, draws, Points(kind.name, points), time=story.when(frame))


def _tracks(story: Story, kind: Kind, draws: Draws) -> Branch:
    points = tuple(story.point(frame, id) for frame in story.frames for id in story.visible(kind, frame))
    return _branch("tracking", _TRACK, kind, draws, Tracks(kind.name, points))


def _count(story: Story, kind: Kind, draws: Draws) -> Branch:
    return _branch("counting", _COUNT, kind, draws, str(len(story.appearing(kind))))


def _count_at(story: Story, kind: Kind, draws: Draws) -> Branch | None:
    plain = story.plain(kind)
    if not plain:
        return None
    frame = draws.pick(plain)
    count = str(len(story.visible(kind, frame)))
    return _branch("counting", _COUNT_AT, kind, draws, count, time=story.when(frame))


def _branch(
    task: str,
    wordings: tuple[str, ...],
    kind: Kind,
    draws: Draws,
    answer: str | Points | Tracks,
    time: str = "",
) -> Branch:
    question = draws.pick(wordings).format(one=kind.name, many=kind.many, time=time)
    reply = answer if isinstance(answer, str) else (answer,)
    return Branch((Message("user", question), Message("assistant", reply)), task=task)
