"""`hedgerow ask` and `hedgerow assemble`: a saved model answers about files, and points are drawn on them."""

import json
import re
import sys

import numpy as np
import PIL.Image
import pytest

from hedgerow.content import Image, Video
from hedgerow.models.assemble import ModelSpec, build, save
from hedgerow.testing import (
    TINY_MODEL,
    TINY_QWEN3_VL,
    TINY_VISION,
    tiny_checkpoint,
    tiny_encoder,
    write_mp4,
    write_png,
)
from hedgerow.text import load_tokenizer
from hedgerow.tree import Branch, Message, MessageTree

QUESTIONS = ("What is it?", "Point to the squares.", "Why?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images, a video, files that are neither, and the models of three families."""
    folder = tmp_path_factory.mktemp("ask")
    write_png(folder / "a.png")
    write_png(folder / "b.png", size=(20, 80), seed=1)
    write_mp4(folder / "v.mp4")
    (folder / "notes").write_text("No picture.")
    (folder / "half.png").write_bytes((folder / "a.png").read_bytes()[:-3000])
    plain = [PIL.Image.new("RGB", (40, 30), shade) for shade in ("red", "blue")]
    plain[0].save(folder / "moving.gif", save_all=True, append_images=plain[1:], duration=500)
    plain[0].save(folder / "still.gif")
    tokenizer = load_tokenizer("tiny")
    model = build(ModelSpec(**TINY_MODEL), tokenizer=tokenizer, seed=3)
    save(model, folder / "run" / "model", tokenizer=tokenizer, settings=TINY_VISION)
    tiny_checkpoint(folder / "text", "qwen3")
    return folder


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def replying(monkeypatch, *texts, reason="stop"):
    """Let the model say what a test needs."""
    from hedgerow.ask import asking
    from hedgerow.models.answer import Answer

    def generate(model, prompts, chat, sampling):
        assert (sampling.guard, sampling.max_new_tokens) == (32, 512)
        found = asking.Generated(tuple(Answer((7,), text, reason) for text in texts), 0.5, 0.25)
        assert len(prompts) == len(texts)
        return found

    monkeypatch.setattr(asking, "generate", generate)


def refused(result):
    code, out, err = result
    assert (code, out, err.count("\n")) == (2, "", 1), result
    return err.removeprefix("hedgerow: ").strip()


def reference(folder, media, **options):
    """The answers of `generate` to prompts encoded by hand, one conversation at a time."""
    from hedgerow.models.assemble import load
    from hedgerow.models.generate import generate
    from hedgerow.models.sampling import Sampling

    encoder, model = tiny_encoder(), load(folder / "run" / "model")
    found = []
    for question in QUESTIONS:
        asked = Branch((Message("user", question), Message("assistant", "")))
        tree = MessageTree("alone", (Message("user", media),), (asked,))
        prompts = encoder.prompts(tree, tree.nodes()[1:])
        found += generate(model, prompts, encoder.chat, Sampling(**options)).answers
    return found


@pytest.mark.parametrize("shown", [("a.png",), ("a.png", "b.png"), ("v.mp4",), ("b.png", "v.mp4")])
def test_answers_are_those_of_generate_on_each_question_alone(hedgerow, inside, shown, monkeypatch):
    from hedgerow.ask import asking
    from hedgerow.models.families import families

    asked = []
    generate = asking.generate
    monkeypatch.setattr(asking, "generate", lambda *given: asked.append(given[1]) or generate(*given))
    media = tuple((Video if name == "v.mp4" else Image)(name) for name in shown)
    words = ("ask", *shown, *QUESTIONS, "--model", "run", "--max-new-tokens", "12")
    code, out, err = hedgerow(*words, "--json")
    found = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert found["model"] == "run/model"
    expected = reference(inside, media, max_new_tokens=12, guard=32)
    assert [item["path"] for item in found["media"]] == list(shown)
    for said, question, answer in zip(found["answers"], QUESTIONS, expected, strict=True):
        assert (said["question"], said["answer"], said["reason"]) == (question, answer.text, answer.reason)
        assert said["tokens"] == len(answer.tokens)
    assert any(answer.text for answer in expected)
    (prompts,) = asked
    (family,) = families(prompts)  # what is shown is read once
    assert family.root > max(prompts[0].slot)


def test_the_folder_of_the_model_itself_will_do_and_its_settings_decide_what_is_seen(
    hedgerow, inside, tmp_path
):
    words = ("ask", "v.mp4", "Why?", "--max-new-tokens", "2", "--json")
    whole = json.loads(hedgerow(*words, "--model", "run/model")[1])
    assert whole["media"] == [
        {"type": "video", "path": "v.mp4", "width": 64, "height": 48, "times": [0.0, 0.5, 1.0, 1.5]}
    ]
    clip = ("--fps", "4", "--max-frames", "3", "--start", "0.5", "--end", "1.0")
    cut = json.loads(hedgerow(*words, "--model", "run", *clip)[1])
    assert cut["media"][0]["times"] == [0.0, 0.25, 0.5]
    assert cut["decode_seconds"] > 0


def test_drawing_needs_a_temperature_and_follows_the_seed(hedgerow, inside):
    words = ("ask", "a.png", "Why?", "--model", "run", "--max-new-tokens", "12", "--json")
    drawn = (*words, "--temperature", "3", "--top-p", "0.9", "--seed")
    texts = [json.loads(hedgerow(*drawn, seed)[1])["answers"][0]["answer"] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    for option, value in (("top-p", "0.5"), ("seed", "1")):
        said = refused(hedgerow(*words, f"--{option}", value))
        assert said == f"--{option} does nothing at temperature 0; add --temperature 0.7"


def test_a_model_of_text_answers_without_media_and_refuses_them_before_it_is_read(
    hedgerow, inside, monkeypatch
):
    code, out, _ = hedgerow("ask", "Why?", "Who?", "--model", "text", "--max-new-tokens", "3")
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith(">")] == ["> Why?", "> Who?"]
    monkeypatch.setattr("hedgerow.models.pretrained.load", None)
    for name, kind in (("a.png", "an image"), ("v.mp4", "a video")):
        said = refused(hedgerow("ask", name, "Why?", "--model", "text"))
        assert said.startswith(f"{name} is {kind}, a media type the model cannot see")


def test_qwen3_vl_is_asked_as_its_family_sees_and_its_json_is_read(hedgerow, inside, monkeypatch, tmp_path):
    place = tiny_checkpoint(tmp_path / "qwen", "qwen3_vl")
    (place / "hedgerow.json").write_text(json.dumps({"family": "qwen3_vl", **TINY_QWEN3_VL}))
    words = ("ask", "a.png", "Where?", "--model", place, "--json")
    code, out, _ = hedgerow(*words, "--max-new-tokens", "4")
    assert (code, json.loads(out)["answers"][0]["tokens"]) == (0, 4)
    replying(monkeypatch, '[{"point_2d": [250, 500], "label": "spot"}]')
    (part,) = json.loads(hedgerow(*words)[1])["answers"][0]["parts"]
    assert (part["label"], part["points"]) == ("spot", [{"x": 0.25, "y": 0.5}])


REPLY = '<points coords="1 1 250 500 2 750 250;2 3 500 500;3 4 100 100">spot</points>'


def test_questions_answers_points_and_reasons_are_printed(hedgerow, inside, monkeypatch):
    replying(monkeypatch, REPLY, " ", reason="length")
    code, out, err = hedgerow("ask", "a.png", "b.png", "Where?", "Why?", "--model", "run")
    assert code == 0
    assert out.splitlines() == [
        "> Where?",
        REPLY,
        "  points 'spot': 4",
        "       at  id      x      y",
        "  image 1   1  0.250  0.500",
        "  image 1   2  0.750  0.250",
        "  image 2   3  0.500  0.500",
        "  image 3   4  0.100  0.100",
        "  cut off after 1 tokens; raise --max-new-tokens",
        "",
        "> Why?",
        "  (an empty answer)",
        "  cut off after 1 tokens; raise --max-new-tokens",
    ]
    assert err == "read in 0.50 s, then 2 tokens at 8 a second\n"


def test_a_long_table_is_cut_and_problems_and_the_guard_are_told(hedgerow, inside, monkeypatch):
    coords = ";".join(f"{time}.0 1 500 500" for time in range(24))
    broken = f'<tracks coords="{coords}">x</tracks> and <points coords="1 1 2000 100">y</points>'
    replying(monkeypatch, broken, reason="guard: character 3: a loop")
    lines = hedgerow("ask", "v.mp4", "Track it.", "--model", "run")[1].splitlines()
    assert "  tracks 'x': 24" in lines
    assert sum(line.endswith("0.500  0.500") for line in lines) == 20
    assert "  ... and 4 more; all are in what --json prints" in lines
    assert any(line.startswith("  not understood: character ") for line in lines)
    assert lines[-1] == "  ended by the guard: character 3: a loop"
    (answer,) = json.loads(hedgerow("ask", "v.mp4", "Track it.", "--model", "run", "--json")[1])["answers"]
    assert len(answer["parts"][0]["points"]) == 24
    assert answer["parts"][0]["points"][2] == {"x": 0.5, "y": 0.5, "id": 1, "time": 2.0}
    assert {problem["kind"] for problem in answer["problems"]} == {"out_of_range"}


def size_of(path):
    with PIL.Image.open(path) as picture:
        return picture.size


def changed(path, original):
    """Where a picture differs from the file it was drawn on, as (left, top, right, bottom)."""
    one, other = (np.asarray(picture.convert("RGB")).astype(int) for picture in (path, original))
    rows, columns = np.nonzero(np.abs(one - other).max(-1) > 60)
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_points_are_drawn_where_they_are_on_the_image_as_it_is(hedgerow, inside, tmp_path, monkeypatch):
    plain = PIL.Image.new("RGB", (400, 200), "white")
    plain.save(tmp_path / "plain.png")
    replying(monkeypatch, '<points coords="1 1 250 500">spot</points>')
    words = ("ask", tmp_path / "plain.png", "Where?", "--model", "run", "--draw")
    code, _, err = hedgerow(*words, tmp_path / "out.png")
    assert code == 0
    assert err.splitlines()[-1] == f"wrote {tmp_path / 'out.png'}"
    with PIL.Image.open(tmp_path / "out.png") as file:
        found = file.convert("RGB")
    assert found.size == (400, 200)
    left, top, right, bottom = changed(found, plain)
    assert 70 < left < 100 < right < 150  # the cross, and the id beside it
    assert 70 < top < 100 < bottom < 130
    assert found.getpixel((100, 100)) != (255, 255, 255)


def test_several_images_are_a_sheet_and_what_stands_nowhere_is_counted(
    hedgerow, inside, tmp_path, monkeypatch
):
    for name in ("one.png", "two.png"):
        PIL.Image.new("RGB", (480, 240), "white").save(tmp_path / name)
    replying(monkeypatch, '<points coords="2 1 500 500;3 2 100 100">spot</points>')
    words = ("ask", tmp_path / "one.png", tmp_path / "two.png", "Where?", "--model", "run", "--json")
    out = tmp_path / "sheet.png"
    found = json.loads(hedgerow(*words, "--draw", out)[1])
    assert (found["drawn"], found["points_left_out"]) == (str(out), 1)
    with PIL.Image.open(out) as sheet:
        first, second = np.asarray(sheet)[8:248, 8:488], np.asarray(sheet)[8:248, 496:976]
    assert (first == 255).all()
    assert (second[110:130, 230:250] < 128).any()


@pytest.mark.parametrize("kind", [".gif", ".mp4", ".png"])
def test_timed_points_are_drawn_on_the_frames_that_were_seen(hedgerow, inside, tmp_path, monkeypatch, kind):
    from hedgerow.vision import decode_frames

    reply = '<points coords="0.0 1 500 250;1.0 2 500 750;1.2 3 500 750">square</points>'
    out = tmp_path / f"out{kind}"
    replying(monkeypatch, reply)
    code, _, err = hedgerow("ask", "v.mp4", "Where?", "--model", "run", "--draw", out)
    assert (code, err.splitlines()[-1]) == (0, f"wrote {out}; 1 points stand on nothing that was shown")
    if kind == ".png":
        assert size_of(out)[0] > 4 * 480
        return
    times, played = (0.0, 0.5, 1.0, 1.5), Video(str(out))
    frames = decode_frames(Video("v.mp4"), times, size=(48, 64)).astype(int)
    drawn = decode_frames(played, times, size=(48, 64)).astype(int)
    for number, place in ((0, 12), (2, 36)):
        here = np.abs(drawn[number] - frames[number]).max(-1)[place - 4 : place + 5, 28:37]
        assert here.max() > 90
    assert np.abs(drawn[1] - frames[1]).max() < 60  # nothing stands there


def test_the_last_of_several_videos_is_animated_and_all_stands_on_one_sheet(
    hedgerow, inside, tmp_path, monkeypatch
):
    replying(monkeypatch, '<points coords="0.0 1 500 500">x</points>')
    words = ("ask", "a.png", "v.mp4", "moving.gif", "Where?", "--model", "run", "--draw")
    assert hedgerow(*words, tmp_path / "o.gif")[0] == 0
    assert size_of(tmp_path / "o.gif") == (40, 30)
    assert hedgerow(*words, tmp_path / "o.png")[0] == 0


def test_long_clips_are_drawn_smaller(monkeypatch, inside, tmp_path):
    from hedgerow.ask import ask, draw, drawing, look
    from hedgerow.models.sampling import Sampling

    assert (look("moving.gif").type, look("still.gif").type, look("half.png").type) == (
        "video",
        "image",
        "image",
    )
    replying(monkeypatch, "No.")
    asked = ask(None, tiny_encoder(), [look("v.mp4")], ["?"], Sampling(guard=32, max_new_tokens=512))
    monkeypatch.setattr(drawing, "_MOST", 4 * 32 * 24 * 3)
    draw(asked, tmp_path / "small.gif")
    assert size_of(tmp_path / "small.gif") == (32, 24)


BAD = [
    ((), "no question; write it behind the files"),
    (("a.png",), "no question; write it behind the files"),
    (("a.png", " "), "no question; write it behind the files"),
    (("gone.png", "Why?"), "gone.png: no such file; correct the path, or end a question"),
    (("What is in gone.jpg", "Why?"), "What is in gone.jpg: no such file; correct the path, or end a"),
    (("run", "Why?"), "run is a folder; name the images or videos in it"),
    (("a.png", "Why?", "b.png"), "b.png stands behind the question 'Why?'; put files before questions"),
    (("notes", "Why?"), "notes is no image, and as a video it cannot be read "),
    (("half.png", "Why?"), "half.png: the image cannot be read "),
    (("a.png", "Why?", "--fps", "2"), "--fps is of a video, and none is shown; leave it out"),
    (("v.mp4", "Why?", "--max-frames", "0"), "--max-frames: Input should be greater than or equal to 1"),
    (("v.mp4", "Why?", "--start", "2", "--end", "1"), "--end 1 lies before --start 2; swap them"),
    (("v.mp4", "Why?", "--start", "60"), "v.mp4"),
    (("a.png", "Why?", "--temperature", "-1"), "--temperature: Input should be greater"),
    (("a.png", "Why?", "--draw", "o.jpg"), "o.jpg: drawn as PNG, GIF or MP4; give a name"),
    (("a.png", "Why?", "--draw", "o.gif"), "o.gif: an animation is drawn on a video; give a name"),
    (("a.png", "Why?", "--draw", "x/o.png"), "x/o.png: there is no folder x; make it"),
    (("Why?", "--draw", "o.png"), "o.png: nothing is shown that could be drawn on; name an image"),
]


@pytest.mark.parametrize(("words", "why"), BAD)
def test_a_bad_question_is_one_line(hedgerow, inside, words, why):
    assert refused(hedgerow("ask", *words, "--model", "run")).startswith(why)


def test_a_folder_without_a_model_says_which_it_is(hedgerow, inside, tmp_path):
    def said(model):
        return refused(hedgerow("ask", "a.png", "Why?", "--model", model))

    assert said("gone") == "gone: no such folder; give that of a finished run or of a saved model"
    assert re.match(r".* holds no model, neither config.json nor model/config.json; give ", said(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    assert re.match(r".* holds adapters alone; give .*without --adapter", said(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    assert said(tmp_path).startswith(
        f"{tmp_path}: this run is not finished, it has no model yet; go on with "
    )
    (tmp_path / "model").mkdir()  # as a save leaves it that failed
    assert "not finished" in said(tmp_path)
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert", "vision_config": {}}')
    assert "is a bert; give a molmo2" in said(tmp_path)
    (tmp_path / "model" / "config.json").write_text('{"model_type": "molmo2"}')
    assert "no such tokenizer" in said(tmp_path)
    (tmp_path / "model" / "tokenizer.json").write_text(load_tokenizer("tiny").to_str())
    (tmp_path / "model" / "hedgerow.json").write_text('{"crop_sise": 28}')
    assert "hedgerow.json: molmo2.crop_sise: unknown key 'crop_sise'" in said(tmp_path)


def test_words_and_folders_are_checked_before_anything_heavy_is_imported(hedgerow, inside, monkeypatch):
    for name in ("hedgerow.ask", "hedgerow.build", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    refused(hedgerow("ask", "gone.png", "Why?", "--model", "run"))
    refused(hedgerow("ask", "a.png", "Why?", "--model", "gone"))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A SigLIP 2 tower and a Qwen3 with its tokenizer, as `transformers` saves them."""
    from transformers import Siglip2VisionConfig, Siglip2VisionModel

    folder = tmp_path_factory.mktemp("parts")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
    Siglip2VisionModel(Siglip2VisionConfig(num_patches=196, patch_size=2, **sizes)).save_pretrained(
        folder / "siglip"
    )
    tiny_checkpoint(folder / "qwen", "qwen3")
    fields = json.loads(load_tokenizer("tiny").to_str())  # without its visual tokens
    fields["added_tokens"] = [token for token in fields["added_tokens"] if token["id"] < 768]
    (folder / "qwen" / "tokenizer.json").write_text(json.dumps(fields))
    return folder


def test_an_assembled_model_is_that_of_the_library_and_can_be_asked(hedgerow, inside, parts, tmp_path):
    import torch

    from hedgerow.models.assemble import Parts, assemble, load

    given = ("--vision", parts / "siglip", "--language", parts / "qwen", "--crop-size", "28")
    sizes = ("--feature-layers", "-1", "-3", "--margins", "1", "1")
    code, out, err = hedgerow("assemble", *given, *sizes, "--seed", "5", "--to", tmp_path / "made", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    plan = assemble(
        Parts(parts / "siglip", parts / "qwen", crop_size=28, feature_layers=(-1, -3), margins=(1, 1))
    )
    assert found["model"] == str(tmp_path / "made")
    assert found["tensors"] == {name: list(shape) for name, shape in plan.shapes.items()}
    assert found["initialised"] == list(plan.fresh)
    expected = plan.make(seed=5).state_dict()
    for name, tensor in load(tmp_path / "made").state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    words = ("ask", "a.png", "Why?", "--model", tmp_path / "made", "--max-new-tokens", "2")
    assert hedgerow(*words)[0] == 0


def test_a_dry_run_prints_the_map_and_writes_nothing(hedgerow, parts, tmp_path):
    given = ("--vision", parts / "siglip", "--language", parts / "qwen", "--crop-size", "28")
    layers = ("--feature-layers", "-1", "-2", "--query", "learned")
    code, out, _ = hedgerow("assemble", *given, *layers, "--to", tmp_path / "made", "--dry-run")
    assert code == 0
    assert f"from {parts / 'siglip'} (siglip2_vision_model)" in out
    assert "initialised" in out
    assert not (tmp_path / "made").exists()
    assert refused(hedgerow("assemble", *given)).startswith("--to is missing; name the folder to write")
    wrong = ("--feature-layers", "-9", "--dry-run")
    assert "has layers 0 to 3" in refused(hedgerow("assemble", *given, *wrong))
    gone = ("--vision", "gone", "--language", parts / "qwen", "--dry-run")
    assert refused(hedgerow("assemble", *gone)).startswith("gone")
