"""Models that see by placeholder tokens: tokens and logits are those of `transformers`, the laws hold."""

import dataclasses
import itertools
import json
import multiprocessing
import shutil
import traceback

import numpy as np
import PIL.Image
import pytest
import torch
import torch.distributed as dist
from processor_toys import KINDS, checkpoint, public
from transformers import (
    AutoModelForImageTextToText,
    LlamaConfig,
    LlamaForCausalLM,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.gemma3.modeling_gemma3 import get_block_sequence_ids_for_mask

from hedgerow.build import build_model
from hedgerow.content import Image, Text, Video
from hedgerow.encode import Encoder
from hedgerow.errors import RecipeError
from hedgerow.models.generate import generate
from hedgerow.models.pretrained import family_of, load, save
from hedgerow.models.processor import ProcessorModel
from hedgerow.models.sampling import Sampling
from hedgerow.recipe import Recipe
from hedgerow.sequence import Budget, Cost, Row
from hedgerow.testing import tiny_checkpoint, tiny_encoder, write_jsonl, write_mp4, write_png
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.train import parallel
from hedgerow.train.loss import weighted_loss
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.verify import verify
from hedgerow.vision import plain
from hedgerow.vision.facts import probe
from hedgerow.vision.hf import HFProcessor
from hedgerow.vision.video import decode_frames


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, as we run it and as `transformers` does."""

    name: str
    folder: object
    model: ProcessorModel
    hf: object
    tool: object
    encoder: Encoder

    def given(self, tree, sequence):
        """What `transformers` wants for one conversation: our tokens, and pixels from its own processor."""
        ids = torch.as_tensor(sequence.tokens[np.argsort(sequence.order)], dtype=torch.long)[None]
        kinds = (ids == self.hf.config.image_token_id).long()
        name = "token_type_ids" if self.name == "gemma3" else "mm_token_type_ids"
        given = {"input_ids": ids, **({name: kinds} if self.name in ("gemma3", "qwen2_5_vl") else {})}
        shown = list(itertools.chain.from_iterable(map(self.pictures, media_of(tree))))
        if not shown:
            return given
        text = self.tool.image_token * len(shown)
        seen = self.tool(
            images=shown, text=[text], images_kwargs=KINDS[self.name].settings, return_tensors="pt"
        )
        kept = ("pixel_values", "image_grid_thw", "image_sizes", "pixel_attention_mask")
        return given | {key: seen[key] for key in kept if key in seen}

    def pictures(self, media):
        if isinstance(media, Image):
            return [PIL.Image.open(media.path)]
        facts = probe(media)
        times = self.encoder.processor.layout(media, facts).times
        frames = decode_frames(media, times, size=(facts.height, facts.width), resize="bilinear")
        return [PIL.Image.fromarray(frame) for frame in frames]

    def logits(self, tree):
        """Of one conversation, by `transformers` alone, in the order it is read."""
        return self.hf(**self.given(tree, self.encoder(tree))).logits[0]


def media_of(tree):
    return [item for message in tree.messages for item in message.media]


@pytest.fixture(scope="module", params=KINDS)
def case(request, tmp_path_factory):
    folder = checkpoint(tmp_path_factory.mktemp(request.param), request.param)
    return Case(
        request.param,
        folder,
        load(folder),
        AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32),
        public(folder, request.param),
        encoder_of(folder, request.param),
    )


def encoder_of(folder, name):
    settings = KINDS[name].settings
    processor = HFProcessor(str(folder), images=settings, frames=settings, max_frames=3)
    return Encoder(ChatFormat(load_tokenizer(folder)), processor)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    place = tmp_path_factory.mktemp("media")
    return {
        "video": Video(str(write_mp4(place / "v.mp4"))),
        "wide": Image(str(write_png(place / "a.png", size=(80, 20), seed=1))),
        "tall": Image(str(write_png(place / "b.png", size=(30, 40), seed=2))),
        "small": Image(str(write_png(place / "c.png", size=(24, 24), seed=3))),
    }


def user(*parts):
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def bot(text):
    return Message("assistant", text)


def samples(media):
    video, wide, tall, small = media.values()
    return {
        "text": MessageTree("t", (user("Hi"), bot("Hello you."))),
        "image": MessageTree("i", (user(wide, "What is it?"), bot("Noise."))),
        "several": MessageTree(
            "s", (user(wide, "and", tall, small, "?"), bot("Three."), user(small, "?"), bot("One."))
        ),
        "video": MessageTree("v", (user("See", video, "What moves?"), bot("A ball."))),
    }


def trees(media):
    video, wide, tall, small = media.values()
    return (
        MessageTree(
            "v",
            (user(wide),),
            (
                Branch((user("What?"), bot("A ball."))),
                Branch(
                    (user(small, "And this?"), bot("Noise.")),
                    (Branch((user("Sure?"), bot("yes"))), Branch((user(small), user("?"), bot("no")))),
                ),
            ),
        ),
        MessageTree(
            "w",
            (user(video),),
            (Branch((user("Which?"), bot("That."))), Branch((user(tall, "Now?"), bot("Two.")))),
        ),
    )


def row_of(*sequences):
    return Row.join(list(sequences), Budget(**sum((item.cost for item in sequences), Cost())))


def error(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def in_order(row, values):
    return values[torch.as_tensor(np.argsort(row.order))]


# One sample


@pytest.mark.parametrize("name", ["image", "several"])
def test_tokens_are_those_of_its_own_processor(case, media, name):
    tree = samples(media)[name]
    turns = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image"}
                for part in message.parts
            ],
        }
        for message in tree.messages
    ]
    text = case.tool.tokenizer.apply_chat_template(turns, tokenize=False)
    shown = [PIL.Image.open(item.path) for item in media_of(tree)]
    wanted = case.tool(images=shown, text=[text], images_kwargs=KINDS[case.name].settings)
    sequence = case.encoder(tree)
    assert sequence.tokens[np.argsort(sequence.order)].tolist() == wanted["input_ids"][0]


@torch.no_grad()
@pytest.mark.parametrize("name", ["text", "image", "several", "video"])
def test_logits_of_a_sample_equal_transformers(case, media, name):
    tree = samples(media)[name]
    row = row_of(case.encoder(tree))
    ours = in_order(row, case.model.head(case.model(row)))
    assert error(ours, case.logits(tree)) < 1e-5


@torch.no_grad()
def test_vision_matters_to_the_logits(case, media):
    """Or the comparisons above would say nothing of it."""
    row = row_of(case.encoder(samples(media)["image"])).to("cpu")
    embeddings = case.model.embed(row)
    changed = embeddings.clone()
    changed[row.slot] = changed[row.slot].flip(0)
    assert error(case.model.language(changed, row), case.model.language(embeddings, row)) > 1e-3


@torch.no_grad()
def test_a_slot_has_the_feature_of_its_own_window(case, media):
    """Several slots may ask for one window, as those of prompts about the same media do."""
    vision = row_of(case.encoder(samples(media)["several"])).to("cpu").vision
    wanted = torch.tensor([5, 0, 5, len(vision.pooling) - 1])
    asked = dataclasses.replace(vision, pooling=vision.pooling[wanted])
    assert torch.equal(case.model.features(asked), case.model.features(vision)[wanted])


@torch.no_grad()
def test_questions_about_one_image_are_answered_as_by_generate_of_transformers(case, media):
    tree = trees(media)[0]
    nodes = tree.nodes()[1:3]
    prompts = case.encoder.prompts(tree, nodes)
    found = generate(case.model, prompts, case.encoder.chat, Sampling(max_new_tokens=6))
    for node, prompt, answer in zip(nodes, prompts, found.answers, strict=True):
        own = dataclasses.replace(tree, messages=node.path + node.messages, branches=())
        settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": case.encoder.chat.stop}
        written = case.hf.generate(**case.given(own, prompt), **settings, pad_token_id=0)
        assert list(answer.tokens) == written[0, len(prompt.tokens) :].tolist()


# Trees and rows


@torch.no_grad()
def test_packed_trees_have_the_logits_of_separate_forwards_of_transformers(case, media):
    """Each node's targets, run as a conversation of its own by `transformers` alone."""
    sequences = [case.encoder(tree) for tree in trees(media)]
    row = row_of(*sequences)
    logits = case.model.head(case.model(row)[torch.as_tensor(row.source, dtype=torch.long)])
    first = 0
    for tree, sequence in zip(trees(media), sequences, strict=True):
        for number, sample in enumerate(sequence.samples):
            node = next(node for node in tree.nodes() if node.address == sample.branch)
            own = dataclasses.replace(tree, messages=node.path + node.messages, branches=())
            alone = case.encoder(own)
            mine = logits[row.sample == first + number]
            source = alone.order[alone.source[-len(mine) :]]
            assert error(mine, case.logits(own)[source]) < 1e-5
        first += len(sequence.samples)


def test_the_laws_hold_on_packed_trees(case, media):
    found = verify(case.model, case.encoder, trees(media))
    assert found.passed, found
    assert min(finding.cases for finding in found.findings) > 0


def paths(encoder, tree):
    """For each node of an encoded tree, its tokens and those above it, in the order they are read."""
    whole, nodes = encoder(tree), tree.nodes()
    owner = np.repeat(np.arange(len(nodes)), encoder.lengths(tree))[whole.order]
    for node in nodes:
        path = [node.index]
        while nodes[path[0]].parent >= 0:
            path.insert(0, nodes[path[0]].parent)
        own = np.flatnonzero(np.isin(owner, path))
        yield node, whole, own[np.argsort(whole.order[own])]


@pytest.mark.parametrize("case", ["qwen2_5_vl"], indirect=True)
def test_positions_of_packed_trees_are_those_transformers_computes(case, media):
    for tree in trees(media):
        for node, whole, own in paths(case.encoder, tree):
            alone = dataclasses.replace(tree, messages=node.path + node.messages, branches=())
            given = case.given(
                alone, dataclasses.replace(whole, tokens=whole.tokens[own], order=np.arange(len(own)))
            )
            given.pop("pixel_values")
            wanted, _ = case.hf.model.get_rope_index(**given)
            assert whole.position[:, own].tolist() == wanted[:, 0].tolist()


@pytest.mark.parametrize("case", ["gemma3"], indirect=True)
def test_visual_tokens_of_gemma_see_each_other_as_in_transformers(case, media):
    """The crops of one image too are blocks of their own, and marks and text stay causal."""
    for tree in trees(media):
        for _, whole, own in paths(case.encoder, tree):
            kinds = (whole.tokens[own] == case.hf.config.image_token_id).astype(int)
            wanted = get_block_sequence_ids_for_mask(torch.tensor(kinds[None]))[0].numpy()
            group = whole.group[own]
            assert ((group >= 0) == (wanted >= 0)).all()
            same = group[:, None] == group
            assert (same == (wanted[:, None] == wanted)).all()
    assert len(set(wanted)) > 3


# Training and saving


def test_a_training_step_moves_vision_connector_and_language(case, media):
    model = load(case.folder)
    groups = model.parameter_groups()
    assert list(groups) == ["connector", "vision", "language"]
    counted = [id(p) for group in groups.values() for p in group]
    assert sorted(counted) == sorted(id(p) for p in model.parameters())
    row = row_of(*(case.encoder(tree) for tree in trees(media))).to("cpu")
    weighted_loss(model(row), row, model.head).numerator.backward()
    for name, group in groups.items():
        reached = [p for p in group if p.grad is not None and p.grad.abs().max() > 0]
        assert len(reached) >= 0.8 * len(group), name


@torch.no_grad()
def test_a_saved_model_is_read_by_transformers_and_by_us(case, media, tmp_path):
    settings = {"family": "processor", "folder": str(case.folder)}
    tokenizer = load_tokenizer(case.folder)
    save(case.model, tmp_path / "m", tokenizer=tokenizer, settings=settings, origin=case.folder)
    assert family_of(tmp_path / "m") == "processor"
    tree = samples(media)["several"]
    wanted = case.logits(tree)
    public_model = AutoModelForImageTextToText.from_pretrained(tmp_path / "m", dtype=torch.float32)
    assert torch.equal(public_model(**case.given(tree, case.encoder(tree))).logits[0], wanted)
    again, encoder = load(tmp_path / "m"), encoder_of(tmp_path / "m", case.name)
    row = row_of(encoder(tree))
    assert error(in_order(row, again.head(again(row))), wanted) < 1e-5


# Several processes


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("case", ["smolvlm", "gemma3", "qwen2_5_vl"], indirect=True)
def test_two_processes_that_share_a_row_train_as_one(case, media, tmp_path):
    model, fork = case.model, multiprocessing.get_context("fork")
    row = row_of(*(case.encoder(tree) for tree in trees(media))).to("cpu")

    def trained(share):
        model.zero_grad()
        weighted_loss(model(row), share, model.head).numerator.backward()
        return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}

    expected, answers = trained(row), fork.SimpleQueue()

    def run(rank):
        torch.set_num_threads(1)
        try:
            store = f"file://{tmp_path}/store"
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
            model.context = parallel.context(2)
            found = trained(model.context.targets(row))
            parallel.sum_in_place(list(found.values()))
            answers.put(({name: gradient.numpy() for name, gradient in found.items()}, ""))
        except BaseException:
            answers.put(({}, traceback.format_exc()))

    processes = [fork.Process(target=run, args=(rank,), daemon=True) for rank in (0, 1)]
    for process in processes:
        process.start()
    told = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    whole = torch.cat([one.flatten() for one in expected.values()]).norm()
    for found, problem in told:
        assert not problem, problem
        for name, wanted in expected.items():
            difference = np.linalg.norm(found[name] - wanted.numpy())
            assert difference <= 1e-5 * max(wanted.norm(), 1e-3 * whole), name


