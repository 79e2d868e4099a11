"""Which template and which first token a folder's model is written with, and that it is kept when saved."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from hedgerow.ask import encoder_of
from hedgerow.build import build_encoder, build_model
from hedgerow.errors import DataError, RecipeError
from hedgerow.models.chat import read_chat
from hedgerow.models.pretrained import save
from hedgerow.models.text import TextModel
from hedgerow.recipe import load_recipe
from hedgerow.testing import tiny_recipe, write_jsonl
from hedgerow.text import ChatFormat, ChatML, Rendered, load_tokenizer
from hedgerow.train.result import save_model
from hedgerow.tree import Message, MessageTree

LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '[' + m.role + ']' + m.content + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nHi<|im_end|>\n' }}{% endif %}" + CHATML
)


def turnless():
    """A tokenizer as Llama's: no tokens of ChatML, and a token before every text."""
    fields = json.loads(load_tokenizer().to_str())
    fields["added_tokens"] = [one for one in fields["added_tokens"] if "im_" not in one["content"]]
    for name in ("<|im_start|>", "<|im_end|>"):
        fields["model"]["vocab"].pop(name, None)
    return first_token(Tokenizer.from_str(json.dumps(fields)))


def first_token(tokenizer):
    tokenizer.add_special_tokens([AddedToken("<s>", normalized=False), AddedToken("</s>", normalized=False)])
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


@pytest.fixture
def folder(tmp_path):
    """Write a tokenizer and its settings: `folder(tokenizer, config, template, settings)`."""

    def make(tokenizer=None, *, config=None, template=None, settings=None):
        tokenizer = tokenizer or load_tokenizer()
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        for name, fields in (("tokenizer_config.json", config), ("hedgerow.json", settings)):
            if fields is not None:
                (tmp_path / name).write_text(json.dumps(fields))
        if template is not None:
            (tmp_path / "chat_template.jinja").write_text(template)
        return tmp_path

    return make


CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize(
    ("config", "bos"),
    [
        (None, ""),
        ({"bos_token": None, "eos_token": "<|im_end|>"}, "<|im_end|>"),
        ({"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}, "<|endoftext|>"),
        ({"bos_token": {"content": "<|endoftext|>"}}, "<|endoftext|>"),
    ],
    ids=["no config", "qwen", "olmo", "olmo in full"],
)
def test_molmo2_begins_with_what_its_processor_puts_there(folder, config, bos):
    place = folder(config=config)
    for given in (place, place / "tokenizer.json"):
        assert read_chat(given, family="molmo2").template == ChatML(bos)
    assert read_chat(place, family="text").template == ChatML("")  # whose tokenizer puts nothing
    assert read_chat(place, family="molmo2", bos=None).template == ChatML("")
    assert read_chat(place, family="text", bos="<|endoftext|>").template == ChatML("<|endoftext|>")


def test_other_models_begin_with_what_the_tokenizer_puts_before_every_text(folder):
    place = folder(first_token(load_tokenizer()), config=CONFIG)
    assert read_chat(place, family="text").template == ChatML("<s>")
    assert read_chat(place, family="text", bos=None).template == ChatML("")


def test_the_shipped_tokenizer_has_no_first_token():
    assert read_chat("tiny", family="molmo2").template == ChatML("")


@pytest.mark.parametrize(
    ("template", "own"),
    [
        (CHATML, False),
        (WITH_SYSTEM, False),  # what a user says is written alike
        (LLAMA, True),
        (CHATML.replace("<|im_end|>", "<|endoftext|>"), True),
        ("{{ raise_exception('no') }}", False),  # cannot be used
    ],
)
def test_the_own_template_is_usual_where_it_writes_otherwise(folder, template, own):
    place = folder(config=CONFIG, template=template)
    found = read_chat(place, family="text", bos=None)
    assert isinstance(found.template, Rendered) == own
    assert isinstance(read_chat(place, family="molmo2", bos=None).template, ChatML)


def test_the_own_template_writes_its_first_token_once(folder):
    place = folder(turnless(), config=CONFIG, template=LLAMA)
    chat = read_chat(place, family="text", template="tokenizer")
    assert isinstance(chat.template, Rendered)
    turns = (Message("user", "a"), Message("assistant", "b"))
    assert [chat.template.around(turns, number) for number in (0, 1)] == [
        ("<s>[user]", "</s>"),
        ("[assistant]", "</s>"),
    ]
    assert chat.stop == chat.special("</s>")
    assert isinstance(read_chat(place, family="text").template, Rendered)  # it has no other


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ChatML()),  # saved before there were first tokens, and without one
        ({"chat": {"template": "chatml", "bos": None}}, ChatML()),
        ({"chat": {"template": "chatml", "bos": "<|im_end|>"}}, ChatML("<|im_end|>")),
    ],
)
def test_a_folder_that_hedgerow_saved_says_how_it_was_trained(folder, settings, expected):
    place = folder(config={"bos_token": "<|endoftext|>"}, settings=settings)
    for template in ("auto", "chatml"):
        assert read_chat(place, family="molmo2", template=template).template == expected


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"bos": "<s>"},
            RecipeError,
            r"no token <s> to begin .*; name another as model\.bos, or null for none",
        ),
        (
            {"template": "tokenizer"},
            RecipeError,
            r"has no chat template, neither chat_template\.jinja nor .*chatml",
        ),
        ({"template": "tokenizer", "bos": "<|im_end|>"}, RecipeError, "leave bos out"),
    ],
)
def test_what_a_tokenizer_cannot_do_is_one_line(folder, options, kind, message):
    place = folder(config={"tokenizer_class": "PreTrainedTokenizerFast"})
    with pytest.raises(kind, match=message) as found:
        read_chat(place, family="text", **options)
    assert "\n" not in str(found.value)


