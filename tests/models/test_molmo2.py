import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import Molmo2ForConditionalGeneration

from hedgerow.errors import RecipeError, VisibilityError
from hedgerow.models.assemble import ModelSpec
from hedgerow.models.molmo2 import Molmo2

BACKENDS = pytest.mark.parametrize("attention", ["dense", "segmented"])
SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])


def losses(model, row):
    """Weighted loss of each sample."""
    logits = model.head(model(row)[row.source])
    each = row.weight * F.cross_entropy(logits, row.target, reduction="none")
    return each.new_zeros(len(row.samples)).index_add(0, row.sample, each)


def gradients(model, loss):
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(model.parameters(), found, strict=True)
        ]
    )


def error(ours, theirs):
    return float((ours.detach() - theirs.detach()).norm() / theirs.detach().norm())


def watched(model, row):
    embeddings = model.embed(row).detach().requires_grad_()
    return embeddings, model.language(embeddings, row)


@BACKENDS
@SEEDS
def test_a_packed_row_has_the_losses_of_its_trees_alone(toy, make_model, attention, seed):
    model, trees = make_model(attention=attention), toy(seed, trees=3)
    alone = torch.cat([losses(model, trees.whole(where)) for where in trees.trees()])
    packed = losses(model, trees.whole())
    assert len(packed) > 2
    assert error(packed, alone) < 1e-5


@BACKENDS
@SEEDS
def test_physical_order_changes_no_loss(toy, make_model, attention, seed):
    model, trees = make_model(attention=attention), toy(seed)
    shuffled = np.random.default_rng(seed).permutation(len(trees.forest))
    assert error(losses(model, trees.whole(shuffled)), losses(model, trees.whole())) < 1e-5


@BACKENDS
@SEEDS
def test_a_tree_has_the_losses_and_gradients_of_its_conversations(toy, make_model, as_row, attention, seed):
    model, trees = make_model(attention=attention), toy(seed, trees=1, nodes=6)
    tree = losses(model, trees.whole())
    nodes = [node for node in trees.nodes if trees.conversation(node).samples]
    separate = torch.cat([losses(model, as_row(trees.conversation(node))) for node in nodes])
    assert error(tree, separate) < 1e-5
    assert error(gradients(model, tree.sum()), gradients(model, separate.sum())) < 1e-5


@BACKENDS
@SEEDS
def test_no_branch_and_no_tree_moves_the_loss_of_another(toy, make_model, attention, seed):
    model, trees = make_model(attention=attention), toy(seed)
    row = trees.whole()
    embeddings, hidden = watched(model, row)
    for number, sample in enumerate(row.samples):
        own = row.sample == number
        loss = F.cross_entropy(model.head(hidden[row.source[own]]), row.target[own], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, embeddings, retain_graph=True)
        path = torch.from_numpy(np.isin(trees.forest.owner, trees.forest.path(int(sample.branch))))
        assert (gradient[~path] == 0.0).all()
        assert gradient[path].abs().max() > 0.0


@BACKENDS
@SEEDS
def test_no_target_is_visible_to_its_own_source(toy, make_model, attention, seed):
    model, trees = make_model(attention=attention), toy(seed, messages=4, trees=1, nodes=3)
    row = trees.whole()
    embeddings, hidden = watched(model, row)
    targets = np.flatnonzero(trees.supervised())
    for number in range(0, len(targets), 3):
        logits = model.head(hidden[row.source[number]])
        (gradient,) = torch.autograd.grad(logits.square().sum(), embeddings, retain_graph=True)
        assert (gradient[targets[number] :] == 0.0).all()
        assert gradient[row.source[number]].abs().max() > 0.0


@SEEDS
def test_backends_agree_through_the_model(toy, make_model, seed):
    row, models = toy(seed).whole(), [make_model(attention=name) for name in ("dense", "segmented")]
    dense, segmented = (gradients(model, losses(model, row).sum()) for model in models)
    assert error(segmented, dense) < 1e-5


