"""Qwen3-VL: tokens, positions and logits are those of `transformers`, and the laws hold on its trees."""

import dataclasses
import multiprocessing
import traceback

import numpy as np
import PIL.Image
import pytest
import torch
import torch.distributed as dist
from transformers import Qwen3VLForConditionalGeneration

from hedgerow.content import Image, Text, Video
from hedgerow.errors import RecipeError
from hedgerow.models import qwen3_vl
from hedgerow.models.generate import generate
from hedgerow.models.pretrained import load
from hedgerow.models.sampling import Sampling
from hedgerow.sequence import Budget, Cost, Row
from hedgerow.testing import (
    TINY_QWEN3_VL,
    public_qwen3_vl,
    tiny_checkpoint,
    tiny_encoder,
    write_mp4,
    write_png,
)
from hedgerow.train import parallel
from hedgerow.train.loss import weighted_loss
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.verify import verify
from hedgerow.vision.qwen3_vl import IMAGE_PATCH, VIDEO_PATCH, Qwen3VLProcessor

PROCESSOR = Qwen3VLProcessor(**TINY_QWEN3_VL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("qwen3_vl"), "qwen3_vl")


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


@pytest.fixture(scope="module")
def hf(folder):
    return Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder(PROCESSOR)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    place = tmp_path_factory.mktemp("media")
    return {
        "video": Video(str(write_mp4(place / "v.mp4"))),
        "wide": Image(str(write_png(place / "a.png", size=(60, 40), seed=1))),
        "tall": Image(str(write_png(place / "b.png", size=(20, 80), seed=2))),
        "small": Image(str(write_png(place / "c.png", size=(9, 7), seed=3))),
    }


def user(*parts):
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def bot(text):
    return Message("assistant", text)


def samples(media):
    """Single conversations by name."""
    video, wide, tall, small = media.values()
    return {
        "text": MessageTree("t", (user("Hi"), bot("Hello you."))),
        "image": MessageTree("i", (user(wide), user("What is it?"), bot("Noise."))),
        "video": MessageTree("v", (user(video), user("What moves?"), bot("A ball."))),
        "several": MessageTree(
            "s", (user(wide, "and", tall, small), bot("Three."), user(small), bot("One."))
        ),
        "mixed": MessageTree("m", (user(tall), bot("Tall."), user("Now", video, "?"), bot("It moves."))),
    }


NAMES = ("text", "image", "video", "several", "mixed")


def trees(media):
    video, wide, tall, small = media.values()
    return (
        MessageTree(
            "v",
            (user(video),),
            (
                Branch((user("What?"), bot("A ball."))),
                Branch(
                    (user(wide, "And this?", tall), bot("Noise.")),
                    (Branch((user("Sure?"), bot("yes"))), Branch((user(small), user("?"), bot("no")))),
                ),
                Branch((bot("It rolls to the right."),)),
            ),
        ),
        MessageTree(
            "w",
            (Message("system", "Be kind."), user(small), user(wide)),
            (
                Branch((user(tall), user("Which?"), bot("The third."))),
                Branch((user("How many?"), bot("Two."))),
            ),
        ),
        MessageTree(
            "t", (user("Root"),), (Branch((bot("one"), user("more"), bot("x"))), Branch((bot("two"),)))
        ),
    )


def row_of(*sequences, pad=0):
    total = sum((item.cost for item in sequences), Cost())
    budget = Budget(**{**total, "tokens": total["tokens"] + pad})
    return Row.join(list(sequences), budget, pad=bool(pad))


def inputs(encoder, sequence):
    """What the forward of `transformers` wants for one sample, from its tokens and patches."""
    ids = torch.as_tensor(sequence.tokens, dtype=torch.long)[None]
    kinds = torch.zeros_like(ids)
    kinds[ids == encoder.chat.special(IMAGE_PATCH)] = 1
    kinds[ids == encoder.chat.special(VIDEO_PATCH)] = 2
    given = {"input_ids": ids, "mm_token_type_ids": kinds}
    if sequence.vision is None:
        return given
    place = {1: "image", 2: "video"}
    start = slot = 0
    found = {"image": [[], []], "video": [[], []]}
    for frames, rows, columns in sequence.vision.grids.tolist():
        count = 4 * frames * rows * columns
        which = found[place[int(kinds[0, sequence.slot[slot]])]]
        which[0].append(torch.as_tensor(sequence.vision.crops[start : start + count]).float() / 127.5 - 1)
        which[1].append([frames, 2 * rows, 2 * columns])
        start, slot = start + count, slot + count // 4
    for name, (pixels, grids) in found.items():
        if pixels:
            key = "pixel_values" if name == "image" else "pixel_values_videos"
            given |= {key: torch.cat(pixels), f"{name}_grid_thw": torch.tensor(grids)}
    return given


