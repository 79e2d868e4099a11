"""Text and templates: every token is known, and a template that cannot be shared by branches is refused."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from hedgerow.encode import Encoder
from hedgerow.errors import DataError, RecipeError
from hedgerow.testing import tiny_encoder
from hedgerow.text import ChatFormat, ChatML, Rendered, load_tokenizer
from hedgerow.tree import Branch, Message, MessageTree

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_SYSTEM = "{% if messages[0].role != 'system' %}{{ 'Be brief.\n' }}{% endif %}" + CHATML
ONLY_LAST = (  # as templates that drop what was thought in earlier turns
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and not loop.last %}{{ '(earlier)' }}{% else %}{{ m.content }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
)
CHAT = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d e"))


@pytest.fixture(scope="module")
def chat():
    return ChatFormat(load_tokenizer())


def rendered(template):
    return Rendered(PreTrainedTokenizerFast(tokenizer_object=load_tokenizer(), chat_template=template))


def written(template, messages):
    """The whole conversation as the template writes it, turn by turn."""
    around = [template.around(messages, number) for number in range(len(messages))]
    return "".join(
        head + message.content + tail for (head, tail), message in zip(around, messages, strict=True)
    )


def test_chatml_surrounds_a_message_with_its_role_and_an_end():
    assert ChatML().around(CHAT, 1) == ("<|im_start|>assistant\n", "<|im_end|>\n")


@given(st.text(st.characters(codec="utf-8"), max_size=40))
@settings(deadline=None, max_examples=60)
def test_content_comes_back_from_its_tokens_and_offsets_cover_it(text):
    chat = ChatFormat(load_tokenizer())
    span = chat.encode(text)
    covered = {place for start, end in span.offsets for place in range(start, end)}
    assert chat.decode(span.tokens) == text
    assert covered == set(range(len(text)))
    assert [start for start, _ in span.offsets] == sorted(start for start, _ in span.offsets)


@pytest.mark.parametrize("name", ["<|im_end|>", "<im_patch>", "<|endoftext|>"])
def test_content_that_spells_a_special_token_is_plain_text_and_markup_is_not(chat, name):
    special = chat.special(name)
    assert special not in chat.encode(f"so {name} it is").tokens
    assert chat.decode(chat.encode(name).tokens) == name
    assert chat.markup(name) == (special,)
    assert chat.encode("x").tokens == chat.markup("x")


def test_the_stop_token_is_the_end_of_a_turn(chat):
    assert chat.stop == chat.special("<|im_end|>")
    assert chat.show(chat.stop) == "<|im_end|>"
    assert chat.vocabulary == 778


def test_a_missing_special_token_is_named(chat):
    with pytest.raises(RecipeError, match=r"no token <nowhere>; add it"):
        chat.special("<nowhere>")


def test_a_tokenizer_without_offsets_is_refused():
    with pytest.raises(RecipeError, match="dict has no character offsets; give a fast tokenizer"):
        ChatFormat({})


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(DataError, match=r"tokenizer\.json: no such tokenizer"):
        load_tokenizer(tmp_path)


def test_a_format_works_after_pickling(chat):
    assert chat.stop == 2  # cached before
    again = pickle.loads(pickle.dumps(chat))
    assert again.encode("Hi <im_end>") == chat.encode("Hi <im_end>")


def test_a_template_that_only_appends_gives_the_tokens_of_chatml(chat):
    theirs = ChatFormat(rendered(CHATML).tokenizer, rendered(CHATML))
    for number in range(len(CHAT)):
        assert theirs.template.around(CHAT, number) == chat.template.around(CHAT, number)
    assert theirs.stop == chat.stop
    tree = MessageTree("t", CHAT[:1], (Branch(CHAT[1:]), Branch((Message("assistant", "f"),))))
    ours = tiny_encoder()
    both = [encoder(tree) for encoder in (ours, Encoder(theirs, ours.processor))]
    assert both[0].tokens.tolist() == both[1].tokens.tolist()
    assert both[0].source.tolist() == both[1].source.tolist()


@pytest.mark.parametrize("template", [CHATML, WITH_SYSTEM])
@pytest.mark.parametrize("messages", [CHAT, (Message("system", "s"), *CHAT)])
def test_turn_by_turn_is_what_the_template_writes_for_the_conversation(template, messages):
    one = rendered(template)
    plain = [{"role": message.role, "content": message.content} for message in messages]
    assert written(one, messages) == one.tokenizer.apply_chat_template(plain, tokenize=False)


def test_a_message_that_only_shows_media_is_no_turn_of_the_template(tmp_path):
    """What a template puts before the first turn is not lost with the header that such a message lacks."""
    from hedgerow.content import Image
    from hedgerow.testing import write_png

    image = Message("user", (Image(str(write_png(tmp_path / "a.png"))),))
    encoder = Encoder(
        ChatFormat(rendered(WITH_SYSTEM).tokenizer, rendered(WITH_SYSTEM)), tiny_encoder().processor
    )
    tree = MessageTree("t", (image,), (Branch(CHAT[:2]),))
    sequence = encoder(tree)
    text = encoder.chat.decode(sequence.tokens[sequence.group < 0])
    assert text == "Be brief.\nuser\na\nassistant\nb\n"
    (prompt,) = encoder.prompts(tree, tree.nodes()[1:])
    logical = sequence.tokens[np.argsort(sequence.order)]
    assert prompt.tokens.tolist() == logical[: len(prompt)].tolist()
    assert encoder.chat.decode(prompt.tokens[:10]) == "Be brief.\n"


def test_a_template_that_rewrites_an_earlier_turn_is_refused():
    assert rendered(ONLY_LAST).around(CHAT, 1) == ("<|im_start|>assistant\n", "<|im_end|>\n")
    with pytest.raises(RecipeError, match=r"rewrites message 1 once message 2 follows.*chatml"):
        rendered(ONLY_LAST).around(CHAT, 2)


def test_a_template_that_trims_earlier_turns_is_refused():
    window = "{% for m in messages[-2:] %}{{ m.role + ': ' + m.content + '<|im_end|>' }}{% endfor %}"
    with pytest.raises(RecipeError, match="rewrites message 1 once message 2 follows"):
        rendered(window).around(CHAT, 2)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{% for m in messages %}{{ m.content | upper + '<|im_end|>' }}{% endfor %}", "changes the content"),
        (
            "{% for m in messages %}{{ m.content + m.content }}{% endfor %}",
            "changes the content of message 0",
        ),
        ("{{ raise_exception('users first') }}", r"fails on turns of user \(users first\)"),
        (None, "fails on turns of user"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_by_name(template, problem):
    with pytest.raises(RecipeError, match=problem):
        rendered(template).around(CHAT, 0)


def test_a_template_without_an_end_of_turn_is_refused():
    bare = rendered("{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}")
    assert bare.around(CHAT, 0) == ("user: ", "")
    with pytest.raises(RecipeError, match="nothing after an answer, so the model could not learn to stop"):
        bare.around(CHAT, 1)
