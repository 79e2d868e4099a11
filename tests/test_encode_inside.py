"""Media inside the user's turn: the tokens of a tree are those that a chat template writes, node by node."""

import dataclasses
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.video_utils import VideoMetadata

from hedgerow.content import Image, Point, Points, Text, Video
from hedgerow.encode import Encoder
from hedgerow.errors import DataError, MediaError
from hedgerow.testing import (
    TINY_QWEN3_VL,
    public_qwen3_vl,
    tiny_encoder,
    write_mp4,
    write_png,
)
from hedgerow.text import ChatFormat, ChatML, Rendered
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.vision.facts import ImageFacts, VideoFacts
from hedgerow.vision.qwen3_vl import Qwen3VLProcessor
from hedgerow.vision.text import TextProcessor

PROCESSOR = Qwen3VLProcessor(**TINY_QWEN3_VL)
TEMPLATE = """
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\n' }}
{%- if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'text' -%}
{{ part.text }}
{%- else -%}
{{ '<|vision_start|><|' + part.type + '_pad|><|vision_end|>' }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- endif -%}
"""
PUBLIC = public_qwen3_vl(PROCESSOR)
PUBLIC.tokenizer.chat_template = TEMPLATE
FACTS = {
    "wide": ImageFacts("wide", 60, 40),
    "small": ImageFacts("small", 9, 7),
    "clip": VideoFacts("clip", 64, 48, start=0.0, duration=1.5, rate=4.0),
}
WIDE, SMALL, CLIP = Image("wide"), Image("small"), Video("clip")


def look_up(media):
    return FACTS[media.path]


def encoder_of(template):
    return Encoder(ChatFormat(PUBLIC.tokenizer, template), PROCESSOR, facts=look_up)


ENCODERS = [encoder_of(ChatML()), encoder_of(Rendered(PUBLIC.tokenizer))]


def user(*parts):
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def bot(text):
    return Message("assistant", text)


