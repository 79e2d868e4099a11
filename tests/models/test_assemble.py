import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import (
    Molmo2ForConditionalGeneration,
    Olmo3Config,
    Olmo3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from hedgerow.cli import main
from hedgerow.errors import DataError, RecipeError
from hedgerow.models.assemble import VISUAL_TOKENS, ModelSpec, Parts, assemble, build, load, save
from hedgerow.models.assemble.rules import Join, Rows, Rule, TensorMap
from hedgerow.models.assemble.tokens import with_visual_tokens
from hedgerow.models.chat import read_chat
from hedgerow.sequence import Cost, Sequence
from hedgerow.text import ChatML

ROWS = 784  # of the language models; the tokenizer has 768 tokens, so 16 rows are padding
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
LANGUAGE = {
    "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": ROWS, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "attention_factor": 1.2,
    "beta_fast": 32.0, "beta_slow": 1.0,
}  # fmt: skip


def scrambled(model, seed):
    """All weights random, norms too, so that none can stand for another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.25, generator=generator)
            parameter.add_(1.0 if parameter.ndim == 1 else 0.0)
    return model.eval()


def qwen(**fields):
    sizes = {"num_hidden_layers": 2, "head_dim": 16, "rope_theta": 5e6} | LANGUAGE
    return scrambled(Qwen3ForCausalLM(Qwen3Config(**(sizes | fields))), 1)


def olmo(**fields):
    sizes = {
        "num_hidden_layers": 4,
        "sliding_window": 64,
        "max_position_embeddings": 128,
        "rope_scaling": YARN,
    }
    return scrambled(Olmo3ForCausalLM(Olmo3Config(**(sizes | LANGUAGE | fields))), 2)


def naflex(**fields):
    config = Siglip2VisionConfig(**({"num_patches": 25, "patch_size": 3} | VISION | fields))
    return scrambled(Siglip2VisionModel(config), 3)


def fixed(**fields):
    config = SiglipVisionConfig(**({"image_size": 15, "patch_size": 3} | VISION | fields))
    return scrambled(SiglipVisionModel(config), 4)


def both_towers():
    text = {"vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 4} | VISION
    config = SiglipConfig(vision_config={"image_size": 15, "patch_size": 3} | VISION, text_config=text)
    return scrambled(SiglipModel(config), 5)


@pytest.fixture(scope="module")
def plain_tokenizer(tokenizer):
    """The shipped tokenizer without its visual tokens."""
    fields = json.loads(tokenizer.to_str())
    fields["added_tokens"] = [one for one in fields["added_tokens"] if one["content"] not in VISUAL_TOKENS]
    return Tokenizer.from_str(json.dumps(fields))


@pytest.fixture
def parts(tmp_path, plain_tokenizer):
    """Save two models as parts: `parts(vision, language, ...)`, with the fields of `Parts`."""

    def make(vision, language, **fields):
        vision.save_pretrained(tmp_path / "vision")
        language.save_pretrained(tmp_path / "language")
        plain_tokenizer.save(str(tmp_path / "language" / "tokenizer.json"))
        sizes = {"crop_size": 12, "feature_layers": (-2, 0), "extra_rows": 16} | fields
        return Parts(tmp_path / "vision", tmp_path / "language", **({"margins": (1, 1)} | sizes))

    return make


def words(count=24):
    """Plain text as a row's sequence."""
    own, none = np.arange(count, dtype=np.int32), np.zeros(0, np.int32)
    tokens = np.random.default_rng(0).integers(3, 768, count).astype(np.int32)
    return Sequence(
        example="text", tokens=tokens, position=own, order=own, end=np.full(count, count, np.int32),
        group=np.full(count, -1, np.int32), slot=none, source=none, target=none,
        weight=none.astype(np.float32), sample=none, samples=(), cost=Cost(tokens=count),
    )  # fmt: skip


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    "make",
    [
        qwen,
        lambda: qwen(tie_word_embeddings=True),
        lambda: qwen(rope_scaling=YARN | {"rope_theta": 1e4}),
        olmo,
        lambda: olmo(rope_scaling=None, num_key_value_heads=4),
    ],
    ids=["qwen3", "qwen3 tied", "qwen3 yarn", "olmo3 yarn", "olmo3 plain"],
)
@torch.no_grad()
def test_the_language_half_gives_the_logits_of_the_original(parts, as_row, tmp_path, make):
    language = make()
    plan = assemble(parts(naflex(), language))
    model = plan.make(seed=0, attention="dense")
    text = words()
    tokens = torch.from_numpy(text.tokens).long()[None]
    expected = language(tokens).logits[0]
    assert distance(model.head(model(as_row(text))), expected) < 1e-5
    save(model, tmp_path / "made", tokenizer=plan.tokenizer, settings=plan.settings)
    again = Molmo2ForConditionalGeneration.from_pretrained(tmp_path / "made").eval()
    assert distance(again(tokens).logits[0], expected) < 1e-5


