"""The shipped schema is that of the code, and every example in the documents is valid by it."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from hedgerow.data.schema import schema_text, shipped_schema
from hedgerow.errors import DataError
from hedgerow.tree import MessageTree, json_schema, read_trees

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(json|jsonl)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def documents():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def examples():
    """Each example with its place."""
    found = []
    for path in documents():
        for fence in FENCE.finditer(path.read_text(encoding="utf-8")):
            texts = [fence[2]] if fence[1] == "json" else fence[2].splitlines()
            number = path.read_text(encoding="utf-8")[: fence.start()].count("\n") + 1
            found += [pytest.param(text, id=f"{path.name}:{number}") for text in texts if text.strip()]
    return found


def problems(tree):
    return [error.message for error in jsonschema.Draft202012Validator(shipped_schema()).iter_errors(tree)]


def test_the_shipped_schema_is_that_of_the_code():
    assert shipped_schema() == json_schema(), "run: python -m hedgerow.data.schema"
    assert shipped_schema() == json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(shipped_schema())


def test_the_documents_have_examples():
    assert examples()


@pytest.mark.parametrize("text", examples())
def test_an_example_of_the_documents_is_a_tree(text):
    tree = json.loads(text)
    assert problems(tree) == []
    assert MessageTree.from_dict(tree).nodes()


BASE = {"id": "a", "messages": [{"role": "user", "content": "q"}]}


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"branches": [{"messages": [{"role": "assistant", "content": "x"}], "rank": 0}]}, True),
        ({"brances": []}, False),
        ({"weight": -1}, False),
        ({"messages": [{"role": "robot", "content": "q"}]}, False),
        ({"messages": [{"role": "user", "content": [{"type": "sound", "path": "a.wav"}]}]}, False),
    ],
)
def test_the_schema_refuses_what_the_code_refuses(change, valid):
    tree = BASE | change
    assert (problems(tree) == []) is valid
    if not valid:
        with pytest.raises(DataError):
            MessageTree.from_dict(tree)


def test_trees_are_read_in_order_with_paths_relative_to_their_file(tmp_path):
    image = {"role": "user", "content": [{"type": "image", "path": "a.png"}]}
    path = tmp_path / "d.jsonl"
    path.write_text(
        json.dumps(BASE) + "\n\n" + json.dumps({"id": "b", "messages": [image]}), encoding="utf-8"
    )
    first, second = read_trees(path)
    assert (first.id, second.id) == ("a", "b")
    assert second.media[0].path == str(tmp_path / "a.png")
    path.write_text(json.dumps(BASE) + "\n\n{}\n")
    with pytest.raises(DataError, match=r"d\.jsonl:3: "):
        list(read_trees(path))
