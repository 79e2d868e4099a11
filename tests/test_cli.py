"""The command line: a user's own files run unchanged; bad input is one line: where, why and what to do."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
import yaml

from hedgerow.testing import tiny_recipe, write_jsonl, write_mp4, write_png


def asked(question, answer, task="qa", **more):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"task": task, "messages": messages, **more}


def shown(name, media, *branches):
    return {
        "id": name,
        "source": "mine",
        "messages": [{"role": "user", "content": [{"type": kind, "path": path} for kind, path in media]}],
        "branches": list(branches),
    }


def points(label, *places, kind="points"):
    return [{"type": kind, "label": label, "frame": "pixels", "points": list(places)}]


def users_trees():
    """A user's own data: PNG images, a video, points and tracks in pixels, questions, a plain caption."""
    square = [{"x": 4 + 16 * n, "y": 24, "time": 0.5 * n, "id": 1} for n in range(4)]
    video = shown(
        "roll",
        [("video", "v.mp4")],
        asked("Point at the square at 0.5 seconds.", points("square", square[1] | {"id": None}), "pointing"),
        asked("Track the square.", points("square", *square, kind="tracks"), "tracking"),
        asked("How many squares?", "1", "counting"),
        asked("Which one? A. one B. two", "A. one", "multiple_choice", weight=0.5),
    )
    two = shown(
        "pair",
        [("image", "a.png"), ("image", "b.png")],
        asked(
            "Point at the spots.",
            points("spot", {"x": 30, "y": 20, "image": 1}, {"x": 5, "y": 70, "image": 2}),
        ),
    )
    caption = shown("plain", [("image", "a.png")])
    caption |= {
        "task": "image_caption",
        "messages": [*caption["messages"], {"role": "assistant", "content": "Noise."}],
    }
    text = {
        "id": "words",
        "messages": [{"role": "user", "content": "Hi"}],
        "branches": [asked("Who?", "Me.", "text")],
    }
    return [video, two, caption, text]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    write_mp4(folder / "v.mp4")
    write_png(folder / "a.png", size=(60, 40))
    write_png(folder / "b.png", size=(20, 80))
    write_jsonl(folder / "mine.jsonl", users_trees())
    return folder


@pytest.fixture
def recipe(folder, tmp_path):
    return tiny_recipe(tmp_path, folder / "mine.jsonl", evaluate=folder / "mine.jsonl", steps=4)


