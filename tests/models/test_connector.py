import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from hedgerow.errors import DataError
from hedgerow.models.assemble import load, save
from hedgerow.vision.pooling import stitch, windows

SETTINGS = {"margins": [1, 1]}


def pooled(model, features, window):
    """Windows of a crop of 4 x 4 patches through the connector."""
    index, _ = windows(stitch((1, 1), side=4, margins=(0, 0)), pool=window)
    connector = model.hf.model.multi_modal_projector
    return index, connector(features, torch.from_numpy(index)).last_hidden_state


def one_window(model, patches):
    """Attention to the patches of one window, written out."""
    connector = model.hf.model.multi_modal_projector
    attention = connector.image_pooling_2d
    asked = getattr(attention, "query", patches.mean(0))
    query, keys, values = attention.q_proj(asked), attention.k_proj(patches), attention.v_proj(patches)
    heads = []
    for head in torch.arange(len(query)).chunk(2):
        scores = keys[:, head] @ query[head] / len(head) ** 0.5
        heads.append(scores.softmax(0) @ values[:, head])
    found = attention.o_proj(torch.cat(heads))
    mlp = connector.image_projector
    return mlp.down_proj(torch.nn.functional.silu(mlp.gate_proj(found)) * mlp.up_proj(found))


@pytest.mark.parametrize("query", ["mean", "learned"])
@pytest.mark.parametrize("window", [2, 3, 4])
@torch.no_grad()
def test_each_window_is_pooled_by_its_query(make_model, query, window):
    model = make_model(sizes={"query": query})
    features = torch.randn(1, 16, 32, generator=torch.Generator().manual_seed(0))
    index, found = pooled(model, features, window)
    assert index.shape == ((-(-4 // window)) ** 2, window**2)
    assert window != 3 or (index < 0).any()  # a window over the edge has fewer patches
    for place, row in enumerate(index):
        expected = one_window(model, features[0][torch.from_numpy(row[row >= 0])])
        assert float((found[place] - expected).norm() / expected.norm()) < 1e-5


def test_a_learned_query_is_one_vector_more_and_gets_a_gradient(make_model):
    mean, learned = make_model(), make_model(sizes={"query": "learned"})
    names = dict(learned.hf.named_parameters()).keys() - dict(mean.hf.named_parameters()).keys()
    assert names == {"model.multi_modal_projector.image_pooling_2d.query"}
    query = learned.hf.model.multi_modal_projector.image_pooling_2d.query
    assert any(query is parameter for parameter in learned.parameter_groups()["connector"])
    _, found = pooled(learned, torch.randn(1, 16, 32), 2)
    found.sum().backward()
    assert float(query.grad.norm()) > 0


@torch.no_grad()
def test_a_learned_query_survives_saving(make_model, tokenizer, toy, tmp_path):
    model = make_model(sizes={"query": "learned"}, attention="dense")
    save(model, tmp_path / "model", tokenizer=tokenizer, settings=SETTINGS)
    again = load(tmp_path / "model", attention="dense")
    for (name, one), (same, other) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == same
        assert torch.equal(one, other)
    row = toy(3).whole()
    assert torch.equal(model(row), again(row))


def test_plain_transformers_refuses_a_learned_query(make_model, tokenizer, tmp_path):
    save(make_model(sizes={"query": "learned"}), tmp_path / "m", tokenizer=tokenizer, settings=SETTINGS)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["model_type"] == "hedgerow_molmo2"
    with pytest.raises(ValueError, match="hedgerow_molmo2"):
        AutoConfig.from_pretrained(tmp_path / "m")
    with pytest.raises(ValueError, match="hedgerow_molmo2"):
        AutoModelForImageTextToText.from_pretrained(tmp_path / "m")


def test_a_query_of_another_kind_is_refused(make_model, tokenizer, tmp_path):
    save(make_model(sizes={"query": "learned"}), tmp_path / "m", tokenizer=tokenizer, settings=SETTINGS)
    path = tmp_path / "m" / "config.json"
    path.write_text(path.read_text().replace('"query": "learned"', '"query": "three"'))
    with pytest.raises(DataError, match="a query called three; this version knows learned"):
        load(tmp_path / "m")


@torch.no_grad()
def test_packed_trees_are_pooled_alike_with_a_learned_query(make_model, toy):
    model = make_model(sizes={"query": "learned"}, attention="dense")
    drawn = toy(5, trees=3)
    together = model(drawn.whole())
    for tree in drawn.trees():
        alone = model(drawn.whole(tree))
        assert float((together[np.sort(tree)] - alone).norm() / alone.norm()) < 1e-5
