"""Questions, scores, the constant that nobody may lose to, and sums by task and kind."""

import dataclasses

import numpy as np
import pytest

from hedgerow.content import Image, Point, Points, Text, Tracks, Video
from hedgerow.evaluate import run as evaluation
from hedgerow.evaluate import runner
from hedgerow.evaluate.runner import (
    Constant,
    Question,
    Reply,
    answer_as,
    ask,
    figure,
    questions,
    score,
    summary,
)
from hedgerow.grounding.codec import format_tracks
from hedgerow.models.answer import Answer
from hedgerow.models.generate import Generated
from hedgerow.testing import write_mp4, write_png
from hedgerow.tree import Branch, Message, MessageTree

SQUARE = tuple(
    Point(0.0625 + 0.25 * n, 0.5, id=1, time=0.5 * n, box=(0.25 * n, 0.4, 0.25 * n + 0.125, 0.6))
    for n in range(4)
)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    return {
        "video": Video(str(write_mp4(folder / "v.mp4"))),
        "wide": Image(str(write_png(folder / "a.png", size=(60, 40)))),
        "tall": Image(str(write_png(folder / "b.png", size=(20, 80)))),
    }


def asks(task, question, *answer, **more):
    content = answer[0] if isinstance(answer[0], str) else answer
    return Branch((Message("user", question), Message("assistant", content)), task=task, **more)


def point_at(time, *, source=None):
    spot = SQUARE[round(2 * time)] if source is None else source
    return asks(
        "pointing", f"Point at it at {time} s.", Points("square", (dataclasses.replace(spot, id=None),))
    )


def film(media, *branches, name="film", source="mine"):
    return MessageTree(name, (Message("user", (media["video"],)),), branches, source=source)


@pytest.fixture(scope="module")
def tree(media):
    return film(
        media,
        point_at(0.5),
        asks("tracking", "Track it.", Tracks("square", SQUARE)),
        asks("counting", "How many?", "There are 3."),
        asks(
            "counting", "Count by pointing.", Points("dot", (SQUARE[0], dataclasses.replace(SQUARE[1], id=2)))
        ),
        asks("multiple_choice", "Which?\nA. one\nB. two", "B. two"),
        asks("video_caption", "Say it.", "a square rolls to the right"),
        asks("qa", "Why?", "Because."),
        asks(None, "And?", "So."),
        asks("pointing", "Point at cups.", Points("cup")),
        Branch((Message("user", "Nobody answers this."),)),
    )


@pytest.fixture(scope="module")
def asked(tree, encoder):
    return questions([tree], encoder)


REPLIES = (  # question, reply, score
    (0, '<points coords="0.5 1 312 500">square</points>', 1.0),
    (0, '<points coords="0.5 1 312 500 2 900 100">square</points>', 2 / 3),  # one of two hits the one
    (0, '<points coords="0.5 1 900 500">square</points>', 0.0),
    (0, '<points coords="1.0 1 312 500">square</points>', 0.0),  # at another time
    (0, "It is on the left.", 0.0),
    (0, '<tracks coords="0.5 1 312 500">square</tracks>', 0.0),
    (1, '<tracks coords="0.0 1 062 500;0.5 1 312 500;1.0 1 562 500;1.5 1 812 500">square</tracks>', 1.0),
    (1, '<tracks coords="0.0 1 062 500;0.5 1 312 500">square</tracks>', 0.5),
    (1, "No tracks available.", 0.0),
    (2, "3", 1.0),
    (2, "three", 1.0),
    (2, "There are 4.", 0.0),
    (2, "I do not know", 0.0),
    (3, "2", 1.0),
    (3, '<points coords="0.0 1 000 000 2 999 999">dot</points>', 1.0),  # only the number counts
    (3, '<points coords="0.0 1 062 500">dot</points>', 0.0),
    (4, "B", 1.0),
    (4, "(b)", 1.0),
    (4, "A. one", 0.0),
    (4, "two", 0.0),
    (5, "A square rolls to the right!", 1.0),
    (5, "a square", 0.5),
    (5, "nothing", 0.0),
    (6, "  because. ", 1.0),
    (6, "Because", 0.0),
    (7, "So.", 1.0),
    (8, "There are none.", 1.0),
    (8, '<points coords="0.5 1 100 100">cup</points>', 0.0),
)


