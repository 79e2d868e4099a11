"""Tables of text, questions about images, and what a conversion says of media."""

import json

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from hedgerow.data.adapters import convert
from hedgerow.errors import DataError, RecipeError
from hedgerow.testing import write_jsonl, write_png


def trees_of(folder, name, text=None, **options):
    """The trees that a file becomes, and what was counted."""
    if text is not None:
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    result = convert([folder / name], folder / "out.jsonl", **options)
    return [
        json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
    ], result


def said(tree):
    return [tuple(message["content"] for message in branch["messages"]) for branch in tree["branches"]]


def mapping(folder, **words):
    path = folder / "mine.yaml"
    path.write_text(
        yaml.safe_dump({"source": "mine", "media": [{"image": "{file}"}]} | words), encoding="utf-8"
    )
    return str(path)


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t")])
def test_tables_of_text_are_read(tmp_path, name, mark):
    rows = [["image", "question", "answer"], ["1.png", '"Is it, or\nnot?"', "Yes."], [], ["2.png", "q", "7"]]
    text = "\ufeff" + "".join(mark.join(cells) + "\r\n" for cells in rows)
    trees, result = trees_of(tmp_path, name, text)
    assert result.formats == {"vqa": 2}
    assert [said(tree) for tree in trees] == [[("Is it, or\nnot?", "Yes.")], [("q", "7")]]
    assert [tree["id"] for tree in trees] == ["a-2", "a-5"], "the lines at which they start"


POINT = {
    "question": "Point to {label}.",
    "points": {"label": "{label}", "x": "x", "y": "y", "unless": "hidden"},
}


def test_numbers_that_are_text_are_numbers_where_a_mapping_needs_them(tmp_path):
    rule = POINT | {"when": {"n": {"at_least": 2, "none_of": [5]}, "sure": {"equals": True}}}
    text = "file,label,x,y,n,sure,hidden\n"
    text += (
        "a,p,0.25,.5,2,True,No\nb,p,0.25,.5,1,True,0\nc,p,1,1,5,true,\nd,p,1,1,3,no,\ne,p,1,1,3,true,true\n"
    )
    trees, result = trees_of(tmp_path, "a.csv", text, format=mapping(tmp_path, branches=[rule], id="{file}"))
    assert [tree["id"] for tree in trees] == ["a", "e"]
    parts = [tree["branches"][0]["messages"][1]["content"][0] for tree in trees]
    assert [part.get("points") for part in parts] == [[{"x": 0.25, "y": 0.5}], None]
    assert result.left_out == {"mine": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label,x,y,hidden\na,p,left,1,\n", r"a\.csv:2: x: 'left' is no number"),
        ("file,label,x,y,hidden\na,p,nan,1,\n", r"a\.csv:2: x: 'nan' is no number"),
        (
            "file,label,x,y,hidden\na,p,1,1,\n\na,p,1\n",
            r"a\.csv:4: 3 cells below a header of 5; put cells with",
        ),
        ("file,file\na,b\n", r"a\.csv:1: the header is .* give each column a name of its own"),
        ("file,\na,b\n", r"a\.csv:1: the header is .* give each column a name of its own"),
        (b"file,label\n\xff\xff,b\n", r"a\.csv:\d: cannot be read .* write it in UTF-8, or as JSON lines"),
        ("", "no row is left"),
        ("file,label\n", "no row is left"),
    ],
)
def test_a_bad_table_is_told_by_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        trees_of(tmp_path, "a.csv", text, format=mapping(tmp_path, branches=[POINT]))


def test_bad_lines_of_a_table_are_skipped_when_asked(tmp_path):
    trees, result = trees_of(
        tmp_path, "a.csv", "image,question,answer\n1.png,q\n1.png,q,a\n,q,a\n", on_bad="skip"
    )
    assert (len(trees), result.skipped) == (1, 2)
    assert "image: there is none" in result.named[1].reason


def test_a_table_of_no_format_in_a_folder_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"image": "1.png", "question": "q", "answer": "a"}])
    (tmp_path / "in" / "notes.csv").write_text("who,when\nme,now\n")
    with pytest.raises(
        DataError, match=r"notes\.csv:2: no format .* Leave the file out of the folder, give --format"
    ):
        convert([tmp_path / "in"], tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"answer": "a cat"}, "a cat"),
        ({"answer": 3.0}, "3"),
        ({"answers": ["dog", "cat", "cat"]}, "cat"),
        ({"answers": [{"answer": "dog"}, {"answer": "cat"}]}, "dog"),
        ({"answer": None, "answers": ["a"]}, "a"),
    ],
)
def test_a_question_has_one_answer(tmp_path, row, answer):
    write_jsonl(tmp_path / "a.jsonl", [{"id": 4, "image_path": "1.png", "question": "<image>\nq"} | row])
    ((tree,), _) = trees_of(tmp_path, "a.jsonl")
    assert tree["messages"][0]["content"] == [{"type": "image", "path": "1.png"}]
    assert (tree["id"], said(tree)) == ("4", [("q", answer)])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "a", "question": " "}, "question: ' ' is no question"),
        ({"answer": ["a", ""], "question": "q"}, r"answer: .* is no answer; give a text or a list of texts"),
        ({"answers": [], "question": "q"}, r"answer: \[\] is no answer"),
        (
            {"answer": 1, "question": "q", "choices": ["a", "b"]},
            "vqa: it has 'choices', so that its answer may mean",
        ),
        (
            {"image": None, "answer": "a", "question": "q"},
            "image: there is none; give its path, or its bytes",
        ),
    ],
)
def test_a_question_that_cannot_be_asked_is_told(tmp_path, row, message):
    write_jsonl(tmp_path / "a.jsonl", [{"image": "1.png"} | row])
    with pytest.raises(DataError, match=rf"a\.jsonl:1: .*{message}"):
        trees_of(tmp_path, "a.jsonl")