def metrics(folder):
    """The lines of a run without what a clock or the memory says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clocks = ("tokens_per_second", "crops_per_second", "waiting", "memory_mb")
    return [{key: value for key, value in line.items() if key not in clocks} for line in lines]


TASKS = {"pointing", "tracking", "counting", "multiple_choice", "qa", "image_caption", "text"}


def test_a_users_own_files_train_evaluate_verify_and_show_unchanged(hedgerow, folder, recipe, tmp_path):
    code, out, err = hedgerow("train", recipe)
    assert (code, out.splitlines()) == (0, [out.strip()])
    assert re.fullmatch(r".*/run/model: 4 steps on 4 examples, each about 4 times, \d+ s\n", out)
    assert "step 4/4" in err
    code, out, _ = hedgerow("train", recipe, "--json")  # it is done: nothing is trained again
    found = json.loads(out)
    assert (code, found["steps"], found["examples"], found["dropped"]) == (0, 4, 4, [])
    assert (found["finished"], found["epochs"]) == (True, 4.0)
    assert found["model"] == str(tmp_path / "run" / "model")
    assert {task for line in metrics(tmp_path / "run") for task in line["tasks"]} == TASKS

    code, out, err = hedgerow("eval", recipe, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert set(found["tasks"]) == set(found["constant"]) == TASKS
    assert (
        found["constant"]["pointing"]["value"] == 1.0
    )  # the same file: its own answers are the best constants
    assert found["dropped"] == []
    replies = [json.loads(line) for line in (tmp_path / "run" / "replies.jsonl").read_text().splitlines()]
    assert len(replies) == 7
    truth = {(reply["id"], reply["branch"]): reply["truth"] for reply in replies}
    assert truth["roll", "0"] == '<points coords="0.5 1 312 500">square</points>'
    assert truth["pair", "0"] == '<points coords="1 1 500 500;2 2 250 875">spot</points>'
    code, out, _ = hedgerow("eval", recipe)
    assert code == 0
    *scores, where = out.splitlines()[1:]
    assert {line.split()[0] for line in scores} == TASKS
    assert where == f"replies, truths and scores of all questions: {tmp_path / 'run' / 'replies.jsonl'}"

    code, out, _ = hedgerow("verify", recipe, "--trees", "4")
    assert code == 0
    assert re.findall(r"^law +(\d+)  holds", out, re.MULTILINE) == ["1", "2", "3", "3", "4", "13", "13"]

    page = tmp_path / "page.html"
    code, out, _ = hedgerow("data", "view", folder / "mine.jsonl", "--recipe", recipe, "--out", page)
    assert (code, out) == (0, f"{page}: 4 trees, 1 packed row\n")
    assert "Point at the square" in re.sub(r"<[^>]*>", "", page.read_text()).replace("&lt;", "<")
    page.unlink()
    code, out, _ = hedgerow("data", "view", folder / "mine.jsonl", "--out", page, "--json")
    assert code == 0
    assert json.loads(out) | {"rows": 1} == {"page": str(page), "trees": 4, "rows": 1, "dropped": []}
    assert page.stat().st_size > 10_000


def test_data_are_planned_with_and_without_a_recipe(hedgerow, folder, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # facts of media are kept in runs/plan
    mine, page = folder / "mine.jsonl", tmp_path / "plan.html"
    code, out, err = hedgerow("data", "plan", mine, "--out", page)
    assert (code, err) == (0, "")
    head, note, advice = out.splitlines()[:3]
    assert (head, note.split(";")[-1]) == ("RECOMMENDATION", " for your own add --recipe FILE.")
    assert advice.startswith("For 4 examples: a budget of ")
    for kind in ("text", "image", "several images", "video"):
        assert re.search(rf"^{kind} +1 ", out, re.MULTILINE)
    assert "Recommendation" in page.read_text()
    assert out.splitlines()[-1] == f"wrote {page}"

    code, out, err = hedgerow("data", "plan", "--recipe", recipe, "--packing.budget.tokens", "512", "--json")
    assert (code, err) == (0, "")
    own, best = json.loads(out)["fits"]
    assert (own["name"], own["budget"]["tokens"], best["name"]) == ("recipe", 512, "recommended")
    assert "wrote" not in hedgerow("data", "plan", "--recipe", recipe, "--out", page, "--json")[1]

    code, out, _ = hedgerow("data", "plan", mine, mine, "--recipe", recipe, "--rows_per_step", "2", "--json")
    assert (code, json.loads(out)["examples"]) == (0, 8)
    assert json.loads(out)["files"] == [str(mine)] * 2


def test_a_plan_names_what_is_bad(hedgerow, folder, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = spoil(folder, tmp_path)
    data = write_lines(
        tmp_path / "bad.jsonl", [users_trees()[3], bad["missing media"][0], bad["too long"][0]]
    )
    code, out, _ = hedgerow(
        "data", "plan", data
    )  # without a recipe the bad are left out; nothing is too long
    assert code == 0
    assert f"{data}:2" in out.split("DROPPED")[1]
    assert f"{data}:3" not in out
    code, out, _ = hedgerow("data", "plan", data, "--recipe", recipe, "--data.on_bad", "skip")
    assert code == 0
    assert re.search(rf"^{data}:3 +tokens \d+ > 400$", out, re.MULTILINE)
    assert refused(hedgerow("data", "plan", data, "--recipe", recipe)).startswith(f"{data}:2: ")


def spoil(folder, to):
    """Write bad lines and their media; return each by name with what must be said of it."""
    film = (folder / "v.mp4").read_bytes()
    (to / "cut.mp4").write_bytes(film[: len(film) // 2])
    write_mp4(to / "hollow.mp4", frames=0)
    for name in ("v.mp4", "a.png", "b.png"):
        (to / name).write_bytes((folder / name).read_bytes())
    answer = asked("What?", "That.")
    spot = asked("Where?", points("spot", {"x": 61, "y": 20}), "pointing")
    return {
        "unknown key": (
            {**shown("k", [], answer), "wieght": 2},
            "wieght: unknown key 'wieght'; did you mean 'weight'",
        ),
        "missing media": (
            shown("m", [("image", "gone.png")], answer),
            "gone.png: no such file; correct the path",
        ),
        "truncated video": (
            shown("t", [("video", "cut.mp4")], answer),
            "cut.mp4: .*cut off.*; give a whole MP4",
        ),
        "no frames": (
            shown("z", [("video", "hollow.mp4")], answer),
            "hollow.mp4: no video stream.*; give a file with video",
        ),
        "point outside": (
            shown("p", [("image", "a.png")], spot),
            "p, branch 0: .*outside its frame 'pixels'.*; correct",
        ),
        "no answer": (
            {"id": "n", "messages": [{"role": "user", "content": "q"}]},
            "n: no supervised answer; add",
        ),
        "too long": (
            shown("l", [], asked("Say it.", "again " * 400)),
            "l: tokens .* > 400 of a row .*; raise packing.budget, or set packing.oversize",
        ),
        "no JSON": ('{"id": "x"', "not JSON .*; write one object a line"),
    }


BAD = (
    "unknown key",
    "missing media",
    "truncated video",
    "no frames",
    "point outside",
    "no answer",
    "too long",
    "no JSON",
)


def write_lines(path, lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def refused(result):
    """The one line that bad input gives, without the program's name."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert err.startswith("hedgerow: ")
    return err.removeprefix("hedgerow: ").strip()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_example_is_one_line_with_its_place_and_the_remedy(hedgerow, folder, tmp_path, name):
    line, why = spoil(folder, tmp_path)[name]
    data = write_lines(tmp_path / "bad.jsonl", [users_trees()[3], line])
    message = refused(hedgerow("train", tiny_recipe(tmp_path, data)))
    assert message.startswith(f"{data}:2: ")
    assert re.search(why, message)
    assert message.count(str(data)) == 1
    assert not (tmp_path / "run" / "model").exists()


