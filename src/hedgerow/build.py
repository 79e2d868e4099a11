"""From a recipe, which is data, to the objects that run."""

import os
from collections.abc import Sequence as Listing
from pathlib import Path

import torch
from transformers.utils import logging

from hedgerow.data.facts import MediaFacts
from hedgerow.data.index import Examples
from hedgerow.data.measure import Maker, Progress
from hedgerow.data.mixture import DataSet, Rates
from hedgerow.data.names import check_sources, check_spans, check_tasks
from hedgerow.data.references import References
from hedgerow.encode import Encoder
from hedgerow.errors import RecipeError
from hedgerow.models.assemble import build, visual_ids
from hedgerow.models.chat import check_vocabulary, read_chat
from hedgerow.models.pretrained import family_of, load
from hedgerow.models.rows import RowModel
from hedgerow.recipe import Recipe
from hedgerow.sequence import Budget
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.vision.cache import FrameCache
from hedgerow.vision.hf import HFProcessor
from hedgerow.vision.plain import settings_digest
from hedgerow.vision.processor import VisionProcessor

logging.disable_progress_bar()  # a run has its own
_MOST_WORKERS = 16  # each holds a tokenizer and the facts
MODEL = "model"  # where a finished run keeps its model, in the layout of transformers


def build_encoder(recipe: Recipe) -> Encoder:
    """Make the encoder of a recipe; media facts are kept in the run's folder.

    Raises:
        DataError: there is no such tokenizer.
        RecipeError: the tokenizer lacks what conversations are written with, or the folder of `data.frames`
            cannot be written.
    """
    frames = recipe.data.frames
    processor: VisionProcessor = recipe.vision
    if frames is not None:
        processor = FrameCache(processor, frames.folder, round(frames.gigabytes * 1e9))
    return Encoder(
        build_chat(recipe),
        processor,
        weights=recipe.weights,
        facts=MediaFacts(recipe.out / "media.json"),
    )


def build_chat(recipe: Recipe) -> ChatFormat:
    """Make what writes the conversations of a recipe.

    Raises:
        DataError: there is no such tokenizer.
        RecipeError: the tokenizer lacks a token or a template that is asked for.
    """
    model = recipe.model
    return read_chat(model.tokenizer, family=recipe.vision.family, template=model.template, bos=model.bos)


def budget_of(recipe: Recipe) -> Budget:
    """Return what a row of a recipe may hold."""
    return Budget(tokens=recipe.packing.budget.tokens, crops=recipe.packing.budget.crops)


def training_examples(recipe: Recipe, encoder: Encoder, *, progress: Progress | None = None) -> Examples:
    """Index the training data of a recipe.

    Args:
        recipe: names the data, the mixture and the transforms.
        encoder: measures the trees.
        progress: called with how many trees are measured, and how many there are.

    Raises:
        DataError: an example is bad and `on_bad` is raise, or none is left.
        BudgetError: an example holds more than a row and `oversize` is raise.
        RecipeError: `data.references` cannot be read, or a task of `data.transforms` or `weights` is
            misspelt.
    """
    stored = recipe.data.references
    examples = _indexed(
        recipe.data.train,
        maker_of(recipe, encoder),
        recipe,
        rates=recipe.data.rates,
        references=None if stored is None else References.load(stored),
        progress=progress,
    )
    _check_names(recipe, examples)
    return examples


def _check_names(recipe: Recipe, examples: Examples) -> None:
    weights, transforms = recipe.weights, recipe.data.transforms
    high = transforms.high_resolution
    tasks = {
        "data.transforms.templates": tuple(transforms.templates),
        "data.transforms.high_resolution.tasks": () if high is None else high.tasks,
        "weights.tasks": tuple(weights.tasks),
        "weights.scale": tuple(weights.scale),
        "weights.schedule": tuple(weights.schedule),
    }
    limits = weights.limits()
    check_tasks(tasks | {f"{name}.tasks": one.tasks for name, one in limits.items()}, examples)
    sources = {"weights.sources": tuple(weights.sources)}
    check_sources(sources | {f"{name}.sources": one.sources for name, one in limits.items()}, examples)
    named = weights.spans.named
    check_spans("weights.spans.named.names", tuple(named.names) if named else (), examples)


