"""The first Python block of the README runs, and the commands it names exist."""

import re
from pathlib import Path

import pytest

from hedgerow.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def fenced(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.mark.parametrize(
    "page", [page for page in PAGES if fenced(page, "python")], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in fenced(page, "python"):
        exec(compile(block, str(page), "exec"), names)
    assert capsys.readouterr().out


def test_every_command_that_a_page_names_exists():
    for page in PAGES:
        for words in re.findall(
            r"^ {4}hedgerow ([a-z]+(?: [a-z]+)?)", page.read_text(encoding="utf-8"), re.MULTILINE
        ):
            chain, _, _ = app.parse_commands(words.split())
            assert chain, f"{page.name}: hedgerow {words}"


def test_the_first_screen_has_the_tree_and_both_commands():
    first = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40])
    assert "```python" in first
    assert "make demo" in first
    assert "make test" in first