def test_skipping_leaves_out_the_bad_names_them_and_trains_on_every_other(hedgerow, folder, recipe, tmp_path):
    bad = spoil(folder, tmp_path)
    good = [json.dumps(tree) for tree in users_trees()]
    lines = [
        line for pair in zip(good, list(bad.values())[:4], strict=True) for line in (pair[0], pair[1][0])
    ]
    lines += [line for line, _ in list(bad.values())[4:]]
    data = write_lines(tmp_path / "mixed.jsonl", lines)
    places = [f"{data}:{number}" for number in (2, 4, 6, 8, 9, 10, 11, 12)]

    assert hedgerow("train", recipe, "--out", tmp_path / "clean")[0] == 0
    skip = ("--data.on_bad", "skip", "--packing.oversize", "drop")
    flags = ("--data.train.0.path", data, "--data.evaluate", data, *skip)
    code, out, _ = hedgerow("train", recipe, *flags, "--out", tmp_path / "mixed")
    assert code == 0
    assert "4 steps on 4 examples, each about 4 times; 8 dropped, " in out
    *said, last = out.splitlines()[1:]
    assert last == f"  and 3 more; all are in {tmp_path / 'mixed' / 'trained.json'}"
    written = json.loads((tmp_path / "mixed" / "trained.json").read_text())["dropped"]
    assert said == [f"  dropped {text}" for text in written[:5]]
    for text, place, (_, why) in zip(written, places, bad.values(), strict=True):
        assert text.startswith(f"{place}: ")
        assert re.search(why, text)
    assert metrics(tmp_path / "mixed") == metrics(tmp_path / "clean")

    code, out, _ = hedgerow("eval", recipe, *flags, "--out", tmp_path / "mixed")
    assert code == 0
    dropped = [line for line in out.splitlines() if line.startswith("dropped ")]
    assert len(dropped) == 5
    assert out.endswith(
        "and 2 more; all are in what --json prints\n"
    )  # a tree longer than a row can be asked
    assert hedgerow("verify", recipe, *flags)[0] == 0

    page = tmp_path / "page.html"
    code, out, _ = hedgerow("data", "view", data, "--recipe", recipe, *skip, "--out", page)
    assert code == 0
    assert f"{page}: 4 trees, 1 packed row, 8 dropped" in out
    assert f"and 3 more; all are in {page}\n" in out
    for place in places:
        assert place in page.read_text(encoding="utf-8")
    refused(hedgerow("data", "view", data, "--recipe", recipe, "--out", page))


