import dataclasses
import re
from pathlib import Path

import pytest
import torch
import yaml

from hedgerow.models.assemble import ModelSpec, build
from hedgerow.models.initialize import waves
from hedgerow.text import load_tokenizer


def test_places_near_each_other_start_alike_and_all_places_differ():
    table = waves(9, 96)
    assert table.shape == (81, 96)
    distance = torch.cdist(table, table)
    beside, below, far = distance[0, 1], distance[0, 9], distance[0, 80]
    assert beside == pytest.approx(float(below), rel=1e-5)
    assert beside < far
    assert distance[~torch.eye(81, dtype=torch.bool)].min() > 0.5


def test_fan_in_keeps_the_scale_of_the_inputs():
    model = build(
        ModelSpec(initialization="fan_in", vision_hidden=96, vision_heads=3),
        tokenizer=load_tokenizer(),
        seed=0,
    )
    block = model.hf.model.language_model.layers[0]
    # 1 / sqrt(128) for the query, half of 1 / sqrt(384) for what a block adds to the residual stream.
    assert float(block.self_attn.q_proj.weight.detach().std()) == pytest.approx(128**-0.5, rel=0.02)
    assert float(block.mlp.down_proj.weight.detach().std()) == pytest.approx(0.5 * 384**-0.5, rel=0.02)
    assert float(model.hf.lm_head.weight.detach().std()) == pytest.approx(0.02, rel=0.02)


def test_fan_in_names_a_width_it_cannot_fill():
    with pytest.raises(ValueError, match="multiple of 4"):
        ModelSpec(initialization="fan_in", vision_hidden=66, vision_heads=3)


def test_the_docs_name_every_size_of_a_model_and_its_default():
    text = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    section = text.split("## Small models and fresh weights")[1]
    told = {}
    for names, defaults in re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", section, re.MULTILINE):
        fields, values = re.findall(r"`(\w+)`", names), yaml.safe_load(f"[{defaults}]")
        told |= dict(zip(fields, values, strict=True))
    assert told == {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(ModelSpec()).items()
    }