def seen_by_the_original(vision, patches, side):
    """Hidden states of the original model: behind the embeddings, behind each layer."""
    if isinstance(vision, Siglip2VisionModel):
        shown = {
            "pixel_values": patches,
            "pixel_attention_mask": torch.ones(patches.shape[:2], dtype=torch.long),
            "spatial_shapes": torch.tensor([[side, side]] * len(patches)),
        }
    else:
        count, size = len(patches), vision.config.patch_size
        grid = patches.reshape(count, side, side, size, size, 3).permute(0, 5, 1, 3, 2, 4)
        pixels = grid.reshape(count, 3, side * size, side * size)
        shown = {"pixel_values": pixels, "interpolate_pos_encoding": True}
    return vision(**shown, output_hidden_states=True).hidden_states


@pytest.mark.parametrize("crop_size", [15, 12, 21], ids=["same grid", "smaller", "larger"])
@pytest.mark.parametrize("make", [naflex, fixed, both_towers], ids=["siglip2", "siglip", "whole siglip"])
@torch.no_grad()
def test_the_vision_half_gives_the_features_of_the_original(parts, make, crop_size):
    vision = make()
    model = assemble(parts(vision, qwen(), crop_size=crop_size)).make(seed=0)
    tower, side = model.hf.model.vision_tower, crop_size // 3
    patches = torch.rand(2, side * side, 27, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = seen_by_the_original(getattr(vision, "vision_model", vision), patches, side)
    found = tower(patches, output_hidden_states=True).hidden_states
    assert model.hf.config.adapter_config.vision_feature_layer == [2, 0]
    assert len(tower.layers) == 3  # the last of four is above the deepest that is used
    for layer in (2, 0):
        assert distance(found[layer + 1], expected[layer + 1]) < 1e-5


def test_every_tensor_is_in_the_table(parts):
    plan = assemble(parts(both_towers(), olmo()))
    lines = plan.table().splitlines()
    for checkpoint, mapped in (plan.vision, plan.language):
        told = {name for rule in mapped.rules for name in rule.sources} | mapped.left_out.keys()
        assert told == checkpoint.shapes.keys()
    made = plan.vision[1].targets | plan.language[1].targets
    assert made | plan.fresh.keys() == plan.shapes.keys()
    assert not made & plan.fresh.keys()
    assert all(name.startswith("model.multi_modal_projector.") for name in plan.fresh)
    text = "\n".join(lines)
    assert len(lines) < 120
    assert (
        "positional_embedding [16, 16]  <- vision_model.embeddings.position_embedding.weight [25, 16], "
        in text
    )
    assert "resized to 4x4, bicubic" in text
    assert "16 rows more, initialised" in text
    assert "left out: above the deepest layer used" in text
    assert "layers.*.input_layernorm.weight [32]  <- model.layers.*.post_attention_layernorm.weight" in text
    assert "note: 3 of 4 layers look back 64 tokens" in text


def test_the_plan_reads_no_weights(parts, monkeypatch):
    given = parts(naflex(), qwen())

    def refuse(*_):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr("hedgerow.models.assemble.source.Checkpoint.read", refuse)
    assert "model.language_model.norm.weight" in assemble(given).table()


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("part", "edit", "message"),
    [
        (
            "language",
            lambda t: t.pop("model.layers.1.mlp.up_proj.weight"),
            r"language: .*missing: model\.layers\.1",
        ),
        ("language", lambda t: t.update(other=torch.zeros(2)), "language: tensors surplus: other$"),
        (
            "language",
            lambda t: t.update({"model.norm.weight": torch.zeros(31)}),
            r"of another shape: model\.norm\.weight \[31\] for .*norm\.weight \[32\]$",
        ),
        ("vision", lambda t: t.pop("embeddings.patch_embedding.bias"), "vision: tensors missing: embeddings"),
        ("vision", lambda t: t.update({"encoder.layers.0.extra": torch.zeros(1)}), "vision: tensors surplus"),
        (
            "vision",
            lambda t: t.update({"embeddings.position_embedding.weight": torch.zeros(24, 16)}),
            r"of another shape: embeddings\.position_embedding\.weight \[24, 16\]",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_one_clear_line(parts, part, edit, message):
    given = parts(naflex(), qwen())
    change(getattr(given, part), edit)
    with pytest.raises(DataError, match=message) as found:
        assemble(given)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([Rule("b", ("y",))], "there: tensors surplus: x; not made: a$"),
        (
            [Rule("a", ("x",)), Rule("b", ("y",)), Rule("a", ("y",))],
            "made twice: a; of another shape: y .2. for a .3.",
        ),
        ([Rule("a", ("x",)), Rule("b", ("y",)), Rule("c", ("y",))], "unknown to the model: c$"),
        (
            [Rule("a", ("x", "y"), Join()), Rule("b", ("y",))],
            r"of another shape: x and y \[3\] and \[2\] for a \[3\]$",
        ),
        ([Rule("a", ("x",), Rows(0, 4)), Rule("b", ("y",))], r"of another shape: x \[3\] for a \[3\]$"),
    ],
)
def test_a_map_with_a_hole_is_one_clear_line(rules, message):
    with pytest.raises(DataError, match=message):
        TensorMap(tuple(rules)).check({"x": (3,), "y": (2,)}, {"a": (3,), "b": (2,)}, where="there")


@pytest.mark.parametrize(
    ("vision", "language", "fields", "message"),
    [
        (qwen, qwen, {}, "vision is a qwen3; give a SigLIP"),
        (naflex, naflex, {}, "language is a siglip2_vision_model; give a language model of qwen3 or olmo3"),
        (naflex, qwen, {"crop_size": 13}, "crop_size 13 is no multiple of the 3 pixels"),
        (naflex, qwen, {"feature_layers": (4,)}, r"feature_layers \[4\]: .* has layers 0 to 3"),
        (naflex, lambda: qwen(attention_bias=True), {}, r"surplus: .*o_proj\.bias"),
        (
            naflex,
            lambda: olmo(
                rope_scaling=None,
                rope_parameters={
                    "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                },
            ),
            {},
            "takes one rope_theta",
        ),
    ],
)
def test_parts_that_do_not_fit_are_one_clear_line(parts, vision, language, fields, message):
    with pytest.raises((DataError, RecipeError), match=message) as found:
        assemble(parts(vision(), language(), **fields))
    assert "\n" not in str(found.value)


def test_visual_tokens_stand_behind_the_padded_rows(parts, plain_tokenizer):
    plan = assemble(parts(naflex(), qwen()))
    ids = [plan.tokenizer.token_to_id(name) for name in VISUAL_TOKENS]
    assert ids == list(range(ROWS, ROWS + len(VISUAL_TOKENS)))
    assert plan.tokenizer.encode("a field").ids == plain_tokenizer.encode("a field").ids
    assert plain_tokenizer.token_to_id("<im_patch>") is None  # the given one is left as it was
    assert plan.config.image_patch_id == ROWS + VISUAL_TOKENS.index("<im_patch>")
    assert plan.config.text_config.additional_vocab_size == 16


def test_a_tokenizer_of_another_model_is_refused(plain_tokenizer, tokenizer):
    with pytest.raises(RecipeError, match="ids up to 767, but the language model has 700 rows"):
        with_visual_tokens(plain_tokenizer, 700)
    with pytest.raises(RecipeError, match="has <im_start> as id 768"):
        with_visual_tokens(tokenizer, ROWS)
    assert with_visual_tokens(tokenizer, 768) is tokenizer
    fields = json.loads(plain_tokenizer.to_str())
    fields["added_tokens"] = [one for one in fields["added_tokens"] if one["content"] != "<|im_end|>"]
    del fields["model"]["vocab"]["<|im_end|>"]
    with pytest.raises(RecipeError, match=r"lacks <\|im_end\|>"):
        with_visual_tokens(Tokenizer.from_str(json.dumps(fields)), ROWS)


@torch.no_grad()
def test_a_fresh_connector_is_about_as_loud_as_text(parts):
    language = qwen()
    language.model.embed_tokens.weight.mul_(0.1)
    hf = assemble(parts(naflex(), language)).make(seed=0).hf
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 16, 32, generator=generator)
    pooling = torch.randint(0, 32, (64, 4), generator=generator)
    found = hf.model.multi_modal_projector(features, pooling).last_hidden_state
    assert 0.1 < float(found.std() / hf.get_input_embeddings().weight.std()) < 3.0


def test_the_seed_decides_what_is_initialised(parts):
    plan = assemble(parts(naflex(), qwen(), query="learned"))
    state = torch.random.get_rng_state()
    one, same, other = (dict(plan.make(seed=seed).hf.named_parameters()) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    moved = {name for name, tensor in one.items() if not torch.equal(tensor, other[name])}
    biases = {name for name in plan.fresh if name.endswith("bias")}
    assert moved == plan.fresh.keys() - biases | {"model.language_model.embed_tokens.weight"}
    table = one["model.language_model.embed_tokens.weight"].detach()
    assert float(table[ROWS:].std()) == pytest.approx(float(table[:ROWS].std()), rel=0.2)


@pytest.mark.parametrize("query", ["mean", "learned"])
def test_an_assembled_model_is_made_and_written_in_half_precision(parts, tmp_path, query):
    plan = assemble(parts(naflex().bfloat16(), qwen().bfloat16(), query=query))
    model, full = plan.make(seed=0, dtype=torch.bfloat16), plan.make(seed=0)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    pairs = zip(model.parameters(), full.parameters(), strict=True)
    assert all(torch.equal(half, whole.bfloat16()) for half, whole in pairs)
    sizes = {}
    for name, made in (("half", model), ("whole", full)):
        save(made, tmp_path / name, tokenizer=plan.chat, settings=plan.settings)
        sizes[name] = (tmp_path / name / "model.safetensors").stat().st_size
    assert sizes["half"] < 0.6 * sizes["whole"]
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    again = load(tmp_path / "half", dtype=torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    trained = load(tmp_path / "half")
    assert {parameter.dtype for parameter in trained.parameters()} == {torch.float32}
    assert all(
        torch.equal(a.float(), b) for a, b in zip(model.parameters(), trained.parameters(), strict=True)
    )


def test_the_command_writes_the_dtype_that_is_asked_for(parts, tmp_path, monkeypatch, capsys):
    given = parts(naflex(), qwen())
    words = ["--vision", given.vision, "--language", given.language, "--crop-size", "30"]
    for dtype, name in (([], "float32"), (["--dtype", "bf16"], "bfloat16")):
        to = tmp_path / name
        called = ["hedgerow", "assemble", *words, "--feature-layers", "-2", "0", "--to", to, *dtype]
        monkeypatch.setattr("sys.argv", list(map(str, called)))
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
        assert capsys.readouterr().out.startswith(f"{to}: ")
        assert {str(tensor.dtype) for tensor in load_file(to / "model.safetensors").values()} == {
            f"torch.{name}"
        }
        assert read_chat(to, family="molmo2").template == ChatML("<|im_end|>")


@torch.no_grad()
def test_parts_in_full_precision_are_rounded_once(parts):
    plan = assemble(parts(naflex(), qwen()))
    half, full = (plan.make(seed=0, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    for (name, one), other in zip(half.named_parameters(), full.parameters(), strict=True):
        assert other.norm() == 0 or distance(one.float(), other) < 5e-3, name


@pytest.mark.parametrize(
    ("config", "bos"),
    [
        (None, "<|im_end|>"),
        ({"bos_token": None, "eos_token": "<|im_end|>"}, "<|im_end|>"),
        ({"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}, "<|endoftext|>"),
    ],
    ids=["no config", "qwen", "olmo"],
)
def test_an_assembled_model_begins_with_the_token_that_its_server_puts_first(parts, tmp_path, config, bos):
    given = parts(naflex(), qwen())
    if config is not None:
        (tmp_path / "language" / "tokenizer_config.json").write_text(json.dumps(config))
    plan = assemble(given)
    assert plan.chat.template == ChatML(bos)
    save(
        plan.make(seed=0),
        tmp_path / "made",
        tokenizer=plan.chat,
        settings=plan.settings,
    )
    assert read_chat(tmp_path / "made", family="molmo2", template="chatml").template == ChatML(bos)
    assert json.loads((tmp_path / "made" / "tokenizer_config.json").read_text())["bos_token"] == bos


def test_a_first_token_that_the_tokenizer_lacks_is_refused(parts, tmp_path):
    given = parts(naflex(), qwen())
    (tmp_path / "language" / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    with pytest.raises(RecipeError, match="names <s> as bos_token or eos_token, which the tokenizer lacks"):
        assemble(given)


def test_the_seed_decides_the_weights_and_nothing_else_moves(make_model):
    one = make_model()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        state = torch.random.get_rng_state()
        other = make_model()
        assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_special_ids_come_from_the_tokenizer(make_model, vocabulary):
    config = make_model().hf.config
    assert config.image_patch_id == vocabulary["<im_patch>"]
    assert config.frame_end_token_id == vocabulary["<frame_end>"]
    assert config.text_config.vocab_size == vocabulary["<im_start>"]
    assert config.text_config.vocab_size + config.text_config.additional_vocab_size == len(vocabulary)


def test_a_tokenizer_with_a_token_behind_the_visual_ones_is_refused(tokenizer):
    longer = Tokenizer.from_str(tokenizer.to_str())
    longer.add_special_tokens(["<point>"])
    assert build(ModelSpec(), tokenizer=longer, seed=0)  # nothing writes it
    longer.add_tokens(["<late>"])
    with pytest.raises(RecipeError, match="<late> behind"):
        build(ModelSpec(), tokenizer=longer, seed=0)


def test_a_tokenizer_without_visual_tokens_is_refused(tokenizer):
    fields = json.loads(tokenizer.to_str())
    fields["added_tokens"] = [token for token in fields["added_tokens"] if token["content"] != "<im_low>"]
    with pytest.raises(RecipeError, match="lacks <im_low>"):
        build(ModelSpec(), tokenizer=Tokenizer.from_str(json.dumps(fields)), seed=0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"heads": 3, "kv_heads": 2}, "heads 3 is no multiple of kv_heads 2"),
        ({"crop_size": 85}, "crop_size 85 is no multiple of patch_size 7"),
        ({"feature_layers": (2,)}, "layers 0 to 1"),
        ({"depth": 2}, "depth"),
        ({"query": "median"}, "mean"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValidationError, match=message):
        ModelSpec(**sizes)
