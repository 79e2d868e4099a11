"""`hedgerow data check`: every problem of every row is told, in order, and the good rows can be written."""

import itertools
import json
import os
import re
from pathlib import Path

import pytest

from hedgerow.data import check as checking
from hedgerow.data.check import Settings, check
from hedgerow.data.check_schema import KINDS
from hedgerow.data.probes import Prober
from hedgerow.errors import DataError
from hedgerow.sequence import Budget
from hedgerow.testing import tiny_encoder, tiny_recipe, write_jsonl, write_mp4, write_png

PAGE = Path(__file__).parents[2] / "docs" / "check.md"


def ask(question, answer, **more):
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": said, **more}


def shows(*media, **more):
    parts = [{"type": "video" if path.endswith(".mp4") else "image", "path": path, **more} for path in media]
    return [{"role": "user", "content": parts}]


def points(*found, **more):
    return [{"type": "points", "label": "ball", "points": list(found), **more}]


def row(name, messages, *branches, **more):
    return {"id": name, "messages": messages, "branches": list(branches), **more}


HI = [{"role": "user", "content": "Hi"}]
AT = {"x": 0.5, "y": 0.5, "time": 0.5}


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    write_mp4(folder / "roll.mp4")
    write_png(folder / "a.png")
    whole = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture
def folder(media, tmp_path, monkeypatch):
    """A folder with media, which is the working directory."""
    for file in media.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(**more):
    return Settings(**{"encoder": tiny_encoder(), "budget": Budget(tokens=400, crops=16), **more})


def run(rows, *, file="clips.jsonl", **more):
    """Check rows: the lines that are told, and the figures."""
    path = write_jsonl(Path(file), rows)
    found = []
    result = check([path], settings(**more), tell=found.append)
    return [str(problem) for problem in found], result


def told(rows, **more):
    """Of each line that is told: row, place, kind."""
    lines, _ = run(rows, **more)
    pattern = re.compile(r"clips\.jsonl:(\d+): (?:(root|branch [\d.]+): )?.* \[(\w+)\]")
    matches = [pattern.fullmatch(line) for line in lines]
    assert all(matches), lines
    return [(int(match[1]), match[2] or "", match[3]) for match in matches]


def test_every_kind_is_told_by_the_line_that_the_page_shows(folder, hedgerow):
    many = " ".join("word" for _ in range(9000))
    rows = [
        row("clip-1", shows("roll.mp4"), ask("What?", "A square.", tsak="qa")),
        row("clip-2", shows("cut.png"), ask("What?", "Noise.")),
        row("clip-3", shows("a.png"), ask("Point to it.", points({"x": 41.2, "y": 63.0}))),
        row("clip-4", shows("roll.mp4"), ask("Point to it.", points({"x": 0.4, "y": 0.6, "time": 9.5}))),
        row("clip-5", shows("roll.mp4"), ask("What?", "A square."), ask("Where?", "")),
        row("clip-6", HI, ask("Who?", "Me.")),
        row("clip-6", HI, ask("Who is there?", "Only me.")),
        row("clip-8", HI, ask("Read it.", many), ask("Who?", "You.")),
    ]
    write_jsonl(Path("clips.jsonl"), rows)
    code, out, err = hedgerow("data", "check", "clips.jsonl")
    assert code == 1
    assert "7 of 8 rows have a problem" in err
    lines = out.split("\n\n")[0].splitlines()
    page = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert list(page) == list(KINDS)
    for kind, text in page.items():
        meaning, example = (cell.strip() for cell in text.split("|"))
        assert meaning == KINDS[kind]
        assert example.strip("`") in lines
        assert example.strip("`").endswith(f"[{kind}]")


