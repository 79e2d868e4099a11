"""Transforms are pure functions of (tree, seed, pass), whatever the process and the order."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hedgerow.content import Image, Point, Points, Span, Text, Tracks, Video
from hedgerow.data.transforms import Dice, HighResolution, Transforms, plain_text
from hedgerow.tree import Branch, Message, MessageTree

ASKED = "Which is it?\nA. red\nB. green\nC. blue\nD. dark grey"


def user(*content):
    return Message("user", content if len(content) > 1 or not isinstance(content[0], str) else content[0])


def bot(*content):
    return Message("assistant", content if not isinstance(content[0], str) else content[0])


def rich(name="t"):
    """A tree in which every transform finds something."""
    return MessageTree(
        name,
        (user(Video("v.mp4"), Image("a.png"), Image("b.png", max_crops=3), Video("w.mp4", fps=1.0)),),
        (
            Branch((user(ASKED), bot("B")), task="multiple_choice"),
            Branch((user("Point to the cup."), bot(Points("cup", (Point(0.5, 0.5),)))), task="pointing"),
            Branch(
                (user(Text("Track the "), Text("car.")), bot(Tracks("car"))),
                (Branch((user("Why?"), bot("So."))), Branch((user("How?"), bot("Thus.")))),
                task="tracking",
            ),
        ),
    )


ALL = Transforms(
    shuffle_options=True,
    templates={
        "pointing": ("{text}", "Show me: {label}"),
        "tracking": ("Where does {label} go?", "{text} !"),
    },
    fps=(0.5, 1.0, 2.0, 4.0),
    high_resolution=HighResolution(0.5),
    shuffle_branches=True,
)


def transformed(names, turns, seed=5):
    return {
        f"{name} {turn}": ALL(rich(name), seed=seed, turn=turn).to_dict() for name in names for turn in turns
    }


def test_a_tree_is_the_same_in_any_process_whatever_its_hash_seed_and_order():
    here = transformed("abc", range(4))
    code = "import json,sys; sys.path.insert(0, sys.argv[1]); import test_transforms as t; "
    code += "print(json.dumps(t.transformed('cab', (3, 1, 0, 2))))"
    folder = os.path.dirname(__file__)  # noqa: PTH120
    for hash_seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", code, folder], capture_output=True, text=True, env=environment, check=True
        )
        assert json.loads(done.stdout) == json.loads(json.dumps(here))


def test_the_draws_of_a_key_are_these_on_every_machine():
    dice = Dice(3, 1, "clip-17", "fps")
    assert [dice.below(1000) for _ in range(6)] == [826, 690, 761, 791, 648, 740]
    assert Dice(1, "a").below(2**64) != Dice(1, "b").below(2**64)


def test_passes_seeds_and_ids_draw_anew_and_the_input_stays():
    tree, before = rich(), repr(rich().to_dict())
    varied = {repr(ALL(tree, seed=0, turn=turn).to_dict()) for turn in range(12)}
    assert len(varied) > 9
    seeds = {repr(ALL(tree, seed=seed, turn=0).to_dict()) for seed in range(12)}
    assert len(seeds) > 9
    branches = [
        [b.task for b in Transforms(shuffle_branches=True)(rich(str(n)), seed=0, turn=0).branches]
        for n in range(12)
    ]
    assert len({tuple(tasks) for tasks in branches}) > 3
    assert repr(tree.to_dict()) == before
    assert Transforms()(tree, seed=0, turn=0) == tree
    assert not Transforms()
    assert ALL


def test_one_transform_does_not_change_what_another_draws():
    for turn in range(8):
        both = Transforms(fps=ALL.fps, shuffle_branches=True)(rich(), seed=0, turn=turn)
        alone = Transforms(fps=ALL.fps)(rich(), seed=0, turn=turn)
        assert both.messages == alone.messages


@given(st.integers(1, 9), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_dice_shuffle_into_permutations_and_keep_to_their_bounds(count, key):
    dice = Dice(key)
    assert sorted(dice.shuffled(range(count))) == list(range(count))
    assert all(0 <= dice.below(count) < count for _ in range(5))
    assert not dice.happens(0.0)
    assert dice.happens(1.0)


def test_dice_are_fair():
    dice = Dice("fair")
    orders = Counter(tuple(dice.shuffled("abc")) for _ in range(6000))
    assert len(orders) == 6
    assert all(abs(count - 1000) < 5 * 29 for count in orders.values())  # 5 standard deviations
    assert abs(sum(dice.happens(0.3) for _ in range(10_000)) - 3000) < 5 * 46


def media_of(tree):
    return {item.path: item for item in tree.media}


def test_frame_rate_and_resolution_are_drawn_unless_the_data_say_them():
    seen = [media_of(ALL(rich(), seed=0, turn=turn)) for turn in range(200)]
    assert {media["v.mp4"].fps for media in seen} == {0.5, 1.0, 2.0, 4.0}
    assert {media["w.mp4"].fps for media in seen} == {1.0}
    assert {media["b.png"].max_crops for media in seen} == {3}
    high = sum(media["a.png"].max_crops == 24 for media in seen)
    assert {media["a.png"].max_crops for media in seen} == {None, 24}
    assert abs(high - 100) < 5 * 7.1
    for media in seen:
        assert media["v.mp4"].max_frames is None


def questions(tree):
    found = {}
    for node in tree.nodes():
        if node.messages[0].role == "user" and not node.messages[0].media:
            found.setdefault(node.task, set()).add(plain_text(node.messages[0]))
    return found


def test_templates_word_the_questions_of_their_task():
    asked = {"pointing": set(), "tracking": set()}
    for turn in range(40):
        for task, texts in questions(ALL(rich(), seed=0, turn=turn)).items():
            asked.setdefault(task, set()).update(texts)
    assert asked["pointing"] == {"Point to the cup.", "Show me: cup"}
    # what continues a tracking branch is of its task, and has no label
    below = {"Why? !", "How? !"}
    assert asked["tracking"] == {"Where does car go?", "Track the car. !"} | below


def one(question, *answers, task="qa", branches=False):
    if not branches:
        return MessageTree("q", (question, *answers), task=task)
    return MessageTree("q", (question,), tuple(Branch((answer,)) for answer in answers), task=task)


@pytest.mark.parametrize("branches", [False, True])
def test_a_template_keeps_media_and_braces_and_needs_its_label(branches):
    transforms = Transforms(templates={"qa": ("<{text}> {label}", "[{text}]")})
    asked = user(Image("a.png"), Text("a {text} {label}?"))
    made = transforms(one(asked, bot("yes"), branches=branches), seed=0, turn=0)
    assert made.messages[0].content == (Image("a.png"), Text("[a {text} {label}?]"))
    pointed = bot(Text("Here: "), Points("cup"))
    words = {
        plain_text(transforms(one(asked, pointed, branches=branches), seed=0, turn=n).messages[0])
        for n in range(9)
    }
    assert words == {"<a {text} {label}?> cup", "[a {text} {label}?]"}
    for untouched in (
        user(Image("a.png")),
        user(Text("Is it "), Points("cup")),
    ):
        tree = one(untouched, bot("yes"))
        assert transforms(tree, seed=0, turn=0) == tree


def test_high_resolution_may_be_for_trees_of_some_tasks_only():
    transforms = Transforms(high_resolution=HighResolution(1.0, 24, ("pointing",)))
    asked, said = user(Image("a.png"), Text("Where?")), bot(Points("cup"))

    def crops(*tasks):
        branches = tuple(Branch((user("Where?"), said), task=task) for task in tasks)
        tree = MessageTree("q", (user(Image("a.png")),), branches)
        return transforms(tree, seed=0, turn=0).media[0].max_crops

    assert crops("pointing") == crops("counting", "pointing") == 24
    assert crops("counting") is None
    for task, expected in ((None, 24), ("counting", None)):  # none is "qa"; a root that says nothing has none
        tree = MessageTree("q", (user(Image("a.png")),), (Branch((user("Where?"), said), task=task),))
        few = Transforms(high_resolution=HighResolution(1.0, 24, ("qa",)))
        assert few(tree, seed=0, turn=0).media[0].max_crops == expected
    assert (
        transforms(MessageTree("q", (asked, said), task="pointing"), seed=0, turn=0).media[0].max_crops == 24
    )
    every = Transforms(high_resolution=HighResolution(1.0))
    assert every(MessageTree("q", (asked, said)), seed=0, turn=0).media[0].max_crops == 24


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"templates": {"qa": ()}}, "no wording for qa; give at least one"),
        ({"templates": {"qa": ("{lable}",)}}, "has a place {lable}; known are {label} and {text}"),
        ({"fps": (0.0,)}, "greater than 0"),
        ({"high_resolution": {"probability": 1.5}}, "less than or equal to 1"),
        ({"shuffle": True}, "shuffle"),
    ],
)
def test_wrong_settings_are_refused(wrong, why):
    with pytest.raises(ValidationError) as raised:
        Transforms(**wrong)
    assert why in str(raised.value)


SHUFFLED = Transforms(shuffle_options=True)


def choices(tree):
    """The options of the question by letter, read independently."""
    return {text[0]: text[3:] for text in plain_text(tree.messages[0]).split("\n")[1:5]}


@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("answer", ["C", "C.", "(C)", "C) blue", " C. blue\n", "blue"])
def test_the_answer_follows_its_option(answer, branches):
    orders = set()
    for turn in range(60):
        tree = one(user(ASKED), bot(answer), task="multiple_choice", branches=branches)
        made = SHUFFLED(tree, seed=0, turn=turn)
        options = choices(made)
        assert sorted(options) == list("ABCD")
        assert sorted(options.values()) == ["blue", "dark grey", "green", "red"]
        reply = (made.branches[0].messages[0] if branches else made.messages[1]).content
        if answer == "blue":
            assert reply == "blue"
        else:
            letter = next(letter for letter in reply if letter in "ABCD")
            assert options[letter] == "blue"
            assert reply == answer.replace("C", letter)
        orders.add(tuple(options.values()))
    assert len(orders) > 15, "24 orders in 60 draws"


def test_ranked_answers_all_follow():
    tree = one(user(ASKED), bot("A"), bot("D. dark grey"), task="multiple_choice", branches=True)
    for turn in range(10):
        made = SHUFFLED(tree, seed=0, turn=turn)
        options = choices(made)
        first, second = (branch.messages[0].content for branch in made.branches)
        assert options[first] == "red"
        assert second == f"{second[0]}. dark grey"
        assert options[second[0]] == "dark grey"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Which?\nA. red\nB. green", "because it is"),  # no option named
        ("Which?\nA. red\nB. green", "C"),
        ("Which?\nA. red\nB. green", "A. green"),  # letter and words differ
        ("Which?\nA. B\nB. A", "A"),  # could mean either
        ("Which?\nA. red\nB. all of the above", "A"),
        ("Which?\nA. red\nB. green\nC. both A and B", "A"),
        ("Which?\nA. red\nC. green", "A"),
        ("Which?\nA. red\nor\nB. green", "A"),
        ("Which?\nA. red", "A"),
        ("A. one\nB. two\nA. three\nB. four", "A"),
        ("Is it red?", "Yes"),
    ],
)
def test_a_question_that_is_not_recognised_stays(question, answer):
    tree = one(user(question), bot(answer), task="multiple_choice")
    assert all(SHUFFLED(tree, seed=0, turn=turn) == tree for turn in range(20))


def test_options_of_other_tasks_stay():
    tree = one(user(ASKED), bot("A"))
    assert all(SHUFFLED(tree, seed=0, turn=turn) == tree for turn in range(20))


def test_a_text_whose_characters_weigh_differently_is_left_as_it_is():
    spanned = Text("Which one? Say it.", spans=(Span(0, 5, 2.0),))
    pieces = (Text("Which", weight=0.5), Text(" one?"))
    for content in ((spanned,), pieces):
        tree = MessageTree("t", (Message("user", content), Message("assistant", "This.")), task="qa")
        changed = Transforms(templates={"qa": ("Go",)})(tree, seed=0, turn=0)
        assert changed == tree
    alike = (Text("Which", weight=0.5), Text(" one?", weight=0.5))
    tree = MessageTree("t", (Message("user", alike), Message("assistant", "This.")), task="qa")
    changed = Transforms(templates={"qa": ("Go",)})(tree, seed=0, turn=0)
    assert changed.messages[0].content == (Text("Go", weight=0.5),)
