"""Branches with questions whose answers are words: of several options, or a sentence."""

from collections.abc import Sequence

import numpy as np

from hedgerow.data.synthetic.draws import Draws
from hedgerow.data.synthetic.kinds import COLOURS, Kind
from hedgerow.data.synthetic.story import Story
from hedgerow.tree import Branch, Message

_OPTIONS = 4
_PLACES = (
    "top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip
_WAYS = ("to the left", "to the right", "up", "down")
_FAR = 0.15  # of the frame's width: the least way that has a direction
_MOSTLY = 1.5  # so many times farther along one axis than along the other


def quiz(story: Story, draws: Draws) -> list[Branch]:
    """Ask about places, ways, order, covering, colour, leaving: each only where the truth leaves no doubt."""
    asked = [_order(story, draws)]
    for kind, id in story.single():
        asked += [
            _place(story, kind, id, draws),
            _way(story, kind, id, draws),
            _colour(story, kind, draws),
            _cover(story, kind, id, draws),
            _entrance(story, kind, id),
        ]
    asked += [_leaving(story, kind) for kind in story.scene.asked]
    asked.append(_more(story, draws))
    return [branch for branch in asked if branch is not None]


def _place(story: Story, kind: Kind, id: int, draws: Draws) -> Branch | None:
    for frame in draws.shuffled(story.seen(id)):
        place = story.place(frame, id)
        if place is not None:
            where = f"where is the {kind.name} at {story.when(frame)} seconds?"
            question = f"Of three rows and three columns that part the picture evenly, {where}"
            return _choice(question, place, _PLACES, draws)
    return None


def _way(story: Story, kind: Kind, id: int, draws: Draws) -> Branch | None:
    first, last = story.seen(id)[0], story.seen(id)[-1]
    right, down = (story.truth.centre[last, id - 1] - story.truth.centre[first, id - 1]).tolist()
    if max(abs(right), abs(down)) < max(_FAR * story.size[0], _MOSTLY * min(abs(right), abs(down))):
        return None
    way = _WAYS[right > 0] if abs(right) > abs(down) else _WAYS[2 + (down > 0)]
    times = f"{story.when(first)} to {story.when(last)} seconds"
    question = f"From {times}, which way has the {kind.name} moved most?"
    return _choice(question, way, _WAYS, draws)


def _colour(story: Story, kind: Kind, draws: Draws) -> Branch | None:
    alike = [actor for actor in story.scene.actors if actor.kind.shape == kind.shape]
    if kind.colour is None or len(alike) > 1:
        return None
    return _choice(f"What colour is the {kind.shape}?", kind.colour, tuple(COLOURS), draws)


def _cover(story: Story, kind: Kind, id: int, draws: Draws) -> Branch | None:
    names = {actor.id: actor.kind for actor in story.scene.actors if actor.asked}
    others = [one.name for one in (*story.scene.asked, *story.scene.absent) if one != kind]
    for cover in story.covers():
        front = names.get(cover.front)
        over = set(np.flatnonzero(story.truth.shown[cover.frame, id - 1]) + 1) - {id, cover.front}
        if cover.back == id and front not in (None, kind) and not over and len(others) > 1:
            assert front is not None
            question = f"What covers a part of the {kind.name} at {story.when(cover.frame)} seconds?"
            return _choice(question, front.name, others, draws)
    return None


def _order(story: Story, draws: Draws) -> Branch | None:
    kinds = [kind for kind in story.scene.asked if story.appearing(kind)]
    first = {kind: min(story.seen(id)[0] for id in story.appearing(kind)) for kind in kinds}
    latest = [kind for kind, frame in first.items() if frame == max(first.values())]
    if len(first) < 2 or len(latest) > 1 or _glimpsed(story, latest[0], first[latest[0]]):
        return None
    return _choice(
        "Which of these comes into view last?", latest[0].name, [kind.name for kind in kinds], draws
    )


def _glimpsed(story: Story, kind: Kind, frame: int) -> bool:
    """Whether something of a kind is seen at an annotated frame before a frame."""
    before = [earlier for earlier in story.frames if earlier < frame]
    return bool(story.truth.seen[np.ix_(before, [id - 1 for id in story.scene.ids(kind)])].any())


def _leaving(story: Story, kind: Kind) -> Branch | None:
    ids = story.scene.ids(kind)
    who = f"the {kind.name}" if len(ids) == 1 else f"any {kind.name}"
    question = f"Does {who} leave the picture and come back?"
    for id in ids:
        away = story.away(id)
        if away is not None:
            out, back = (story.when(frame) for frame in away)
            it = "It" if len(ids) == 1 else "One"
            times = f"{it} is out of the picture at {out} seconds and seen again at {back} seconds."
            return _qa(question, f"Yes. {times}")
    it = "It stays" if len(ids) == 1 else "All stay"
    return _qa(question, f"No. {it} in the picture.") if all(map(story.stays_in, ids)) else None


def _entrance(story: Story, kind: Kind, id: int) -> Branch | None:
    first = story.seen(id)[0]
    before = [frame for frame in story.frames if frame < first]
    if not before or story.truth.inside[before, id - 1].any():
        return None
    return _qa(
        f"When is the {kind.name} first seen?",
        f"At {story.when(first)} seconds; when the video begins it is out of the picture.",
    )


def _more(story: Story, draws: Draws) -> Branch | None:
    kinds = draws.shuffled(story.scene.asked)[:2]
    if len(kinds) < 2:
        return None
    one, other = kinds
    ones, others = len(story.appearing(one)), len(story.appearing(other))
    verdict = "There are as many." if ones == others else "Yes." if ones > others else "No."
    return _qa(
        f"Are there more {one.many} than {other.many} in the video?",
        f"{verdict} The video shows {one.number(ones)} and {other.number(others)}.",
    )


def _choice(question: str, answer: str, options: Sequence[str], draws: Draws) -> Branch:
    wrong = draws.shuffled([option for option in options if option != answer])[: _OPTIONS - 1]
    lines = [
        f"{letter}. {option}"
        for letter, option in zip("ABCD", draws.shuffled([answer, *wrong]), strict=False)
    ]
    reply = next(line for line in lines if line[3:] == answer)
    messages = (Message("user", "\n".join([question, *lines])), Message("assistant", reply))
    return Branch(messages, task="multiple_choice")


def _qa(question: str, answer: str) -> Branch:
    return Branch((Message("user", question), Message("assistant", answer)), task="qa")
