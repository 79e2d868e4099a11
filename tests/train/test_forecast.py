"""What the real run takes, held to plain arithmetic."""

import dataclasses

import pytest

from hedgerow.errors import RecipeError
from hedgerow.flops import PUBLISHED, FlopModel
from hedgerow.models.lora_spec import LoraSpec
from hedgerow.models.sizes import published_config
from hedgerow.packing.plan import plan_rows
from hedgerow.recipe import load_recipe
from hedgerow.sequence import Budget, Cost, Costs
from hedgerow.testing import tiny_recipe
from hedgerow.train.forecast import Cluster, forecast, walked

COSTS = Costs.of([Cost(tokens=200, crops=1, pairs=20_000), Cost(tokens=300, crops=3, pairs=50_000)] * 3)


@pytest.fixture
def recipe(tmp_path):
    changes = {"rows_per_step": "12", "model.gradient_checkpointing": "true", "steps": "50"}
    return load_recipe(tiny_recipe(tmp_path, tmp_path / "trees.jsonl"), changes)


def made(recipe, **options):
    walk = walked(COSTS, plan_rows(COSTS, Budget(tokens=500, crops=4)), targets=0.1)
    cluster = Cluster.of(recipe, options.pop("gpus", 4), **options)
    return forecast(recipe, published_config("8B"), walk, cluster, name="8B")


def test_a_walk_is_the_mean_of_its_rows():
    walk = walked(COSTS, plan_rows(COSTS, Budget(tokens=500, crops=4)), targets=0.1)
    assert (walk.examples, walk.rows, walk.examples_per_row) == (6, 3, 2.0)
    assert walk.row == {"tokens": 500.0, "crops": 4.0, "pairs": 70_000.0, "targets": 50.0}
    assert walk.fill == {"tokens": 1.0, "crops": 1.0}


def test_flops_of_a_row_a_step_and_the_run(recipe):
    found = made(recipe, tflops=100.0)
    model = FlopModel.of("8B", PUBLISHED["8B"], recompute=True)
    (row,) = model([{"tokens": 500, "crops": 4, "pairs": 70_000, "targets": 50}])
    assert found.work.total == pytest.approx(row)
    assert found.step_flops == pytest.approx(3 * row), "12 rows on 4 GPUs"
    assert found.hours == pytest.approx(3 * row * 50 / 100e12 / 3600)
    plain = found.to_dict()
    assert plain["flops_of_the_run"] == pytest.approx(12 * 50 * row)
    assert (plain["tokens_per_step"], plain["crops_of_the_run"]) == (6000, 2400)
    assert "as you assume" in str(found)
    assert made(recipe).hours is None
    assert "hours" not in str(made(recipe))


def test_a_context_shares_the_row_but_not_the_weights(recipe):
    shared = recipe.model_copy(update={"context": 2})
    alone, pair = made(recipe).memory, made(shared).memory
    assert pair.states == alone.states
    assert pair.language == alone.language / 2, "a budget of 400 tokens and 16 crops"
    assert pair.vision == alone.vision / 2
    assert made(shared).step_flops == made(recipe).step_flops


def test_what_is_frozen_has_no_gradient_and_no_moments(recipe):
    still = recipe.optimizer.language.model_copy(update={"lr": 0.0})
    frozen = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"language": still})})
    found, parameters = made(frozen).memory, made(recipe).parameters
    assert found.gradients == 4 * (parameters.vision + parameters.connector)
    assert found.moments == 2 * found.gradients
    assert found.weights == 4 * parameters.total
    upper = "as if all parts were trained whole: it is less"
    assert [upper in str(made(one)) for one in (frozen, recipe)] == [True, False]


def test_adapters_alone_have_gradients_and_moments(recipe):
    still = recipe.optimizer.vision.model_copy(update={"lr": 0.0})
    optimizer = recipe.optimizer.model_copy(update={"vision": still})
    lora = LoraSpec(("language",), rank=16)
    found = made(recipe.model_copy(update={"lora": lora, "optimizer": optimizer}))
    sizes, parameters = PUBLISHED["8B"], found.parameters
    pairs = 2 * (sizes.hidden + sizes.queries) + 2 * (sizes.hidden + sizes.keys)
    adapters = 16 * sizes.layers * (pairs + 3 * (sizes.hidden + sizes.mlp))
    assert found.trained.adapters == adapters
    assert found.memory.weights == 4 * (parameters.total + adapters)
    assert found.memory.gradients == 4 * (parameters.connector + adapters)
    assert found.to_dict()["trained"]["total"] == parameters.connector + adapters
    assert "vision frozen, connector, language by adapters" in str(found)
    assert found.memory.peak < 0.5 * made(recipe).memory.peak


def test_a_gpu_that_is_too_small_is_told(recipe):
    found = made(recipe)
    assert found.memory.peak > 80e9
    assert "it does not fit one of 80 GB" in str(found)
    assert "more GPUs do not help" in str(found)
    assert "gradient_checkpointing" not in str(found), "it is on"
    model = recipe.model.model_copy(update={"gradient_checkpointing": False})
    assert "model.gradient_checkpointing: true, shorter rows" in str(
        made(recipe.model_copy(update={"model": model}))
    )
    little = dataclasses.replace(found, memory=dataclasses.replace(found.memory, moments=0, gradients=0))
    assert "; it fits one of 80 GB" in str(little)
    assert "to fit" not in str(little)


@pytest.mark.parametrize(
    ("rows", "context", "gpus"), [(12, 1, 12), (128, 1, 128), (128, 8, 128), (3, 2, 6), (300, 1, 100)]
)
def test_by_default_there_are_as_many_gpus_as_rows_allow(recipe, rows, context, gpus):
    given = recipe.model_copy(update={"rows_per_step": rows, "context": context})
    assert Cluster.of(given, None).gpus == gpus


@pytest.mark.parametrize("gpus", [0, -4, 5, 24])
def test_rows_divide_among_the_gpus(recipe, gpus):
    with pytest.raises(RecipeError, match=f"gpus {gpus}: rows_per_step is 12 and 1 GPUs.*give 1 times a div"):
        Cluster.of(recipe, gpus)


def test_a_speed_is_above_nothing(recipe):
    with pytest.raises(RecipeError, match="tflops 0: give what a GPU does"):
        Cluster.of(recipe, 4, tflops=0.0)
