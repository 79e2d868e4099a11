"""Names that no example has: misspelt tasks are refused, others named once."""

import pytest

from hedgerow.data.index import Examples
from hedgerow.data.lines import Line
from hedgerow.data.measure import Maker
from hedgerow.data.mixture import DataSet
from hedgerow.data.names import check_sources, check_tasks
from hedgerow.encode import Encoder
from hedgerow.errors import RecipeError
from hedgerow.testing import write_jsonl
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.vision.processor import Molmo2Processor


def tree(name, source, task):
    said = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]
    return {"id": name, "source": source, "task": task, "messages": said}


@pytest.fixture
def examples(tmp_path):
    one = [tree(f"a{n}", "web", "pointing") for n in range(5)] + [tree("last", "rare", "my_task")]
    files = [
        write_jsonl(tmp_path / "one.jsonl", one),
        write_jsonl(tmp_path / "two.jsonl", [tree("b", "clips", "qa")]),
    ]
    encoder = Encoder(ChatFormat(load_tokenizer("tiny")), Molmo2Processor())
    return Examples.read([DataSet(path) for path in files], Maker(encoder))


@pytest.fixture
def read(monkeypatch):
    """Counts the lines that are read."""
    found, plain = [], Line.read
    monkeypatch.setattr(Line, "read", lambda line: found.append(line.number) or plain(line))
    return found


@pytest.mark.parametrize(
    ("given", "meant"),
    [(["pionting"], "pointing"), (["qa", "my_tsk"], "my_task"), (["multiple_chioce"], "multiple_choice")],
)
def test_a_misspelt_task_is_refused_with_the_one_that_was_meant(examples, given, meant):
    said = (
        f"weights.scale.{given[-1]}: no example has the task '{given[-1]}'; they have my_task, pointing, qa"
    )
    with pytest.raises(RecipeError) as refused:
        check_tasks({"weights.tasks": ["qa"], "weights.scale": given}, examples)
    assert str(refused.value) == f"{said}: did you mean '{meant}'?"


def test_a_task_of_other_data_is_named_once(examples, caplog):
    for _ in range(2):
        check_tasks({"templates": ["pointing", "my_task", "tracking", "harvest"]}, examples)
    assert [record.getMessage() for record in caplog.records] == [
        f"templates.{name}: no example has the task '{name}'; they have my_task, pointing, qa"
        for name in ("tracking", "harvest")
    ]


def test_a_source_that_no_example_is_of_is_named_once(examples, caplog, read):
    for _ in range(2):
        check_sources("weights.sources", ["web", "clisp", "books"], examples)
    assert [record.getMessage() for record in caplog.records] == [
        "weights.sources.clisp: no example has the source 'clisp'; they have clips, rare, web: did you mean "
        "'clips'?",
        "weights.sources.books: no example has the source 'books'; they have clips, rare, web",
    ]
    assert len(read) == 14


def test_sources_that_are_there_take_few_lines_and_none_take_none(examples, caplog, read):
    check_sources("weights.sources", ["web", "clips"], examples)
    assert len(read) == 2
    check_sources("weights.sources", ["rare"], examples)
    assert len(read) == 2 + 7
    check_sources("weights.sources", [], examples)
    assert len(read) == 2 + 7
    assert caplog.records == []
