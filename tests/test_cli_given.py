"""Dotted flags change what data are looked at with, whether there is a recipe or not, alike for all verbs."""

import json
from pathlib import Path

import pytest

from hedgerow.testing import tiny_tokenizer, write_jsonl, write_mp4

SAID = "one two three four five six seven eight nine ten eleven twelve"


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """A file with a clip of 13 frames at two a second, and one with text alone."""
    monkeypatch.chdir(tmp_path)
    write_mp4(Path("clip.mp4"), frames=25)
    asked = {"role": "user", "content": [{"type": "video", "path": "clip.mp4"}]}
    answer = {"role": "assistant", "content": SAID}
    words = {"role": "user", "content": SAID}
    rows = [{"id": "a", "messages": [asked, answer]}, {"id": "b", "messages": [words, answer]}]
    return write_jsonl(Path("clips.jsonl"), rows)


def check(hedgerow, *words):
    code, out, _ = hedgerow("data", "check", *words, "--json")
    return code, [problem["text"] for problem in json.loads(out)["problems"]]


def most_crops(hedgerow, *words):
    """The crops that the clip has in `data plan`."""
    code, out, err = hedgerow("data", "plan", *words, "--json")
    assert (code, err) == (0, "")
    return max(kind["crops"]["most"] for kind in json.loads(out)["kinds"])


def page(hedgerow, *words):
    code, _, err = hedgerow("data", "view", *words, "--out", "page.html")
    assert (code, err) == (0, "")
    return Path("page.html").read_text(encoding="utf-8")


def test_the_check_takes_flags_without_a_recipe(hedgerow, clips):
    assert check(hedgerow, clips, "--packing.budget.crops", "12")[0] == 1
    assert check(hedgerow, clips, "--packing.budget.crops", "12", "--vision.max_frames=12") == (0, [])


def test_the_plan_takes_flags_without_a_recipe(hedgerow, clips):
    assert most_crops(hedgerow, clips) == 13
    assert most_crops(hedgerow, clips, "--vision.max_frames", "4") == 4


def test_the_view_takes_flags_without_a_recipe_and_leaves_out_what_is_too_large(hedgerow, clips):
    assert page(hedgerow, clips).count("data:image/") > page(
        hedgerow, clips, "--vision.max_frames", "2"
    ).count("data:image/")
    assert "crops 13 &gt; 12 of a row" in page(hedgerow, clips, "--packing.budget.crops", "12")


def test_another_family_is_looked_at_with_its_tokenizer(hedgerow, clips, tmp_path):
    family = ("--vision.family", "qwen3_vl", "--vision.max_frames", "4")
    code, _, err = hedgerow("data", "check", clips, *family)
    assert (code, "the tokenizer has no token <|vision_start|>" in err) == (2, True)
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    family = (*family, "--model.tokenizer", str(tmp_path))
    assert most_crops(hedgerow, clips, *family) > 0
    page(hedgerow, clips, *family)


@pytest.mark.parametrize("verb", ["check", "plan", "view"])
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--vision.famly", "x"), "vision.famly: unknown key 'famly'; did you mean 'family'?"),
        (("--vision.max_frames", "0"), "without a recipe: vision: "),
        (("--steps", "3"), "--steps changes a recipe, and none is given; add --recipe FILE"),
        (("--vision.max_frames",), "--vision.max_frames has no value"),
        (("--model.checkpoint", "m"), "--model.checkpoint changes a recipe, and none is given"),
    ],
)
def test_a_wrong_flag_is_one_line(hedgerow, clips, verb, words, why):
    code, out, err = hedgerow("data", verb, clips, *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert why in err


def test_flags_alone_name_no_data(hedgerow):
    for verb in ("check", "plan"):
        code, _, err = hedgerow("data", verb, "--vision.max_frames", "4")
        assert code == 2
        assert "none is given; add --recipe FILE" in err
    code, _, err = hedgerow("data", "plan", "gone.jsonl", "--vision.max_frames", "4")
    assert (code, "gone.jsonl: cannot be read" in err) == (2, True)
