"""LoRA: what it trains, that merging changes nothing, and that plain `peft` reads it."""

import dataclasses
import logging
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, Molmo2ForConditionalGeneration, Qwen3VLForConditionalGeneration

from hedgerow.content import Image, Text
from hedgerow.errors import RecipeError
from hedgerow.models.assemble import ModelSpec, build
from hedgerow.models.lora import adapt, merge, save_adapter
from hedgerow.models.lora_spec import LoraSpec
from hedgerow.models.molmo2 import Molmo2
from hedgerow.models.pretrained import load, save
from hedgerow.models.qwen3_vl import Qwen3VL
from hedgerow.models.text import TextModel
from hedgerow.sequence import Budget, Cost, Row
from hedgerow.testing import (
    TINY_MODEL,
    TINY_QWEN3_VL,
    TINY_VISION,
    tiny_checkpoint,
    tiny_encoder,
    tiny_tokenizer,
    write_png,
)
from hedgerow.text import load_tokenizer
from hedgerow.train.loss import weighted_loss
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.verify import verify
from hedgerow.vision.qwen3_vl import Qwen3VLProcessor
from hedgerow.vision.text import TextProcessor

ALL = LoraSpec(("vision", "connector", "language"), rank=3, alpha=5)
LANGUAGE = LoraSpec(("language",), rank=3, alpha=5)
KINDS = {
    "molmo2": (Molmo2ForConditionalGeneration, Molmo2, ALL),
    "qwen3_vl": (Qwen3VLForConditionalGeneration, Qwen3VL, ALL),
    "qwen3": (AutoModelForCausalLM, TextModel, LANGUAGE),
}


def tokenizer_of(kind):
    return load_tokenizer("tiny") if kind == "molmo2" else tiny_tokenizer()


def settings_of(kind):
    return TINY_VISION if kind == "molmo2" else {}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("bases")
    fresh = build(ModelSpec(**TINY_MODEL), tokenizer=load_tokenizer("tiny"), seed=1)
    save(fresh, place / "molmo2", tokenizer=load_tokenizer("tiny"), settings=TINY_VISION)
    for kind in ("qwen3_vl", "qwen3"):
        tiny_checkpoint(place / kind, kind)
    return place


@pytest.fixture(scope="module")
def encoders():
    seen = Qwen3VLProcessor(**TINY_QWEN3_VL)
    return {
        "molmo2": tiny_encoder(),
        "qwen3_vl": tiny_encoder(seen),
        "qwen3": tiny_encoder(TextProcessor()),
    }


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return Image(str(write_png(tmp_path_factory.mktemp("media") / "a.png", size=(40, 30))))


def trees(kind, picture):
    shown = () if kind == "qwen3" else (Message("user", (picture,)),)
    said = [("What?", "A gate."), ("Why so?", "No idea at all.")]
    branches = [
        Branch((Message("user", (Text(asked),)), Message("assistant", answer))) for asked, answer in said
    ]
    asked = [(*shown, Message("user", word)) for word in ("Look.", "Once more.")]
    return [MessageTree(name, root, branches) for name, root in zip("ab", asked, strict=True)]


def row_of(encoder, kind, picture):
    sequences = [encoder(tree) for tree in trees(kind, picture)]
    return Row.join(sequences, Budget(**sum((one.cost for one in sequences), Cost()))).to("cpu")