@pytest.mark.parametrize(("place", "text", "wanted"), REPLIES)
def test_a_reply_is_scored_by_its_task(asked, place, text, wanted):
    assert score(asked[place], text) == pytest.approx(wanted)


def test_the_true_answer_scores_one(asked):
    assert [score(question, question.reference) for question in asked] == [1.0] * len(asked)


def test_every_node_that_ends_with_an_answer_is_a_question(asked, tree):
    assert [question.node.address for question in asked] == [str(number) for number in range(9)]
    assert [question.task for question in asked][6:8] == ["qa", "qa"]
    assert asked[0].text == "Point at it at 0.5 s."
    assert asked[0].reference == '<points coords="0.5 1 312 500">square</points>'
    assert asked[0].sizes == ((64, 48),)
    assert asked[0].kind == "mine square"
    assert asked[6].kind == "mine"


def test_questions_that_differ_in_numbers_or_options_have_one_template(encoder, media):
    made = questions(
        [
            film(media, point_at(0.5), point_at(1.0), asks("multiple_choice", "Which?\nA. a\nB. b", "A. a")),
            film(media, asks("multiple_choice", "Which?\nA. c\nB. d", "A. c"), source="other"),
        ],
        encoder,
    )
    assert made[0].key == made[1].key == ("mine", "pointing", "Point at it at # s.")
    assert made[2].key[2] == made[3].key[2] == "Which?\n\n"
    assert made[2].key != made[3].key


def test_sizes_are_those_of_what_the_points_stand_on(encoder, media):
    """With images beside a video, a point at a time belongs to the video, one with a number to that image."""
    shown = Message("user", (media["tall"], media["wide"], media["video"]))
    places = Points("spot", (Point(0.5, 0.5, image=2),))
    tree = MessageTree(
        "t",
        (shown,),
        (asks("pointing", "Where?", places), point_at(0.5), asks("pointing", "None?", Points("x"))),
    )
    made = questions([tree], encoder)
    assert [question.sizes for question in made] == [((20, 80), (60, 40)), ((64, 48),), ((20, 80), (60, 40))]
    # A hit without a box is within 4 % of the height: 0.8 of 40 pixels here, 1.6 of 80 if sizes were swapped.
    assert score(made[0], '<points coords="2 1 513 500">spot</points>') == 1.0
    assert score(made[0], '<points coords="2 1 517 500">spot</points>') == 0.0
    assert [score(question, question.reference) for question in made] == [1.0] * 3


def test_what_no_sampled_frame_shows_is_not_asked_and_true_answers_stand_on_frames(encoder, media):
    """Two frames, at 0 and 1.5 s: of four places two are seen, and the one at 1.0 s alone is not."""
    clip = dataclasses.replace(media["video"], max_frames=2)
    branches = (point_at(1.0), asks("tracking", "Track it.", Tracks("square", SQUARE)), point_at(1.5))
    made = questions([film({"video": clip}, *branches)], encoder)
    assert [question.text for question in made] == ["Track it.", "Point at it at 1.5 s."]
    assert [point.time for point in made[0].truth.points] == [0.0, 1.5]
    assert [point.box for point in made[0].truth.points] == [SQUARE[0].box, SQUARE[3].box]
    frames = {f"{time:.1f}" for time in encoder.frames(clip).times}
    assert {f"{point.time:.1f}" for question in made for point in question.truth.points} <= frames
    assert [score(question, question.reference) for question in made] == [1.0, 1.0]
    whole = Tracks("square", (*SQUARE[:2], *SQUARE[3:]))
    assert score(made[0], format_tracks(whole)) == pytest.approx(2 / 3)  # it says one on a frame it never saw


