"""The hook reaches real models: tiny, random, built from their configs."""

import numpy as np
import pytest
import torch
from transformers import (
    AttentionInterface,
    LlamaConfig,
    LlamaModel,
    Olmo3Config,
    Olmo3Model,
    Qwen3Config,
    Qwen3Model,
)
from transformers.models.molmo2.configuration_molmo2 import Molmo2Config, Molmo2TextConfig
from transformers.models.molmo2.modeling_molmo2 import Molmo2Model, Molmo2TextModel

from hedgerow.attention import BACKENDS, Dense, Masked, Segmented, Visibility, choose, register
from hedgerow.attention.register import NAME, attend
from hedgerow.errors import RecipeError, VisibilityError
from hedgerow.testing import random_forest

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64, "max_position_embeddings": 256,
}  # fmt: skip
WINDOW = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
MODELS = {
    "qwen3": lambda: (Qwen3Model, Qwen3Config(**SIZES)),
    "llama": lambda: (LlamaModel, LlamaConfig(**SIZES)),
    "olmo3": lambda: (Olmo3Model, Olmo3Config(**SIZES, **WINDOW)),
    "molmo2": lambda: (Molmo2TextModel, Molmo2TextConfig(**SIZES)),
}
CASES = [
    (model, name) for model in MODELS for name in sorted(BACKENDS) if (model, name) != ("olmo3", "segmented")
]


def build(model, implementation=NAME):
    """The same weights for every implementation."""
    register()
    torch.manual_seed(0)
    kind, config = MODELS[model]()
    return kind._from_config(config, attn_implementation=implementation).eval()


def draw(seed=0, **sizes):
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, **sizes)
    return forest.take(rng.permutation(len(forest)))


def embed(forest, seed=1):
    return torch.randn(1, len(forest), 32, generator=torch.Generator().manual_seed(seed)) * 0.5


def forward(model, backend, embedded, position):
    """Hidden states [N, 32], with the count checked."""
    visibility = Visibility(backend, layers=len(model.layers))
    out = model(inputs_embeds=embedded, position_ids=position[None], visibility=visibility, use_cache=False)
    visibility.check()
    return out.last_hidden_state[0]