def test_all_problems_of_a_row_are_told(folder):
    rows = [
        row(
            "a",
            shows("roll.mp4", "gone.png"),
            ask("?", " "),
            ask("?", points({"x": 5, "y": 0.5})),
            ask(
                "?",
                "fine",
                branches=[ask("?", points({"x": 0.5, "y": 2}, frame="thousandths")), ask("?", "")],
            ),
        ),
        row(
            "b",
            shows("roll.mp4"),
            ask("?", points(AT | {"x": 5})),
            ask("?", points(AT | {"time": 55})),
            ask("?", [*points(AT | {"id": 1}, AT | {"id": 1, "x": 0.6}), *points(AT | {"image": 1})]),
            ask("?", points({"x": 500, "y": 2, "time": 0.5}, frame="pixels")),
            ask("?", points(AT)),
        ),
        {
            **row("c", HI, ask("?", "ok", tsk="qa"), ask("?", 3), ask("?", "fine", branches=["none"])),
            "weigth": 1,
        },
        row("d", HI, ask("?", "ok", branches=[{"messages": [{"role": "assistant", "content": "more"}]}])),
        row(
            "e",
            shows("roll.mp4"),
            ask("?", points(AT | {"time": 55})),
            ask("?", points(AT | {"id": 1}, AT | {"id": 1, "x": 0.6})),
        ),
    ]
    assert told(rows) == [
        (1, "root", "media"),
        (1, "branch 0", "answer"),
        (1, "branch 2.1", "answer"),
        (1, "branch 1", "place"),
        (2, "branch 0", "place"),
        (2, "branch 1", "time"),
        (2, "branch 2", "place"),
        (2, "branch 2", "place"),
        (2, "branch 3", "place"),
        (3, "root", "schema"),
        (3, "branch 0", "schema"),
        (3, "branch 1", "schema"),
        (3, "branch 2.0", "schema"),
        (4, "branch 0.0", "schema"),
        (5, "branch 0", "time"),
        (5, "branch 1", "place"),
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"{broken", "not JSON (Expecting property name"),
        (b"[1]", "keys and values are needed"),
        (b'{"id": "\xff"}', "not UTF-8"),
        (b'{"id": "a", "messages": []}', "root: messages: "),
        (b'{"id": "a"}', "root: messages: "),
        (b'{"id": "a", "messages": 3, "branches": {}}', "root: "),
        (b'{"id": "a", "messages": ' + 3000 * b"[" + 3000 * b"]" + b"}", "not JSON (maximum recursion depth"),
        (
            b'{"id":"a","messages":[{"role":"system","content":"?"},{"role":"assistant","content":"?"}]}',
            "root: message 1 answers nothing",
        ),
        (
            b'{"id": "a", "messages": [{"role": "user", "content": "?"}, {"role": "user", "contnt": "?"}]}',
            "root: messages.1.contnt: unknown key 'contnt'; did you mean 'content'?",
        ),
    ],
    ids=itertools.count(),
)
def test_a_line_that_is_no_tree_says_why(line, text, tmp_path):
    path = tmp_path / "clips.jsonl"
    path.write_bytes(b"\n" + line + b"\r\n\n")
    found = []
    result = check([path], settings(), tell=found.append)
    assert [str(problem).startswith(f"{path}:2: {text}") for problem in found] == [True], found
    assert (result.rows, result.good, result.problems) == (1, 0, {"schema": 1})


def test_sizes_are_told_by_tree_and_branch(folder):
    long, short = " ".join(200 * ["word"]), " ".join(90 * ["word"])
    rows = [
        row("a", HI, ask("?", long), ask("?", "ok")),
        row("b", HI, ask("?", short), ask("?", short)),
        row("c", [{"role": "user", "content": long}], ask("?", "ok")),
        row("d", [{"role": "user", "content": short}], ask("?", short), ask("?", "ok")),
    ]
    parts = [(1, "branch 0", "size"), (3, "root", "size"), (4, "branch 0", "size")]
    assert [one for one in told(rows) if one[1]] == parts
    assert [one for one in told(rows) if not one[1]] == [(number, "", "size") for number in (1, 2, 3, 4)]
    assert told(rows, oversize="shorten") == parts


def test_duplicates_are_found_across_files_and_folders(folder):
    other = folder / "more"
    other.mkdir()
    first = [row("a", shows("roll.mp4"), ask("?", "x")), row("b", HI, ask("?", "y"))]
    second = [
        row("c", shows("../roll.mp4"), ask("?", "x")),  # the first again
        row("d", shows("roll.mp4"), ask("?", "x")),  # another file of that name
        row("b", HI, ask("?", "z")),
        row("b", HI, ask("?", "y")),
    ]
    (other / "roll.mp4").write_bytes((folder / "roll.mp4").read_bytes())
    files = [write_jsonl(Path("a.jsonl"), first), write_jsonl(Path("more/b.jsonl"), second)]
    found = []
    result = check(files, settings(), tell=found.append)
    assert [str(problem) for problem in found] == [
        f"more/b.jsonl:{line} [duplicate]"
        for line in (
            "1: its messages stand at a.jsonl:1 already, under another id; remove one row",
            "3: its id stands at a.jsonl:2 already; give one of them another",
            "4: the row stands at a.jsonl:2 already; remove one of them",
        )
    ]
    assert (result.rows, result.good) == (6, 3)