def maker_of(recipe: Recipe, encoder: Encoder) -> Maker:
    """Make what turns lines into the trees a recipe trains on."""
    return Maker(
        encoder if recipe.loss.preference is None else encoder.for_preferences(),
        seed=recipe.seed,
        transforms=recipe.data.transforms,
        budget=budget_of(recipe),
        oversize=recipe.packing.oversize,
        on_bad=recipe.data.on_bad,
    )


def evaluation_examples(recipe: Recipe, encoder: Encoder) -> Examples:
    """Index the evaluation data of a recipe as they are; a tree may hold more than a row.

    Raises:
        RecipeError: the recipe names none.
        DataError: an example is bad and `on_bad` is raise, or none is left.
    """
    if not recipe.data.evaluate:
        raise RecipeError("the recipe has no data.evaluate; name a JSONL file of trees with answers")
    sets = [DataSet(path) for path in recipe.data.evaluate]
    return _indexed(sets, Maker(encoder, on_bad=recipe.data.on_bad), recipe)


def _indexed(
    sets: Listing[DataSet],
    maker: Maker,
    recipe: Recipe,
    *,
    rates: Rates | None = None,
    references: References | None = None,
    progress: Progress | None = None,
) -> Examples:
    workers = recipe.data.workers or _cores()
    examples = Examples.read(
        sets, maker, rates=rates, references=references, workers=workers, progress=progress
    )
    examples.save_facts()
    return examples


def _cores() -> int:
    """How many processes may measure: this machine's cores, shared by the processes that train on it."""
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return min(max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1), _MOST_WORKERS)


def build_model(recipe: Recipe) -> RowModel:
    """Make the model a run starts from: another run's, a checkpoint's, or a fresh one, with its adapters.

    Raises:
        DataError: a folder holds no model.
        RecipeError: sizes do not fit, the recipe encodes media for another family of models, or `lora` names
            what the model does not have.
        VisibilityError: the model cannot hide the branches of a row from each other.
    """
    folder = origin_of(recipe)
    model = _fresh(recipe) if folder is None else _loaded(recipe, folder)
    if recipe.lora is not None:
        from hedgerow.models.lora import adapt  # here, for peft is an extra

        adapt(model, recipe.lora, seed=recipe.seed)
    return model.to(device())


def origin_of(recipe: Recipe) -> Path | None:
    """Return the folder of the model a run starts from, None for fresh weights."""
    return recipe.model.checkpoint if recipe.init is None else recipe.init / MODEL


def device() -> torch.device:
    """Return where models run: this process's GPU if there is one, otherwise the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def _loaded(recipe: Recipe, folder: Path) -> RowModel:
    family, settings = family_of(folder), recipe.model
    if family != recipe.vision.family:
        raise RecipeError(
            f"{folder} is a model of family {family}, the recipe encodes media for {recipe.vision.family}; "
            f"set vision.family to {family}"
        )
    if isinstance(recipe.vision, HFProcessor):
        _check_processor(recipe.vision.folder, folder)
    if family == "molmo2":
        visual_ids(load_tokenizer(settings.tokenizer))  # without them it could not be saved
    model = load(
        folder,
        attention=None if settings.attention == "auto" else settings.attention,
        vision_attention=settings.vision_attention,
        gradient_checkpointing=settings.gradient_checkpointing,
    )
    rows = len(model.hf.get_input_embeddings().weight)
    check_vocabulary(build_chat(recipe), rows, where=settings.tokenizer)
    return model


def _check_processor(used: str, folder: Path) -> None:
    if settings_digest(used) != settings_digest(folder):
        raise RecipeError(
            f"vision.folder: the processor in {used} has other settings than that in {folder}, which will be "
            "saved with the model; leave vision.folder out, and set what differs in vision.images and frames"
        )


def _fresh(recipe: Recipe) -> RowModel:
    settings = recipe.model
    assert settings.spec is not None
    return build(
        settings.spec,
        tokenizer=load_tokenizer(settings.tokenizer),
        seed=recipe.seed,
        attention=None if settings.attention == "auto" else settings.attention,
        vision_attention=settings.vision_attention,
        gradient_checkpointing=settings.gradient_checkpointing,
    )


def trained_model(recipe: Recipe) -> RowModel:
    """Load what a run of the recipe has trained.

    Raises:
        RecipeError: the run is not finished.
    """
    folder: Path = recipe.out / MODEL
    if not folder.is_dir():
        raise RecipeError(f"{folder}: no trained model; run `hedgerow train` with this recipe first")
    return load(folder, vision_attention=recipe.model.vision_attention).to(device())
