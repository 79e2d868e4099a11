"""What pages show beneath their code is what the code prints."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", ["grounding", "weights"])
def test_a_page_shows_what_its_code_prints(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = DOCS / f"{name}.md"
    names = {}
    blocks = re.findall(
        r"^```(python|text)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert [kind for kind, _ in blocks] == ["python", "text"] * 5
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, str(page), "exec"), names)
        else:
            assert capsys.readouterr().out == block