def test_a_tokenizer_without_the_tokens_of_chatml_names_the_other_template(folder):
    place = folder(turnless(), config=CONFIG)
    with pytest.raises(
        RecipeError, match=r"no token <\|im_start\|> and <\|im_end\|>.*model\.template: tokenizer"
    ):
        read_chat(place, family="text", template="chatml")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "hedgerow.json"])
def test_a_broken_file_is_named(folder, name):
    place = folder(config=CONFIG, settings={} if name == "hedgerow.json" else None)
    (place / name).write_text('{"added_tokens": [')
    with pytest.raises(DataError, match=name.replace(".", r"\.")) as found:
        read_chat(place, family="molmo2")
    assert "\n" not in str(found.value)


def test_a_tokenizer_that_transformers_cannot_load_is_one_line(folder):
    place = folder(settings={"chat": {"template": "tokenizer", "bos": None}})
    (place / "tokenizer_config.json").write_text("{")
    with pytest.raises(DataError, match=r"cannot load this tokenizer \(.*\); use model") as found:
        read_chat(place, family="text")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("bos", ["auto", "<|endoftext|>"])
def test_what_a_recipe_trained_is_asked_in_the_same_way(tmp_path, bos):
    data = write_jsonl(tmp_path / "t.jsonl", [{"id": "a", "messages": [
        {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]}])  # fmt: skip
    recipe = load_recipe(tiny_recipe(tmp_path, data), {"model.bos": bos})
    trained = build_encoder(recipe)
    save_model(build_model(recipe), recipe, tmp_path / "saved")
    tree = MessageTree("t", (Message("user", "Who?"),))
    (expected,) = trained.prompts(tree, tree.nodes())
    (found,) = encoder_of(tmp_path / "saved").prompts(tree, tree.nodes())
    assert found.tokens.tolist() == expected.tokens.tolist()
    assert (found.tokens[0] == trained.chat.special("<|endoftext|>")) == (bos != "auto")
    # A second stage, which starts from the saved folder, begins in the same way.
    again = load_recipe(tmp_path / "recipe.yaml", {"model.tokenizer": str(tmp_path / "saved")})
    assert build_encoder(again).chat.template == trained.chat.template


def tiny_llama(vocabulary):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **sizes))


@pytest.mark.parametrize("bos", ["", "<|endoftext|>"])
@pytest.mark.parametrize(("template", "kept"), [(CHATML, True), (WITH_SYSTEM, False), (None, False)])
def test_a_language_model_is_served_as_it_was_trained(folder, tmp_path_factory, template, kept, bos):
    origin = folder(config={"tokenizer_class": "PreTrainedTokenizerFast"}, template=template)
    chat = ChatFormat(load_tokenizer(), ChatML(bos))
    place = tmp_path_factory.mktemp("saved") / "model"
    save(TextModel(tiny_llama(chat.vocabulary)), place, tokenizer=chat, settings={}, origin=origin)
    plain = AutoTokenizer.from_pretrained(place)
    assert (plain.chat_template == template) == (kept and not bos)
    for turns in (("user",), ("system", "user"), ("user", "assistant", "user")):
        messages = [{"role": role, "content": "x"} for role in turns]
        text = plain.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        tree = MessageTree("t", tuple(Message(role, "x") for role in turns))
        (prompt,) = encoder_of(place).prompts(tree, tree.nodes())
        assert plain(text, add_special_tokens=False)["input_ids"] == prompt.tokens.tolist()


def test_a_language_model_with_its_own_template_keeps_it(folder, tmp_path_factory):
    origin = folder(turnless(), config=CONFIG, template=LLAMA)
    chat = read_chat(origin, family="text", template="tokenizer")
    place = tmp_path_factory.mktemp("saved") / "model"
    save(TextModel(tiny_llama(chat.vocabulary)), place, tokenizer=chat, settings={"family": "text"})
    found = encoder_of(place).chat
    assert isinstance(found.template, Rendered)
    assert found.template.tokenizer.chat_template == LLAMA
    assert found.template.opening == "<s>"
    assert found.tokenizer.to_str() == chat.tokenizer.to_str()
