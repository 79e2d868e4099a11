"""Train on packed rows with the `Trainer` of transformers.

    python examples/train_with_trainer.py                       # synthetic videos and a small fresh model
    python examples/train_with_trainer.py recipe.yaml           # your own data and model
    torchrun --nproc-per-node 2 examples/train_with_trainer.py --accumulate 2

Of the recipe count data, model, weights, loss and packing; how it is trained is said by `TrainingArguments`.
Needs the extras `cli` and `trainer`. See docs/trainers.md.
"""

import argparse
from pathlib import Path

from transformers import TrainingArguments

from hedgerow.data.synthetic import Scenes, write_scenes
from hedgerow.integrations.hf import HedgerowTrainer
from hedgerow.recipe import Recipe, load_recipe


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path, nargs="?", help="data and model; synthetic ones without it")
    parser.add_argument("--out", type=Path, default=Path("runs/trainer"), help="folder of the run")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--accumulate", type=int, default=2, help="rows a step, of each process")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--bf16", action="store_true", help="compute in bf16; weights stay fp32")
    parser.add_argument("--checkpointing", action="store_true", help="activations are made again backward")
    parser.add_argument("--cpu", action="store_true", help="even where there is a GPU")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    return parser.parse_args()


def synthetic(out: Path) -> Recipe:
    """Eight videos of moving shapes, and a model small enough for a CPU."""
    written = write_scenes(out / "data", Scenes(seconds=2.0), 8, seed=0)
    sizes = {"crop_size": 28, "patch_size": 7}
    return Recipe.model_validate(
        {
            "data": {"train": [{"path": written.trees}]},
            "model": {"spec": {**sizes, "hidden": 64, "layers": 2, "vision_hidden": 32, "vision_layers": 1}},
            "vision": {**sizes, "margins": [1, 1], "max_frames": 4},
            "packing": {"budget": {"tokens": 4096, "crops": 64}},
            "steps": 1,
            "out": out,
        }
    )


def main() -> None:
    options = parsed()
    args = TrainingArguments(
        str(options.out),
        max_steps=options.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=options.accumulate,
        learning_rate=options.lr,
        bf16=options.bf16,
        activation_checkpointing=options.checkpointing,
        use_cpu=options.cpu,
        logging_steps=5,
        save_steps=10,
        report_to=[],
    )
    with args.main_process_first():  # which writes the synthetic videos
        recipe = load_recipe(options.recipe) if options.recipe else synthetic(options.out)
    recipe = recipe.model_copy(update={"rows_per_step": options.accumulate * args.world_size})
    trainer = HedgerowTrainer.from_recipe(recipe, args)
    trainer.train(resume_from_checkpoint=options.resume)
    trainer.save_model()
    print(
        f"{options.out / 'model'}: read it with transformers, or hedgerow ask --model {options.out / 'model'}"
    )


if __name__ == "__main__":
    main()