def test_lost_points_are_counted_by_data_set(folder):
    track = [{"x": 0.5, "y": 0.5, "time": number / 2, "id": 1} for number in range(4)]
    late = [{"x": 0.5, "y": 0.5, "time": 9.0, "id": 2}]
    tracks = [{"type": "tracks", "label": "ball", "points": track + late}]
    rows = [
        row("a", shows("roll.mp4"), ask("?", tracks), source="long"),
        row("b", shows("roll.mp4"), ask("?", points(AT)), source="short"),
        row("c", shows("roll.mp4"), ask("?", points(AT, AT | {"time": 8.0})), source="long"),
        row("d", HI, ask("?", "ok"), source="text"),
    ]
    lines, result = run(rows)
    assert not lines
    assert [(one.source, one.points, one.lost) for one in result.lost] == [("long", 7, 2), ("short", 1, 0)]
    assert result.lost[0].share == 2 / 7


BAD = [
    row("a", shows("roll.mp4"), ask("?", points(AT))),
    row("b", shows("text.mp4"), ask("?", "ok")),
    row("c", HI, ask("?", "é")),
    row("d", HI, ask("?", "")),
    row("e", [{"role": "user", "content": "Hello"}], ask("?", "é")),
]


@pytest.mark.parametrize("out", ["good.jsonl", "new/deep/good.jsonl"])
def test_the_good_rows_are_written_and_are_good(folder, out, hedgerow):
    Path("elsewhere").mkdir()
    recipe = tiny_recipe(folder, folder / "clips.jsonl")
    # As others write JSON: spaces, no line end after the last.
    lines = [json.dumps(one, separators=(" , ", " : ")) for one in BAD]
    Path("clips.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    code, text, _ = hedgerow("data", "check", "clips.jsonl", "--recipe", recipe, "--fix", out)
    moved = "" if out == "good.jsonl" else ", 1 with other media paths"
    assert (code, text.splitlines()[-1]) == (1, f"wrote {out}: 3 rows{moved}")
    text = Path(out).read_text(encoding="utf-8")
    assert text.endswith("\n")
    written = text.splitlines()
    assert written[1:] == [lines[2], lines[4]]
    if moved:
        assert json.loads(written[0])["messages"][0]["content"][0]["path"] == os.path.relpath(
            "roll.mp4", Path(out).parent
        )
    else:
        assert written[0] == lines[0]
    code, text, err = hedgerow("data", "check", out, "--recipe", recipe)
    assert (code, text.splitlines()[-1], err) == (0, f"3 rows in {out}: nothing is wrong", "")


def test_what_is_checked_is_not_written_over(folder, hedgerow):
    write_jsonl(Path("clips.jsonl"), BAD)
    before = Path("clips.jsonl").read_bytes()
    code, out, err = hedgerow("data", "check", "clips.jsonl", "--fix", "./clips.jsonl", "--media", "none")
    assert (code, out) == (2, "")
    assert "give --fix another file" in err
    assert Path("clips.jsonl").read_bytes() == before
    Path("empty.jsonl").touch()
    files = set(Path().iterdir())
    assert hedgerow("data", "check", "empty.jsonl", "--fix", "new.jsonl")[0] == 2
    assert set(Path().iterdir()) == files


def test_json_holds_all_and_the_screen_the_first(folder, hedgerow):
    rows = [row(str(number), HI, ask(f"{number}?", "")) for number in range(70)]
    write_jsonl(Path("clips.jsonl"), rows)
    code, out, _ = hedgerow("data", "check", "clips.jsonl", "--media", "none", "--json")
    found = json.loads(out)
    assert code == 1
    assert [problem["line"] for problem in found["problems"]] == list(range(1, 71))
    assert found["problems"][0] | {"text": ""} == {
        "file": "clips.jsonl", "line": 1, "kind": "answer", "place": "branch 0", "text": ""
    }  # fmt: skip
    assert (found["rows"], found["good"], found["kinds"], found["lost"]) == (70, 0, {"answer": 70}, [])
    code, out, _ = hedgerow("data", "check", "clips.jsonl", "--media", "none")
    lines = out.splitlines()
    assert code == 1
    assert lines[49].startswith("clips.jsonl:50: ")
    assert lines[50] == "and 20 more; --json lists all"


def test_bad_input_is_told_with_code_2(folder, hedgerow):
    Path("empty.jsonl").write_text("\n\n", encoding="utf-8")
    for words, text in {
        ("gone.jsonl",): "gone.jsonl: cannot be read (No such file or directory)",
        (".",): ".: cannot be read (Is a directory)",
        ("empty.jsonl",): "empty.jsonl: no row",
        (): "nothing to check",
        ("empty.jsonl", "--packing.budget.tokens", "9"): "empty.jsonl: no row",
        ("empty.jsonl", "--rows_per_step", "9"): "changes a recipe, and none is given",
    }.items():
        code, out, err = hedgerow("data", "check", *words, "--json")
        assert (code, out) == (2, "")
        assert text in err


def test_a_recipe_gives_data_budget_and_preference(folder, hedgerow):
    rows = [
        row("a", HI, ask("?", "ok", rank=0), ask("?", " ".join(200 * ["word"]), rank=1)),
        row("b", HI, ask("?", "ok")),
    ]
    recipe = tiny_recipe(folder, write_jsonl(folder / "mine.jsonl", rows))
    code, out, _ = hedgerow("data", "check", "--recipe", recipe)
    assert code == 1
    pattern = re.compile(r"mine.jsonl:(\d+): .*\[(\w+)\]$", re.MULTILINE)
    assert pattern.findall(out) == [("1", "size"), ("1", "size")]
    more = ("--packing.budget.tokens", "4000", "--loss.preference", "{name: dpo}")
    code, out, _ = hedgerow("data", "check", folder / "mine.jsonl", "--recipe", recipe, *more)
    assert re.findall(r"mine.jsonl:(\d+): .*\[(\w+)\]$", out, re.MULTILINE) == [("2", "answer")]


def test_any_number_of_workers_finds_the_same_in_the_same_order(folder):
    rows = [{**BAD[number % len(BAD)], "id": str(number % 37)} for number in range(40)]
    one = run(rows, workers=1)
    assert len(one[0]) > 40
    assert run(rows, workers=3) == one


def test_progress_is_told_to_the_end(folder):
    path = write_jsonl(Path("clips.jsonl"), BAD)
    seen = []
    check([path, path], settings(media="none"), tell=lambda _: None, progress=lambda *at: seen.append(at))
    assert seen == [(done, 10) for done in range(1, 11)]


def test_a_file_is_looked_at_once_and_each_clip_decoded_once(folder, monkeypatch):
    looks = []
    look = Prober.look

    def noted(self, media, *words, **more):
        looks.append((media.name, media.type == "video" and media.end, bool(words)))
        return look(self, media, *words, **more)

    monkeypatch.setattr(Prober, "look", noted)
    rows = [row(str(n), shows("roll.mp4", end=(0.5, 1.0)[n % 2]), ask("?", str(n))) for n in range(6)]
    assert run(rows)[0] == []
    assert looks == [("roll.mp4", 0.5, False), ("roll.mp4", 0.5, True), ("roll.mp4", 1.0, True)]


@pytest.mark.parametrize(
    ("level", "found"),
    [
        ("pixels", [(1, "root", "media"), (2, "root", "media"), (2, "branch 0", "place")]),
        ("facts", [(2, "root", "media"), (2, "branch 0", "place")]),
        ("none", [(2, "branch 0", "place")]),
    ],
)
def test_how_far_media_are_looked_at(folder, level, found):
    rows = [
        row("a", shows("cut.png"), ask("?", "ok")),
        row("b", shows("gone.png"), ask("?", points({"x": 0.5, "y": -1}))),
    ]
    assert told(rows, media=level) == found


def test_rows_of_too_many_files_are_refused(folder, monkeypatch):
    monkeypatch.setattr(checking, "MOST_ROWS", 5)
    path = write_jsonl(Path("clips.jsonl"), BAD)
    with pytest.raises(DataError, match="5 lines, at most 5 are checked at once; name fewer files"):
        check([path], settings(media="none"), tell=lambda _: None)


def test_a_task_that_is_unknown_is_a_note_with_the_one_that_was_meant(folder, hedgerow):
    rows = [
        row("a", HI, ask("?", "ok", task="poinitng"), ask("Where?", "here", task="poinitng")),
        row("b", HI, ask("?", "fine", task="harvest"), ask("?", "good", task="qa")),
    ]
    write_jsonl(Path("clips.jsonl"), rows)
    code, out, _ = hedgerow("data", "check", "clips.jsonl")
    known = "known tasks: video_caption, image_caption, pointing, "
    assert code == 0
    first, second, last = out.splitlines()
    assert first.startswith(
        f"note: 1 answer of the task 'harvest', which is unknown and weighted as otherwise; {known}"
    )
    assert second == (
        "note: 2 answers of the task 'poinitng', which is unknown and weighted as otherwise; did you mean "
        "'pointing'?"
    )
    assert last == "2 rows in clips.jsonl: nothing is wrong"
    code, out, _ = hedgerow("data", "check", "clips.jsonl", "--json")
    found = json.loads(out)
    assert (found["unknown"], found["astray"]) == ({"poinitng": 2, "harvest": 1}, 0)
    assert [f"note: {note}" for note in found["notes"]] == [first, second]
    recipe = tiny_recipe(folder, Path("clips.jsonl"))
    more = ("--recipe", recipe, "--weights.tasks", "{harvest: 1.0, poinitng: 0.2}")
    assert "note" not in hedgerow("data", "check", "clips.jsonl", *more)[1]


def test_points_of_another_task_are_a_note(folder, hedgerow):
    rows = [
        row("a", shows("roll.mp4"), ask("?", points(AT)), ask("Where?", points(AT), task="pointing")),
        row("b", shows("roll.mp4"), ask("Where?", points(AT), task="qa"), ask("?", "ok"), task="tracking"),
    ]
    write_jsonl(Path("clips.jsonl"), rows)
    code, out, _ = hedgerow("data", "check", "clips.jsonl")
    note, last = out.splitlines()[-2:]
    assert (code, last) == (0, "2 rows in clips.jsonl: nothing is wrong")
    assert note.startswith(
        "note: 2 answers give points or tracks under a task other than pointing and tracking"
    )
    assert run(rows, media="none")[1].astray == 2


LLAVA = {"id": "a", "image": "a.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"}]}
HUMAN = {"id": "a", "messages": [{"role": "human", "content": "What?"}]}
SHARE = {"id": "a", "messages": [{"from": "user", "value": "What?"}]}


