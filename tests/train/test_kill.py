"""Law 7, the hard way: a run that is killed at random moments ends with the weights of one that was not."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from hedgerow.testing import tiny_recipe, write_jsonl, write_mp4

STEPS = 40


def trees():
    for number in range(12):
        video = {"type": "video", "path": "v.mp4", "start": 0.25 * (number % 3)}
        answers = ["a gate", "a long fence", f"{number} birds on the left"]
        branches = [
            {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": answer}]}
            for n, answer in enumerate(answers)
        ]
        yield {
            "id": f"t{number}",
            "messages": [{"role": "user", "content": [video]}],
            "branches": branches,
        }


def command(folder, out):
    recipe = str(folder / "recipe.yaml")
    return [sys.executable, "-m", "hedgerow.cli", "train", recipe, "--out", str(out), "--save_every", "3"]


def steps_done(out):
    metrics = out / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


@pytest.mark.slow
def test_killed_at_three_random_moments_the_weights_are_bit_for_bit_those_of_an_uninterrupted_run(tmp_path):
    write_mp4(tmp_path / "v.mp4")
    tiny_recipe(tmp_path, write_jsonl(tmp_path / "d.jsonl", trees()), steps=STEPS)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(command(tmp_path, whole), check=True, capture_output=True)

    rng = random.Random()
    for part in range(3):
        moment = rng.randint(1 + 12 * part, 12 + 12 * part)
        process = subprocess.Popen(
            command(tmp_path, cut), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while steps_done(cut) < moment and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"the run ended before it could be killed at step {moment}"
    subprocess.run(command(tmp_path, cut), check=True, capture_output=True)

    name = "model/model.safetensors"
    assert (whole / name).read_bytes() == (cut / name).read_bytes()
    losses = [
        [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (whole, cut)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == STEPS
