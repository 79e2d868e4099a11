"""What the page on points shows is what its code prints."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "grounding.md"


def test_the_page_shows_what_its_code_prints(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = re.findall(
        r"^```(python|text)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert [kind for kind, _ in blocks] == ["python", "text"] * 5
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, str(PAGE), "exec"), names)
        else:
            assert capsys.readouterr().out == block