@pytest.mark.parametrize("strange", [LLAVA, HUMAN, SHARE])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_row_of_another_format_says_what_reads_such(folder, strange, workers):
    good = row("g", HI, ask("?", "ok"))
    bad = row("t", HI, ask("?", "ok", tsk="qa"))
    lines, _ = run([good, bad, strange, strange], workers=workers)
    hinted = [line for line in lines if "hedgerow data convert" in line]
    assert len(hinted) == 1
    assert hinted[0].startswith("clips.jsonl:3: ")
    assert hinted[0].endswith("; if this is another format: hedgerow data convert [schema]")
    assert sum(line.startswith("clips.jsonl:4: ") for line in lines) > 0
    assert not any("convert" in line for line in run([good, bad])[0])


def test_a_file_that_is_no_jsonl_says_what_reads_such(folder):
    for name, count in {"llava.json": 1, "cut.jsonl": 0}.items():
        Path(name).write_text(json.dumps([LLAVA], indent=1) if count else '{"id": ', encoding="utf-8")
        found = []
        check([Path(name)], settings(), tell=found.append)
        assert sum("hedgerow data convert" in str(problem) for problem in found) == count


def test_one_is_said_in_the_singular(folder, hedgerow):
    write_jsonl(Path("one.jsonl"), [row("a", HI, ask("?", ""))])
    write_jsonl(Path("two.jsonl"), [row("a", HI, ask("?", "")), row("b", HI, ask("?", "ok"))])
    _, out, err = hedgerow("data", "check", "one.jsonl", "--fix", "new.jsonl")
    assert out.splitlines()[-2:] == ["1 row in one.jsonl: 1 problem", "wrote new.jsonl: 0 rows"]
    assert "1 of 1 row has a problem" in err
    _, out, err = hedgerow("data", "check", "two.jsonl", "--fix", "new.jsonl")
    assert out.splitlines()[-2:] == ["2 rows in two.jsonl: 1 problem in 1 of them", "wrote new.jsonl: 1 row"]
    assert "1 of 2 rows has a problem" in err