def test_tracks_of_nothing_need_no_video(encoder):
    tree = MessageTree("t", (Message("user", "Hi"),), (asks("tracking", "Track.", Tracks("car")),))
    (question,) = questions([tree], encoder)
    assert score(question, "No tracks available.") == 1.0
    assert score(question, '<tracks coords="0.0 1 100 100">car</tracks>') == 0.0


def rig(monkeypatch, encoder, answer):
    """A model that says `answer(number of the prompt)`; returns the prompts it was given."""
    given = []

    def generate(model, prompts, chat, sampling):
        assert (model, chat) == ("model", encoder.chat)
        texts = [answer(number) for number in range(len(given), len(given) + len(prompts))]
        given.extend(prompts)
        tokens = [encoder.chat.encode(text).tokens[: sampling.max_new_tokens] for text in texts]
        return Generated(tuple(Answer(own, chat.decode(own), "stop") for own in tokens), 0.0, 0.0)

    monkeypatch.setattr(runner, "generate", generate)
    return given


def test_a_model_that_answers_right_scores_one_on_every_task(monkeypatch, asked, encoder, tree):
    given = rig(monkeypatch, encoder, lambda number: asked[number].reference)
    replies = ask("model", encoder, asked)
    assert [reply.score for reply in replies] == [1.0] * len(asked)
    assert [reply.text for reply in replies] == [question.reference for question in asked]
    (alone,) = encoder.prompts(tree, [asked[4].node])
    assert given[4].tokens.tolist() == alone.tokens.tolist()
    for name, found in evaluation.by_task(replies).items():
        assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0), name


def test_a_prompt_never_holds_its_answer(monkeypatch, asked, encoder):
    given = rig(monkeypatch, encoder, lambda _: "")
    replies = ask("model", encoder, asked)
    for question, prompt in zip(asked, given, strict=True):
        shown = encoder.chat.decode(prompt.tokens)
        assert question.text in shown
        assert shown.endswith("assistant\n")
        if question.task in ("qa", "multiple_choice", "video_caption"):
            assert question.reference not in shown.replace(question.text, "")
    assert [reply.score for reply in replies] == [0.0] * 8 + [1.0]  # of cups there are none


def test_replies_stay_with_their_questions_when_trees_take_turns(monkeypatch, encoder, media):
    trees = [
        film(media, asks("qa", "Who?", name), asks("qa", "Whose?", name * 2), name=name) for name in "ab"
    ]
    one, two = (questions([tree], encoder) for tree in trees)
    mixed = [one[0], two[0], one[1], two[1]]
    rig(monkeypatch, encoder, lambda number: mixed[number].reference)
    replies = ask("model", encoder, mixed)
    assert [reply.question for reply in replies] == mixed
    assert [reply.score for reply in replies] == [1.0] * 4


def test_questions_are_asked_in_runs_so_that_not_all_pixels_are_held_at_once(monkeypatch, encoder, media):
    trees = [film(media, asks("qa", "Who?", n), asks("qa", "Whose?", n * 2), name=n) for n in "abcde"]
    asked = questions(trees, encoder)
    given = rig(monkeypatch, encoder, lambda number: asked[number].reference)
    sizes, honest = [], runner.generate

    def generate(model, prompts, *more):
        sizes.append(len(prompts))
        return honest(model, prompts, *more)

    monkeypatch.setattr(runner, "generate", generate)
    monkeypatch.setattr(runner, "HELD", 150)
    replies = ask("model", encoder, asked)
    assert [reply.score for reply in replies] == [1.0] * 10
    assert len(given[0]) + len(given[1]) < 150 < sum(map(len, given[:4]))
    assert sizes == [4, 4, 2]