def test_a_row_without_media_runs_neither_vision_tower_nor_connector(toy, make_model):
    model = make_model()
    for part in (model.hf.model.vision_tower, model.hf.model.multi_modal_projector):
        part.register_forward_hook(lambda *_: pytest.fail("vision ran without media"))
    row = toy(3, vision=0).whole()
    assert row.vision is None
    losses(model, row).sum().backward()
    assert model.hf.lm_head.weight.grad is not None


def test_features_stand_at_their_slots_and_nowhere_else(toy, make_model):
    model, row = make_model(), toy(0).whole()
    added = model.embed(row) - model.hf.get_input_embeddings()(row.tokens)
    assert torch.allclose(added[row.slot], model.features(row.vision), atol=1e-5)
    added[row.slot] = 0.0
    assert (added == 0.0).all()


def test_numpy_rows_are_moved_to_the_model(toy, make_model, as_row):
    model, row = make_model(), toy(0).whole()
    arrays = dataclasses.replace(
        row, **{name: getattr(row, name).numpy() for name in ("tokens", "position", "order")}
    )
    assert torch.equal(model(arrays), model(row))


def test_more_slots_than_windows_are_refused(toy, make_model):
    row = toy(0).whole()
    short = dataclasses.replace(row.vision, pooling=row.vision.pooling[1:])
    with pytest.raises(ValueError, match="one pooling window"):
        make_model()(dataclasses.replace(row, vision=short))


def test_crops_of_another_size_are_refused(toy, make_model):
    row = toy(0).whole()
    wide = dataclasses.replace(row.vision, crops=torch.zeros(1, 8, 10, 3, dtype=torch.uint8))
    with pytest.raises(RecipeError, match="crops of 8x10 pixels"):
        make_model()(dataclasses.replace(row, vision=wide))


def test_positions_with_three_axes_are_refused(toy, make_model):
    row = toy(0).whole()
    with pytest.raises(ValueError, match="along 1 axis"):
        make_model()(dataclasses.replace(row, position=row.position.expand(3, -1)))


def test_an_unknown_backend_is_refused(make_model):
    with pytest.raises(RecipeError, match="'fast' does not exist"):
        make_model(attention="fast")


def test_a_config_flipped_to_sdpa_is_caught(toy, make_model):
    model, row = make_model(), toy(0).whole()
    model.hf.model.language_model.config._attn_implementation = "sdpa"
    with pytest.raises(VisibilityError, match="ran 0 times"):
        model(row)


def test_a_second_model_of_the_same_config_leaves_the_first_alone(toy, make_model):
    first, row = make_model(), toy(0).whole()
    config = first.hf.config
    hf = Molmo2ForConditionalGeneration(config)
    one, other = Molmo2(hf, attention="dense"), Molmo2ForConditionalGeneration(config)
    assert other.config._attn_implementation != "hedgerow"
    assert one.hf.config is not config
    before = one(row)
    other.set_attn_implementation("sdpa")
    first.hf.set_attn_implementation("eager")
    assert torch.equal(one(row), before)


def test_only_the_language_model_gets_the_registered_attention(make_model):
    model = make_model(vision_attention="eager").hf.model
    parts = (model.language_model, model.vision_tower, model.multi_modal_projector)
    assert [part.config._attn_implementation for part in parts] == ["hedgerow", "eager", "eager"]
    assert model.config.text_config is model.language_model.config


def test_vision_attention_changes_nothing(toy, make_model):
    row = toy(0).whole()
    assert error(make_model(vision_attention="eager")(row), make_model()(row)) < 1e-5


def test_checkpointing_changes_no_gradient(toy, make_model):
    row = toy(0).whole()
    plain, saving = make_model().train(), make_model(gradient_checkpointing=True).train()
    runs = []
    saving.hf.model.language_model.layers[0].mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    loss = losses(saving, row).sum()
    assert len(runs) == 1
    assert error(gradients(saving, loss), gradients(plain, losses(plain, row).sum())) < 1e-6
    assert len(runs) == 2


@BACKENDS
def test_bf16_autocast_trains_close_to_fp32(toy, make_model, attention):
    model, row = make_model(attention=attention), toy(1).whole()
    exact = losses(model, row).sum()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = losses(model, row).sum()
    assert error(rough, exact) < 0.05
    assert error(gradients(model, rough), gradients(model, exact)) < 0.3


