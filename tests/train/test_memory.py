"""The formula of memory: byte for byte what torch saves for the backward pass of small models."""

import contextlib
import weakref

import numpy as np
import pytest
import torch
from transformers import Molmo2Config

from hedgerow.flops import PUBLISHED
from hedgerow.models.connector import model_class
from hedgerow.models.lora import adapt
from hedgerow.models.lora_spec import LoraSpec
from hedgerow.models.molmo2 import Molmo2
from hedgerow.models.sizes import Parameters, parameters_of, published_config, sizes_of, twin_config
from hedgerow.sequence import Budget, Row, VisionInput
from hedgerow.testing import tiny_encoder
from hedgerow.text import load_tokenizer
from hedgerow.train.memory import Activations, Load, Trained, memory_of
from hedgerow.tree import Message, MessageTree

ALL = Trained(frozenset({"vision", "connector", "language"}))
WIDTHS = {"bf16": 2, "fp32": 4}
SHAPES = {  # language, vision: two sizes
    "small": (
        {
            "hidden_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24,
            "intermediate_size": 200,
        },
        {"hidden_size": 40, "intermediate_size": 100, "head_dim": 20, "num_hidden_layers": 3},
    ),
    "larger": (
        {
            "hidden_size": 80, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 32,
            "intermediate_size": 328,
        },
        {"hidden_size": 64, "intermediate_size": 72, "head_dim": 32, "num_hidden_layers": 5},
    ),
}  # fmt: skip


def model_of(size, shape, *, checkpointing):
    text, tower = SHAPES[shape]
    fields = twin_config(published_config(size), load_tokenizer("tiny")).to_dict()
    fields["text_config"] |= text
    fields["vision_config"] |= tower | {"image_size": [84, 84], "num_position_embeddings": 36}
    fields["adapter_config"] |= {
        "hidden_size": tower["hidden_size"], "head_dim": tower["head_dim"],
        "intermediate_size": text["intermediate_size"], "text_hidden_size": text["hidden_size"],
        "vision_feature_layer": [tower["num_hidden_layers"] - 1, 0],
    }  # fmt: skip
    config = Molmo2Config.from_dict(fields)
    return Molmo2(model_class(config)(config), gradient_checkpointing=checkpointing).train()


class Held:
    """What stands in the graph for a tensor that is saved."""

    def __init__(self, tensor):
        self.tensor = tensor


