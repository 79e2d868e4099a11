"""Chat templates in the styles of well-known models, and the token that a conversation begins with."""

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from hedgerow.content import Image, Text
from hedgerow.encode import Encoder
from hedgerow.errors import DataError, RecipeError
from hedgerow.models.families import families
from hedgerow.testing import TINY_VISION, tiny_encoder, write_png
from hedgerow.text import ChatFormat, ChatML, Rendered, load_tokenizer
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.vision.processor import Molmo2Processor
from hedgerow.vision.text import TextProcessor

LLAMA3 = (
    "{% for m in messages %}{% set turn = '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + "
    "m.content | trim + '<|eot_id|>' %}{% if loop.first %}{% set turn = bos_token + turn %}{% endif %}"
    "{{ turn }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim }}"
    "{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
SMOLVLM = (
    "<|im_start|>{% for m in messages %}{{ m.role | capitalize }}"
    "{% if m.content[0].type == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% elif part.type == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
QWEN3 = (  # what was thought stays in the answers behind the last question, and is empty where there is none
    "{% set asked = namespace(last=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set asked.last = loop.index0 %}{% endif %}"
    "{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.index0 > asked.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
OLMO3 = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are helpful. <functions></functions>"
    "<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{% if not loop.last or m.role != 'assistant' %}{{ '<|im_end|>\n' }}{% else %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
STYLES = {"llama3": LLAMA3, "gemma": GEMMA, "smolvlm": SMOLVLM, "qwen3": QWEN3, "olmo3": OLMO3}
SPECIAL = (
    "<bos>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>",
    "<end_of_utterance>", "<image>",
)  # fmt: skip
USER, YES = Message("user", "Where is it?"), Message("assistant", "Left of the tree.")
MORE, NO = Message("user", "And now?"), Message("assistant", "Gone.")
SYSTEM = Message("system", "Be brief.")


def rendered(template, *, bos=""):
    longer = Tokenizer.from_str(load_tokenizer().to_str())
    longer.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIAL])
    own = PreTrainedTokenizerFast(
        tokenizer_object=longer, chat_template=template, bos_token="<bos>", eos_token="<|endoftext|>"
    )
    return ChatFormat(own, Rendered(own, bos))


def encoder_of(template, processor=None):
    return Encoder(rendered(template), processor or TextProcessor())


def logical(sequence):
    return sequence.tokens[np.argsort(sequence.order)].tolist()


def plain(chat, messages, *, asks=False):
    """The tokens that transformers makes of a conversation."""
    own = chat.template.tokenizer
    typed = "part.text" in own.chat_template
    shown = [
        {
            "role": message.role,
            "content": [{"type": "text", "text": message.content}] if typed else message.content,
        }
        for message in messages
    ]
    text = own.apply_chat_template(shown, tokenize=False, add_generation_prompt=asks)
    return chat.tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("before", [(), (SYSTEM,)], ids=["plain", "system"])
def test_a_conversation_has_the_tokens_of_the_template(style, before):
    if style == "gemma" and before:
        return  # it refuses a system turn, see below
    encoder = encoder_of(STYLES[style])
    messages = (*before, USER, YES)
    tree = MessageTree("t", messages)
    assert logical(encoder(tree)) == plain(encoder.chat, messages)
    (prompt,) = encoder.prompts(tree, tree.nodes())
    expected = plain(encoder.chat, (*before, USER), asks=True)
    if style == "qwen3":  # its prompt lets the model think; an answer without a thought has an empty one
        expected += encoder.chat.markup("<think>\n\n</think>\n\n")
    assert prompt.tokens.tolist() == expected


@pytest.mark.parametrize("style", ["llama3", "gemma", "smolvlm"])
def test_several_turns_have_the_tokens_of_the_template_in_every_branch(style):
    encoder = encoder_of(STYLES[style])
    tree = MessageTree("t", (USER, YES), (Branch((MORE, NO)), Branch((MORE, YES))))
    for node in tree.nodes():
        alone = encoder(MessageTree("t", (*node.path, *node.messages)))
        assert logical(alone) == plain(encoder.chat, (*node.path, *node.messages))
    whole = encoder(tree)
    lengths = encoder.lengths(tree)
    assert logical(whole)[: lengths[0]] == plain(encoder.chat, (USER, YES))
    assert logical(whole)[-lengths[2] :] == plain(encoder.chat, (USER, YES, MORE, YES))[lengths[0] :]


@pytest.mark.parametrize(
    ("style", "messages", "problem"),
    [
        ("qwen3", (USER, YES, MORE, NO), "rewrites message 1 once message 2 follows, so branches cannot"),
        ("olmo3", (USER, YES, MORE, NO), "rewrites message 1 once message 2 follows, so branches cannot"),
        ("gemma", (SYSTEM, USER, YES), r"fails on turns of system \(roles must alternate\)"),
        ("gemma", (USER, MORE, YES), r"fails on turns of user, user \(roles must alternate\)"),
    ],
)
def test_a_conversation_that_the_template_cannot_write_is_one_line(style, messages, problem):
    encoder = encoder_of(STYLES[style])
    with pytest.raises(RecipeError, match=f"^t, root: the tokenizer's chat template {problem}") as found:
        encoder(MessageTree("t", messages))
    assert "use model.template: chatml" in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("said", [" Where?", "Where? ", "Where?\n"])
@pytest.mark.parametrize("style", ["llama3", "gemma", "qwen3"])
def test_content_that_the_template_trims_is_refused(style, said):
    encoder = encoder_of(STYLES[style])
    tree = MessageTree("t", (Message("user", said), YES))
    if style == "qwen3":
        assert encoder(tree).tokens.tolist() == plain(encoder.chat, tree.messages)
        return
    with pytest.raises(DataError, match=r"t, root: .*trims what is said, and the user says '.*; trim it in"):
        encoder(tree)


def test_a_space_behind_a_header_belongs_to_the_answer_and_its_weights_do_not_move():
    encoder = encoder_of(SMOLVLM)
    text = "Left of the tree."
    whole = encoder(MessageTree("t", (USER, Message("assistant", text))))
    answer = encoder.chat.tokenizer.encode(f" {text}").ids
    assert whole.target.tolist() == [*answer, encoder.chat.stop]
    assert encoder.chat.show(encoder.chat.stop) == "<end_of_utterance>"
    half = Message("assistant", (Text("Left", weight=0.0), Text(" of the tree.", weight=1.0)))
    weighed = encoder(MessageTree("t", (USER, half)))
    spans = encoder.chat.encode(text, lead=" ").offsets
    zero = [end <= len("Left") for _, end in spans]
    assert sum(zero) > 1
    assert (weighed.weight[:-1] == 0).tolist() == zero


@pytest.fixture
def image(tmp_path):
    return Image(str(write_png(tmp_path / "a.png")))


@pytest.mark.parametrize("style", STYLES)
def test_what_stands_before_the_first_turn_stands_before_media_and_once_in_the_root(style, image):
    encoder = encoder_of(STYLES[style], Molmo2Processor(**TINY_VISION))
    tree = MessageTree("t", (Message("user", (image,)),), (Branch((USER, YES)), Branch((MORE, NO))))
    whole, chat = encoder(tree), encoder.chat
    opening = {
        "llama3": "<bos>", "gemma": "<bos>", "smolvlm": "<|im_start|>", "qwen3": "",
        "olmo3": "<|im_start|>system\nYou are helpful. <functions></functions><|im_end|>\n",
    }[style]  # fmt: skip
    assert chat.template.opening == opening
    first = list(chat.markup(opening))
    tokens = logical(whole)
    assert tokens[: len(first)] == first
    group = whole.group[np.argsort(whole.order)]
    assert (group[: len(first)] < 0).all()
    assert group[len(first)] >= 0
    for node, asked in zip(tree.nodes()[1:], (USER, MORE), strict=True):
        (prompt,) = encoder.prompts(tree, [node])
        said = [token for token, own in zip(prompt.tokens, prompt.group, strict=True) if own < 0]
        (alone,) = encoder.prompts(MessageTree("t", (asked,)), MessageTree("t", (asked,)).nodes())
        assert said == alone.tokens.tolist()


def test_a_header_before_an_image_may_differ_from_that_before_text(image):
    template = rendered(SMOLVLM).template
    shown = {"first": (image, Text("What?")), "last": (Text("What?"), image), "alone": (image,)}
    headers = {name: template.around((Message("user", parts),), 0)[0] for name, parts in shown.items()}
    assert headers == {
        "first": "<|im_start|>User:",
        "last": "<|im_start|>User: ",
        "alone": "<|im_start|>User:",
    }


def test_media_before_the_header_are_nothing_to_the_template(image):
    encoder = encoder_of(SMOLVLM, Molmo2Processor(**TINY_VISION))
    tree = MessageTree("t", (Message("user", (image, Text(USER.content))),))
    (prompt,) = encoder.prompts(tree, tree.nodes())
    said = [token for token, own in zip(prompt.tokens, prompt.group, strict=True) if own < 0]
    assert said == plain(encoder.chat, (USER,), asks=True)


def test_a_first_header_is_not_guessed_where_the_end_of_a_turn_depends_on_what_follows(image):
    alternate = (
        "{% for m in messages[1:] %}{% if m.role == messages[loop.index0].role %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
    )
    ends = alternate + OLMO3  # where the end of its own system text looks like that of an answer
    encoder = encoder_of(ends, Molmo2Processor(**TINY_VISION))
    with pytest.raises(RecipeError, match="in which the header of the turn cannot be found"):
        encoder(MessageTree("t", (Message("user", (image, Text("?"))), YES)))


def test_a_template_that_opens_a_user_s_conversation_only_cannot_stand_before_media(image):
    only = "{% if messages[0].role == 'user' %}{{ 'A chat.' }}{% endif %}"
    encoder = encoder_of(only + LLAMA3.replace("bos_token + turn", "turn"), Molmo2Processor(**TINY_VISION))
    tree = MessageTree("t", (Message("user", (image,)),), (Branch((Message("assistant", "A."),)),))
    with pytest.raises(RecipeError, match=r"begins a conversation of the assistant with .*'A chat\.'"):
        encoder(tree)


def test_a_template_whose_first_header_differs_cannot_stand_before_media(image):
    other = (
        "{% for m in messages %}{{ ('[first]' if loop.first else '[' + m.role + ']') + m.content }}"
        "<|im_end|>{% endfor %}"
    )
    encoder = encoder_of(other, Molmo2Processor(**TINY_VISION))
    tree = MessageTree("t", (Message("user", (image, Text("?"))), YES))
    with pytest.raises(RecipeError, match=r"begins a conversation with '\[first\]', in which the header"):
        encoder(tree)


def test_a_first_token_is_the_root_s_and_costs_one(image):
    without = tiny_encoder()
    chat = ChatFormat(load_tokenizer(), ChatML("<|endoftext|>"))
    encoder, bos = Encoder(chat, without.processor), chat.special("<|endoftext|>")
    shown = Message("user", (image,))
    branches = (Branch((USER, YES)), Branch((MORE, NO), (Branch((USER, NO)),)))
    for messages in ((shown,), (USER, YES), (SYSTEM, shown), (Message("user", (image, Text("?"))), YES)):
        tree = MessageTree("t", messages, branches)
        plain, whole = without(tree), encoder(tree)
        place = np.argsort(whole.order)
        assert logical(whole) == [bos, *logical(plain)]
        assert whole.position[place][0] == 0
        assert whole.group[place][0] == -1
        assert whole.end[place][0] == len(whole)
        assert bos not in whole.target
        assert whole.weight.tolist() == plain.weight.tolist()
        assert whole.cost["tokens"] == plain.cost["tokens"] + 1 == encoder.measure(tree)["tokens"]
        prompts = encoder.prompts(tree, tree.nodes()[1:])
        assert all(prompt.tokens[0] == bos and bos not in prompt.tokens[1:] for prompt in prompts)
        (family,) = families(prompts)
        assert family.tree.tokens[0] == bos
        assert list(family.tree.tokens).count(bos) == 1
        assert family.root >= 1


def test_a_first_token_is_put_where_the_template_does_not_write_it():
    assert rendered(OLMO3, bos="<bos>").template.around((USER,), 0)[0].startswith("<bos><|im_start|>system")
    assert rendered(LLAMA3, bos="<bos>").template.around((USER,), 0)[0].count("<bos>") == 1
