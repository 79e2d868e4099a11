import json
import shutil

import pytest
import torch

from hedgerow.errors import RecipeError
from hedgerow.recipe import Recipe
from hedgerow.train import checkpoint
from hedgerow.train.checkpoint import State


def state(step):
    return State(step, {"adamw": {"moment": torch.full((2,), float(step))}}, {"row": step})


def save(toy, folder, step, **changes):
    model = toy.Toy(seed=step)
    return checkpoint.save(folder / "run", model, state(step), toy.recipe(folder, **changes)), model


def test_what_was_saved_is_loaded(toy, tmp_path):
    folder, model = save(toy, tmp_path, 3)
    other = toy.Toy(seed=99)
    checkpoint.load_weights(folder, other)
    found = checkpoint.load_state(folder, toy.recipe(tmp_path))
    assert (found.step, found.loader) == (3, {"row": 3})
    assert torch.equal(found.optimizers["adamw"]["moment"], torch.full((2,), 3.0))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert json.loads((folder / "recipe.json").read_text())["steps"] == 6


def test_tied_weights_are_saved_once_and_stay_tied(toy, tmp_path):
    model, other = toy.Toy(), toy.Toy(seed=1)
    for item in (model, other):
        item.head.weight = item.embed.weight
    folder = checkpoint.save(tmp_path / "run", model, state(1), toy.recipe(tmp_path))
    checkpoint.load_weights(folder, other)
    assert other.head.weight is other.embed.weight
    assert torch.equal(other.head.weight, model.head.weight)


def test_the_last_ones_are_kept_and_the_marker_names_the_newest(toy, tmp_path):
    for step in (1, 2, 3, 12):
        folder, _ = save(toy, tmp_path, step, keep=2)
    saved = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert saved == ["latest", "step-00000003", "step-00000012"]
    assert (
        (folder.parent / "latest").read_text().strip()
        == folder.name
        == checkpoint.newest(tmp_path / "run").name
    )


class Crash(Exception):
    pass


@pytest.mark.parametrize("place", ["save_file", "torch.save", "sync", "replace", "_point", "_tidy"])
def test_a_crash_at_any_point_of_saving_leaves_a_whole_checkpoint(toy, tmp_path, monkeypatch, place):
    save(toy, tmp_path, 1)

    def crash(*_, **__):
        raise Crash

    target = {"torch.save": (torch, "save"), "replace": (type(tmp_path), "replace")}.get(
        place, (checkpoint, place)
    )
    with monkeypatch.context() as patch:
        patch.setattr(*target, crash)
        with pytest.raises(Crash):
            save(toy, tmp_path, 2)
    survivor = checkpoint.newest(tmp_path / "run")
    step = 2 if place in ("_point", "_tidy") else 1  # once renamed it counts
    assert survivor.name == f"step-{step:08d}"
    assert checkpoint.load_state(survivor, toy.recipe(tmp_path)).step == step
    checkpoint.load_weights(survivor, toy.Toy())
    folder, _ = save(toy, tmp_path, 2)  # and saving works again, and cleans up
    assert checkpoint.newest(tmp_path / "run") == folder
    assert not list((tmp_path / "run/checkpoints").glob(".new-*"))


@pytest.mark.parametrize("harm", ["cut", "missing", "no manifest", "half a manifest"])
def test_a_checkpoint_that_was_copied_in_part_is_passed_over(toy, tmp_path, harm):
    good, _ = save(toy, tmp_path, 1)
    bad, _ = save(toy, tmp_path, 2)
    if harm == "cut":
        path = bad / "state.pt"
        path.write_bytes(path.read_bytes()[:-1])
    elif harm == "missing":
        (bad / "model.safetensors").unlink()
    elif harm == "no manifest":
        (bad / "manifest.json").unlink()
    else:
        (bad / "manifest.json").write_text('{"sizes": {')
    assert checkpoint.newest(tmp_path / "run") == good


def test_a_partial_folder_never_pushes_out_a_whole_one(toy, tmp_path):
    save(toy, tmp_path, 1)
    (tmp_path / "run/checkpoints/step-00000009").mkdir()
    whole, _ = save(toy, tmp_path, 2, keep=1)
    assert checkpoint.newest(tmp_path / "run") == whole