@pytest.fixture
def damaged(folder, tmp_path):
    """Four trees, of which the first shows a picture whose pixels are cut off: only decoding tells."""
    for name in ("v.mp4", "a.png", "b.png"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "half.png").write_bytes((folder / "a.png").read_bytes()[:-3000])
    half = shown("half", [("image", "half.png")], asked("What?", "That."))
    return write_jsonl(tmp_path / "late.jsonl", [half, *users_trees()[1:]])


def test_pixels_that_turn_out_bad_stop_every_verb_with_one_line(hedgerow, damaged, tmp_path):
    recipe = tiny_recipe(tmp_path, damaged, evaluate=damaged)
    rates = "{vision: {warmup: 0}, connector: {warmup: 0}, language: {warmup: 0}}"
    quiet = ("--optimizer", rates, "--weights.tasks", "{qa: 0.2}")  # else training warns of both first
    for words in (("train", recipe), ("verify", recipe), ("data", "view", damaged, "--recipe", recipe)):
        message = refused(hedgerow(*words, *quiet))
        assert re.fullmatch(rf"{damaged}:1: .*half\.png: the image cannot be read .*; copy or .*", message)


def test_pixels_that_turn_out_bad_are_left_out_named_and_cost_nobody_else(hedgerow, damaged, tmp_path):
    recipe = tiny_recipe(tmp_path, damaged, evaluate=damaged, steps=3)
    skip = ("--data.on_bad", "skip")
    code, out, _ = hedgerow("train", recipe, *skip)
    assert code == 0
    assert out.count(f"  dropped {damaged}:1: {tmp_path / 'half.png'}: the image cannot be read") == 1
    assert "1 dropped" in out
    whole = write_jsonl(tmp_path / "good.jsonl", users_trees()[1:])
    assert hedgerow("train", recipe, "--data.train.0.path", whole, "--out", tmp_path / "good")[0] == 0
    for one, other in zip(metrics(tmp_path / "run"), metrics(tmp_path / "good"), strict=True):
        assert {task: sums["targets"] for task, sums in one["tasks"].items()} == {
            task: sums["targets"] for task, sums in other["tasks"].items()
        }
    code, out, _ = hedgerow("eval", recipe, *skip)
    assert code == 0
    assert out.splitlines()[-1].startswith(f"dropped {damaged}:1: ")
    assert hedgerow("verify", recipe, *skip)[0] == 0
    page = tmp_path / "page.html"
    code, out, _ = hedgerow("data", "view", damaged, "--out", page)  # without a recipe the bad are skipped
    assert code == 0
    assert out.count(f"dropped {damaged}:1: ") == 1
    assert f"{damaged}:1" in page.read_text()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ("train", "RECIPE", "--optimiser.name", "muon"),
            "optimiser: unknown key 'optimiser'; did you mean 'optimizer'",
        ),
        (("train", "RECIPE", "--data.on_bad", "maybe"), "data.on_bad: .*'raise' or 'skip'"),
        (("train", "RECIPE", "--steps"), "--steps has no value; write --steps VALUE"),
        (("train", "RECIPE", "steps=3"), "unexpected 'steps=3'; write fields"),
        (("train", "gone.yaml"), "gone.yaml: cannot be read"),
        (("train",), "RECIPE"),
        (("trian", "RECIPE"), "train"),
        (("eval", "RECIPE"), "no trained model; run `hedgerow train`"),
        (("verify", "RECIPE", "--trees", "0"), "0 trees prove nothing; give at least 1"),
        (("data", "view", "gone.jsonl"), "gone.jsonl: cannot be read"),
        (
            ("data", "view", "DATA", "--steps", "3"),
            "--steps changes a recipe, and none is given; add --recipe",
        ),
        (("data", "plan"), "nothing to plan for; name a JSONL file of trees, or --recipe FILE"),
        (("data", "plan", "gone.jsonl"), "gone.jsonl: cannot be read"),
        (("data", "plan", "DATA", "--steps", "3"), "--steps changes a recipe, and none is given; add --rec"),
        (("data", "plan", "DATA", "--recipe", "RECIPE", "--steps"), "--steps has no value"),
        (("data", "plan", "DATA", "--out", "FOLDER"), "FOLDER: a plan is written as HTML; give a name that"),
        (
            ("data", "plan", "DATA", "--recipe", "DATA"),
            "jsonl: data are not a recipe; name them without --",
        ),
        (("data", "plan", "RECIPE"), "yaml: a recipe is not data; write --recipe .*yaml, or name a JSONL"),
        (("data", "view", "DATA", "--out", "FOLDER"), "FOLDER.*; give a path that can be used"),
    ],
)
def test_a_bad_command_is_one_line(hedgerow, recipe, folder, tmp_path, monkeypatch, words, why):
    monkeypatch.chdir(tmp_path)
    names = {"RECIPE": recipe, "DATA": folder / "mine.jsonl", "FOLDER": tmp_path}
    message = refused(hedgerow(*(names.get(word, word) for word in words)))
    assert re.search(why.replace("FOLDER", re.escape(str(tmp_path))), message)


