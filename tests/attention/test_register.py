"""Adopting models: what is set, what is counted, and what is refused. Each trap has a test of its own."""

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from transformers import (
    AttentionInterface,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)
from transformers.masking_utils import create_causal_mask
from transformers.models.molmo2.configuration_molmo2 import Molmo2Config
from transformers.models.molmo2.modeling_molmo2 import Molmo2Model

from hedgerow import visibility
from hedgerow.attention import BACKENDS, Dense, Masked, Visibility, adopt, choose, register
from hedgerow.attention.register import NAME, attend, default, trains_on
from hedgerow.errors import RecipeError, VisibilityError
from hedgerow.testing import random_forest

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64, "max_position_embeddings": 256,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


SLIDING = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 5}


def plain(implementation="sdpa", *, kind=Qwen3Model, config=None):
    """The same weights for every implementation."""
    register()
    torch.manual_seed(0)
    config = config or {Qwen3Model: Qwen3Config, LlamaModel: LlamaConfig}[kind](**SIZES)
    return kind._from_config(config, attn_implementation=implementation).eval()


def draw(seed=0, **sizes):
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, **sizes)
    return forest.take(rng.permutation(len(forest)))


def embed(forest, seed=1):
    return torch.randn(1, len(forest), 32, generator=torch.Generator().manual_seed(seed)) * 0.5


def forward(model, forest, **more):
    """Hidden states [N, 32] of three layers, with the count checked."""
    row = forest.row()
    seen = Visibility(Dense(row), layers=3)
    out = model(
        inputs_embeds=embed(forest), position_ids=row.position[None], visibility=seen, use_cache=False, **more
    )
    seen.check()
    return out.last_hidden_state[0]