def error(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


# One sample


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_logits_of_a_sample_equal_transformers(model, hf, encoder, media, name):
    sequence = encoder(samples(media)[name])
    ours = model.head(model(row_of(sequence)))
    assert error(ours, hf(**inputs(encoder, sequence)).logits[0]) < 1e-5


@torch.no_grad()
def test_images_seen_by_the_processor_of_transformers_give_the_same_logits(model, hf, encoder, media):
    tree = samples(media)["several"]
    sequence = encoder(tree)
    processor = public_qwen3_vl(PROCESSOR)
    pixels = processor.image_processor([PIL.Image.open(item.path) for item in tree.media])
    given = inputs(encoder, sequence) | {
        "pixel_values": torch.as_tensor(pixels["pixel_values"]),
        "image_grid_thw": torch.as_tensor(pixels["image_grid_thw"]),
    }
    ours = model.head(model(row_of(sequence)))
    assert error(ours, hf(**given).logits[0]) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("part", ["own", "deep"])
def test_vision_matters_to_the_logits(model, encoder, media, part):
    """Or the comparisons above would say nothing of it."""
    row = row_of(encoder(samples(media)["video"])).to("cpu")
    embeddings = model.embed(row)
    assert embeddings.shape[1] == model.width == 96
    seen = model.language(embeddings, row)
    changed = embeddings.clone()
    changed[row.slot, slice(32) if part == "own" else slice(32, None)] = 0.0
    assert error(model.language(changed, row), seen) > 1e-2


@torch.no_grad()
def test_a_slot_has_the_feature_of_its_own_window(model, encoder, media):
    """Several slots may ask for one window, as those of prompts about the same media do."""
    vision = row_of(encoder(samples(media)["several"])).to("cpu").vision
    wanted = torch.tensor([5, 0, 5, len(vision.pooling) - 1])
    asked = dataclasses.replace(vision, pooling=vision.pooling[wanted])
    assert torch.equal(model.features(asked), model.features(vision)[wanted])


@torch.no_grad()
def test_questions_about_one_video_are_answered_as_by_generate_of_transformers(model, hf, encoder, media):
    prompts = encoder.prompts(trees(media)[0], trees(media)[0].nodes()[1:4])
    found = generate(model, prompts, encoder.chat, Sampling(max_new_tokens=8))
    for prompt, answer in zip(prompts, found.answers, strict=True):
        settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": encoder.chat.stop}
        written = hf.generate(**inputs(encoder, prompt), **settings, pad_token_id=0)
        assert list(answer.tokens) == written[0, len(prompt.tokens) :].tolist()


def test_positions_of_packed_trees_are_those_transformers_computes_for_each_sample(hf, encoder, media):
    for tree in trees(media):
        whole, nodes = encoder(tree), tree.nodes()
        lengths = encoder.lengths(tree)
        owner = np.repeat(np.arange(len(nodes)), lengths)[whole.order]
        for node in nodes:
            path = [node.index]
            while nodes[path[0]].parent >= 0:
                path.insert(0, nodes[path[0]].parent)
            own = np.flatnonzero(np.isin(owner, path))
            part = dataclasses.replace(whole, tokens=whole.tokens[own])
            given = inputs_of_tokens(encoder, part, tree, node)
            wanted, _ = hf.model.get_rope_index(**given)
            assert whole.position[:, own].tolist() == wanted[:, 0].tolist()


def inputs_of_tokens(encoder, sequence, tree, node):
    """Tokens of a path, and the grids of the media on it."""
    ids = torch.as_tensor(sequence.tokens, dtype=torch.long)[None]
    kinds = (ids == encoder.chat.special(IMAGE_PATCH)) + 2 * (ids == encoder.chat.special(VIDEO_PATCH))
    shown = [item for message in (*node.path, *node.messages) for item in message.media]
    grids = {"image": [], "video": []}
    for item in shown:
        (frames, rows, columns), = PROCESSOR.layout(item, encoder.facts(item)).grids  # fmt: skip
        grids[item.type].append([frames, 2 * rows, 2 * columns])
    given = {f"{name}_grid_thw": torch.tensor(found) for name, found in grids.items() if found}
    return {"input_ids": ids, "mm_token_type_ids": kinds, **given}


def test_packed_rows_restart_positions_at_each_tree(encoder, media):
    sequences = [encoder(tree) for tree in trees(media)]
    row = row_of(*sequences, pad=5)
    assert row.position.shape == (3, len(row))
    wanted = np.concatenate([*(item.position for item in sequences), np.zeros((3, 5))], axis=1)
    assert row.position.tolist() == wanted.tolist()


# Trees and rows


def test_the_laws_hold_on_packed_trees(model, encoder, media):
    found = verify(model, encoder, trees(media))
    assert found.passed, found
    assert min(finding.cases for finding in found.findings) > 0


@torch.no_grad()
def test_packed_trees_have_the_logits_of_separate_forwards_of_transformers(model, hf, encoder, media):
    """Each node's targets, run as a conversation of its own by `transformers` alone."""
    sequences = [encoder(tree) for tree in trees(media)]
    row = row_of(*sequences)
    logits = model.head(model(row)[torch.as_tensor(row.source, dtype=torch.long)])
    first = 0
    for tree, sequence in zip(trees(media), sequences, strict=True):
        for number, sample in enumerate(sequence.samples):
            node = next(node for node in tree.nodes() if node.address == sample.branch)
            own = encoder(dataclasses.replace(tree, messages=node.path + node.messages, branches=()))
            mine = logits[row.sample == first + number]
            wanted = hf(**inputs(encoder, own)).logits[0][own.source[-len(mine) :]]
            assert error(mine, wanted) < 1e-5
        first += len(sequence.samples)


def test_a_training_step_moves_vision_connector_and_language(folder, encoder, media):
    model = load(folder)
    groups = model.parameter_groups()
    assert list(groups) == ["connector", "vision", "language"]
    counted = [id(p) for group in groups.values() for p in group]
    assert sorted(counted) == sorted(id(p) for p in model.parameters())
    mergers = {id(p) for name, p in model.named_parameters() if "merger" in name}
    assert {id(p) for p in groups["connector"]} == mergers
    assert {id(p) for p in groups["vision"]} == {id(p) for p in model.hf.model.visual.parameters()} - mergers
    row = row_of(*(encoder(tree) for tree in trees(media))).to("cpu")
    weighted_loss(model(row), row, model.head).numerator.backward()
    for name, group in groups.items():
        reached = [p for p in group if p.grad is not None and p.grad.abs().max() > 0]
        assert len(reached) >= 0.9 * len(group), name


def test_checkpointed_layers_give_the_same_gradients(folder, encoder, media):
    row = row_of(encoder(trees(media)[0])).to("cpu")
    found = []
    for checkpointing in (False, True):
        model = load(folder, gradient_checkpointing=checkpointing).train()
        weighted_loss(model(row), row, model.head).numerator.backward()
        found.append(model.hf.model.visual.merger.linear_fc1.weight.grad)
    assert error(found[1], found[0]) < 1e-5


# What does not fit


def test_patches_of_another_size_are_refused(model, media):
    other = tiny_encoder(dataclasses.replace(PROCESSOR, patch_size=5))
    with pytest.raises(RecipeError, match=r"patches \[150\] merged by 4, but the vision tower takes \[96\]"):
        model(row_of(other(samples(media)["image"])))


def test_positions_with_one_axis_are_refused(model, encoder, media):
    row = row_of(encoder(samples(media)["text"]))
    with pytest.raises(ValueError, match="along 3 axes; encode with the processor of this model"):
        model(dataclasses.replace(row, position=row.position[0]))


# Several processes


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_processes_that_share_a_row_train_as_one(model, encoder, media, tmp_path):
    sequences = [encoder(tree) for tree in trees(media)]
    rows = [row_of(*sequences).to("cpu"), row_of(sequences[1]).to("cpu"), row_of(sequences[2]).to("cpu")]

    def trained(row, share):
        model.zero_grad()
        loss = weighted_loss(model(row), share, model.head).numerator
        loss.backward()
        return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}

    expected = [trained(row, row) for row in rows]
    answers = multiprocessing.get_context("fork").SimpleQueue()

    def run(rank):
        torch.set_num_threads(1)
        try:
            store = f"file://{tmp_path}/store"
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
            model.context = parallel.context(2)
            found = [trained(row, model.context.targets(row)) for row in rows]
            for gradients in found:
                parallel.sum_in_place(list(gradients.values()))
            answers.put(([{n: g.numpy() for n, g in one.items()} for one in found], ""))
        except BaseException:
            answers.put(([], traceback.format_exc()))

    processes = [
        multiprocessing.get_context("fork").Process(target=run, args=(rank,), daemon=True) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    told = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    for found, problem in told:
        assert not problem, problem
        for gradients, wanted in zip(found, expected, strict=True):
            whole = torch.cat([one.flatten() for one in wanted.values()]).norm()
            for name, gradient in gradients.items():
                difference = np.linalg.norm(gradient - wanted[name].numpy())
                assert difference <= 1e-5 * max(wanted[name].norm(), 1e-3 * whole), name


def test_images_are_shared_whole_and_about_evenly():
    assert qwen3_vl._cuts([0, 10, 20, 30, 40], 2) == [0, 2, 4]
    assert qwen3_vl._cuts([0, 90, 100], 2) == [0, 1, 2]
    assert qwen3_vl._cuts([0, 100], 3) == [0, 0, 1, 1]