def test_there_may_be_none(tmp_path):
    assert checkpoint.newest(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 7}, "seed was 0, is 7"),
        ({"steps": 9}, "steps was 6, is 9"),
        ({"weights": {"preset": "uniform"}}, 'weights.preset was "molmo2", is "uniform"'),
        ({"model": {"spec": {"layers": 2}}}, "model.spec.layers was 4, is 2"),
        ({"weights": {"scale": {"qa": 2.0}}}, "weights.scale.qa was None, is 2.0"),
    ],
)
def test_a_checkpoint_of_another_recipe_is_refused_and_the_difference_named(toy, tmp_path, changes, told):
    folder, _ = save(toy, tmp_path, 1)
    with pytest.raises(RecipeError) as raised:
        checkpoint.load_state(folder, toy.recipe(tmp_path, **changes))
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"save_every": 3},
        {"log_every": 5},
        {"keep": 9},
        {"threads": 2},
        {"packing": {"workers": 3}},
        {"out": "x"},
    ],
)
def test_what_changes_no_result_may_change(toy, tmp_path, changes):
    folder, _ = save(toy, tmp_path, 1)
    assert checkpoint.load_state(folder, toy.recipe(tmp_path, **changes)).step == 1


def test_a_field_that_recipes_did_not_have_then_had_its_default(toy, tmp_path):
    folder, _ = save(toy, tmp_path, 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("data.references", "data.train.0.factor", "seed"):
        del manifest["fingerprint"][name]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    checkpoint.check_run(folder, toy.recipe(tmp_path))
    with pytest.raises(RecipeError, match="seed was 0, is 7"):
        checkpoint.check_run(folder, toy.recipe(tmp_path, seed=7))


def test_data_count_by_content_not_by_place(toy, tmp_path):
    folder, _ = save(toy, tmp_path, 1)
    (tmp_path / "moved").mkdir()
    shutil.copy(tmp_path / "trees.jsonl", tmp_path / "moved")
    assert checkpoint.load_state(folder, toy.recipe(tmp_path / "moved")).step == 1
    (tmp_path / "trees.jsonl").write_text("{}\n{}\n")
    with pytest.raises(RecipeError, match=r"data\.train\.0\.path was content"):
        checkpoint.load_state(folder, toy.recipe(tmp_path))


def test_weights_of_another_model_are_refused_and_the_difference_named(toy, tmp_path):
    folder, _ = save(toy, tmp_path, 1)
    other = toy.Toy()
    other.vision = torch.nn.Linear(toy.WIDTH, 5)
    with pytest.raises(RecipeError, match=r"holds another model: size mismatch for vision\.") as raised:
        checkpoint.load_weights(folder, other)
    assert "\n" not in str(raised.value)


def test_a_processor_may_move_but_not_change(tmp_path):
    """Its folder is that of the model; what the run depends on are its settings."""

    def recipe_of(place):
        (tmp_path / place).mkdir(exist_ok=True)
        settings = tmp_path / place / "preprocessor_config.json"
        settings.write_text("{}" if place != "other" else '{"do_resize": false}')
        (tmp_path / "d.jsonl").touch()
        fields = {"data": {"train": [{"path": tmp_path / "d.jsonl"}]}, "steps": 6, "out": tmp_path / "run"}
        vision = {"family": "processor", "folder": str(tmp_path / place)}
        return Recipe.model_validate(fields | {"vision": vision, "model": {"checkpoint": tmp_path / place}})

    folder = checkpoint.save(tmp_path / "run", torch.nn.Linear(1, 1), state(1), recipe_of("one"))
    checkpoint.check_run(folder, recipe_of("moved"))
    with pytest.raises(RecipeError, match=r"vision\.folder\.preprocessor_config\.json was content"):
        checkpoint.check_run(folder, recipe_of("other"))


def test_weights_that_cannot_be_read_are_told(tmp_path):
    model = torch.nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    file = tmp_path / "weights.safetensors"
    checkpoint.write_weights(file, model)
    other = torch.nn.Linear(2, 1)
    assert checkpoint.read_weights(file, other) == ["missing bias"]
    assert torch.equal(other.weight, model.weight)
    assert checkpoint.read_weights(file, torch.nn.Linear(3, 1, bias=False)) == [
        "size mismatch for weight: [1, 2], not [1, 3]",
        "missing weight",
    ]
    file.write_bytes(file.read_bytes()[:-1])
    assert "incomplete" in checkpoint.read_weights(file, model)[0].lower()
    assert checkpoint.read_weights(tmp_path / "none", model)