def disturbed(model, seed=5):
    """Move all that is trained, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@torch.no_grad()
def logits(model, row):
    return model.eval().head(model(row))


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_change_nothing_until_they_are_trained(folders, encoders, picture, kind):
    row, model = row_of(encoders[kind], kind, picture), load(folders / kind)
    before, kept = logits(model, row), type(model.hf)
    adapt(model, KINDS[kind][2], seed=0)
    assert type(model.hf) is kept
    assert torch.equal(logits(model, row), before)
    assert not torch.equal(logits(disturbed(model), row), before)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_weights_give_the_logits_of_the_adapters_and_are_a_plain_model_again(
    folders, encoders, picture, kind, tmp_path
):
    public, _, lora = KINDS[kind]
    row, model = row_of(encoders[kind], kind, picture), load(folders / kind)
    names, before = list(model.hf.state_dict()), logits(model, row)
    adapt(model, lora, seed=0)
    apart = logits(disturbed(model), row)
    merge(model)
    assert distance(apart, before) > 0.01
    assert distance(logits(model, row), apart) < 1e-5
    assert list(model.hf.state_dict()) == names
    save(model, tmp_path / "model", tokenizer=tokenizer_of(kind), settings=settings_of(kind))
    plain = public.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert all(torch.equal(one, plain.state_dict()[name]) for name, one in model.hf.state_dict().items())


PARTS = [
    ("molmo2", ("vision", "connector", "language"), ()),
    ("molmo2", ("language",), ()),  # connector and vision are trained whole
    pytest.param("molmo2", ("vision",), ("language",), marks=pytest.mark.slow),
    ("qwen3_vl", ("language",), ("vision",)),
    pytest.param("qwen3_vl", ("vision", "language"), (), marks=pytest.mark.slow),
    ("qwen3", ("language",), ()),
]


def as_peft_loads(public, base, adapter):
    plain = public.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings():
        # peft 0.21 asks for a property of transformers that 5.23 has renamed.
        warnings.filterwarnings("ignore", message=r".*is_gradient_checkpointing", category=FutureWarning)
        return PeftModel.from_pretrained(plain, adapter)


@pytest.mark.parametrize(("kind", "parts", "frozen"), PARTS)
def test_plain_peft_loads_the_adapters_with_the_same_logits(
    folders, encoders, picture, tmp_path, kind, parts, frozen
):
    public, ours, _ = KINDS[kind]
    row, model = row_of(encoders[kind], kind, picture), load(folders / kind)
    adapt(model, dataclasses.replace(ALL, parts=parts), seed=0)
    for part in frozen:
        for parameter in model.parameter_groups()[part]:
            parameter.requires_grad_(False)
    expected = logits(disturbed(model), row)
    save_adapter(model, tmp_path / "adapter", base=folders / kind)
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    loaded = as_peft_loads(public, folders / kind, tmp_path / "adapter").eval()
    ids = torch.arange(3, 40)[None]
    media = {} if kind == "qwen3" else {"mm_token_type_ids": torch.zeros_like(ids)}
    with torch.no_grad():
        plainly = loaded(input_ids=ids, **media).logits[0]
    merge(model)
    save(model, tmp_path / "model", tokenizer=tokenizer_of(kind), settings=settings_of(kind))
    merged = public.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    with torch.no_grad():
        assert distance(plainly, merged(input_ids=ids, **media).logits[0]) < 1e-5
    again = ours(loaded.get_base_model())
    assert distance(logits(again, row), expected) < 1e-5
    with loaded.disable_adapter():  # and what was trained whole
        assert torch.equal(logits(again, row), logits(load(folders / kind), row))


def test_a_part_with_adapters_trains_them_alone_and_other_parts_train_whole(folders):
    model, whole = load(folders / "molmo2"), load(folders / "molmo2").parameter_groups()
    adapt(model, LANGUAGE, seed=0)
    groups = model.parameter_groups()
    assert [len(groups[part]) for part in ("vision", "connector")] == [
        len(whole[part]) for part in ("vision", "connector")
    ]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers = TINY_MODEL["layers"]
    assert len(groups["language"]) == 2 * 7 * layers  # A and B of four in attention and three in the MLP
    assert all(".lora_" in names[id(parameter)] for parameter in groups["language"])
    assert {names[id(one)] for group in groups.values() for one in group} == trained(model)
    assert not model.hf.get_input_embeddings().weight.requires_grad
    assert not model.head.weight.requires_grad


def test_targets_choose_layers_by_the_end_of_their_name(folders):
    model = load(folders / "qwen3")
    adapt(model, dataclasses.replace(LANGUAGE, targets=("q_proj", "mlp.up_proj")), seed=0)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in trained(model)} == {"q_proj", "up_proj"}


@pytest.mark.parametrize(
    ("kind", "spec", "told"),
    [
        ("qwen3", ALL, "lora.parts: the model has no linear layer in vision; it has some in language"),
        (
            "qwen3",
            dataclasses.replace(LANGUAGE, targets=("wq", "q_proj")),
            "language has no linear layer 'wq'; give some of down_proj, gate_proj, k_proj, o_proj, q_proj, "
            "up_proj, v_proj",
        ),
        (
            "molmo2",
            dataclasses.replace(ALL, targets=("fc1",)),
            "lora.targets names no layer of connector; it has down_proj, gate_proj, k_proj, o_proj, q_proj",
        ),
    ],
)
def test_what_the_model_does_not_have_is_told_with_what_it_has(folders, kind, spec, told):
    with pytest.raises(RecipeError) as raised:
        adapt(load(folders / kind), spec, seed=0)
    assert told in str(raised.value)


def test_adapters_are_drawn_from_the_seed_alone(folders):
    def drawn(seed, before=0):
        torch.manual_seed(before)
        model = load(folders / "qwen3")
        adapt(model, LANGUAGE, seed=seed)
        return [one.detach() for name, one in model.named_parameters() if ".lora_A." in name], torch.rand(1)

    (first, state), (again, other), (third, _) = drawn(0), drawn(0, before=1), drawn(1)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(first, third, strict=True))
    torch.manual_seed(0)
    assert torch.equal(state, torch.rand(1))  # and the state of others is as it was
    torch.manual_seed(1)
    assert torch.equal(other, torch.rand(1))


def gradients(folder, row, lora, **options):
    model = load(folder, **options)
    adapt(model, lora, seed=0)
    disturbed(model).train()
    torch.manual_seed(3)
    weighted_loss(model(row), row, model.head).numerator.backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_layers_that_run_again_in_the_backward_pass_give_the_same_gradients(
    folders, encoders, picture, dropout
):
    row = row_of(encoders["molmo2"], "molmo2", picture)
    lora = dataclasses.replace(ALL, dropout=dropout)
    plain = gradients(folders / "molmo2", row, lora)
    again = gradients(folders / "molmo2", row, lora, gradient_checkpointing=True)
    assert plain.keys() == again.keys()
    assert all(".lora_" in name for name in plain)  # nothing else has the memory of a gradient
    assert all(bool(one.any()) for one in plain.values())
    assert all(distance(again[name], one) < 1e-5 for name, one in plain.items())


def test_dropout_drops_in_training_alone(folders, encoders, picture):
    row, model = row_of(encoders["qwen3"], "qwen3", picture), load(folders / "qwen3")
    adapt(model, dataclasses.replace(LANGUAGE, dropout=0.5), seed=0)
    still = logits(disturbed(model), row)
    assert torch.equal(logits(model, row), still)
    assert not torch.equal(model.head(model.train()(row)), still)


@pytest.mark.parametrize("kind", KINDS)
def test_the_laws_hold_with_adapters(folders, encoders, picture, kind):
    model = load(folders / kind)
    adapt(model, KINDS[kind][2], seed=0)
    result = verify(disturbed(model), encoders[kind], trees(kind, picture))
    assert result.passed, result


def test_what_peft_has_no_place_for_is_named(folders, tmp_path, caplog):
    model = load(folders / "molmo2")
    adapt(model, LANGUAGE, seed=0)
    model.hf.model.extra = nn.Parameter(torch.zeros(2))
    with caplog.at_level(logging.WARNING, "hedgerow"):
        save_adapter(model, tmp_path / "adapter", base=None)
    assert [record.getMessage() for record in caplog.records] == [
        "the adapters alone are not the trained model: peft has no place for model.extra, which was trained "
        "too; use the merged model"
    ]


def test_a_folder_that_holds_something_else_is_left_alone(folders, tmp_path):
    model = load(folders / "qwen3")
    adapt(model, LANGUAGE, seed=0)
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(RecipeError, match="is not empty"):
        save_adapter(model, tmp_path, base=None)
    assert [path.name for path in Path(tmp_path).iterdir()] == ["letters.txt"]