def distance(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.fixture
def adopted():
    model = plain()
    assert adopt(model) == 3
    return model


def whole_model():
    shared = {name: SIZES[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads")}
    shared |= {"head_dim": 8, "num_key_value_heads": 4}
    config = Molmo2Config(
        text_config=SIZES,
        vision_config=shared | {"num_hidden_layers": 2},
        adapter_config=shared | {"text_hidden_size": 32, "vision_feature_layer": [1, 0]},
    )
    return Molmo2Model._from_config(config, attn_implementation="eager")


def test_only_the_language_model_of_a_whole_model_is_adopted():
    model, forest = whole_model(), draw(7)
    assert adopt(model) == 3
    parts = (model.language_model, model.vision_tower, model.multi_modal_projector)
    assert [part.config._attn_implementation for part in parts] == [NAME, "eager", "eager"]
    assert model.config.text_config is model.language_model.config
    forward(model.language_model, forest)


def test_the_head_of_a_model_is_no_hindrance():
    model = plain(kind=LlamaForCausalLM, config=LlamaConfig(**SIZES))
    assert adopt(model) == 3
    assert model.config is model.model.config
    forward(model.model, draw(7))


def test_adopting_leaves_mode_and_gradients_alone(adopted):
    assert not adopted.training
    training = plain().train()
    with torch.no_grad():
        adopt(training)
    assert training.training
    assert all(parameter.grad is None for parameter in training.parameters())


def test_trap_no_mask(adopted):
    """Without a mask, transformers would take position jumps for new documents."""
    forest = random_forest(np.random.default_rng(2), trees=2, nodes=6, vision=0)
    tokens, position = embed(forest), forest.row().position[None]
    with pytest.raises(VisibilityError, match="got no visibility; call the model with visibility="):
        adopted(inputs_embeds=tokens, position_ids=position)
    wrong = plain()(inputs_embeds=tokens, position_ids=position).last_hidden_state[0]
    assert distance(wrong, forward(adopted, forest)) > 1e-3


def test_trap_a_mask_of_two_axes(adopted):
    """It would make the row plainly causal; beside a visibility transformers drops it, so it is refused."""
    forest = random_forest(np.random.default_rng(2), trees=2, nodes=6, vision=0)
    ones = torch.ones(1, len(forest), dtype=torch.long)
    with pytest.raises(VisibilityError, match="Qwen3Model got an attention_mask beside the visibility"):
        forward(adopted, forest, attention_mask=ones)
    wrong = plain()(
        inputs_embeds=embed(forest), position_ids=forest.row().position[None], attention_mask=ones
    ).last_hidden_state[0]
    assert distance(wrong, forward(adopted, forest)) > 1e-3


def vision_model():
    """A model that makes a mask for each kind of layer before it calls its language model."""
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config=SIZES | SLIDING, vision_config=tower | {"image_size": 28, "patch_size": 14}
    )
    torch.manual_seed(0)
    return Gemma3ForConditionalGeneration(config).eval()


@pytest.mark.parametrize(
    "build",
    [
        lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
        lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
        vision_model,
    ],
)
def test_trap_a_mask_for_the_model_around_the_language_model(build):
    model, row = build(), draw(7).row()
    seen = Visibility(Dense(row), layers=adopt(model))
    tokens = torch.arange(len(row.order))[None] % 60 + 3
    ones = torch.ones(1, len(row.order), dtype=torch.long)
    whole = {"input_ids": tokens, "position_ids": row.position[None], "visibility": seen}
    for part in (model, model.model):
        with pytest.raises(VisibilityError, match="leave the mask out"):
            part(**whole, attention_mask=ones)
        with pytest.raises(VisibilityError, match="leave the mask out"):
            part(*([tokens, None, ones] if build is vision_model else [tokens, ones]), visibility=seen)
    assert seen.calls == 0
    model(**whole)
    seen.check()


def test_a_mask_or_no_positions_without_a_visibility_are_no_business_of_ours():
    model = plain()
    adopt(model)
    model.set_attn_implementation("sdpa")
    forest = draw(7)
    model(inputs_embeds=embed(forest), attention_mask=torch.ones(1, len(forest), dtype=torch.long))


def test_trap_forgotten_positions(adopted):
    forest = draw(7)
    with pytest.raises(VisibilityError, match=r"no position_ids.*give position_ids=row\.position\[None\]"):
        adopted(inputs_embeds=embed(forest), visibility=Visibility(Dense(forest.row()), layers=3))


def test_adopting_twice_looks_once(adopted):
    assert adopt(adopted) == 3
    assert len(adopted._forward_pre_hooks) == 1


def test_a_copy_of_a_model_still_looks(adopted):
    for model in (copy.deepcopy(adopted), pickle.loads(pickle.dumps(adopted))):
        with pytest.raises(VisibilityError, match="no position_ids"):
            model(inputs_embeds=embed(draw(7)), visibility=Visibility(Dense(draw(7).row()), layers=3))


def test_trap_a_mask_that_a_model_makes_itself():
    seen, x = Visibility(Masked(torch.ones(1, 1, 2, 2).bool()), layers=1), torch.randn(1, 2, 2, 4)
    with pytest.raises(VisibilityError, match="Identity got an attention_mask"):
        attend(torch.nn.Identity(), x, x, x, torch.ones(1, 1, 2, 2).bool(), visibility=seen)


def test_trap_a_mask_of_four_axes(adopted):
    with pytest.raises(VisibilityError, match="leave the mask out"):
        forward(adopted, draw(7), attention_mask=torch.ones(1, 1, len(draw(7)), len(draw(7))).bool())


def test_trap_visual_tokens_of_packed_trees_see_each_other(adopted):
    """The mask of transformers adds bidirectional blocks after it separated the documents of a row."""
    forest = random_forest(np.random.default_rng(3), trees=3, nodes=1, vision=9)
    position, visual = forest.row().position[None], torch.from_numpy(forest.group >= 0)
    theirs = create_causal_mask(
        plain().config, embed(forest), None, None, position, block_sequence_ids=visual.long()[None] - 1
    )
    strangers = torch.from_numpy(forest.owner[:, None] != forest.owner)
    assert (theirs[0, 0] & strangers).sum() > 20
    ours = torch.from_numpy(visibility.dense(forest.order, forest.end, forest.group))
    assert not (ours & strangers).any()
    for node in range(3):
        tokens = embed(forest).requires_grad_()
        seen = Visibility(Dense(forest.row()), layers=3)
        hidden = adopted(inputs_embeds=tokens, position_ids=position, visibility=seen).last_hidden_state[0]
        hidden[forest.owner == node].square().sum().backward()
        assert (tokens.grad[0, forest.owner != node] == 0.0).all()


def test_trap_a_second_model_of_the_same_config():
    config, forest = Qwen3Config(**SIZES), draw(2, trees=1, nodes=6)
    first = plain(config=config)
    adopt(first)
    before = forward(first, forest)
    second = plain(config=config)
    assert second.config._attn_implementation == "sdpa"
    assert torch.equal(forward(first, forest), before)
    second.set_attn_implementation("eager")
    assert torch.equal(forward(first, forest), before)


def test_trap_a_config_shared_without_adopting():
    """What adopting prevents; if it is not used, the count notices."""
    config = Qwen3Config(**SIZES)
    first = plain(NAME, config=config)
    forward(first, draw(7))
    plain(config=config)
    with pytest.raises(VisibilityError, match="ran 0 times"):
        forward(first, draw(7))


@pytest.mark.parametrize("later", ["sdpa", "eager"])
def test_trap_the_attention_is_set_again_later(adopted, later):
    adopted.set_attn_implementation(later)
    with pytest.raises(VisibilityError, match="ran 0 times with this visibility, the model has 3 layers"):
        forward(adopted, draw(7))


class OwnCode(torch.nn.Module):
    """A causal mean: mixes tokens without asking anybody."""

    def forward(self, hidden_states, **_):
        count = torch.arange(1, hidden_states.shape[1] + 1)[:, None]
        return hidden_states.cumsum(1) / count, None


def test_trap_a_layer_that_bypasses_the_interface():
    model = plain()
    model.layers[1].self_attn = OwnCode()
    with pytest.raises(VisibilityError, match=r"Qwen3Model attends 2 times .* in 3 layers, .* other meet;"):
        adopt(model)


def test_trap_a_layer_that_bypasses_the_interface_later(adopted):
    adopted.layers[1].self_attn = OwnCode()
    with pytest.raises(VisibilityError, match="ran 2 times with this visibility, the model has 3 layers"):
        forward(adopted, draw(7))


@pytest.mark.parametrize("shift", [1, -1])
def test_trap_a_layer_mixes_tokens_beside_its_attention(shift):
    model = plain()
    model.layers[1].mlp.register_forward_hook(lambda _, __, out: out + torch.roll(out, shift, 1) * 1e-6)
    with pytest.raises(VisibilityError, match=r"attends 3 times .* in 3 layers, .* from each other meet;"):
        adopt(model)


def test_a_model_without_attention_is_refused():
    model = plain()
    for layer in model.layers:
        layer.self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(VisibilityError, match=r"attends 0 times .* do not meet"):
        adopt(model)


LINEAR = {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
REFUSED = {
    "Qwen3_5Text": (LINEAR, "Qwen3_5TextModel has layers of kind linear_attention"),
    "OlmoHybrid": (LINEAR, "OlmoHybridModel has layers of kind linear_attention"),
    "Lfm2": ({"layer_types": ["conv", "full_attention", "conv"]}, "Lfm2Model has layers of kind conv"),
    "Mamba": ({}, "MambaModel has layers of kind linear_attention"),
    "FalconH1": ({}, "FalconH1Model has layers of kind hybrid"),
    "Llama4Text": ({"layer_types": ["chunked_attention"] * 3}, "Llama4TextModel has .* chunked_attention"),
    "Bloom": ({"n_head": 4, "n_layer": 1}, "BloomModel does not attend through the AttentionInterface"),
    "Gemma2": (
        SLIDING,
        r"Gemma2Attention needs softcap \(scores .* cap\), which no backend computes; choose",
    ),
    "Gemma3Text": (SLIDING | {"use_bidirectional_attention": True}, "Gemma3Attention attends in both direct"),
    "GptOss": (
        SLIDING | {"num_local_experts": 2},
        r"GptOssAttention needs s_aux \(attention sinks: a learnt score .*\), which no backend computes",
    ),
    "GPT2": ({"n_head": 4, "n_embd": 32, "n_layer": 1}, "attention dropout 0.1 is not supported"),
    "Qwen2Moe": (
        SLIDING | {"use_sliding_window": True, "num_experts": 2, "num_experts_per_tok": 1},
        r"Qwen2MoeModel have windows \[5, None, 5\] and ask attention for \[None, None, None\]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_honour_the_rule_is_refused_by_name(name):
    changes, message = REFUSED[name]
    kind, config = (getattr(transformers, f"{name}{part}") for part in ("Model", "Config"))
    given = config(**SIZES | changes)
    model = kind(given).train()
    before = given.to_dict(), model.config._attn_implementation
    with pytest.raises(VisibilityError, match=message):
        adopt(model)
    assert all(getattr(module, "config", given) is given for module in model.modules())
    assert (given.to_dict(), model.config._attn_implementation) == before
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_refused_model_attends_as_before():
    model, forest = plain(), draw(7)
    given = {"inputs_embeds": embed(forest), "position_ids": forest.row().position[None]}
    honest, before = model.layers[1].self_attn, model(**given).last_hidden_state
    model.layers[1].self_attn = OwnCode()
    with pytest.raises(VisibilityError, match="attends 2 times"):
        adopt(model)
    model.layers[1].self_attn = honest
    assert torch.equal(model(**given).last_hidden_state, before)


@pytest.mark.parametrize(
    "given",
    [object(), "gpt2", torch.nn.Linear(2, 2), whole_model().vision_tower],
    ids=lambda given: type(given).__name__,
)
def test_what_is_no_language_model_is_refused(given):
    with pytest.raises(
        VisibilityError, match=rf"got {type(given).__name__}, which has no .*; give a model such"
    ):
        adopt(given)


def test_the_count_finds_a_visibility_used_twice(adopted):
    forest = draw(7)
    seen = Visibility(Dense(forest.row()), layers=3)
    for _ in range(2):
        adopted(inputs_embeds=embed(forest), position_ids=forest.row().position[None], visibility=seen)
    with pytest.raises(VisibilityError, match="ran 6 times"):
        seen.check()


def test_decoding_with_a_cache_through_masked_equals_one_forward(adopted):
    embedded, position = torch.randn(2, 6, 32), torch.arange(6)[None]
    causal = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    with torch.no_grad():
        whole = adopted(
            inputs_embeds=embedded, position_ids=position, visibility=Visibility(Masked(causal), layers=3)
        ).last_hidden_state
        start = adopted(
            inputs_embeds=embedded[:, :5],
            position_ids=position[:, :5],
            use_cache=True,
            visibility=Visibility(Masked(causal[:, :, :5, :5]), layers=3),
        )
        last = adopted(
            inputs_embeds=embedded[:, 5:], position_ids=position[:, 5:],
            past_key_values=start.past_key_values,
            visibility=Visibility(Masked(causal[:, :, 5:]), layers=3),
        ).last_hidden_state  # fmt: skip
    assert distance(last[:, 0], whole[:, 5]) < 1e-5


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
    seen = Visibility(Dense(forest.row()), layers=1)
    tensors = torch.randn(3, 1, 2, len(forest), 4)
    with pytest.raises(VisibilityError, match=message):
        attend(torch.nn.Identity(), *tensors, None, visibility=seen, **given)
    assert seen.calls == 0


def test_the_scale_of_a_module_without_one_is_the_usual():
    seen, x = Visibility(Masked(torch.ones(1, 1, 2, 2).bool()), layers=1), torch.randn(1, 2, 2, 4)
    out, weights = attend(torch.nn.Identity(), x, x, x, None, visibility=seen)
    wanted = (x @ x.mT / 2).softmax(-1) @ x
    torch.testing.assert_close(out, wanted.transpose(1, 2))
    assert weights is None


def test_registering_twice_changes_nothing():
    register()
    register()
    assert AttentionInterface()[NAME] is attend


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match="'dence' does not exist; choose one of dense, segmented, flex"):
        choose("dence")


def test_each_device_has_its_backends():
    assert trains_on(torch.device("cpu")) == ("dense", "segmented")
    assert trains_on(torch.device("cuda")) == ("dense", "flex")
    assert trains_on(torch.device("mps")) == ("dense",)
    assert set(BACKENDS) == {"dense", "segmented", "flex"}


@pytest.mark.parametrize(
    ("device", "blocks", "name"),
    [
        ("cpu", object(), "segmented"),
        ("cuda", object(), "flex"),
        ("cuda", None, "dense"),
        ("mps", object(), "dense"),
    ],
)
def test_a_row_gets_the_backend_that_suits_it(device, blocks, name):
    order = SimpleNamespace(device=torch.device(device))
    assert default(SimpleNamespace(order=order, blocks=blocks)) == name