# What does not fit


def test_models_that_see_in_another_way_are_refused_by_name(tmp_path):
    deep = Qwen3VLForConditionalGeneration.from_pretrained(tiny_checkpoint(tmp_path / "q", "qwen3_vl"))
    with pytest.raises(RecipeError, match="adds visual features in deeper layers and numbers tokens along"):
        ProcessorModel(deep)
    text = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        )
    )
    with pytest.raises(RecipeError, match="LlamaForCausalLM has no get_image_features"):
        ProcessorModel(text)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    prefix = PaliGemmaForConditionalGeneration(
        PaliGemmaConfig(
            text_config={
                "model_type": "gemma", "vocab_size": 9, "head_dim": 8, "num_key_value_heads": 1, **sizes
            },
            vision_config={"model_type": "siglip_vision_model", "image_size": 8, "patch_size": 4, **sizes},
            image_token_index=8, projection_dim=8,
        )
    )  # fmt: skip
    with pytest.raises(RecipeError, match="lets visual tokens see ahead by token_type_ids"):
        ProcessorModel(prefix)


@pytest.mark.parametrize("case", ["smolvlm"], indirect=True)
def test_rows_of_another_family_are_refused(case, media):
    other = tiny_encoder()(samples(media)["image"])
    with pytest.raises(RecipeError, match="not encoded for SmolVLMForConditionalGeneration"):
        case.model(row_of(other))
    vision = row_of(case.encoder(samples(media)["image"])).to("cpu").vision
    fewer = dataclasses.replace(vision, images=vision.images - torch.tensor([0, 1, 0, 0, 0]))
    with pytest.raises(RecipeError, match="27 features for 26 placeholder tokens"):
        case.model.features(fewer)