def embedded(folder, *more):
    """A table of three rows with two different images in it."""
    images = [write_png(folder / f"{seed}.png", seed=seed).read_bytes() for seed in (0, 1, 0)]
    rows = [
        {"image": {"bytes": data, "path": None}, "question": str(n), "answer": "a"}
        for n, data in enumerate(images)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([*rows, *more]), folder / "a.parquet")
    return sorted(images)


def test_embedded_files_are_counted_whether_they_were_there_or_not(tmp_path):
    images = embedded(tmp_path)
    for _ in range(2):
        trees, result = trees_of(tmp_path, "a.parquet")
        assert (len(trees), result.media, result.shown, result.missing) == (2, 2, 2, 0)
        assert "2 embedded files beside it, in out_media" in str(result)
    held = [path.read_bytes() for path in (tmp_path / "out_media").iterdir()]
    assert sorted({*images}) == sorted(held)


def test_a_mapping_may_show_embedded_bytes(tmp_path):
    embedded(tmp_path)
    given = mapping(
        tmp_path, media=[{"image": "{image}"}], branches=[{"question": "{question}", "answer": "{answer}"}]
    )
    trees, result = trees_of(tmp_path, "a.parquet", format=given)
    assert (len(trees), result.media) == (3, 2)
    assert (tmp_path / trees[0]["messages"][0]["content"][0]["path"]).is_file()


def test_a_conversion_that_fails_removes_what_it_wrote(tmp_path):
    embedded(tmp_path, {"image": None, "question": "q", "answer": "a"})
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match="image: there is none"):
        convert([tmp_path / "a.parquet"], tmp_path / "out.jsonl")
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "out_media").mkdir()
    kept = tmp_path / "out_media" / "kept.png"
    kept.write_bytes(b"x")
    with pytest.raises(DataError, match="image: there is none"):
        convert([tmp_path / "a.parquet"], tmp_path / "out.jsonl")
    assert list((tmp_path / "out_media").iterdir()) == [kept], "what was there stays"


def test_a_conversion_that_fails_keeps_what_an_earlier_one_wrote(tmp_path):
    embedded(tmp_path)
    trees_of(tmp_path, "a.parquet")
    before = sorted((tmp_path / "out_media").iterdir())
    embedded(tmp_path, {"image": None, "question": "q", "answer": "a"})
    with pytest.raises(DataError, match="image: there is none"):
        convert([tmp_path / "a.parquet"], tmp_path / "out.jsonl")
    assert sorted((tmp_path / "out_media").iterdir()) == before
    assert (tmp_path / "out.jsonl").exists()


def test_missing_media_are_counted_once_each_and_the_first_is_named(tmp_path):
    (tmp_path / "media").mkdir()
    write_png(tmp_path / "media" / "1.png")
    rows = [{"image": f"{n}.png", "question": str(k), "answer": "a"} for n in range(4) for k in range(2)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    _, result = trees_of(tmp_path, "a.jsonl")
    assert (result.shown, result.missing, result.first_missing) == (4, 4, "0.png")
    _, result = trees_of(tmp_path, "a.jsonl", media=str(tmp_path / "media"))
    assert (result.shown, result.missing, result.first_missing) == (4, 3, "media/0.png")
    last = str(result).splitlines()[-1]
    assert last.startswith("3 of 4 media files are not there, the first is media/0.png; give --media")
    write_jsonl(tmp_path / "a.jsonl", rows[2:4])
    _, result = trees_of(tmp_path, "a.jsonl", media=str(tmp_path / "media"))
    assert (result.shown, result.missing) == (1, 0)
    assert "not there" not in str(result)


def test_rows_of_one_source_share_trees_across_files(tmp_path):
    row = {"image": "../1.png", "answer": "a"}
    for name, question in (("x/a", "one"), ("y/a", "two"), ("y/b", "three")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_jsonl(tmp_path / f"{name}.jsonl", [row | {"question": question}])
    convert([tmp_path / "x", tmp_path / "y"], tmp_path / "out.jsonl")
    trees = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(tree["source"], said(tree)) for tree in trees] == [
        ("a", [("one", "a"), ("two", "a")]),
        ("b", [("three", "a")]),
    ]


def test_a_mapping_that_is_not_there_is_called_a_mapping(tmp_path):
    path = tmp_path / "mine.yaml"
    for text, message in [
        (None, "there is no such mapping; give a file in YAML"),
        ("just words", "holds no mapping; write 'key: value' lines"),
        (b"\xff\xfe", "no mapping can be read here .it is not UTF-8.; give a file in YAML"),
        ("a: [", r":1: not YAML"),
    ]:
        if text is not None:
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(RecipeError, match=message) as told:
            convert([tmp_path / "a.jsonl"], tmp_path / "out", format=str(path))
        assert str(told.value).startswith(str(path))
        assert "recipe" not in str(told.value)
        assert "Errno" not in str(told.value)


def test_a_file_without_the_columns_of_its_mapping_is_told(tmp_path):
    rule = {"question": "q", "answer": "{said}"}
    write_jsonl(tmp_path / "a.jsonl", [{"file": "a", "said": "x"}])
    wrong = mapping(tmp_path, columns=["file", "sayd"], branches=[rule])
    message = r"a\.jsonl:1: there is no column 'sayd', which mine names in 'columns'; the row has"
    with pytest.raises(DataError, match=message):
        trees_of(tmp_path, "a.jsonl", format=wrong)
    right = mapping(tmp_path, columns=["file", "said"], branches=[rule])
    assert len(trees_of(tmp_path, "a.jsonl", format=right)[0]) == 1