@BACKENDS
def test_float64_runs(toy, make_model, attention):
    row = toy(1).whole()
    double = make_model(attention=attention).double()(row)
    assert double.dtype == torch.float64
    assert error(double, make_model(attention=attention)(row)) < 1e-5


def test_parameter_groups_hold_every_trainable_parameter_once(make_model):
    model = make_model()
    model.hf.model.vision_tower.requires_grad_(False)
    model.hf.model.language_model.layers[1].mlp.down_proj.weight = model.hf.model.language_model.layers[
        0
    ].mlp.down_proj.weight
    groups = model.parameter_groups()
    assert list(groups) == ["vision", "connector", "language"]
    assert groups["vision"] == []
    found = [id(p) for group in groups.values() for p in group]
    assert sorted(found) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    connector = {id(p) for p in model.hf.model.multi_modal_projector.parameters()}
    assert {id(p) for p in groups["connector"]} == connector


def test_the_head_has_no_row_for_visual_tokens(make_model, vocabulary):
    model = make_model()
    assert model.head(torch.zeros(2, 32)).shape == (2, vocabulary["<im_start>"])


def test_default_weights_of_transformers_are_reported_as_blind(toy, make_model):
    row = toy(0).whole()
    blind = make_model(ModelSpec(crop_size=8, patch_size=2, initializer_range=0.02)).scale_report(row)
    assert blind.ratio < 1e-3
    assert "initializer_range" in blind.problem


def test_the_defaults_of_a_fresh_model_are_not_reported(toy, make_model):
    report = make_model(ModelSpec(crop_size=8, patch_size=2)).scale_report(toy(0).whole())
    assert report.between is not None
    assert report.problem == ""


def test_features_that_tell_no_crops_apart_are_reported(toy, make_model):
    row = toy(0).whole()
    vision = row.vision
    windows = torch.arange(len(vision.pooling))[:, None] % 2 * vision.patches + torch.arange(4)
    crops = vision.crops[:1].repeat(2, 1, 1, 1)
    crops[1, 0, 0, 0] ^= 1
    same = dataclasses.replace(row, vision=dataclasses.replace(vision, crops=crops, pooling=windows))
    report = make_model(ModelSpec(crop_size=8, patch_size=2)).scale_report(same)
    assert report.between < 1e-3
    assert "between crops" in report.problem


def test_crops_of_the_same_pixels_say_nothing_of_what_the_model_sees(toy, make_model):
    """An image as small as a crop is its own overview."""
    row, model = toy(0).whole(), make_model(ModelSpec(crop_size=8, patch_size=2))
    crops = row.vision.crops
    windows = torch.arange(len(row.vision.pooling))[:, None] % 3 * row.vision.patches + torch.arange(4)

    def between(*chosen):
        vision = dataclasses.replace(row.vision, crops=torch.stack(chosen), pooling=windows)
        return model.scale_report(dataclasses.replace(row, vision=vision)).between

    one, other = crops[:2]
    assert between(one, one, one) is None
    assert between(one, one, other) == pytest.approx(between(one, other, other), rel=1e-5)


def test_the_part_between_crops_is_what_the_mean_over_crops_leaves(toy, make_model):
    model, row = make_model(), toy(0).whole()
    vision = row.vision
    count = len(vision.crops)
    windows = torch.arange(count * 2)[:, None] // 2 * vision.patches + torch.arange(8).reshape(2, 4).repeat(
        count, 1
    )
    row = dataclasses.replace(
        row, slot=torch.arange(count * 2), vision=dataclasses.replace(vision, pooling=windows)
    )
    features = model.features(row.vision).detach().reshape(count, 2, -1)
    expected = (features - features.mean(0)).square().mean().sqrt()
    assert model.scale_report(row).between == pytest.approx(float(expected), rel=1e-4)


def test_a_scale_report_needs_media(toy, make_model):
    with pytest.raises(ValueError, match="no media"):
        make_model().scale_report(toy(3, vision=0).whole())
