"""The `TrainingArguments` of `transformers`, where batches are rows."""

import copy
from typing import Any

from hedgerow.errors import RecipeError


def check(args: Any) -> None:
    """Refuse arguments that mean nothing with rows, or something that is not there."""
    refused = {
        f"per_device_train_batch_size={args.per_device_train_batch_size}": (
            args.per_device_train_batch_size != 1,
            "a batch is one row: give 1, and gradient_accumulation_steps for more rows a step",
        ),
        f"max_steps={args.max_steps}": (args.max_steps <= 0, "epochs have no fixed length: give the steps"),
        f"dataloader_num_workers={args.dataloader_num_workers}": (
            args.dataloader_num_workers > 0,
            "rows have workers of their own: give RowLoader(workers=...)",
        ),
        "fp16=True": (args.fp16, "it overflows above 65504, and sums of losses go beyond: use bf16"),
        "label_smoothing_factor": (args.label_smoothing_factor, "the loss is hedgerow's: leave it out"),
        f"eval_strategy={args.eval_strategy}": (
            args.eval_strategy != "no",
            "a Trainer cannot score trees: leave it out, and use hedgerow eval on the saved model",
        ),
        "deepspeed": (args.deepspeed, "only whole models are trained: leave it out"),
        "fsdp": (args.fsdp, "only whole models are trained: leave it out"),
        f"{args.n_gpu} GPUs in one process": (args.n_gpu > 1, "give each its own process, with torchrun"),
    }
    for name, (given, remedy) in refused.items():
        if given:
            raise RecipeError(f"{name}: {remedy}")


def settled(args: Any) -> Any:
    """Return the arguments with what rows need of a Trainer."""
    found = copy.copy(args)
    found.ignore_data_skip = True  # the loader goes to its row by itself
    found.average_tokens_across_devices = True  # gradients are averaged, the divisor is that of all
    if found.ddp_find_unused_parameters is None:
        found.ddp_find_unused_parameters = True  # a row without media does not reach the vision tower
    return found
