"""Files and folders of any mix of formats become one file of trees: grouped, counted, in bounded memory."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.data.adapters import convert
from hedgerow.data.adapters.piece import PerTree
from hedgerow.data.adapters.spool import dealt
from hedgerow.data.schema import shipped_schema
from hedgerow.errors import DataError
from hedgerow.packing.plan import plan_rows
from hedgerow.sequence import Budget
from hedgerow.testing import tiny_encoder, write_jsonl, write_mp4, write_png
from hedgerow.tree import read_trees


def llava(name, image, question="q"):
    turns = [{"from": "human", "value": f"<image>{question}"}, {"from": "gpt", "value": "yes"}]
    return {"id": name, "image": image, "conversations": turns}


def plain(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def questions(tree):
    return [branch["messages"][0]["content"] for branch in tree["branches"]]


def mixed(folder):
    """Seven formats, each with media that exist."""
    (folder / "pictures").mkdir(parents=True)
    (folder / "deep").mkdir()
    for number in range(5):
        write_png(folder / f"pictures/{number}.png", seed=number)
    write_mp4(folder / "clip_2fps.mp4")
    part = [{"type": "image", "path": "pictures/0.png"}]
    tree = {"id": "own", "messages": [{"role": "user", "content": part}]}
    tree["branches"] = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    ]
    write_jsonl(folder / "native.jsonl", [tree])
    rows = [
        llava("a", "pictures/1.png", "one"),
        llava("b", "pictures/2.png"),
        llava("c", "pictures/1.png", "two"),
    ]
    (folder / "llava.json").write_text(json.dumps(rows), encoding="utf-8")
    swift = {
        "messages": [
            {"role": "user", "content": "<image>Find the <ref-object>."},
            {"role": "assistant", "content": "<bbox>"},
        ],
        "images": ["pictures/3.png"],
        "objects": {"ref": ["spot"], "bbox": [[10, 10, 30, 20]]},
    }
    write_jsonl(folder / "deep" / "swift.jsonl", [swift | {"images": ["../pictures/3.png"]}])
    embedded = {"bytes": (folder / "pictures/4.png").read_bytes(), "path": "4.png"}
    typed = [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]
    said = [
        {"role": "user", "content": typed},
        {"role": "assistant", "content": [{"type": "text", "text": "Noise."}]},
    ]
    write_parquet(folder / "typed.parquet", [{"messages": said, "images": [embedded]}])
    write_jsonl(folder / "pairs.jsonl", [{"prompt": "q", "chosen": "good", "rejected": "bad"}])
    point = {
        "video_id": "clip", "video_source": "youtube", "video_duration": 1.75, "category": "object",
        "label": "square", "question": "How many squares?", "count": 1, "points": [[{"x": 10.0, "y": 50.0}]],
        "two_fps_timestamps": [0.5], "raw_timestamps": [0.5], "raw_frames": [2], "clip_start": None,
        "clip_end": None, "annotator_unsure": False,
    }  # fmt: skip
    write_parquet(folder / "points.parquet", [point, point | {"annotator_unsure": True}])
    (folder / "README.md").write_text("what this is")
    return folder


def write_parquet(path, rows, **options):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)
    return path


def test_a_mixed_folder_becomes_one_packed_data_set(tmp_path):
    out = tmp_path / "out" / "trees.jsonl"
    result = convert([mixed(tmp_path / "in")], out)
    assert result.formats == {
        "ms-swift": 1, "llava": 3, "hedgerow": 1, "trl": 2, "molmo2-video-point": 2,
    }  # fmt: skip
    assert (result.rows, result.trees, result.skipped) == (9, 7, 0)
    assert result.left_out == {"molmo2-video-point": 1}
    assert result.media == 1
    check = jsonschema.Draft202012Validator(shipped_schema())
    assert [list(check.iter_errors(tree)) for tree in plain(out)] == [[]] * 7
    trees = list(read_trees(out))
    assert result.branches == sum(len(tree.nodes()) - 1 for tree in trees)
    assert all(Path(item.path).is_file() for tree in trees for item in tree.media)
    encoder = tiny_encoder()
    costs = [encoder(tree).cost for tree in trees]
    rows = plan_rows(costs, Budget(tokens=1000, crops=40)).rows
    assert sorted(number for row in rows for number in row) == list(range(7))
    assert len(rows) < 7, "several trees share a row"


def test_the_same_folder_gives_the_same_file(tmp_path):
    source = mixed(tmp_path / "in")
    out = source / "trees.jsonl"
    convert([source], out)
    first = out.read_bytes()
    convert([source], out)
    assert out.read_bytes() == first, "the file itself is no source"
    assert b"pictures/1.png" in first


def test_parquet_gives_what_json_lines_give(tmp_path):
    rows = [llava(str(number), f"{number % 3}.png") for number in range(40)]
    write_parquet(tmp_path / "a.parquet", rows, row_group_size=7)
    write_jsonl(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf\n" + (tmp_path / "a.json").read_bytes())
    outs = [tmp_path / f"{suffix}.out" for suffix in ("parquet", "jsonl", "json")]
    for out in outs:
        convert([tmp_path / f"a.{out.stem}"], out)
    assert len(plain(outs[0])) == 3
    assert outs[0].read_bytes() == outs[1].read_bytes() == outs[2].read_bytes()


def test_native_parquet_may_hold_branches_as_json_and_bytes(tmp_path):
    data = write_png(tmp_path / "p.png").read_bytes()
    part = {"type": "image", "path": None, "data": data}
    branches = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}]
    row = {
        "id": "n",
        "source": None,
        "messages": [{"role": "user", "content": [part]}],
        "branches": json.dumps(branches),
    }
    convert([write_parquet(tmp_path / "n.parquet", [row])], tmp_path / "out.jsonl")
    (tree,) = plain(tmp_path / "out.jsonl")
    assert tree["branches"] == branches
    (shown,) = tree["messages"][0]["content"]
    assert (tmp_path / shown["path"]).read_bytes() == data
    write_parquet(tmp_path / "n.parquet", [row | {"branches": "[{"}])
    with pytest.raises(DataError, match=r"n\.parquet:1: branches: not JSON .* or a list written as JSON"):
        convert([tmp_path / "n.parquet"], tmp_path / "out.jsonl")


def test_a_root_of_many_rows_is_dealt_evenly(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [llava("a", "1.png", str(number)) for number in range(7)])
    result = convert([path], tmp_path / "out", per_tree=3)
    trees = plain(tmp_path / "out")
    assert [questions(tree) for tree in trees] == [["0", "1", "2"], ["3", "4"], ["5", "6"]]
    assert [tree["id"] for tree in trees] == ["a", "a (2)", "a (3)"]
    assert (result.trees, result.branches) == (3, 7)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 12), st.integers(1, 5))
def test_rows_are_dealt_to_the_fewest_trees(points, most, rows):
    even = dealt(points, PerTree(rows=rows))
    assert len(even) == -(-len(points) // rows)
    assert max(even) - min(even) <= 1
    full = dealt(points, PerTree(points=most))
    assert sum(even) == sum(full) == len(points)
    at, sums = 0, []
    for size in full:
        sums.append(points[at : at + size])
        at += size
    assert all(sum(part) <= most or len(part) == 1 for part in sums)
    assert all(sum(one) + two[0] > most for one, two in itertools.pairwise(sums)), "none closes early"
    assert dealt(points, PerTree()) == [len(points)]


def test_media_may_lie_in_another_folder(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [llava("a", "x/1.png"), llava("b", "/abs/2.png")])
    convert([path], tmp_path / "trees" / "out.jsonl", media=str(tmp_path / "pictures"))
    paths = [tree["messages"][0]["content"][0]["path"] for tree in plain(tmp_path / "trees" / "out.jsonl")]
    assert paths == ["../pictures/x/1.png", "/abs/2.png"]


def test_bad_rows_are_skipped_and_named_when_asked(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        "[\n" + json.dumps(llava("a", "1.png")) + "\n\n" + json.dumps({"conversations": []}) + "\n3\n"
    )
    with pytest.raises(DataError, match=r"a\.jsonl:1: not JSON .* write one object a line"):
        convert([path], tmp_path / "out")
    result = convert([path], tmp_path / "out", on_bad="skip")
    assert (result.rows, result.trees, result.skipped) == (4, 1, 3)
    assert [Path(one.where).name for one in result.named] == ["a.jsonl:1", "a.jsonl:4", "a.jsonl:5"]
    assert "3 bad rows skipped" in str(result)
    assert "a.jsonl:5: holds int, not an object" in str(result)
    assert result.to_dict()["named"][0]["reason"].startswith("not JSON")


def test_a_file_of_no_format_is_an_error_even_where_bad_rows_are_skipped(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"x": 1, "y": 2}])
    with pytest.raises(
        DataError,
        match=r"a\.jsonl:1: no format has the columns x, y\. None of .*vqa and the mappings shares one\. ",
    ) as told:
        convert([path], tmp_path / "out", on_bad="skip")
    assert "Leave the file out of the folder, give --format, or write a mapping: docs/s" in str(told.value)
    write_jsonl(path, [{"image": "1.png", "question": "q", "label": "a"}])
    with pytest.raises(
        DataError, match=r"Nearest: vqa: there is no 'answer'; [\w-]+: [^;]*; [\w-]+: [^;]*\. "
    ):
        convert([path], tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.jsonl", "there is no such file or folder; give files of .jsonl, .json, .parquet"),
        ("empty", "holds no data; give a folder with files of"),
        ("odd", "table.xls: not a format that is read; give .*, .csv, .tsv, or leave it out of the folder"),
        ("cut.json", "not JSON .* give a list of objects, or one a line"),
        ("cut.parquet", "row 1 cannot be read .* fetch or write the file anew"),
        ("none.jsonl", "no row is left; nothing was written"),
        ("bytes.parquet", "embedded bytes start with .* no image or video that is known; give its path"),
    ],
)
def test_a_bad_source_is_named(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.md").write_text("x")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "table.xls").write_text("a,b")
    (tmp_path / "cut.json").write_text('[{"a": 1}')
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "none.jsonl").write_text("\n")
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    write_parquet(
        tmp_path / "bytes.parquet", [{"messages": said, "images": [{"bytes": b"what", "path": None}]}]
    )
    with pytest.raises(DataError, match=message) as told:
        convert([tmp_path / name], tmp_path / "out")
    assert name in str(told.value)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    path = write_jsonl(tmp_path / "a.jsonl", [llava("a", "1.png")])
    with pytest.raises(DataError, match=r"cannot be written .* give another --out"):
        convert([path], tmp_path / "file" / "out")


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    path = write_jsonl(tmp_path / "a.jsonl", [llava("a", "1.png")])
    (tmp_path / "out").mkdir()  # nothing can be put in its place
    with pytest.raises(DataError, match=r"cannot be written .* make room, or give another --out"):
        convert([path], tmp_path / "out")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.jsonl", "out"]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", [llava("a", "1.png")])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'hedgerow\[parquet\]'"):
        convert([path], tmp_path / "out")


def test_a_hub_set_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"own/set: .* pip install 'hedgerow\[hub\]'"):
        convert(["own/set"], tmp_path / "out", from_hub=True)


@pytest.mark.slow  # the package takes seconds to load
def test_a_set_laid_out_as_on_the_hub_is_streamed(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "set" / "data").mkdir(parents=True)
    embedded = {"bytes": write_png(tmp_path / "p.png").read_bytes(), "path": "p.png"}
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": said, "images": [embedded]}] * 3
    write_parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet", rows)
    result = convert([f"{tmp_path}/set:train"], tmp_path / "out.jsonl", from_hub=True)
    assert (result.rows, result.trees, result.media) == (3, 1, 1)
    with pytest.raises(
        DataError, match=r"nowhere: row 1 cannot be had .* correct name, configuration or split"
    ):
        convert([f"{tmp_path}/nowhere"], tmp_path / "out.jsonl", from_hub=True)


MEASURE = """
import resource, sys
from hedgerow.data.adapters import convert
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(convert([sys.argv[1]], sys.argv[2]).trees, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_memory_stays_flat(tmp_path, suffix):
    """Ten times the rows cost little more than the index of about 100 bytes a row."""
    used = []
    for count in (4_000, 40_000):
        rows = [llava(str(number), f"{number // 4}.png", "why? " * 40) for number in range(count)]
        path = tmp_path / f"{count}.{suffix}"
        write_jsonl(path, rows) if suffix == "jsonl" else write_parquet(path, rows, row_group_size=1000)
        del rows
        command = [sys.executable, "-c", MEASURE, str(path), str(tmp_path / "out")]
        trees, kib = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        assert int(trees) == count // 4
        used.append(int(kib) / 1024)
    assert used[1] - used[0] < 8, used  # MiB; the rows themselves are 12