def distance(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize(("model", "name"), CASES)
def test_each_node_gets_what_its_own_conversation_gets_from_plain_transformers(model, name):
    forest = draw(2, trees=2, nodes=4, vision=0)
    embedded, row = embed(forest), forest.row()
    with torch.no_grad():
        packed = forward(build(model), choose(name)(row), embedded, row.position)
        plain = build(model, "sdpa")
        for node in range(len(forest.parents)):
            path = np.flatnonzero(np.isin(forest.owner, forest.path(node)))
            path = path[np.argsort(forest.position[path])]
            alone = plain(inputs_embeds=embedded[:, path], use_cache=False).last_hidden_state[0]
            own = forest.owner[path] == node
            assert distance(packed[path[own]], alone[own]) < 1e-5


@pytest.mark.parametrize(("model", "name"), CASES)
def test_packed_equals_alone_with_vision_groups(model, name):
    forest = draw(3, trees=3)
    embedded, language = embed(forest), build(model)
    with torch.no_grad():
        packed = forward(language, choose(name)(forest.row()), embedded, forest.row().position)
        for root in np.flatnonzero(np.array(forest.parents) < 0):
            nodes = [n for n in range(len(forest.parents)) if forest.path(n)[0] == root]
            where = np.flatnonzero(np.isin(forest.owner, nodes))
            tree = forest.take(where)
            first = forest.order[where].min()
            row = tree.row()
            row.order.sub_(int(first))
            row.end.sub_(int(first))
            alone = forward(language, choose(name)(row), embedded[:, where], row.position)
            assert distance(packed[where], alone) < 1e-5


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize(("model", "name"), CASES)
def test_no_gradient_leaks_plain_and_checkpointed(model, name, checkpointed):
    forest = draw(4, trees=2, nodes=4)
    language = build(model).train()
    if checkpointed:
        language.activation_checkpointing_enable()
    embedded = embed(forest).requires_grad_()
    hidden = forward(language, choose(name)(forest.row()), embedded, forest.row().position)
    for node in range(len(forest.parents)):
        (grad,) = torch.autograd.grad(hidden[forest.owner == node].sum(), embedded, retain_graph=True)
        seen = np.isin(forest.owner, forest.path(node))
        assert (grad[0, ~seen] == 0.0).all()
        assert (grad[0, forest.owner == node] != 0.0).any(-1).all()


@pytest.mark.parametrize(("model", "name"), CASES)
def test_checkpointing_changes_no_gradient(model, name):
    forest = draw(5)
    embedded, position, grads = embed(forest), forest.row().position[None], []
    for checkpointed, calls in ((False, 3), (True, 6)):
        language = build(model).train()
        if checkpointed:
            language.activation_checkpointing_enable()
        visibility = Visibility(choose(name)(forest.row()), layers=3)
        out = language(inputs_embeds=embedded, position_ids=position, visibility=visibility, use_cache=False)
        visibility.check()
        out.last_hidden_state.square().sum().backward()
        assert visibility.calls == calls
        grads.append(torch.cat([p.grad.flatten() for p in language.parameters() if p.grad is not None]))
    assert torch.equal(*grads)


def test_in_a_whole_model_it_can_be_set_for_the_language_model_alone():
    register()
    shared = {
        name: SIZES[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads", "head_dim")
    }
    shared["num_key_value_heads"] = 4
    config = Molmo2Config(
        text_config=SIZES,
        vision_config=shared | {"num_hidden_layers": 2},
        adapter_config=shared | {"text_hidden_size": 32, "vision_feature_layer": [1, 0]},
    )
    model, forest = Molmo2Model._from_config(config, attn_implementation={"text_config": NAME}), draw(7)
    assert model.config.vision_config._attn_implementation == "sdpa"
    forward(model.language_model, Dense(forest.row()), embed(forest), forest.row().position)


def test_segmented_refuses_a_model_with_sliding_windows():
    forest = draw(6, trees=1, nodes=6)
    assert forest.position.max() >= WINDOW["sliding_window"]
    with pytest.raises(VisibilityError, match=r"a layer looks back 5 positions .* use the backend 'dense'"):
        forward(build("olmo3"), Segmented(forest.row()), embed(forest), forest.row().position)


def test_decoding_with_a_cache_through_masked_equals_one_forward():
    model, embedded = build("qwen3"), torch.randn(2, 6, 32)
    causal = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    with torch.no_grad():
        whole = model(
            inputs_embeds=embedded, visibility=Visibility(Masked(causal), layers=3)
        ).last_hidden_state
        start = model(
            inputs_embeds=embedded[:, :5],
            use_cache=True,
            visibility=Visibility(Masked(causal[:, :, :5, :5]), layers=3),
        )
        last = model(
            inputs_embeds=embedded[:, 5:], past_key_values=start.past_key_values,
            visibility=Visibility(Masked(causal[:, :, 5:]), layers=3),
        ).last_hidden_state  # fmt: skip
    assert distance(last[:, 0], whole[:, 5]) < 1e-5


def test_a_forward_without_a_visibility_is_refused():
    with pytest.raises(VisibilityError, match="got no visibility; call the model with visibility="):
        build("llama")(inputs_embeds=torch.zeros(1, 3, 32))


@pytest.mark.parametrize("swapped", ["sdpa", "eager"])
def test_the_count_finds_a_model_whose_attention_was_swapped_back(swapped):
    model, forest = build("qwen3"), draw(7)
    model.config._attn_implementation = swapped
    with pytest.raises(
        VisibilityError, match="ran 0 times with this visibility, the model has 3 layers; set attn"
    ):
        forward(model, Dense(forest.row()), embed(forest), forest.row().position)


def test_the_count_finds_a_visibility_used_twice():
    model, forest = build("qwen3"), draw(7)
    visibility = Visibility(Dense(forest.row()), layers=3)
    for _ in range(2):
        model(inputs_embeds=embed(forest), position_ids=forest.row().position[None], visibility=visibility)
    with pytest.raises(VisibilityError, match="ran 6 times"):
        visibility.check()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dropout": 0.1}, "attention dropout 0.1 is not supported"),
        ({"softcap": 30.0}, "needs softcap"),
        ({"s_aux": torch.zeros(2)}, "needs s_aux"),
    ],
)
def test_layers_that_need_other_arithmetic_are_refused(given, message):
    forest = draw(7)
    visibility = Visibility(Dense(forest.row()), layers=1)
    tensors = torch.randn(3, 1, 2, len(forest), 4)
    with pytest.raises(VisibilityError, match=message):
        attend(torch.nn.Identity(), *tensors, None, visibility=visibility, **given)
    assert visibility.calls == 0


def test_a_mask_beside_the_visibility_is_refused():
    visibility, x = Visibility(Masked(torch.ones(1, 1, 2, 2).bool()), layers=1), torch.randn(1, 2, 2, 4)
    with pytest.raises(VisibilityError, match="leave the mask out"):
        attend(torch.nn.Identity(), x, x, x, torch.ones(1, 1, 2, 2).bool(), visibility=visibility)


def test_the_scale_of_a_module_without_one_is_the_usual():
    visibility, x = Visibility(Masked(torch.ones(1, 1, 2, 2).bool()), layers=1), torch.randn(1, 2, 2, 4)
    out, weights = attend(torch.nn.Identity(), x, x, x, None, visibility=visibility)
    wanted = (x @ x.mT / 2).softmax(-1) @ x
    torch.testing.assert_close(out, wanted.transpose(1, 2))
    assert weights is None


def test_registering_twice_changes_nothing():
    register()
    register()
    assert AttentionInterface()[NAME] is attend


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match="'dence' does not exist; choose one of dense, segmented"):
        choose("dence")
