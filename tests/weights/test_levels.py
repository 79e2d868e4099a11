"""Law 11: what is said of a weight at any level comes to the loss as it was said."""

import dataclasses
import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Image, Point, Points, Span, Text
from hedgerow.errors import DataError
from hedgerow.sequence import Budget, Row
from hedgerow.testing import tiny_encoder, write_png
from hedgerow.train.loss import weighted_loss
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.weights import Answer, Grounded, Keywords, Lexical, Named, Opening, Spans, StopWords, Weighting

FACTORS = st.sampled_from([None, 0.0, 0.1, 0.5, 1.0, 1.5])
WORDS = st.lists(st.sampled_from(["Sure!", "the", "cat", "is", "red", "\n"]), max_size=6).map(" ".join)
LEXICAL = Lexical(stop_words=StopWords(), keywords={"x": Keywords(words=("red", "cat is"))})
SPANS = Spans(opening=Opening(factor=0.5), grounded=Grounded(label=2.0), named=Named(names={"main": 3.0}))
WEIGHTINGS = {
    "rules alone": Weighting(c=3.0, scale={"qa": 0.5}, sources={"web": 0.25}),
    "weighers, total kept": Weighting(lexical=LEXICAL, spans=SPANS, sources={"web": 0.25}),
    "weighers alone": Weighting(lexical=LEXICAL, spans=SPANS, normalize="none", tasks={"qa": "otherwise"}),
}


@st.composite
def texts(draw):
    text = draw(WORDS)
    spans = []
    for _ in range(draw(st.integers(0, 2 if text else 0))):
        start = draw(st.integers(0, len(text) - 1))
        name = draw(st.sampled_from([None, "main"]))
        spans.append(Span(start, draw(st.integers(start + 1, len(text))), draw(FACTORS), name))
    return Text(text, draw(FACTORS), tuple(spans))


@st.composite
def trees(draw):
    points = st.builds(
        Points, st.sampled_from(["a", "red ball"]), st.just((Point(0.5, 0.25),)), weight=FACTORS
    )
    parts = st.lists(texts() | points, min_size=1, max_size=3).map(tuple)
    replies = st.builds(Message, st.just("assistant"), parts, FACTORS)
    tasks = st.sampled_from([None, "qa", "pointing"])
    ask = Message("user", "?")
    inner = st.builds(lambda reply, w, task: Branch((ask, reply), (), task, w), replies, FACTORS, tasks)
    outer = st.builds(
        lambda reply, below, w, task: Branch((ask, reply, ask), tuple(below), task, w),
        *(replies, st.lists(inner, max_size=2), FACTORS, tasks),
    )
    found = draw(st.lists(outer, min_size=1, max_size=2))
    source = draw(st.sampled_from(["web", "books"]))
    return MessageTree("t", (ask,), tuple(found), source=source, weight=draw(FACTORS))


@pytest.fixture(scope="module")
def shows(tmp_path_factory):
    """Puts a picture before the root of a tree, to point at."""
    picture = Image(str(write_png(tmp_path_factory.mktemp("media") / "a.png")))
    return lambda tree: dataclasses.replace(tree, messages=(Message("user", (picture, Text("?"))),))


def text_of(part):
    return part.text if isinstance(part, Text) else f'<points coords="1 1 500 250">{part.label}</points>'


def or_one(weight):
    return 1.0 if weight is None else weight


def slow(tree, encoder):
    """The weights of all targets, from the tree alone, character by character."""
    weighting = encoder.weights
    found = []
    for node in tree.nodes():
        replies = [message for message in node.messages if message.role == "assistant"]
        if not replies:
            continue
        task = node.task or "qa"
        spoken = [tokens_of(reply, encoder, task, tree.source) for reply in replies]
        flat = [token for tokens in spoken for token in tokens]
        plain, left = sum(weight for weight, _ in flat), sum(weight * factor for weight, factor in flat)
        share = 1.0
        if weighting.normalize == "total" and weighting.weighers:
            share = plain / left if left else None
        own = weighting.sample(task, tree.source, max(len(flat), 1)) * node.weight
        for reply, tokens in zip(replies, spoken, strict=True):
            found += [own * weight * (1.0 if share is None else factor * share) for weight, factor in tokens]
            found.append(own * or_one(reply.weight))  # the end of the turn
    return found


def tokens_of(reply, encoder, task, source):
    """What the data say of each token's weight, and what the weighers say."""
    said = [(part, text_of(part)) for part in reply.parts]
    text = "".join(written for _, written in said)
    stated = [or_one(reply.weight) * weight for part in reply.parts for weight in stated_by(part)]
    offsets = encoder.chat.encode(text).offsets
    answer = Answer.of(said, offsets, task=task, source=source)
    factors = np.ones(len(offsets))
    for weigher in encoder.weights.weighers:
        factors = factors * weigher(answer)
    own = [
        [stated[n] for n in range(start, end) if not text[n].isspace()] or stated[start:end]
        for start, end in offsets
    ]
    return [(sum(one) / len(one), factor) for one, factor in zip(own, factors.tolist(), strict=True)]


