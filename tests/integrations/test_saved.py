"""What a Trainer on rows leaves behind: checkpoints it goes on from, models that others read."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from hedgerow.errors import RecipeError
from hedgerow.integrations.hf import HedgerowTrainer
from hedgerow.models.molmo2 import Molmo2
from hedgerow.recipe import load_recipe
from hedgerow.testing import tiny_recipe, write_jsonl

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def lora(runs, dropout=0.0):
    """A model with adapters that a user of peft has put in."""
    model = runs.fresh()
    torch.manual_seed(5)
    config = LoraConfig(r=2, lora_dropout=dropout, target_modules=["q_proj", "v_proj"])
    inject_adapter_in_model(config, model.hf)
    return model


@pytest.mark.parametrize(
    ("step", "rows", "adapted"),
    [
        pytest.param(1, 3, False, marks=pytest.mark.slow),
        pytest.param(2, 4, False, marks=pytest.mark.slow),
        (3, 7, True),
    ],
)
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(runs, tmp_path, step, rows, adapted):
    """Four rows an epoch, three a step: cut off within an epoch, at its end, and with dropout."""

    def model():
        return lora(runs, dropout=0.5) if adapted else runs.fresh()

    settings = {"max_steps": 5, "gradient_accumulation_steps": 3, "save_strategy": "steps", "save_steps": 1}
    whole = runs.trainer(tmp_path, runs.Noted(tmp_path), model(), **settings)
    whole.train()
    rest = runs.Noted(tmp_path)
    made = runs.trainer(tmp_path, rest, model(), **settings)
    made.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    expected = runs.weights(whole.model.model)
    for name, tensor in runs.weights(made.model.model).items():
        assert torch.equal(tensor, expected[name]), name
    assert runs.losses(made) == runs.losses(whole)
    assert made.state.epoch == whole.state.epoch
    plan = [row for epoch in range(3) for row in whole.rows.plan(epoch).rows]
    assert rest.given == [number for row in plan[rows:11] for number in row]  # and none from before


def test_a_checkpoint_holds_what_is_trained_and_goes_on_from_the_rest_as_it_was(runs, data, tmp_path):
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    made = runs.trainer(tmp_path, data, lora(runs), **settings | {"max_steps": 1})
    made.train()
    stored = load_file(tmp_path / "checkpoint-1" / "model.safetensors")
    trained = {name for name, parameter in made.model.named_parameters() if parameter.requires_grad}
    assert trained == stored.keys() == {name for name in stored if "lora_" in name}
    other = lora(runs)
    with torch.no_grad():
        next(parameter for parameter in other.parameters() if not parameter.requires_grad).add_(1.0)
    with pytest.raises(
        RecipeError, match=r"not trained are not those of the run \(content \w{16} then, \w{16} n"
    ):
        runs.trainer(tmp_path, data, other, **settings).train(resume_from_checkpoint=True)
    whole = lora(runs).requires_grad_()
    with pytest.raises(
        RecipeError, match=r"no checkpoint of this model: missing model\..* and \d+ more; build"
    ):
        runs.trainer(tmp_path, data, whole, **settings).train(resume_from_checkpoint=True)


def test_a_recipe_with_adapters_trains_them_alone_and_goes_on(runs, tmp_path):
    said = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]
    trees = write_jsonl(tmp_path / "d.jsonl", [{"id": str(n), "messages": said} for n in range(3)])
    chosen = {"lora": "{parts: [language], rank: 2, dropout: 0.5}", "optimizer.vision.lr": "0"}
    recipe = load_recipe(tiny_recipe(tmp_path, trees), chosen)
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}

    def made():
        return HedgerowTrainer.from_recipe(recipe, runs.arguments(tmp_path / "run", **settings))

    first = made()
    start = runs.weights(first.model.model)
    first.train()
    again = made()
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    found, expected = runs.weights(again.model.model), runs.weights(first.model.model)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    still = {name for name, tensor in expected.items() if torch.equal(tensor, start[name])}
    assert not any("lora_B" in name for name in still)
    frozen = {name for name, one in first.model.model.named_parameters() if not one.requires_grad}
    assert {name for name in start if "vision_tower" in name} <= frozen
    assert {n for n in start if ".language_model." in n and "lora_" not in n} <= frozen <= still
    assert not any("multi_modal_projector" in name for name in frozen)


def test_a_finished_run_that_is_resumed_trains_no_further(runs, data, tmp_path):
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    first = runs.trainer(tmp_path, data, **settings)
    first.train()
    made = runs.trainer(tmp_path, data, **settings)
    made.train(resume_from_checkpoint=True)
    expected = runs.weights(first.model.model)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in runs.weights(made.model.model).items())


def test_checkpoints_of_others_are_refused(runs, data, tmp_path):
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    runs.trainer(tmp_path, data, **settings | {"max_steps": 1}).train()
    folder = tmp_path / "checkpoint-1"
    with pytest.raises(RecipeError, match=r"checkpoint-1/model.safetensors holds no checkpoint of"):
        runs.trainer(tmp_path, data, lora(runs), **settings).train(resume_from_checkpoint=str(folder))
    state = json.loads((folder / "trainer_state.json").read_text())
    del state["stateful_callbacks"]["hedgerow.RowLoader"]
    (folder / "trainer_state.json").write_text(json.dumps(state))
    with pytest.raises(RecipeError, match="does not say which row comes next"):
        runs.trainer(tmp_path, data, **settings).train(resume_from_checkpoint=str(folder))


def test_the_saved_model_is_read_by_plain_transformers(runs, data, tmp_path):
    made = runs.trainer(tmp_path, data, max_steps=2, gradient_accumulation_steps=2)
    made.train()
    made.save_model()
    hf = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype=torch.float32)
    expected = runs.weights(made.model.model)
    found = runs.weights(Molmo2(hf))
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    settings = json.loads((tmp_path / "model" / "hedgerow.json").read_text())
    assert (settings["crop_size"], settings["max_crops"]) == (28, 2)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of peft
@pytest.mark.parametrize("way", ["injected", pytest.param("get_peft_model", marks=pytest.mark.slow)])
def test_adapters_of_a_user_train_alone_and_are_saved_for_peft(runs, data, tmp_path, way):
    if way == "injected":
        model = lora(runs)
    else:
        model = runs.fresh()
        get_peft_model(model.hf, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    start = runs.weights(model)
    made = runs.trainer(tmp_path, data, model, max_steps=6, gradient_accumulation_steps=2, learning_rate=0.02)
    made.train()
    moved = {name for name, tensor in runs.weights(model).items() if not torch.equal(tensor, start[name])}
    assert moved == {name for name in start if "lora_" in name}
    losses = runs.losses(made)
    assert losses[-1] < losses[0] - 0.02
    made.save_model()
    again = PeftModel.from_pretrained(runs.fresh().hf, str(tmp_path / "model"))
    found = runs.weights(again.get_base_model())
    adapters = {name: tensor for name, tensor in runs.weights(model.hf).items() if "lora_" in name}
    assert adapters
    assert all(torch.equal(found[name], tensor) for name, tensor in adapters.items())


def two_processes(folder):
    """Start `runs.py` twice, as `torchrun` does."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    common = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2"}
    command = [sys.executable, str(Path(__file__).with_name("runs.py")), str(folder)]
    started = [
        subprocess.Popen(command, env=common | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE)
        for rank in ("0", "1")
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()[-3000:]


@pytest.mark.slow
def test_two_processes_are_one(runs, tmp_path):
    """An epoch has 4 rows, a step could take 6: the last batch, which sends the gradients, is empty."""
    two_processes(tmp_path)
    watch, data = runs.Watch(), runs.Noted(tmp_path)
    made = runs.trainer(tmp_path / "one", data, callbacks=[watch], gradient_accumulation_steps=6)
    start = runs.weights(made.model.model)
    made.train()
    seen = [torch.load(tmp_path / f"whole-{rank}.pt") for rank in (0, 1)]
    assert seen[0]["losses"] == pytest.approx(runs.losses(made), rel=1e-5)
    for rank in (0, 1):
        for one, other in zip(seen[rank]["gradients"], watch.gradients, strict=True):
            assert runs.apart(one, other) < 1e-5
        assert runs.strayed(seen[rank]["weights"], runs.weights(made.model.model), start) < 1e-5
    for rank in (0, 1):  # the loaders were given no rank
        assert "processes were given the same row" in (tmp_path / f"careless-{rank}").read_text()

    two_processes(tmp_path)
    for rank in (0, 1):
        resumed = torch.load(tmp_path / f"resumed-{rank}.pt")["weights"]
        assert all(torch.equal(resumed[name], tensor) for name, tensor in seen[rank]["weights"].items())


def run_example(name, *words):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, words)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def history(folder, step):
    state = json.loads((folder / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


@pytest.mark.slow
def test_the_example_of_a_trainer_trains_and_goes_on(tmp_path):
    run_example("train_with_trainer.py", "--out", tmp_path, "--steps", 10, "--cpu")
    run_example("train_with_trainer.py", "--out", tmp_path, "--steps", 20, "--cpu", "--resume")
    losses = history(tmp_path, 20)
    assert len(losses) == 4
    assert losses[-1] < losses[0] - 1.0
    AutoModelForImageTextToText.from_pretrained(tmp_path / "model")


@pytest.mark.slow
def test_the_example_of_trl_trains_the_same_rows_to_the_same_losses(tmp_path):
    pytest.importorskip("trl")
    run_example("train_with_trl.py", "--out", tmp_path / "trl")
    run_example("train_with_trainer.py", "--out", tmp_path / "hf", "--cpu")
    assert history(tmp_path / "trl", 20) == pytest.approx(history(tmp_path / "hf", 20), rel=1e-5)
    AutoModelForImageTextToText.from_pretrained(tmp_path / "trl" / "model")


@pytest.mark.slow
def test_trl_trains_adapters_alone(tmp_path):
    pytest.importorskip("trl")
    run_example("train_with_trl.py", "--out", tmp_path, "--lora", 8, "--lr", 2e-2)
    losses = history(tmp_path, 20)
    assert losses[-1] < losses[0] - 0.1
    assert (tmp_path / "model" / "adapter_config.json").is_file()