def test_the_constant_is_the_best_answer_of_its_template(encoder, media):
    training = questions(
        [film(media, *(asks("qa", f"Is it {n}?", "yes" if n else "no") for n in range(3)))], encoder
    )
    other = questions([film(media, asks("qa", "Is it 9?", "no"), asks("qa", "Is he?", "yes"))], encoder)
    replies = Constant(training).replies(other)
    assert [reply.text for reply in replies] == ["yes", ""]  # nobody taught the second template
    assert [reply.score for reply in replies] == [0.0, 0.0]
    assert [reply.score for reply in Constant(training).replies(training)] == [0.0, 1.0, 1.0]


def test_the_constant_sees_of_the_truth_only_the_time_that_was_asked_for(encoder, media):
    """Where, what and how many of an evaluation answer change nothing that the constant says."""
    training = questions([film(media, point_at(0.0), point_at(0.5))], encoder)
    constant = Constant(training)
    elsewhere = Point(0.9, 0.1, time=1.5, box=(0.8, 0.0, 1.0, 0.2))
    one, two = (
        questions([film(media, point_at(1.5, source=source))], encoder) for source in (None, elsewhere)
    )
    (first,), (second,) = constant.replies(one), constant.replies(two)
    assert first.text == second.text
    assert first.text in (
        '<points coords="1.5 1 062 500">square</points>', '<points coords="1.5 1 312 500">square</points>',
    )  # fmt: skip
    for question in questions([film(media, asks("qa", "Is it 9?", "x"))], encoder):
        swapped = dataclasses.replace(question, answer=(Text("y"),))
        trained = Constant(questions([film(media, asks("qa", "Is it 1?", "z"))], encoder))
        assert trained.replies([question])[0].text == trained.replies([swapped])[0].text == "z"


def test_an_answer_without_one_time_is_given_as_it_is(asked):
    tracks = asked[1]
    assert answer_as(tracks, asked[0]) == tracks.reference
    assert answer_as(asked[0], tracks) == asked[0].reference
    assert answer_as(asked[0], asked[8]) == asked[0].reference  # asked for cups, of which there are none


def test_the_constant_tries_few_questions_of_many_evenly(encoder, media):
    answers = ["no"] * 50 + ["yes"] * 14
    many = questions(
        [film(media, *(asks("qa", f"Is it {n}?", said) for n, said in enumerate(answers)))], encoder
    )
    replies = Constant(many, most=8).replies(many[:1])
    assert replies[0].text == "no"


def replies_of(*scores, names):
    made = []
    for value, name in zip(scores, names, strict=True):
        tree = MessageTree(name, (Message("user", "q"), Message("assistant", "a")), task=name[0], source=name)
        made.append(Reply(Question(tree, tree.nodes()[0], "q", (Text("a"),), ()), "", value))
    return made


def test_scores_are_summed_by_group_in_order_of_name():
    replies = replies_of(1.0, 0.0, 0.5, names=["b1", "a1", "b2"])
    found = summary(replies, by=lambda reply: reply.question.task)
    assert list(found) == ["a", "b"]
    assert (found["b"].value, found["b"].n) == (0.75, 2)
    kinds = summary(replies, by=lambda reply: reply.question.kind)
    assert {name: one.value for name, one in kinds.items()} == {"a1": 0.0, "b1": 1.0, "b2": 0.5}


def test_an_interval_is_over_trees_not_over_questions():
    """Two trees of equal questions are two independent values, however many questions they hold."""
    scores, names = [0.0] * 50 + [1.0] * 50, ["a"] * 50 + ["b"] * 50
    found = figure(replies_of(*scores, names=names))
    assert (found.value, found.low, found.high, found.n) == (0.5, 0.0, 1.0, 100)
    assert str(found) == "0.500 [0.000, 1.000] (n=100)"
    alone = figure(replies_of(*scores, names=[f"t{n}" for n in range(100)]))
    assert 0.35 < alone.low < alone.value < alone.high < 0.65
    assert np.isfinite([alone.low, alone.high]).all()