def stated_by(part):
    found = [or_one(part.weight)] * len(text_of(part))
    for span in part.spans if isinstance(part, Text) else ():
        for n in range(span.start, span.end):
            found[n] *= or_one(span.weight)
    return found


@pytest.mark.parametrize("name", WEIGHTINGS)
@given(made=st.lists(trees(), min_size=1, max_size=2))
@settings(deadline=None, max_examples=20)
def test_law_11_weights_come_to_the_loss_as_they_were_said(shows, name, made):
    made = [shows(tree) for tree in made]
    encoder = tiny_encoder(weights=WEIGHTINGS[name], vision_first=False)
    wanted = [weight for tree in made for weight in slow(tree, encoder)]
    sequences = [encoder(tree) for tree in made]
    row = Row.join(sequences, Budget(tokens=5000)).to("cpu")
    np.testing.assert_allclose(row.weight, wanted, rtol=1e-5)
    surveyed = [encoder.survey(tree).weight for tree in made]
    assert surveyed == pytest.approx([float(s.weight.sum(dtype=np.float64)) for s in sequences], rel=1e-5)
    head = torch.nn.Linear(2, 16384, bias=False)  # all words are as likely: each target costs log 16384
    torch.nn.init.zeros_(head.weight)
    loss = weighted_loss(torch.ones(len(row.tokens), 2), row, head)
    assert float(loss.numerator.detach()) == pytest.approx(sum(wanted) * math.log(16384), rel=1e-5, abs=1e-9)


@given(tree=trees(), factor=st.sampled_from([0.0, 0.5, 0.1, 3.0]))
@settings(deadline=None, max_examples=15)
def test_a_sample_keeps_its_total_whatever_the_weighers_say(shows, tree, factor):
    weighers = Lexical(stop_words=StopWords(factor=factor), keywords=LEXICAL.keywords)
    plain, moved = (tiny_encoder(weights=w)(shows(tree)) for w in (Weighting(), Weighting(lexical=weighers)))
    for sample in range(len(plain.samples)):
        before, after = (s.weight[s.sample == sample].sum(dtype=np.float64) for s in (plain, moved))
        assert after == pytest.approx(before, rel=1e-5)


def answered(*content, source="data"):
    return MessageTree("t", (Message("user", "?"), Message("assistant", content)), source=source)


def test_weights_below_zero_come_to_the_row_when_they_are_allowed():
    weighting = Weighting(scale={"qa": -0.5}, sources={"web": 0.5}, allow_negative=True)
    sequence = tiny_encoder(weights=weighting)(answered(Text("1111"), source="web"))
    assert sequence.weight.tolist() == [-0.5] * 5
    assert tiny_encoder(weights=weighting).survey(answered(Text("1111"), source="web")).weight == -2.5


def test_a_data_set_with_empty_answers_is_named_once(caplog):
    with caplog.at_level(logging.WARNING, logger="hedgerow"):
        for _ in range(2):
            assert tiny_encoder()(answered(Text(""), source="set-of-this-test")).weight.tolist() == [4.0]
    (record,) = caplog.records
    assert (
        "'set-of-this-test' has empty answers: only the end of their turn is trained" in record.getMessage()
    )


@pytest.mark.parametrize(
    ("span", "problem"),
    [
        ({"start": 3, "end": 6}, "a span from 3 to 6 leaves its text of 5 characters"),
        ({"start": 3, "end": 3}, "a span from 3 to 3 has no character"),
        ({"start": -1, "end": 3}, "start: Input should be greater than or equal to 0"),
        ({"start": 0, "end": 3, "weight": -1}, "weight: Input should be greater than or equal to 0"),
        ({"start": 0, "end": 3, "weight": float("nan")}, "weight: Input should be"),
        ({"start": 0, "end": 3, "weight": 1e300}, "weight: a weight may be 1,000,000 at most"),
        ({"start": 0, "end": 3, "weight": "2"}, "weight: Input should be a valid number"),
        ({"start": 0, "end": 3, "weight": True}, "weight: Input should be a valid number"),
        ({"start": 0, "end": 3, "wieght": 1}, "unknown key 'wieght'; did you mean 'weight'"),
    ],
)
def test_a_span_that_cannot_be_is_refused(span, problem):
    content = [{"type": "text", "text": "three", "spans": [span]}]
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": content}]
    with pytest.raises(DataError, match=problem):
        MessageTree.from_dict({"id": "t", "messages": messages})


def test_spans_come_back_from_the_native_format():
    tree = answered(Text("three", spans=(Span(0, 2, 0.5), Span(1, 5, name="answer"))))
    assert MessageTree.from_dict(tree.to_dict()) == tree
