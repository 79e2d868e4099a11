"""Training a model whole and in part: bytes of gradients and moments, peak memory, time of a step.

    python benchmarks/lora.py [--json] [--small]

A random Molmo2 of 109 million parameters on rows of up to 512 tokens and 16 crops, by the loop of
`hedgerow train` on one thread, in fp32 and bf16. Each way and precision is a process of its own. Its peak
(Linux) is that of the whole process, of which `before` was there before the first step. Gradients and moments
are the bytes of the tensors after a step. Seconds are CPU seconds, the faster of two steps after the first.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from figures import Result, peak_of, resident, tell
from hedgerow.build import build_encoder, build_model
from hedgerow.content import Image
from hedgerow.encode import Encoder
from hedgerow.packing.loader import Fixed, RowLoader
from hedgerow.recipe import Recipe
from hedgerow.sequence import Budget
from hedgerow.train.loop import Trainer
from hedgerow.train.optim import Optimizers
from hedgerow.tree import Branch, Message, MessageTree

SPECS = {
    "large": {
        "hidden": 768, "layers": 12, "heads": 12, "kv_heads": 4, "head_dim": 64, "mlp": 2304,
        "vision_hidden": 512, "vision_layers": 6, "vision_heads": 8, "vision_mlp": 2048,
    },
    "small": {"hidden": 64, "layers": 2, "vision_hidden": 64, "mlp": 128, "vision_mlp": 128},
}  # fmt: skip
WAYS = {  # adapters of parts, and the parts that are frozen
    "everything": ((), ()),
    "adapters of all parts": (("vision", "connector", "language"), ()),
    "adapters of language, the rest frozen": (("language",), ("vision", "connector")),
    "language frozen": ((), ("language",)),
    "connector alone": ((), ("vision", "language")),
}
PRECISIONS = ("fp32", "bf16")
BUDGET = Budget(tokens=512, crops=16)
TREES = 12


def main() -> None:
    parser = argparse.ArgumentParser(description="Training a model whole and in part.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--small", action="store_true", help="a model of 0.4 million parameters")
    parser.add_argument("--way", choices=WAYS, help="print the figures of one way and nothing else")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    options = parser.parse_args()
    size = "small" if options.small else "large"
    if options.way:
        torch.set_num_threads(1)
        print(json.dumps(measured(size, options.way, options.precision)))
        return
    results: list[Result] = []
    for way in WAYS:
        for precision in PRECISIONS:
            results += in_a_process(size, way, precision)
    tell(results, as_json=options.json)


def in_a_process(size: str, way: str, precision: str) -> list[Result]:
    words = ["--way", way, "--precision", precision, *(["--small"] if size == "small" else [])]
    done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
    return [tuple(one) for one in json.loads(done.stdout)]


def measured(size: str, way: str, precision: str) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_of(size, way, precision, Path(folder))
        model = build_model(recipe)
        optimizers = Optimizers(model, recipe)
        rows = loader(build_encoder(recipe), Path(folder))
        loop = Trainer(recipe, model, optimizers, rows, objective=None)
        before, seconds = resident(), list[float]()

        def work() -> None:
            for number in (1, 2, 3):
                start = time.process_time()
                loop.step(number)
                seconds.append(time.process_time() - start)

        peak = before + peak_of(work)
    trained = optimizers.parameters
    gradients = sum(one.grad.nbytes for one in model.parameters() if one.grad is not None)
    case = f"{way}, {precision}"
    return [
        (case, "parameters", sum(one.numel() for one in model.parameters()), "parameters"),
        (case, "trained", sum(one.numel() for one in trained), "parameters"),
        (case, "gradients", gradients / 1e6, "MB"),
        (case, "moments", moments(optimizers) / 1e6, "MB"),
        (case, "before", before, "MB"),
        (case, "peak", peak, "MB"),
        (case, "step", min(seconds[1:]), "s"),
    ]


def moments(optimizers: Optimizers) -> int:
    """Return the bytes of AdamW's two moments."""
    states = [state for one in optimizers.state_dict().values() for state in one["state"].values()]
    return sum(state[name].nbytes for state in states for name in ("exp_avg", "exp_avg_sq"))


def recipe_of(size: str, way: str, precision: str, folder: Path) -> Recipe:
    adapted, frozen = WAYS[way]
    parts = ("vision", "connector", "language")
    return Recipe.model_validate(
        {
            "data": {"train": [{"path": "unread"}]},
            "model": {"spec": SPECS[size]},
            "vision": {"crop_size": 84, "patch_size": 7, "max_crops": 4},
            "packing": {"budget": dict(BUDGET)},
            "lora": {"parts": adapted, "rank": 16} if adapted else None,
            "optimizer": {part: {"lr": 0.0 if part in frozen else 1e-4} for part in parts},
            "precision": precision,
            "steps": 3,
            "out": str(folder / "run"),
        }
    )


def loader(encode: Encoder, folder: Path) -> RowLoader:
    """Return rows of images with two questions each."""
    pixels = np.random.default_rng(0).integers(0, 256, (160, 160, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(folder / "image.png")
    shown = Message("user", [Image(str(folder / "image.png"))])
    asked = ("What is it?", "A field of noise. " * 4), ("How many?", "None that can be counted.")
    branches = [Branch([Message("user", one), Message("assistant", other)]) for one, other in asked]
    sequences = [encode(MessageTree(id=f"{n}", messages=[shown], branches=branches)) for n in range(TREES)]
    return RowLoader(Fixed(sequences.__getitem__, [one.cost for one in sequences]), BUDGET, seed=0)


if __name__ == "__main__":
    main()
