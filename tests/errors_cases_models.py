"""Mistakes with the folders of models and tokenizers; see `errors_cases.py`."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM

from errors_met import TRAIN, Case, Make
from hedgerow.errors import DataError, MediaError, RecipeError, VisibilityError
from hedgerow.text import load_tokenizer

_ANSWER = {"role": "assistant", "content": "Me."}
ASK = "hedgerow ask Who? --model llama"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


def _saved(model: object, folder: Path) -> Path:
    model.save_pretrained(folder)
    load_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def llama(damage: Make) -> Make:
    """Save a tiny language model and its tokenizer, and do something to the folder."""

    def make(folder: Path) -> None:
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        damage(_saved(LlamaForCausalLM(LlamaConfig(vocab_size=778, **sizes)), folder / "llama"))

    return make


def mamba(folder: Path) -> None:
    """Save a model without attention."""
    config = MambaConfig(vocab_size=778, hidden_size=8, num_hidden_layers=1)
    _saved(MambaForCausalLM(config), folder / "llama")


def weights(edit: object) -> Make:
    """Change the tensors of a folder."""

    def make(folder: Path) -> None:
        tensors = load_file(folder / _WEIGHTS)
        edit(tensors)
        save_file(tensors, folder / _WEIGHTS, {"format": "pt"})

    return make


def half(folder: Path) -> None:
    """Cut the weights off."""
    whole = (folder / _WEIGHTS).read_bytes()
    (folder / _WEIGHTS).write_bytes(whole[: len(whole) // 2])


def pickled(folder: Path) -> None:
    """Keep the weights as older versions of transformers wrote them."""
    torch.save(load_file(folder / _WEIGHTS), folder / "pytorch_model.bin")
    (folder / _WEIGHTS).unlink()


def one_of_two(folder: Path) -> None:
    """Leave one of two files of tensors out."""
    names = sorted(load_file(folder / _WEIGHTS))
    files = {name: f"model-{number % 2 + 1:05d}-of-00002.safetensors" for number, name in enumerate(names)}
    (folder / _INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))
    (folder / _WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")


def config(**fields: object) -> Make:
    """Change fields of config.json."""

    def make(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return make


def words(folder: Path) -> None:
    """Give a tokenizer of more tokens than the model has."""
    longer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    longer.add_tokens([f"word{number}" for number in range(100)])
    longer.save(str(folder / "tokenizer.json"))


def turnless(folder: Path) -> None:
    """Take the tokens of ChatML out of the tokenizer."""
    fields = json.loads((folder / "tokenizer.json").read_text())
    turns = ("<|im_start|>", "<|im_end|>")
    fields["added_tokens"] = [token for token in fields["added_tokens"] if token["content"] not in turns]
    for name in turns:
        fields["model"]["vocab"].pop(name, None)
    (folder / "tokenizer.json").write_text(json.dumps(fields))


def trims(folder: Path) -> None:
    """Give a chat template that trims what is said."""
    template = "{% for m in messages %}{{ m.role + ': ' + m.content | trim + '<|im_end|>' }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def recipe(model: dict[str, object]) -> Make:
    """Train the model of the folder."""

    def make(folder: Path) -> None:
        path = folder.parent / "recipe.yaml"
        vision = {"family": "text"}
        changed = {"model": {"checkpoint": "llama", "tokenizer": "llama"} | model, "vision": vision}
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return make


def both(*damage: Make) -> Make:
    """Do several things to a folder."""
    return lambda folder: [one(folder) for one in damage]


MODELS = (
    Case(
        "Tensors that are missing",
        DataError,
        ASK,
        files=llama(weights(lambda tensors: tensors.pop("lm_head.weight"))),
        place="llama: ",
        given="tensors missing lm_head.weight (1 in all)",
        allowed="config.json",
        remedy="the weights do not belong to this config.json",
        why="Weights and `config.json` are of different models, or of different versions of one.",
    ),
    Case(
        "Tensors that are too many",
        DataError,
        ASK,
        files=llama(weights(lambda tensors: tensors.update(extra=torch.zeros(2)))),
        place="llama: ",
        given="tensors surplus extra (1 in all)",
        allowed="config.json",
        remedy="the weights do not belong to this config.json",
        why="What a model has no place for would be lost without a word.",
    ),
    Case(
        "Weights that are cut off",
        DataError,
        ASK,
        files=llama(half),
        place="llama/model.safetensors: ",
        given="damaged or cut off",
        allowed="file not fully covered",
        remedy="copy it again",
        why="A download that failed, or a full disk. The size of the file tells.",
    ),
    Case(
        "Weights in an old format",
        DataError,
        ASK,
        files=llama(pickled),
        place="llama ",
        given="only pytorch_model.bin",
        allowed="model.safetensors",
        remedy="save the model with transformers 5 first",
        why="`AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OTHER)` writes safetensors.",
    ),
    Case(
        "A file of weights that was not copied",
        DataError,
        ASK,
        files=llama(one_of_two),
        place="llama ",
        given="lacks model-00002-of-00002.safetensors",
        allowed="which its index names",
        remedy="copy the whole folder",
        why="Large models are several files; `model.safetensors.index.json` names them.",
    ),
    Case(
        "A model of a kind that nobody knows",
        DataError,
        ASK,
        files=llama(config(model_type="blip9000")),
        place="llama ",
        given="is a blip9000",
        allowed="a molmo2, a qwen3_vl",
        remedy="give a molmo2",
        why="`model_type` in `config.json` names the kind. [adapters.md](adapters.md) adds a new one.",
    ),
    Case(
        "A folder without a model",
        DataError,
        "hedgerow ask Who? --model empty",
        files=lambda folder: (folder / "empty").mkdir(),
        place="empty ",
        given="holds no model",
        allowed="neither config.json nor model/config.json",
        remedy="give the folder of a finished run",
        why="A model is a folder with `config.json`; that of a run has it in `model`.",
    ),
    Case(
        "A model without attention",
        VisibilityError,
        ASK,
        files=mamba,
        given="MambaModel has layers of kind linear_attention",
        allowed="full_attention and sliding_attention",
        remedy="choose a model of",
        why="Linear attention carries one branch into the next, and no mask can stop it.",
    ),
    Case(
        "A picture for a model that reads",
        MediaError,
        "hedgerow ask cat.png Who? --model llama",
        files=llama(lambda _: None),
        place="cat.png ",
        given="is an image, a media type the model cannot see",
        allowed="it reads text only",
        remedy="leave the media out, or train a model that sees",
        why="Molmo2, Qwen3-VL and others see images and videos, see [adapters.md](adapters.md).",
    ),
    Case(
        "A broken tokenizer",
        DataError,
        ASK,
        files=llama(lambda folder: (folder / "tokenizer.json").write_text("{")),
        place="llama/tokenizer.json: ",
        given="no tokenizer that can be read (EOF while parsing",
        allowed="that of another folder",
        remedy="copy it again",
        why="The file is cut off, or is something else, such as a pointer that Git LFS left.",
    ),
    Case(
        "The tokenizer of another model",
        RecipeError,
        TRAIN,
        files=llama(both(words, recipe({}))),
        place="llama: ",
        given="the tokenizer has ids up to 877",
        allowed="the model's embedding table 778 rows",
        remedy="give the tokenizer that belongs to the model",
        why="`model.tokenizer` is usually the same folder as `model.checkpoint`.",
    ),
    Case(
        "A tokenizer without the tokens of ChatML",
        RecipeError,
        TRAIN,
        files=llama(both(turnless, recipe({"template": "chatml"}))),
        place="llama: ",
        given="no token <|im_start|> and <|im_end|>",
        allowed="the tokenizer's own chat template",
        remedy="set model.template: tokenizer",
        why="Llama, Gemma and others write turns in their own way, see [models.md](models.md).",
    ),
    Case(
        "A tokenizer without a chat template",
        RecipeError,
        TRAIN,
        files=llama(
            both(
                recipe({"template": "tokenizer"}),
                lambda folder: (folder / "tokenizer_config.json").write_text("{}"),
            )
        ),
        place="llama: ",
        given="the tokenizer has no chat template",
        allowed="chat_template.jinja",
        remedy="use model.template: chatml",
        why="Base models have none; the chat model of the same family does.",
    ),
    Case(
        "A first token that the tokenizer lacks",
        RecipeError,
        TRAIN,
        files=llama(recipe({"bos": "<s>"})),
        place="llama: ",
        given="no token <s> to begin a conversation with",
        allowed="null for none",
        remedy="name another as model.bos",
        why="Left out, `model.bos` is what the model was trained with, see [models.md](models.md).",
    ),
    Case(
        "White space that a chat template trims",
        DataError,
        TRAIN,
        row={"id": "bad", "messages": [{"role": "user", "content": " Who?"}, _ANSWER]},
        files=llama(both(trims, recipe({"template": "tokenizer"}))),
        place="trees.jsonl:2: ",
        given="and the user says ' Who?'",
        allowed="chat template trims what is said",
        remedy="trim it in the data, or use model.template: chatml",
        why="The model would be asked without it, and trained with it.",
    ),
)
