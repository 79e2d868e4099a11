"""Published sizes, their parameters, and tiny twins of the same structure."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hedgerow.errors import DataError, RecipeError
from hedgerow.flops import PUBLISHED, FlopModel
from hedgerow.models.assemble import ModelSpec, build, save
from hedgerow.models.connector import model_class
from hedgerow.models.lora import adapt
from hedgerow.models.lora_spec import LoraSpec
from hedgerow.models.molmo2 import Molmo2
from hedgerow.models.sizes import (
    adapters_of,
    config_of,
    parameters_of,
    published_config,
    sizes_of,
    twin,
    twin_config,
)
from hedgerow.sequence import VisionInput
from hedgerow.testing import TINY_MODEL, TINY_VISION
from hedgerow.text import load_tokenizer

# arXiv 2601.10611, table 12, in millions: connectors; vision towers are said to have 380.
CONNECTORS = {"4B": 57, "8B": 88, "O-7B": 80}


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_are_those_that_are_published(size):
    config = published_config(size)
    assert sizes_of(config) == PUBLISHED[size]
    found = parameters_of(config)
    assert round(found.connector / 1e6) == CONNECTORS[size]
    assert found.vision == pytest.approx(380e6, rel=0.01)
    sizes = PUBLISHED[size]
    assert found.head == sizes.vocabulary * sizes.hidden
    assert found.embedding == (sizes.vocabulary + 128) * sizes.hidden
    inside = found.language - found.head - found.embedding
    assert inside == pytest.approx(sizes.decoder, rel=1e-3), "norms are the rest"
    assert found.total == found.vision + found.connector + found.language


def test_parameters_of_a_small_model_are_those_it_has(tmp_path):
    spec, tokenizer = ModelSpec(**TINY_MODEL), load_tokenizer("tiny")
    model = build(spec, tokenizer=tokenizer, seed=0)
    found = parameters_of(config_of(spec, tokenizer))
    counts = {name: sum(p.numel() for p in group) for name, group in model.parameter_groups().items()}
    assert {name: getattr(found, name) for name in counts} == counts
    save(model, tmp_path / "model", tokenizer=tokenizer, settings=dict(TINY_VISION))
    assert parameters_of(config_of(tmp_path / "model", None)) == found
    assert sizes_of(config_of(tmp_path / "model", None)).decoder == sum(
        p.numel() for layer in model.hf.model.language_model.layers for p in layer.parameters() if p.ndim > 1
    )


@pytest.mark.parametrize("targets", [None, ("q_proj", "mlp.up_proj")])
def test_adapters_are_counted_as_they_are_made(targets):
    spec, tokenizer = ModelSpec(**TINY_MODEL), load_tokenizer("tiny")
    lora = LoraSpec(("language", "connector"), rank=3, targets=targets)
    model = build(spec, tokenizer=tokenizer, seed=0)
    adapt(model, lora, seed=0)
    made = [p.numel() for name, p in model.named_parameters() if "lora_" in name]
    assert adapters_of(config_of(spec, tokenizer), lora) == sum(made) > 0


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_twin_has_the_structure_of_the_original(size):
    given = published_config(size)
    made = twin_config(given, load_tokenizer("tiny"))
    text, small = given.text_config, made.text_config
    for name in ("norm_after", "qk_norm_type", "hidden_act", "attention_bias", "rope_parameters"):
        assert getattr(small, name) == getattr(text, name), name
    shared = [one.num_attention_heads // one.num_key_value_heads for one in (text, small)]
    assert (shared[0] == 1) == (shared[1] == 1)
    assert (0 in small.rope_scaling_layers) == (0 in text.rope_scaling_layers)
    assert small.num_hidden_layers - 1 in small.rope_scaling_layers
    assert made.vision_config.image_size == [378, 378]
    assert sizes_of(made).patches == 729
    assert len(made.adapter_config.vision_feature_layer) == 2
    assert parameters_of(made).total < 200_000
    torch.manual_seed(3)
    before = torch.rand(1)
    torch.manual_seed(3)
    assert isinstance(twin(made, seed=0), Molmo2)
    assert torch.rand(1) == before, "torch's random state is left alone"


def test_unknown_sizes_and_folders_are_errors(tmp_path):
    with pytest.raises(RecipeError, match="size '7B' is unknown; give one of 4B, 8B, O-7B"):
        published_config("7B")
    with pytest.raises(DataError, match=r"no config\.json"):
        config_of(tmp_path, None)


def counted(run):
    """FLOPs of matrix products that torch counts in a forward and a backward pass."""
    with FlopCounterMode(display=False) as counter:
        run().sum().backward()
    return counter.get_total_flops()


def test_flops_of_a_crop_are_those_torch_counts():
    config = twin_config(published_config("8B"), load_tokenizer("tiny"))
    model = Molmo2(model_class(config)(config), vision_attention="eager")
    sizes, crops = sizes_of(config), 2
    pixels = np.random.default_rng(0).integers(0, 256, (crops, 378, 378, 3)).astype(np.uint8)
    windows = torch.arange(crops * 729).view(crops, 9, 3, 9, 3).permute(0, 1, 3, 2, 4).reshape(-1, 9)
    vision = VisionInput(torch.from_numpy(pixels), windows, np.array([[crops, 9, 9]]), patches=729)
    found = counted(lambda: model.features(vision))
    formula = crops * FlopModel.of("twin", sizes).crop
    # The formula's attention computes scores again in its backward pass, eager attention keeps them.
    again = 2 * sizes.vision_hidden * crops * (sizes.vision_layers * 729**2 + 729)
    assert found == formula - again


def test_flops_of_tokens_are_those_torch_counts():
    config = twin_config(published_config("O-7B"), load_tokenizer("tiny"))
    layers = model_class(config)(config).model.language_model.layers
    matrices = [m for m in layers.modules() if isinstance(m, torch.nn.Linear)]

    def run():
        wide = [torch.randn(7, m.in_features, requires_grad=True) for m in matrices]
        return torch.cat([m(x).flatten() for m, x in zip(matrices, wide, strict=True)])

    assert 7 * FlopModel.of("twin", sizes_of(config)).token == counted(run)