@contextlib.contextmanager
def saved(model, *, low):
    """Collects what the graph holds for the backward pass, the model's own tensors not."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    found = weakref.WeakSet()

    def pack(tensor):
        held = Held(tensor)
        if tensor.untyped_storage().data_ptr() not in own:
            found.add(held)
        return held

    with (
        torch.autocast("cpu", torch.bfloat16, enabled=low),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor),
    ):
        yield found


def total(found):
    """Bytes of what the graph still holds, each storage once."""
    storages = [held.tensor.untyped_storage() for held in found]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def copies(module, *, low):
    """Bytes of the weights that are copied to be computed with."""
    return 2 * sum(p.numel() for p in module.parameters() if p.ndim > 1) if low else 0


def text_bytes(model, *, low):
    said = (Message("user", "x " * 40), Message("assistant", "y " * 40))
    row = Row.join([tiny_encoder()(MessageTree("a", said))], Budget(tokens=1000)).to("cpu")
    seen = torch.zeros(1, requires_grad=True)  # what vision adds has a gradient
    with saved(model, low=low) as found:
        kept = model.language(model.embed(row) + seen, row)
    assert len(kept) == len(row)
    return total(found), len(row)


def vision_bytes(model, *, low, crops=5):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (crops, 84, 84, 3)).astype(np.uint8))
    windows = torch.arange(crops * 36).view(crops, 2, 3, 2, 3).permute(0, 1, 3, 2, 4).reshape(-1, 9)
    vision = VisionInput(crops=pixels, pooling=windows, grids=np.array([[crops, 2, 2]]), patches=36)
    with saved(model, low=low) as found:
        kept = model.features(vision)
    assert len(kept) == 4 * crops
    return total(found)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", WIDTHS)
@pytest.mark.parametrize("size", ["8B", "O-7B"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_activations_are_what_torch_saves(size, precision, shape, checkpointing):
    low = precision == "bf16"
    model = model_of(size, shape, checkpointing=checkpointing)
    inner = model.hf.model
    formula = Activations(
        sizes_of(model.hf.config),
        width=WIDTHS[precision],
        norm_after=size == "O-7B",
        recompute=checkpointing,
    )
    found, tokens = text_bytes(model, low=low)
    load = Load(tokens, crops=5, slots=20, window=9)
    expected = formula.language(load)
    if not checkpointing:  # layers share what they end and begin with, which the formula counts twice
        found -= copies(inner.language_model.layers, low=low)
        assert found == pytest.approx(expected, rel=0.06)
    else:
        assert found == expected
    found = vision_bytes(model, low=low) - copies(inner.multi_modal_projector, low=low)
    found -= 0 if checkpointing else copies(inner.vision_tower.layers, low=low)
    assert found == formula.vision(load) + formula.connector(load)


@pytest.mark.parametrize("precision", WIDTHS)
@pytest.mark.parametrize("size", ["8B", "O-7B"])
def test_a_layer_is_what_one_more_layer_saves(size, precision):
    low = precision == "bf16"
    fields = model_of(size, "small", checkpointing=False).hf.config.to_dict()
    found = []
    for layers in (2, 3):
        fields["text_config"] |= {"num_hidden_layers": layers, "rope_scaling_layers": list(range(layers))}
        config = Molmo2Config.from_dict(fields)
        model = Molmo2(model_class(config)(config)).train()
        amount, tokens = text_bytes(model, low=low)
        found.append(amount - copies(model.hf.model.language_model.layers, low=low))
    formula = Activations(sizes_of(model.hf.config), WIDTHS[precision], size == "O-7B", recompute=True)
    assert found[1] - found[0] == formula.decoder_layer(Load(tokens, 0, 0, 9))


def test_memory_of_an_8b_row():
    sizes, parameters = PUBLISHED["8B"], parameters_of(published_config("8B"))
    formula = Activations(sizes, width=2, norm_after=False, recompute=True)
    load = Load.of_frames(sizes, tokens=16384, crops=128)
    assert load == Load(16384, 128, slots=128 * 81, window=9)
    found = memory_of(formula, parameters, load, trained=ALL, chunk=256)
    assert found.states == 16 * parameters.total, "fp32 weights, gradients and two moments"
    assert found.vision == 128 * 729 * (588 + 25 * 1152) * 2
    assert found.kept == found.vision + found.connector + found.language
    assert found.language == pytest.approx(16384 * 4096 * 4 * 38, rel=1e-3)
    assert found.peak == found.states + found.kept + max(found.layer, found.loss)
    assert found.loss == 256 * 151936 * 6 + 4 * parameters.head + 2 * (
        parameters.total - parameters.embedding
    )
    assert found.to_dict()["peak"] == found.peak
    without = Activations(sizes, width=2, norm_after=False, recompute=False)
    assert memory_of(without, parameters, load, trained=ALL, chunk=256).layer == 0


PARTS = Parameters(vision=1000, connector=200, language=5000, embedding=700, head=600)


@pytest.mark.parametrize(
    ("trained", "count", "kept", "copied"),
    [  # what has gradients, parts that keep activations beside language, weights copied to bf16 for long
        (ALL, 6200, {"vision", "connector"}, 6200 - 700),
        (Trained(frozenset({"connector"})), 200, {"connector"}, 200 + 600),
        (Trained(frozenset({"connector"}), frozenset({"language"}), 70), 270, {"connector"}, 270 + 600),
        (Trained(frozenset(), frozenset({"vision"}), 30), 30, {"vision", "connector"}, 30 + 600),
        (Trained(frozenset({"language"})), 5000, set(), 5000 - 700),
    ],
)
def test_memory_of_what_is_trained_in_part(trained, count, kept, copied):
    formula = Activations(PUBLISHED["4B"], width=2, norm_after=False, recompute=True)
    found = memory_of(formula, PARTS, Load(100, 2, 20, 9), trained=trained, chunk=1)
    assert found.weights == 4 * (6200 + trained.adapters)
    assert (found.gradients, found.moments) == (4 * count, 8 * count)
    assert {name for name in ("vision", "connector") if getattr(found, name)} == kept
    head = 4 * 600 if "language" in trained.whole else 0
    assert found.loss == 151936 * 6 + head + 2 * copied


@pytest.mark.parametrize("precision", WIDTHS)
@pytest.mark.parametrize("adapted", ["none", "language", "vision", "language, vision"])
def test_frozen_and_adapted_parts_keep_what_the_formula_says(precision, adapted):
    """Only the connector is trained whole."""
    low, parts = precision == "bf16", adapted.split(", ")
    model = model_of("8B", "small", checkpointing=True)
    model.requires_grad_(False)
    if adapted != "none":
        adapt(model, LoraSpec(tuple(parts), rank=2), seed=0)
    inner = model.hf.model
    for name, parameter in model.hf.named_parameters():
        parameter.requires_grad_("lora_" in name or "multi_modal_projector" in name)
    formula = Activations(
        sizes_of(model.hf.config), width=WIDTHS[precision], norm_after=False, recompute=True
    )
    trained = Trained(frozenset({"connector"}), frozenset(parts) - {"none"}, 1)
    found, tokens = text_bytes(model, low=low)
    load = Load(tokens, crops=5, slots=20, window=9)
    expected = memory_of(formula, parameters_of(model.hf.config), load, trained=trained, chunk=1)
    assert expected.language - found == tokens * (4 * 96 + 8), "a frozen norm and table keep no input"
    found = vision_bytes(model, low=low) - copies(inner.multi_modal_projector, low=low)
    if "vision" in parts:
        assert found == pytest.approx(expected.vision + expected.connector, rel=0.003), "A's output is extra"
    else:  # nothing of the tower; and what reads it has no weights to keep, for it hands no gradient on
        assert 0.75 * expected.connector < found <= expected.connector
        assert expected.vision == 0


def test_no_weight_is_copied_in_fp32():
    parameters = Parameters(vision=10, connector=10, language=100, embedding=30, head=20)
    formula = Activations(PUBLISHED["4B"], width=4, norm_after=False, recompute=True)
    found = memory_of(formula, parameters, Load(1, 0, 0, 9), trained=ALL, chunk=1)
    assert found.loss == 151936 * 4 + 80