def turns_of(messages):
    """The conversation: what a user shows before anything is said belongs to the user's next message."""
    turns, waits = [], False
    for message in messages:
        parts = [
            {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": part.type}
            for part in message.parts
        ]
        if waits and message.role == "user":
            turns[-1]["content"] += parts
        else:
            turns.append({"role": message.role, "content": parts})
        waits = message.role == "user" and all(part["type"] != "text" for part in turns[-1]["content"])
    return turns


def replacement(item):
    (grid,) = PROCESSOR.layout(item, look_up(item)).grids
    if isinstance(item, Image):
        return PUBLIC.image_token * int(np.prod(grid))
    facts = look_up(item)
    total = round(facts.duration * facts.rate) + 1
    metadata = VideoMetadata(total_num_frames=total, fps=facts.rate)
    metadata.frames_indices = PUBLIC.video_processor.sample_frames(metadata, fps=PROCESSOR.fps)
    patches = np.array([[grid[0], 2 * grid[1], 2 * grid[2]]])
    return PUBLIC.replace_video_token({"video_grid_thw": patches, "video_metadata": [metadata]}, 0)


def rendered(messages, *, asks=False):
    """The tokens that the template of the tokenizer writes for a conversation."""
    text = PUBLIC.tokenizer.apply_chat_template(
        turns_of(messages), tokenize=False, add_generation_prompt=asks
    )
    shown = [item for message in messages for item in message.media]
    texts, _ = PUBLIC.get_text_with_replacements(
        [text],
        images_replacements=[replacement(item) for item in shown if isinstance(item, Image)],
        videos_replacements=[replacement(item) for item in shown if isinstance(item, Video)],
    )
    return PUBLIC.tokenizer(texts[0], add_special_tokens=False)["input_ids"]


def path_of(nodes, node):
    found = [node.index]
    while nodes[found[0]].parent >= 0:
        found.insert(0, nodes[found[0]].parent)
    return found


def check(encoder, tree):
    nodes = tree.nodes()
    drafts = encoder._drafts(tree, nodes)
    for node in nodes:
        mine = [token for index in path_of(nodes, node) for token in drafts[index].tokens]
        messages = [*node.path, *node.messages]
        wanted = rendered(messages)
        waits = messages[-1].role == "user" and len(messages[-1].media) == len(messages[-1].parts)
        if waits:  # the turn stays open until somebody goes on
            assert tuple(wanted[len(mine) :]) == encoder.chat.markup("<|im_end|>\n")
            wanted = wanted[: len(mine)]
        assert mine == wanted


@pytest.mark.parametrize("encoder", ENCODERS, ids=["chatml", "rendered"])
def test_a_node_of_a_tree_has_the_tokens_its_template_writes_alone(encoder):
    for tree in (
        MessageTree(
            "shown once, asked often",
            (user(CLIP),),
            (
                Branch((user("What?"), bot("A ball."))),
                Branch((user(WIDE), user("And this?"), bot("Noise.")), (Branch((user(SMALL), bot("x"))),)),
                Branch((bot("It rolls."),)),
            ),
        ),
        MessageTree("parts in order", (user("Here", WIDE, " and", SMALL, CLIP), bot("Fine."))),
        MessageTree(
            "two turns of a user", (user(WIDE, "One."), user("Two."), user(SMALL), user(CLIP), bot("Three."))
        ),
        MessageTree("system", (Message("system", "Be kind."), user(SMALL)), (Branch((bot("Hello."),)),)),
    ):
        check(encoder, tree)


WORDS = st.sampled_from(["What is it?", "Say: ", " and", "Ball", "3 + 4", "tree,"])
SHOWN = st.sampled_from([WIDE, SMALL, CLIP])
USERS = st.one_of(
    st.lists(SHOWN, min_size=1, max_size=2).map(lambda parts: user(*parts)),
    st.lists(st.one_of(WORDS, SHOWN), min_size=1, max_size=4).map(lambda parts: user(*parts)),
)
ASKED = st.lists(USERS, min_size=1, max_size=3)
ANSWERED = st.one_of(st.just([]), WORDS.map(lambda text: [bot(text)]))
NODES = st.tuples(ASKED, ANSWERED, ASKED, ANSWERED).map(lambda parts: tuple(chain(*parts)))
BRANCHES = st.recursive(
    NODES.map(lambda messages: Branch(messages)),
    lambda below: st.builds(lambda own, more: Branch(own, tuple(more)), NODES, st.lists(below, max_size=2)),
    max_leaves=4,
)


@given(root=NODES, branches=st.lists(BRANCHES, max_size=3))
@settings(max_examples=60)
@pytest.mark.parametrize("encoder", ENCODERS, ids=["chatml", "rendered"])
def test_any_node_of_any_tree_has_the_tokens_its_template_writes_alone(encoder, root, branches):
    check(encoder, MessageTree("t", (*root, user("Well?"), bot("end")), tuple(branches)))


@pytest.mark.parametrize("encoder", ENCODERS, ids=["chatml", "rendered"])
@pytest.mark.parametrize(
    "messages", [(user(CLIP), user("What?")), (user(WIDE),), (user("A", SMALL), bot("b"), user(WIDE))]
)
def test_a_prompt_ends_where_the_template_asks_for_an_answer(monkeypatch, encoder, messages):
    monkeypatch.setattr(Qwen3VLProcessor, "visual", lambda *_: None)
    monkeypatch.setattr("hedgerow.encode.encoder.VisionInput.join", lambda _: None)
    tree = MessageTree("t", (*messages, bot("Yes.")))
    (prompt,) = encoder.prompts(tree, tree.nodes())
    assert prompt.tokens.tolist() == rendered(messages, asks=True)


def test_targets_groups_and_costs_follow(tmp_path):
    encoder = tiny_encoder(PROCESSOR)
    video, image = Video(str(write_mp4(tmp_path / "v.mp4"))), Image(str(write_png(tmp_path / "a.png")))
    point = Points("ball", (Point(32, 24, time=0.6),), frame="pixels")
    tree = MessageTree(
        "t",
        (user(video),),
        (
            Branch((user("Point."), Message("assistant", (point,))), task="pointing"),
            Branch((user(image, "And?"), bot("No."))),
        ),
    )
    sequence = encoder(tree)
    assert (sequence.group == -1).all()
    assert sequence.cost == encoder.measure(tree)
    assert sequence.cost["crops"] == len(sequence.vision.crops) == 4 * len(sequence.slot)
    assert [sample.task for sample in sequence.samples] == ["pointing", "qa"]
    said = encoder.chat.decode(sequence.target[sequence.sample == 0].tolist())
    assert said == '<points coords="0.5 1 500 500">ball</points>'
    pads = {encoder.chat.special(name) for name in ("<|image_pad|>", "<|video_pad|>")}
    assert set(sequence.tokens[sequence.slot].tolist()) == pads
    assert np.isin(sequence.tokens, list(pads)).sum() == len(sequence.slot)


def test_text_among_media_may_point_at_them():
    encoder = encoder_of(ChatML())
    points = Points("x", (Point(0.5, 0.25, image=2),))
    tree = MessageTree("t", (Message("user", (WIDE, points, SMALL)), bot("Yes.")))
    text = PUBLIC.tokenizer.decode(encoder._drafts(tree, tree.nodes())[0].tokens)
    assert '<|vision_end|><points coords="2 1 500 250">x</points><|vision_start|>' in text


def test_a_text_processor_refuses_a_tree_with_media_and_names_its_place():
    encoder = tiny_encoder(TextProcessor(), facts=look_up)
    plain = MessageTree("t", (user("Hi"), bot("Hello.")))
    assert encoder(plain).vision is None
    tree = dataclasses.replace(plain, branches=(Branch((user(WIDE, "?"), bot("x"))),))
    with pytest.raises(
        MediaError, match=r"^t, branch 0: wide is an image, a media type the model cannot see"
    ):
        encoder.measure(tree)


def test_a_tokenizer_without_the_tokens_of_the_family_is_named():
    encoder = Encoder(ChatFormat(tiny_encoder().chat.tokenizer), PROCESSOR, facts=look_up)
    with pytest.raises(Exception, match=r"the tokenizer has no token <\|vision_start\|>") as told:
        encoder.measure(MessageTree("t", (user(WIDE), bot("x"))))
    assert not isinstance(told.value, DataError)
