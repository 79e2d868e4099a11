"""Each row that docs/sources.md shows becomes the tree beside it, by the format or the mapping it names."""

import json
import re
from pathlib import Path

import pytest

from hedgerow.data.adapters import convert, formats
from hedgerow.tree import MessageTree

TEXT = (Path(__file__).parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(jsonl?|yaml|csv)(?: (row)(?: (\S+))?)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pairs():
    """Rows, their format, the mapping that stands between, and the tree that follows."""
    found, rows, suffix, name, mapping = [], None, "", None, ""
    for fence in FENCE.finditer(TEXT):
        kind, is_row, given, text = fence.groups()
        if is_row:
            assert rows is None, "a row without its tree"
            rows = f"{json.dumps(json.loads(text))}\n" if kind == "json" else text
            suffix = "csv" if kind == "csv" else "jsonl"
            name, mapping = given, ""
        elif kind == "yaml":
            mapping = text
        else:
            assert rows is not None, "a tree without its row"
            found.append(
                pytest.param(rows, suffix, name, mapping, text, id=f"{len(found)}-{name or 'recognised'}")
            )
            rows = None
    return found


def test_there_are_pairs():
    assert len(pairs()) == 9


@pytest.mark.parametrize(("rows", "suffix", "name", "mapping", "tree"), pairs())
def test_a_row_becomes_the_tree_beside_it(tmp_path, rows, suffix, name, mapping, tree):
    if mapping:
        (tmp_path / name).write_text(mapping, encoding="utf-8")
        name = str(tmp_path / name)
    path = tmp_path / f"rows.{suffix}"
    path.write_text(rows, encoding="utf-8")
    convert([path], tmp_path / "out", format=name)
    (line,) = (tmp_path / "out").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == MessageTree.from_dict(json.loads(tree)).to_dict()


def test_every_format_is_named():
    assert [name for name in formats() if f"`{name}`" not in TEXT] == []
