"""Names that no example has: misspelt tasks are refused, others named once."""

import json

import pytest

from hedgerow.build import build_encoder, training_examples
from hedgerow.data.index import Examples
from hedgerow.data.lines import Line
from hedgerow.data.measure import Maker
from hedgerow.data.mixture import DataSet
from hedgerow.data.names import check_sources, check_spans, check_tasks
from hedgerow.encode import Encoder
from hedgerow.errors import RecipeError
from hedgerow.recipe import load_recipe
from hedgerow.testing import tiny_recipe, write_jsonl
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
        check_sources({"weights.sources": ["web", "clisp"], "other": ["books", "web"]}, examples)
    assert [record.getMessage() for record in caplog.records] == [
        "weights.sources.clisp: no example has the source 'clisp'; they have clips, rare, web: did you mean "
        "'clips'?",
        "other.books: no example has the source 'books'; they have clips, rare, web",
    ]
    assert len(read) == 14


def test_sources_that_are_there_take_few_lines_and_none_take_none(examples, caplog, read):
    check_sources({"weights.sources": ["web"], "other": ["clips"]}, examples)
    assert len(read) == 2
    check_sources({"weights.sources": ["rare"]}, examples)
    assert len(read) == 2 + 7
    check_sources({"weights.sources": []}, examples)
    assert len(read) == 2 + 7
    assert caplog.records == []


def test_a_span_that_no_answer_has_is_named_once(tmp_path, caplog):
    def text(name):
        return [{"type": "text", "text": "Why. That.", "spans": [{"start": 0, "end": 4, "name": name}]}]

    asked, answered = tree("a", "web", "qa")["messages"]
    said = [asked | {"content": text("asked")}, answered | {"content": text("reason")}]
    file = write_jsonl(tmp_path / "spans.jsonl", [tree("a", "web", "qa") | {"messages": said}])
    encoder = Encoder(ChatFormat(load_tokenizer("tiny")), Molmo2Processor())
    spoken = Examples.read([DataSet(file)], Maker(encoder))
    for _ in range(2):
        check_spans("names", ["reason", "asked", "raeson"], spoken)
    assert [record.getMessage() for record in caplog.records] == [
        f"names.{name}: no answer has a span '{name}'; they have reason" for name in ("asked", "raeson")
    ]


def test_limits_of_weighers_are_names_too(tmp_path, caplog):
    """Through a recipe: the field is named as it is written there."""
    file = write_jsonl(tmp_path / "one.jsonl", [tree("a", "web", "qa")])
    weights = {
        "lexical": {"keywords": {"cats": {"words": ["cat"], "sources": ["wbe"]}}},
        "spans": {"opening": {"tasks": ["qaa"]}, "named": {"names": {"why": 2.0}}},
    }
    path = tiny_recipe(tmp_path, file)
    recipe = load_recipe(path, {"weights": json.dumps(weights)})
    with pytest.raises(RecipeError, match=r"^weights\.spans\.opening\.tasks\.qaa: .* did you mean 'qa'\?"):
        training_examples(recipe, build_encoder(recipe))
    weights["spans"]["opening"] = {"tasks": ["qa"]}
    recipe = load_recipe(path, {"weights": json.dumps(weights)})
    training_examples(recipe, build_encoder(recipe))
    assert [record.getMessage() for record in caplog.records] == [
        "weights.lexical.keywords.cats.sources.wbe: no example has the source 'wbe'; they have web: did you "
        "mean 'web'?",
        "weights.spans.named.names.why: no answer has a span 'why'; they have none with a name",
    ]


def test_an_unknown_task_is_weighted_and_the_one_that_was_meant_is_told(tmp_path, caplog):
    rows = [tree("b", "web", "trakcing"), tree("c", "web", "zzz")]
    file = write_jsonl(tmp_path / "one.jsonl", rows)
    encoder = Encoder(ChatFormat(load_tokenizer("tiny")), Molmo2Processor())
    Examples.read([DataSet(file)], Maker(encoder))
    told = [record.getMessage() for record in caplog.records if "is unknown" in record.getMessage()]
    said = "is unknown and weighted as otherwise; "
    assert f"task 'trakcing' {said}did you mean 'tracking'?" in told
    (listed,) = [line for line in told if "zzz" in line]
    assert listed.startswith(f"task 'zzz' {said}known tasks: video_caption, ")
