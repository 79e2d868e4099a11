"""Packed rows in the `Trainer` of `transformers`, and in trainers that are made from it.

A step is `gradient_accumulation_steps` rows of each process, or what is left of the epoch. The divisor of the
loss is that of the whole step, over all rows and processes, so a step has the loss and the gradients that
`hedgerow.train` gives it.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import nn
from transformers import Trainer, TrainerCallback
from transformers.utils import SAFE_WEIGHTS_NAME as WEIGHTS

from hedgerow.build import build_encoder, build_model, origin_of, training_examples
from hedgerow.encode import Encoder
from hedgerow.errors import RecipeError
from hedgerow.integrations.arguments import check, settled
from hedgerow.integrations.seen import Seen
from hedgerow.models import pretrained
from hedgerow.models.rows import RowModel
from hedgerow.packing.loader import Loaded, RowLoader
from hedgerow.recipe import Loss, Recipe
from hedgerow.sequence import Row
from hedgerow.train import checkpoint, parallel
from hedgerow.train.loss import Sums, by_task
from hedgerow.train.objective import objective_of
from hedgerow.train.optim import freeze
from hedgerow.train.run import row_loader
from hedgerow.vision.processor import VisionProcessor
from hedgerow.vision.wrapped import Wrapped

_LOG = logging.getLogger("hedgerow")
# Where `trainer_state.json` says which row comes next, and what the weights are that are not trained.
_PLACE, _FROZEN = "hedgerow.RowLoader", "hedgerow.frozen"


class RowForTraining(nn.Module):
    """A model whose forward takes a row and returns its loss, as trainers ask of one.

    Args:
        model: of any family.
        loss: what is minimised.

    Raises:
        RecipeError: the loss is divided by what is known only after all rows of a step were predicted.
    """

    accepts_loss_kwargs = True  # `num_items_in_batch`

    def __init__(self, model: RowModel, loss: Loss | None = None) -> None:
        super().__init__()
        loss = loss or Loss()
        if loss.dynamic is not None or loss.preference is not None:
            raise RecipeError(
                "loss.dynamic and loss.preference are divided by what the predictions of a whole step say, "
                "and a Trainer asks for the divisor before it predicts; leave them out, or use hedgerow train"
            )
        self.model = model
        self.loss = loss
        self._objective = objective_of(loss, model)

    def forward(self, row: Row | None, num_items_in_batch: float | None = None) -> dict[str, Any]:
        """Return `loss` [], and as `found` the `RowLoss` it comes from.

        Args:
            row: as joined; None stands for a place of a step that no row was left for, its loss is 0.
            num_items_in_batch: the divisor of the step the row is part of; None divides by the row's own.
        """
        if row is None:
            trained = next(parameter for parameter in self.parameters() if parameter.requires_grad)
            return {"loss": trained.flatten()[:0].sum(), "found": None}
        row = row.to(self.model.device)
        found = self._objective(self.model, row)
        divisor = num_items_in_batch
        if divisor is None:
            divisor = Sums.total(by_task(found, row.samples).values()).divisor(self.loss.normalize)
        return {"loss": found.numerator / (divisor or 1.0), "found": found}

    def divisor(self, rows: Iterable[Row]) -> float:
        """Return what the summed loss of rows is divided by, before anything is predicted."""
        weights = [(np.asarray(row.weight, np.float64), np.asarray(row.sample)) for row in rows]
        if self.loss.normalize == "weights":
            return float(sum(weight.sum() for weight, _ in weights))
        if self.loss.normalize == "tokens":
            return float(sum((weight > 0).sum() for weight, _ in weights))
        return float(sum(len(np.unique(sample)) for _, sample in weights))

    @property
    def config(self) -> Any:
        """The config of the model of `transformers`."""
        return self.model.hf.config

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """As `PreTrainedModel.activation_checkpointing_enable`."""
        self.model.hf.activation_checkpointing_enable(**options)


class HedgerowTrainer(Trainer):  # type: ignore[misc]  # transformers has no types
    """A `Trainer` on rows; also a base class in front of another one, `class Mine(HedgerowTrainer, Theirs)`.

    Data, weights and loss are ours, all else is as the arguments say. Each log line has, since the last one,
    the tokens (and other costs) that were trained on, the share used of each budget, and the loss of each
    task. A run that is resumed goes on with the next row, and nothing is read again.

    Args:
        model: of any family.
        rows: of this process: where several train, give the loader their number and its rank.
        args: `per_device_train_batch_size` is 1, a row; `max_steps` is given.
        encoder: what encoded the rows; tokenizer, template, first token and the settings of media are saved
            beside the model.
        loss: what is minimised.
        origin: the folder the model came from, if any; other files there are saved beside it too.
        options: of the trainer below, such as `optimizers` and `callbacks`.

    Raises:
        RecipeError: an argument has no meaning for rows, or asks for what cannot be had with them.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: RowModel,
        rows: RowLoader,
        args: Any,
        *,
        encoder: Encoder,
        loss: Loss | None = None,
        origin: Path | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(model, RowModel):
            raise RecipeError(
                f"got {type(model).__name__}; give a RowModel, as hedgerow.models.pretrained.load(folder) "
                "returns; adapters of peft go into its `hf`, see docs/trainers.md"
            )
        trained = RowForTraining(model, loss)
        check(args)
        super().__init__(model=model.hf, args=settled(args), **options)
        self.model = self.model_wrapped = trained  # trainers below look for what a model of transformers has
        self.model_accepts_loss_kwargs = True
        self.rows = rows
        self._encoder, self._origin = encoder, origin
        self._seen: list[Seen] = []
        self.add_callback(_Progress(rows, trained))

    @classmethod
    def from_recipe(cls, recipe: Recipe, args: Any, **options: Any) -> Self:
        """Make model, rows and loss as a recipe says.

        Steps, optimiser, schedule, precision and checkpoints are as the arguments say, whatever the recipe
        has; only a part whose rate is 0 there is frozen here too. Make the arguments first: where several
        processes train, they join them.

        Raises:
            HedgerowError: a file of the recipe is missing or bad.
            RecipeError: the recipe asks for what only `hedgerow train` does.
        """
        size = args.gradient_accumulation_steps * args.world_size
        if recipe.rows_per_step != size:
            raise RecipeError(
                f"rows_per_step is {recipe.rows_per_step}, but gradient_accumulation_steps times "
                f"{args.world_size} processes is {size}; make them equal"
            )
        if recipe.context != 1 or recipe.weights.by_step:
            raise RecipeError("leave out context and weights.schedule, or use hedgerow train")
        encoder, model = build_encoder(recipe), build_model(recipe)
        freeze(model, recipe.optimizer)
        return cls(
            model,
            row_loader(recipe, training_examples(recipe, encoder)),
            args,
            encoder=encoder,
            loss=recipe.loss,
            origin=origin_of(recipe),
            **options,
        )

    def get_train_dataloader(self) -> Any:
        """Return what gives the rows of this process, without end."""
        return _Steps(self.rows, self.args.gradient_accumulation_steps)

    def get_batch_samples(
        self,
        epoch_iterator: Iterator[Loaded | None],
        num_batches: int,
        device: torch.device,  # noqa: ARG002  # of the base class
    ) -> tuple[list[dict[str, Any]], float | None]:
        """Return the rows of a step and its divisor; none where a resumed run had ended.

        Raises:
            RecipeError: processes have the same rows.
        """
        if self.state.global_step >= self.state.max_steps:
            return [], None
        loaded = [next(epoch_iterator) for _ in range(num_batches)]
        rows = [None if one is None else one.row for one in loaded]
        for one in loaded:
            for dropped in () if one is None else one.dropped:
                _LOG.warning("%s", dropped.message)
        divisor = self.model.divisor(row for row in rows if row is not None)
        numbers = [one.number for one in loaded if one is not None]
        everyone = parallel.gather((divisor, numbers))
        _check_apart([found for _, found in everyone])
        return [{"row": row} for row in rows], sum(part for part, _ in everyone)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,  # noqa: FBT001  # of the base class
        num_items_in_batch: float | None = None,
    ) -> Any:
        """Return what a row adds to the loss of its step, times the number of processes that are averaged.

        Raises:
            RecipeError: it is not finite.
        """
        loss, outputs = Trainer.compute_loss(
            self, model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
        )
        if inputs["row"] is not None:
            self._seen.append(Seen.of(inputs["row"], outputs["found"]))
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with what was trained on since the last time by all processes."""
        everyone = [seen for part in parallel.gather(self._seen) for seen in part]
        self._seen = []
        logs.update(Seen.figures(everyone))
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:  # noqa: FBT001
        """Write the model as plain `transformers` reads it, or its adapters as `peft` does.

        For a checkpoint, write what a resumed run needs: the weights that are trained.

        Args:
            output_dir: new, empty, or an earlier model; None is `model` in the folder of the run.
        """
        if not self.args.should_save:
            return
        trained = self.accelerator.unwrap_model(self.model)
        if _internal_call:
            folder = Path(str(output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            checkpoint.write_weights(folder / WEIGHTS, trained)
            return
        folder = Path(output_dir or Path(self.args.output_dir) / "model")
        if hasattr(trained.model.hf, "peft_config"):
            from hedgerow.models.lora import save_adapter  # here, for it needs peft

            save_adapter(trained.model, folder, base=self._origin)
            return
        pretrained.save(
            trained.model,
            folder,
            tokenizer=self._encoder.chat,
            settings=_settings(self._encoder.processor),
            origin=self._origin,
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        file = Path(resume_from_checkpoint) / WEIGHTS
        wrong = checkpoint.read_weights(file, model or self.model)
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise RecipeError(
                f"{file} holds no checkpoint of this model: {'; '.join(wrong[:3])}{more}; build the model as "
                "the run did, with the same parts trained"
            )


@dataclass(frozen=True, slots=True)
class _Steps:
    """The rows of a process, epoch after epoch; an epoch ends with a step, so None fills up the last."""

    rows: RowLoader
    size: int

    def __iter__(self) -> Iterator[Loaded | None]:
        while True:
            given = 0
            for loaded in self.rows:
                given += 1
                yield loaded
            yield from [None] * (-given % self.size)


class _Progress(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Keeps the place of the loader in `trainer_state.json`, and goes there in a resumed run.

    Weights that are not trained stand in no checkpoint: it holds their digest, and they must have it again.
    """

    def __init__(self, rows: RowLoader, model: nn.Module) -> None:
        self._rows, self._model, self._frozen = rows, model, ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._frozen = checkpoint.frozen_digest(self._model)
        if not state.global_step:
            return
        kept = state.stateful_callbacks
        if _PLACE not in kept:
            raise RecipeError(
                "the checkpoint does not say which row comes next; resume from one that HedgerowTrainer wrote"
            )
        then, now = kept[_FROZEN], self._frozen
        if then != now:
            raise RecipeError(
                f"the weights that are not trained are not those of the run (content {then or 'none'} then, "
                f"{now or 'none'} now); load the model that the run began with"
            )
        self._rows.load_state_dict(kept[_PLACE])

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """Give a gradient of zeros to what a step did not reach, for its moments fade as in any step."""
        for group in given["optimizer"].param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        place = self._rows.state_dict()
        state.stateful_callbacks |= {_PLACE: place, _FROZEN: self._frozen}
        share = place["row"] / len(self._rows.plan(place["epoch"]).rows) if place["row"] else 0.0
        state.epoch = place["epoch"] + share


def _check_apart(numbers: Listing[list[int]]) -> None:
    given = [number for part in numbers for number in part]
    if len(set(given)) < len(given):
        raise RecipeError(
            f"{len(numbers)} processes were given the same row; make each RowLoader with "
            "rank=args.process_index, world=args.world_size"
        )


def _settings(processor: VisionProcessor) -> dict[str, Any]:
    while isinstance(processor, Wrapped):
        processor = processor.processor
    return dict(TypeAdapter(type(processor)).dump_python(processor, mode="json"))
