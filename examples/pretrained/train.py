"""Trains a connector between EfficientNet-lite0 and SmolLM2-135M on photos with captions, and measures it.

    python examples/pretrained/train.py                    # Debian's tuxpaint-stamps-default
    python examples/pretrained/train.py --data my.jsonl    # {"image": "a.jpg", "caption": "..."} a line

Both halves stay frozen; see docs/pretrained.md for what to expect.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import packaged
import torch
from efficientnet import load_efficientnet
from outcome import Outcome, write_report
from packaged import EFFICIENTNET
from photos import Parted, part, read_photos, training_trees
from scoring import captions, measure, summed_up
from sight import Sight, SightProcessor
from stamps import read_stamps, write_photos

from hedgerow.data.index import Examples
from hedgerow.data.measure import Maker
from hedgerow.data.synthetic.settings import STAMPS
from hedgerow.encode import Encoder
from hedgerow.errors import HedgerowError
from hedgerow.models.pretrained import load
from hedgerow.packing.loader import RowLoader
from hedgerow.recipe import Recipe
from hedgerow.sequence import Budget
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.train.loop import train
from hedgerow.tree import write_trees

EACH = 6  # photos of a stamp
SHOWN = 12  # held-out photos with the captions written for them
BUDGET = Budget(tokens=512, crops=16)


def arguments() -> argparse.Namespace:
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    parser.add_argument("--data", type=Path, help="table of photos: JSONL, CSV, TSV; columns image, caption")
    parser.add_argument("--stamps", type=Path, default=STAMPS, help="folder of cut-outs, without --data")
    parser.add_argument("--out", type=Path, default=Path("runs/pretrained"), help="where everything goes")
    parser.add_argument("--steps", type=int, default=300, help="rows of 512 tokens")
    parser.add_argument("--lr", type=float, default=3e-3, help="of the connector, at its peak")
    parser.add_argument("--pool", type=int, default=2, help="side of the windows of 7 x 7 cells")
    parser.add_argument(
        "--hold-out", type=float, default=0.25, help="share of the things that is measured on"
    )
    parser.add_argument(
        "--precision",
        choices=("bf16", "fp32"),
        default="bf16",
        help="of training; a CPU without bf16 is faster in fp32",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all choices")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    try:
        run(given)
    except HedgerowError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(given: argparse.Namespace) -> None:
    begin, used = time.perf_counter(), time.process_time()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    table = given.data or write_photos(
        given.out / "stamps", read_stamps(given.stamps), each=EACH, seed=given.seed
    )
    parted = part(read_photos(table), share=given.hold_out, most=200, seed=given.seed)
    folder = packaged.smollm2(given.out / "smollm2")
    model = Sight(load(folder).hf, load_efficientnet(EFFICIENTNET.path()))
    encoder = Encoder(ChatFormat(load_tokenizer(folder)), SightProcessor(pool=given.pool))
    print(_told(parted, model), flush=True)
    fit(given, model, encoder, parted, folder)
    model.save(given.out / "connector.safetensors")
    finish(given, model, encoder, parted)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - used
    print(f"{seconds:.0f} s, {cpu:.0f} s of CPU")


def fit(given: argparse.Namespace, model: Sight, encoder: Encoder, parted: Parted, folder: Path) -> None:
    """Train the connector on packed rows of trees."""
    trees = given.out / "trees.jsonl"
    write_trees(trees, training_trees(parted.train, seed=given.seed))
    recipe = Recipe.model_validate(
        {
            "data": {"train": [{"path": trees}]},
            "model": {"checkpoint": folder, "tokenizer": str(folder)},
            "packing": {"budget": dict(BUDGET)},
            "optimizer": {
                "vision": {"lr": 0.0},
                "connector": {"lr": given.lr, "warmup": max(given.steps // 20, 1)},
                "language": {"lr": 0.0},
                "weight_decay": 0.01,
            },
            "precision": given.precision,
            "steps": given.steps,
            "seed": given.seed,
            "threads": given.threads,
            "out": given.out,
        }
    )
    examples = Examples.read(
        recipe.data.train, Maker(encoder, seed=recipe.seed, budget=BUDGET, oversize="shorten")
    )
    train(recipe, model, RowLoader(examples, BUDGET, seed=recipe.seed), fresh=True)


def finish(given: argparse.Namespace, model: Sight, encoder: Encoder, parted: Parted) -> None:
    """Measure on held-out photos, print it and write it down."""
    known = parted.known
    found = measure(model, encoder, parted.held_out, seed=given.seed)
    sets = {"all": found}
    new, seen = ([one for one in found if (one.photo.captions[0] in known) == old] for old in (False, True))
    if new and seen:
        sets |= {"captions never seen": new, "captions seen with other photos": seen}
    scores = {name: summed_up(measured) for name, measured in sets.items()}
    things = {photo.thing: photo for photo in parted.held_out}
    shown = list(things.values())[:: max(len(things) // SHOWN, 1)][:SHOWN]
    outcome = Outcome(scores, tuple(zip(shown, captions(model, encoder, shown), strict=True)))
    print(outcome)
    figures = {name: asdict(one) for name, one in scores.items()}
    (given.out / "scores.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {write_report(given.out / 'report.html', outcome)}")


def _told(parted: Parted, model: Sight) -> str:
    sizes = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.parts().items()}
    things = len({photo.thing for photo in parted.held_out})
    return (
        f"{len(parted.train)} photos to train on, {len(parted.held_out)} of {things} other things held out\n"
        f"connector {sizes['connector']:.2f}M parameters, trained; eyes {sizes['vision']:.1f}M and language "
        f"{sizes['language']:.1f}M, frozen"
    )


if __name__ == "__main__":
    main()
