"""The same small run by the `Trainer` of transformers and by our loop; as a script, one process of two."""

import sys
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainingArguments

from hedgerow.content import Image, Text
from hedgerow.integrations.hf import HedgerowTrainer
from hedgerow.models.assemble import ModelSpec, build
from hedgerow.packing.loader import Fixed, RowLoader
from hedgerow.recipe import Recipe
from hedgerow.sequence import Budget
from hedgerow.testing import TINY_MODEL, tiny_encoder, write_png
from hedgerow.text import load_tokenizer
from hedgerow.train.loop import Trainer
from hedgerow.train.optim import Optimizers
from hedgerow.tree import Branch, Message, MessageTree

BUDGET = Budget(tokens=260, crops=100)


def trees(folder, *, images=True):
    """Ten trees with branches of unequal weight, some of weight 0; every third has an image."""
    image = write_png(Path(folder) / "a.png")
    for number in range(10):
        shown = (Image(image),) if images and number % 3 == 0 else ()
        words = Text("A fence and a field. " * (1 + number % 4))
        asked = [("qa", "What is it?", "A thing " * (1 + number % 4)), ("counting", "How many?", str(number))]
        branches = [
            Branch(
                [Message("user", question), Message("assistant", answer)],
                task=task,
                weight=(0.0, 1.0, 2.5)[(number + place) % 3],
            )
            for place, (task, question, answer) in enumerate(asked)
        ]
        yield MessageTree(id=f"t{number}", messages=[Message("user", (*shown, words))], branches=branches)


class Noted:
    """Encodes the trees of a folder, and notes which."""

    def __init__(self, folder, processor=None, *, images=True):
        self.encode = tiny_encoder(processor)
        self.sequences = [self.encode(tree) for tree in trees(folder, images=images)]
        self.given = []

    def __call__(self, number):
        self.given.append(number)
        return self.sequences[number]

    def loader(self, **options):
        """Give rows of two or three trees, an odd number of them an epoch."""
        costs = [sequence.cost for sequence in self.sequences]
        return RowLoader(Fixed(self, costs), BUDGET, seed=3, pool=4, **options)


class Watch(TrainerCallback):
    """Keeps the gradients of every step."""

    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model, **_):  # noqa: ARG002
        named = [(n, p) for n, p in model.model.named_parameters() if p.requires_grad]
        self.gradients.append(
            {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in named}
        )


def fresh():
    """A tiny Molmo2, always the same."""
    return build(ModelSpec(**TINY_MODEL), tokenizer=load_tokenizer("tiny"), seed=0)


def arguments(folder, **changes):
    """Settings that `recipe` has too."""
    given = {
        "max_steps": 4,
        "per_device_train_batch_size": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-6,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": [],
        "use_cpu": True,
    }
    return TrainingArguments(str(folder), **(given | changes))


def trainer(folder, data, model=None, *, rows=None, callbacks=(), options=None, **changes):
    """A HedgerowTrainer on the trees; `options` are of it, `changes` of its arguments."""
    args = arguments(folder, **changes)
    shards = {"rank": args.process_index, "world": args.world_size} if rows is None else rows
    return HedgerowTrainer(
        model or fresh(),
        data.loader(**shards),
        args,
        encoder=data.encode,
        callbacks=list(callbacks),
        **(options or {}),
    )


def losses(made):
    """The loss of every step."""
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]


def ours(data, loss, model=None, *, size, steps=4, precision="fp32", clip=1.0):
    """Losses, gradients and weights of our loop."""
    rate = {"lr": 1e-3, "warmup": 0}
    recipe = Recipe.model_validate(
        {
            "data": {"train": [{"path": "unread"}]},
            "model": {"checkpoint": "unread"},
            "loss": loss,
            "optimizer": {"vision": rate, "connector": rate, "language": rate, "clip": clip},
            "schedule": {"floor": 1.0},
            "steps": steps,
            "rows_per_step": size,
            "precision": precision,
            "out": "unwritten",
        }
    )
    model = model or fresh()
    loop = Trainer(recipe, model, Optimizers(model, recipe), data.loader(), objective=None)
    found, gradients = [], []
    for number in range(1, steps + 1):
        found.append(loop.step(number).loss)
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        gradients.append({n: p.grad.clone() for n, p in named})
    return found, gradients, weights(model)


def weights(model):
    """All parameters, copied."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def apart(one, other):
    """The largest difference of two dicts of tensors, relative to the norm of the second's tensor.

    The gradient of a key's bias is nothing but rounding: norms count for a 10,000th of the whole at least.
    """
    assert one.keys() == other.keys()
    least = 1e-4 * float(torch.cat([tensor.flatten() for tensor in other.values()]).norm())
    return max(float((one[n] - other[n]).norm()) / max(float(other[n].norm()), least) for n in other)


def strayed(one, other, start):
    """How far weights are from others, relative to the way these have come from the start.

    As a whole: of gradients that are nothing but rounding AdamW makes steps all the same.
    """
    way, off = ({n: other[n] - t[n] for n in other} for t in (start, one))
    lengths = [torch.cat([tensor.flatten() for tensor in part.values()]).norm() for part in (off, way)]
    return float(lengths[0] / lengths[1])


def one_of_two(folder):
    """Train as the environment of `torchrun` says, and keep what the first process saw."""
    torch.set_num_threads(1)
    folder, watch = Path(folder), Watch()
    data = Noted(folder)
    saved = {"save_strategy": "steps", "save_steps": 2}
    made = trainer(folder / "two", data, callbacks=[watch], gradient_accumulation_steps=3, **saved)
    resumed = (folder / "two" / "checkpoint-2").is_dir()
    made.train(resume_from_checkpoint=str(folder / "two" / "checkpoint-2") if resumed else None)
    name = "resumed" if resumed else "whole"
    kept = {"losses": losses(made), "gradients": watch.gradients, "weights": weights(made.model.model)}
    torch.save(kept, folder / f"{name}-{made.args.process_index}.pt")
    if resumed:
        return
    careless = trainer(folder / "careless", data, rows={})
    try:
        careless.train()
    except Exception as error:
        (folder / f"careless-{made.args.process_index}").write_text(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    one_of_two(sys.argv[1])