def test_a_recipe_with_an_unknown_key_is_named_with_the_nearest(hedgerow, recipe):
    fields = yaml.safe_load(recipe.read_text())
    fields["packing"]["budgets"] = fields["packing"].pop("budget")
    recipe.write_text(yaml.safe_dump(fields))
    message = refused(hedgerow("train", recipe))
    assert message == f"{recipe}: packing.budgets: unknown key 'budgets'; did you mean 'budget'?"


def test_a_recipe_without_evaluation_data_says_so(hedgerow, folder, tmp_path):
    recipe = tiny_recipe(tmp_path, folder / "mine.jsonl")
    (tmp_path / "run" / "model").mkdir(parents=True)
    assert "no trained model" not in refused(hedgerow("eval", recipe))


def test_a_broken_law_is_exit_code_one(hedgerow, recipe, monkeypatch):
    from hedgerow import verify

    finding = verify.Finding(3, "no leak", error=1.0, allowed=0.0, cases=2)
    monkeypatch.setattr(verify, "verify", lambda *_, **__: verify.Verification((finding,)))
    code, out, err = hedgerow("verify", recipe)
    assert (code, err.count("\n")) == (1, 1)
    assert out.splitlines()[1:] == ["FAILED: 1 of 1 checks, of law 3"]
    code, out, err = hedgerow("verify", recipe, "--json")
    assert (code, json.loads(out)["passed"]) == (1, False)


