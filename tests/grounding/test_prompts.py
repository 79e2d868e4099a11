import re

import pytest

from hedgerow.content import Image, Point, Points, Text, Tracks
from hedgerow.data.transforms import Dice, Transforms
from hedgerow.encode import written
from hedgerow.errors import DataError
from hedgerow.grounding import format_tracks, of_object, parse, prompt, visible_point
from hedgerow.grounding.prompts import TEMPLATES, WORDINGS
from hedgerow.tree import Branch, Message, MessageTree

CAPTIONS = ("image_caption", "video_caption")
TRACKED = ("tracking", "first_and_last", "single_point")
INPUT = Points("ball", (Point(0.25, 0.5, id=3, time=1.5),))


def arguments(ask):
    if ask == "single_point":
        return {"point": INPUT}
    return {} if ask in CAPTIONS else {"label": "red ball"}


@pytest.mark.parametrize("ask", WORDINGS)
def test_every_wording_asks_for_what_is_given(ask):
    several = {prompt(ask, number=number, **arguments(ask)) for number in range(len(WORDINGS[ask]))}
    assert len(several) == len(WORDINGS[ask]) >= 3
    for parts in several:
        text = "".join(written(part) for part in parts)
        assert "{" not in text
        assert ask in CAPTIONS or "red ball" in text or parse(text, strict=True).parts


def test_a_number_drawn_from_a_seed_draws_the_wording():
    asked = [prompt("tracking", "ball", number=Dice(7, n).below(1000)) for n in range(40)]
    assert asked == [prompt("tracking", "ball", number=Dice(7, n).below(1000)) for n in range(40)]
    assert len(set(asked)) == len(WORDINGS["tracking"])


@pytest.mark.parametrize("ask", TRACKED)
def test_a_rate_is_said_unless_it_is_the_usual_one(ask):
    def said(fps):
        return "".join(p.text for p in prompt(ask, fps=fps, **arguments(ask)) if isinstance(p, Text))

    assert said(None) == said(2.0)
    assert said(0.5).endswith(" Give points 0.5 times a second.")


def test_one_object_is_tracked_from_where_it_is_shown():
    tracks = Tracks("ball", tuple(Point(t / 10, 0.5, id=n, time=float(t)) for n in (2, 5) for t in (1, 2, 4)))
    question = prompt("single_point", "ball", number=1, point=visible_point(tracks, 5), fps=1)
    assert "".join(written(part) for part in question) == (
        'Starting from <points coords="1.0 1 100 500">ball</points>, follow this object through the video.'
        " Give points 1 times a second."
    )
    answer = of_object(tracks, 5)
    assert format_tracks(answer) == '<tracks coords="1.0 1 100 500;2.0 1 200 500;4.0 1 400 500">ball</tracks>'
    Branch((Message("user", question), Message("assistant", (answer,))), task="tracking")


@pytest.mark.parametrize(
    ("ask", "given", "message"),
    [
        ("pointing", {}, "needs a label"),
        ("video_caption", {"label": "ball"}, "takes no label"),
        ("single_point", {"label": "ball"}, "needs a point"),
        ("tracking", {"label": "ball", "point": INPUT}, "takes no point"),
        ("pointing", {"label": "ball", "fps": 1.0}, "has no rate, got fps=1; leave it out"),
    ],
)
def test_what_a_question_cannot_use_is_refused(ask, given, message):
    with pytest.raises(DataError, match=re.escape(message)):
        prompt(ask, **given)


def test_the_table_serves_as_templates_of_a_recipe():
    transforms = Transforms(templates=dict(TEMPLATES))
    reply = Message("assistant", (Points("red ball", (Point(0.1, 0.2),)),))
    branch = Branch((Message("user", "Where?"), reply), task="pointing")
    tree = MessageTree("a", (Message("user", (Image("a.png"),)),), (branch,) * 30)

    def asked(turn):
        return [b.messages[0].content for b in transforms(tree, seed=1, turn=turn).branches]

    assert asked(0) == asked(0)
    assert asked(0) != asked(1)
    assert set(asked(0)) == {prompt("pointing", "red ball", number=n)[0].text for n in range(5)}
