"""The recipes of Molmo2's three stages hold the published settings, in a table of their own here."""

from itertools import pairwise
from pathlib import Path

import pytest

from hedgerow.flops import PUBLISHED
from hedgerow.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
STAGES = ("pretrain", "sft", "long")
# arXiv 2601.10611, section 3.2 and tables 12 and 14, and its public code: one column a stage.
TABLE = {
    "steps": (32_000, 30_000, 2_000),
    "rows_per_step": (128, 128, 128),
    "packing.budget.tokens": (2_560, 16_384, 36_864),
    "packing.budget.crops": (16, 128, 384),
    "packing.pool": (48, 48, 48),
    "packing.workers": (2, 6, 4),
    "context": (1, 1, 8),
    "optimizer.name": ("adamw",) * 3,
    "optimizer.betas": ((0.9, 0.95),) * 3,
    "optimizer.eps": (1e-6,) * 3,
    "optimizer.weight_decay": (0.0,) * 3,
    "optimizer.clip": (1.0,) * 3,
    "optimizer.vision.lr": (6e-6, 5e-6, 5e-6),
    "optimizer.vision.warmup": (2000, 200, 200),
    "optimizer.connector.lr": (2e-4, 5e-6, 5e-6),
    "optimizer.connector.warmup": (200, 200, 200),
    "optimizer.language.lr": (2e-5, 1e-5, 1e-5),
    "optimizer.language.warmup": (2000, 200, 200),
    "schedule.kind": ("cosine",) * 3,
    "schedule.floor": (0.1,) * 3,
    "schedule.hold": (0.0,) * 3,
    "precision": ("bf16",) * 3,
    "model.gradient_checkpointing": (True,) * 3,
    "weights.preset": ("uniform", "molmo2", "molmo2"),
    "loss.normalize": ("weights",) * 3,
    "loss.z_loss": (1e-4,) * 3,
    "vision.crop_size": (378,) * 3,
    "vision.patch_size": (14,) * 3,
    "vision.margins": ((4, 4),) * 3,
    "vision.max_crops": (8,) * 3,
    "vision.image_pooling": (2,) * 3,
    "vision.video_pooling": (3,) * 3,
    "vision.fps": (2.0,) * 3,
    "vision.sampling": ("uniform_last_frame",) * 3,
    "vision.groups": ("message",) * 3,
    "seed": (6198,) * 3,
}
GROUPS = {  # shares of the fine-tuning mixture that the paper prints, in percent
    "captions": 13.6, "image_qa": 22.7, "video_qa": 18.2, "image_pointing": 9.1, "video_points": 13.6,
    "track": 13.6, "text": 9.1,
}  # fmt: skip
OF_TRACKS = ("tracks", "ground", "single_point", "single_object")


def recipe_of(stage):
    return load_recipe(RECIPES / f"molmo2_{stage}.yaml")


def value(recipe, name):
    for key in name.split("."):
        recipe = getattr(recipe, key)
    return recipe


@pytest.mark.parametrize("stage", STAGES)
def test_settings_are_those_that_are_published(stage):
    recipe, column = recipe_of(stage), STAGES.index(stage)
    assert {name: value(recipe, name) for name in TABLE} == {name: row[column] for name, row in TABLE.items()}


def test_frames_and_high_resolution():
    sft, long = recipe_of("sft"), recipe_of("long")
    assert (sft.vision.max_frames, long.vision.max_frames) == (128, 384)
    for recipe in (sft, long):
        high = recipe.data.transforms.high_resolution
        assert (high.probability, high.max_crops, high.tasks) == (0.3, 24, ("pointing",))
    assert recipe_of("pretrain").data.transforms.high_resolution is None


def test_each_stage_starts_from_the_one_before():
    found = [recipe_of(stage) for stage in STAGES]
    models = RECIPES.parent / "models"
    assert found[0].model.checkpoint.resolve() == models / "molmo2"
    for before, recipe in pairwise(found):
        assert recipe.init.resolve() == (RECIPES.parent / before.out).resolve()
        assert Path(recipe.model.tokenizer).resolve() == recipe.init.resolve() / "model"


def test_mixtures_have_the_shares_that_are_published():
    assert dict(recipe_of("pretrain").data.groups) == {"captions": 0.6, "pointing": 0.3, "text": 0.1}
    sft, long = recipe_of("sft"), recipe_of("long")
    assert sft.data.groups == long.data.groups
    assert [one.path.name for one in sft.data.train] == [one.path.name for one in long.data.train]
    total = sum(sft.data.groups.values())
    shares = dict.fromkeys(GROUPS, 0.0)
    for name, rate in sft.data.groups.items():
        if name in OF_TRACKS:
            shares["track"] += 100 * rate / total
        elif name.startswith("video_points"):
            shares["video_points"] += 100 * rate / total
        else:
            shares["text" if name == "identity" else name] += 100 * rate / total
    assert shares == pytest.approx(GROUPS, abs=0.05)


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_context_divides_the_heads_of_every_size(size):
    sizes = PUBLISHED[size]
    assert sizes.heads % recipe_of("long").context == sizes.kv_heads % recipe_of("long").context == 0