def test_verify_says_the_laws_one_by_one_and_checks_the_name_of_its_page_first(hedgerow, recipe, tmp_path):
    code, out, _ = hedgerow("verify", recipe, "--trees", "1", "--out", tmp_path / "laws.html")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith(f"{recipe}: model fresh weights")
    assert sum(line.startswith("law ") for line in lines) == 7
    assert lines[-2:] == ["passed: 7 checks, none broken", f"wrote {tmp_path / 'laws.html'}"]
    assert "name a page (.html)" in refused(hedgerow("verify", "none.yaml", "--out", "laws.pdf"))


def test_of_the_processes_of_torchrun_one_verifies(hedgerow, recipe, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert hedgerow("verify", recipe) == (0, "", "")


def test_an_error_of_several_lines_is_printed_as_one(hedgerow, monkeypatch, recipe):
    from hedgerow import recipe as recipes
    from hedgerow.errors import RecipeError

    def fails(*_):
        raise RecipeError("one\ntwo")

    monkeypatch.setattr(recipes, "load_recipe", fails)
    assert refused(hedgerow("train", recipe)) == "one two"


def test_the_program_itself_ends_with_two_and_one_line(folder, tmp_path):
    data = write_lines(tmp_path / "bad.jsonl", [spoil(folder, tmp_path)["truncated video"][0]])
    command = [sys.executable, "-m", "hedgerow.cli", "data", "view", str(data)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(r"hedgerow: .*bad\.jsonl:1: .*cut\.mp4: .*; give a whole MP4.*\n", ended.stderr)
    assert not Path(tmp_path / "view.html").exists()


VERBS = ("train", "eval", "verify", "data reference --out x", "experiment weights ablate")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        *(((*verb.split(), "gone.yaml"), "gone.yaml: cannot be read") for verb in VERBS),
        (("train", "torn.yaml"), "torn.yaml:1: not YAML"),
        (("train", "torn.yaml", "--steps"), "--steps has no value"),
        (("data", "view", "gone.jsonl"), "gone.jsonl: cannot be read"),
        (("data", "view", "torn.yaml", "--recipe", "gone.yaml"), "gone.yaml: cannot be read"),
    ],
)
def test_a_wrong_path_is_told_before_anything_heavy_is_imported(hedgerow, tmp_path, monkeypatch, words, why):
    (tmp_path / "torn.yaml").write_text("a: [1")
    monkeypatch.chdir(tmp_path)
    for name in ("hedgerow.recipe", "hedgerow.report.view", "torch"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it now would fail
    assert refused(hedgerow(*words)).startswith(why)


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "hedgerow.cli", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_importing_the_command_line_loads_nothing_heavy():
    check = (
        "import sys, hedgerow.cli; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_a_picture_of_the_users_is_turned_upright(hedgerow, tmp_path):
    """A point in pixels of the upright picture fits though the file lies on its side."""
    turned = PIL.Image.new("RGB", (40, 20))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    spot = asked("Where?", points("spot", {"x": 10, "y": 39}), "pointing")
    data = write_jsonl(tmp_path / "d.jsonl", [shown("t", [("image", "turned.jpg")], spot)])
    code, _, err = hedgerow("data", "view", data, "--out", tmp_path / "page.html")
    assert (code, err) == (0, "")


def test_training_says_how_many_trees_and_branches_are_cut(hedgerow, tmp_path):
    long = shown("long", [], *(asked("Why?", "because " * 30) for _ in range(9)))
    long["messages"] = [{"role": "user", "content": "Hi"}]
    recipe = tiny_recipe(tmp_path, write_jsonl(tmp_path / "long.jsonl", [long, users_trees()[3]]), steps=1)
    for varied in ("false", "true"):
        changes = ("--packing.oversize", "shorten", "--data.transforms.shuffle_branches", varied, "--fresh")
        code, _, err = hedgerow("train", recipe, *changes)
        assert code == 0
        assert re.search(r"^1 tree shortened, [1-8] branch(es)? left out$", err, re.MULTILINE)
    assert "shortened" not in hedgerow("train", recipe, "--packing.oversize", "drop", "--fresh")[2]
