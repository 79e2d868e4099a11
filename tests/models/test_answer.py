"""When an answer ends: stop rules against a slow restatement, and the guard against what it is to find."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.content import Point, Points, Tracks
from hedgerow.grounding import format_points, format_tracks
from hedgerow.models.answer import Draft
from hedgerow.models.sampling import Sampling
from hedgerow.text import ChatFormat, load_tokenizer

CHAT = ChatFormat(load_tokenizer("tiny"))
EVERY = 8
ROW = '<points coords="1 ' + " ".join(f"{n} {10 * n:03d} 500" for n in range(1, 90)) + '">ball</points>'
STILL = format_tracks(Tracks("cup", tuple(Point(0.5, 0.5, id=1, time=n / 2) for n in range(40))))
TWICE = '<tracks coords="' + "3.0 1 500 500;" * 60 + '">cup</tracks>'
LOOP = "A fence stands beside the old gate, and " * 12


def drafted(text, sampling, **more):
    """Write a text token by token, as far as it goes."""
    draft = Draft(CHAT, sampling, **more)
    for token in (*CHAT.encode(text).tokens, CHAT.stop):
        if not draft.add(token):
            break
    return draft.answer()


def slowly(text, strings):
    """The text before the first string that is complete first, and the tokens up to then."""
    tokens = CHAT.encode(text).tokens
    for count in range(1, len(tokens) + 1):
        begun = CHAT.decode(tokens[:count])
        places = [begun.find(string) for string in strings if string in begun]
        if places:
            return begun[: min(places)], tokens[:count]
    return CHAT.decode(tokens), tokens


@given(
    st.text("ab é€\n.", min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.integers(1, 6)), max_size=2),
    st.lists(st.text("ab é€\n.", min_size=1, max_size=3), max_size=2),
)
def test_an_answer_ends_where_a_stop_string_is_complete(text, inside, strings):
    strings += [text[start : start + size] for start, size in inside if start < len(text)]
    answer = drafted(text, Sampling(stop=tuple(strings), max_new_tokens=1000))
    assert (answer.text, answer.tokens) == slowly(text, strings)
    assert answer.reason == "stop"


def test_an_answer_ends_at_the_end_of_the_turn_or_at_a_stop_token_or_at_its_length():
    tokens = CHAT.encode("A gate, a field.").tokens
    whole, short = (drafted("A gate, a field.", Sampling(max_new_tokens=n)) for n in (100, 3))
    assert (whole.text, whole.tokens, whole.reason) == ("A gate, a field.", tokens, "stop")
    assert (short.tokens, short.reason) == (tokens[:3], "length")
    assert drafted("A gate, a field.", Sampling(stop=(tokens[2],))).tokens == tokens[:2]
    assert drafted("A gate, a field.", Sampling(max_new_tokens=len(tokens))).reason == "length"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (ROW, "in a row on one frame"),
        (STILL, "the same point"),
        (LOOP, "' 5 times"),
        (TWICE, "the same object"),
    ],
)
def test_the_guard_ends_what_goes_round_in_circles_and_says_so(text, kind):
    free = drafted(text, Sampling(max_new_tokens=5000))
    assert (free.text, free.reason, free.guarded) == (text, "stop", False)
    answer = drafted(text, Sampling(max_new_tokens=5000, guard=EVERY))
    assert answer.reason.startswith("guard: character ")
    assert kind in answer.reason
    assert answer.guarded
    assert len(answer.tokens) % EVERY == 0
    assert text.startswith(answer.text)
    assert len(answer.text) < 0.75 * len(text)


HONEST = [
    format_points(Points("cow", tuple(Point(0.1 + 0.03 * n, (0.37 * n) % 1) for n in range(28)))),
    format_tracks(Tracks("cow", tuple(Point(0.02 * n, 0.5, id=1, time=n / 2) for n in range(40)))),
    '<points coords="1 1 100 100 7 200 300 9 500 100">cow</points>',  # ids jump, and then it goes on
    "A fence stands beside the old gate, and behind it lies a field. " * 3,
]


@pytest.mark.parametrize("text", HONEST)
def test_the_guard_lets_honest_answers_go_on(text):
    answer = drafted(text, Sampling(max_new_tokens=5000, guard=1))
    assert (answer.text, answer.reason) == (text, "stop")


def test_an_object_may_stand_still_in_some_of_the_frames():
    sampling = Sampling(max_new_tokens=5000, guard=EVERY)
    assert drafted(STILL, sampling, frames=41).reason == "stop"
    assert drafted(STILL, sampling, frames=30).guarded
