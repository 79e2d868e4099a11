"""Preference training on trees against a row for each candidate: tokens, crops and time, on one CPU core.

    python benchmarks/preference.py [--json] [--size demo|small]

An image, a prompt and 2 or 8 ranked answers: once as a tree, once as so many conversations packed side by
side, as a trainer without trees would have them. The same pairs, loss and model; forward and backward of one
step with stored reference values, CPU seconds, the best of three, the two in turns. `difference` is that of
the two losses.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from figures import tell
from hedgerow.encode import Encoder
from hedgerow.models.assemble import ModelSpec, build
from hedgerow.sequence import Budget, Row
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.train.preference import Transport, preference_loss
from hedgerow.tree import MessageTree
from hedgerow.vision.processor import Molmo2Processor

SIZES = {
    "demo": ModelSpec(),
    "small": ModelSpec(
        hidden=256, layers=6, heads=4, kv_heads=2, head_dim=64, mlp=768, vision_hidden=192, vision_mlp=512,
        vision_layers=4, initializer_range=0.06,
    ),
}  # fmt: skip
CANDIDATES = (2, 8)
LOSSES = {"dpo": None, "otpo": Transport()}


def trees(folder, candidates):
    """Return the tree of an image, a prompt and answers, and the answers as conversations of their own."""
    rng = np.random.default_rng(0)
    path = folder / "image.png"
    PIL.Image.fromarray(rng.integers(0, 256, (336, 448, 3)).astype(np.uint8)).save(path)
    parts = [{"type": "image", "path": str(path)}, {"type": "text", "text": "Describe the picture. " * 4}]
    prompt = [{"role": "user", "content": parts}]
    answers = [" ".join(map(str, rng.integers(0, 999, 20))) for _ in range(candidates)]
    messages = [{"role": "assistant", "content": answer} for answer in answers]
    branches = [{"rank": rank, "messages": [message]} for rank, message in enumerate(messages)]
    tree = MessageTree.from_dict({"id": "tree", "messages": prompt, "branches": branches})
    alone = [
        MessageTree.from_dict({"id": f"{number}", "messages": [*prompt, message]})
        for number, message in enumerate(messages)
    ]
    return tree, alone


def packed(encoder, given):
    """Pack trees into one row with reference values."""
    sequences = [encoder(tree) for tree in given]
    row = Row.join(sequences, Budget(tokens=10**6, crops=10**4)).to("cpu")
    return dataclasses.replace(row, reference=torch.full((len(row.target),), -6.0))


def as_pairs(row, tree_row):
    """Make conversations the candidates of one question: one tree to the loss, though not to attention."""
    samples = tuple(
        dataclasses.replace(own, pair=0, rank=one.rank, weight=own.weight)
        for own, one in zip(row.samples, tree_row.samples, strict=True)
    )
    return dataclasses.replace(row, samples=samples, examples=("all",), lengths=(len(row),))


def step(model, row, transport):
    """Return the loss of a row and the CPU seconds of forward and backward."""
    model.zero_grad()
    start = time.process_time()
    loss = preference_loss(model(row), row, model.head, beta=0.1, transport=transport).numerator
    loss.backward()
    return float(loss.detach()), time.process_time() - start


def measure(size, candidates, folder):
    tokenizer = load_tokenizer("tiny")
    model = build(SIZES[size], tokenizer=tokenizer, seed=0)
    encoder = Encoder(ChatFormat(tokenizer), Molmo2Processor(crop_size=84, patch_size=7))
    tree, alone = trees(folder, candidates)
    row = packed(encoder, [tree])
    ways = {"tree": row, "rows": as_pairs(packed(encoder, alone), row)}
    case, results = f"{candidates} candidates", []
    for name in ("tokens", "crops"):
        found = {way: given.cost[name] for way, given in ways.items()}
        results += [(case, f"{name}, {way}", amount, name) for way, amount in found.items()]
        results.append((case, f"{name}, rows / tree", found["rows"] / found["tree"], "ratio"))
    for loss, transport in LOSSES.items():
        values, seconds = {}, {way: [] for way in ways}
        for _ in range(4):  # the first warms up
            for way, given in ways.items():
                values[way], spent = step(model, given, transport)
                seconds[way].append(spent)
        best = {way: min(spent[1:]) for way, spent in seconds.items()}
        results += [(case, f"{loss}, {way}", value, "s") for way, value in best.items()]
        results.append((case, f"{loss}, rows / tree", best["rows"] / best["tree"], "ratio"))
        difference = abs(values["tree"] - values["rows"]) / abs(values["rows"])
        results.append((case, f"{loss}, difference", difference, "fraction"))
    return results


def main():
    parser = argparse.ArgumentParser(description="Preference trees against a row for each candidate.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--size", default="small", choices=SIZES, help="of the model")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = [line for count in CANDIDATES for line in measure(given.size, count, Path(folder))]
    tell(results, as_json=given.json)


if __name__ == "__main__":
    main()