@pytest.mark.parametrize("case", ["smolvlm"], indirect=True)
def test_a_processor_that_is_not_saved_with_the_model_is_refused(case, tmp_path):
    """The folder may have moved, but `ask` would use the processor beside the model."""

    def recipe_of(place):
        return Recipe.model_validate(
            {
                "data": {"train": [{"path": "a.jsonl"}]}, "steps": 1, "out": tmp_path,
                "model": {"checkpoint": case.folder, "tokenizer": str(case.folder)},
                "vision": {"family": "processor", "folder": str(place)},
            }
        )  # fmt: skip

    moved = shutil.copytree(case.folder, tmp_path / "moved")
    assert build_model(recipe_of(moved)).hf.config.model_type == "smolvlm"
    file = moved / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}))
    with pytest.raises(RecipeError, match=r"the processor in .*moved has other settings than that in"):
        build_model(recipe_of(moved))


# As users run it


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("case", ["smolvlm", "qwen2_5_vl"], indirect=True)
def test_a_recipe_trains_it_and_the_trained_model_answers(case, media, hedgerow, tmp_path):
    """With a worker that reads pixels; the trained model stands alone, for its processor is saved with it."""
    origin = tmp_path / "origin"
    shutil.copytree(case.folder, origin)
    shown = {"type": "image", "path": media["wide"].path}
    film = {"type": "video", "path": media["video"].path}
    lines = [
        {"id": "a", "messages": [
            {"role": "user", "content": [shown, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": "Noise."}]},
        {"id": "b", "messages": [
            {"role": "user", "content": [film, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": "A square."}]},
    ]  # fmt: skip
    data = write_jsonl(tmp_path / "a.jsonl", lines)
    recipe = {
        "data": {"train": [{"path": str(data)}], "frames": {"folder": str(tmp_path / "frames")}},
        "model": {"checkpoint": str(origin), "tokenizer": str(origin)},
        "vision": {"family": "processor", "max_frames": 2},
        "packing": {"budget": {"tokens": 600, "crops": 600}, "workers": 1},
        "steps": 2, "out": str(tmp_path / "run"), "threads": 1,
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    code, _, err = hedgerow("train", path)
    assert code == 0, err
    shutil.rmtree(origin)
    for kept in (plain.plain, plain.written, plain.model_type):
        kept.cache_clear()  # as in another process
    code, out, err = hedgerow(
        "ask", media["wide"].path, "What?", "--model", tmp_path / "run", "--max-new-tokens", "8", "--json"
    )
    assert (code, err) == (0, "")
    (reply,) = json.loads(out)["answers"]
    encoder = encoder_of(tmp_path / "run" / "model", "smolvlm")
    model = load(tmp_path / "run" / "model")
    tree = MessageTree("q", (user(media["wide"]),), (Branch((user("What?"), bot("x"))),))
    prompts = encoder.prompts(tree, [tree.nodes()[1]])
    found = generate(model, prompts, case.encoder.chat, Sampling(max_new_tokens=8, guard=32))
    assert reply["answer"] == found.answers[0].text
