"""A data plan tells what is there: lengths as encoded, budgets that hold, savings as counted one by one."""

import dataclasses
import itertools
import json
import math
import re
from html import unescape

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Image, Point, Points, Text, Video
from hedgerow.flops import MOLMO2_8B
from hedgerow.packing.plan import Plan, plan_rows
from hedgerow.recipe import load_recipe
from hedgerow.report import plan as plans
from hedgerow.report import terminal
from hedgerow.report.lengths import Spread, by_kind, by_task, look
from hedgerow.report.page import Chart, Section, Table
from hedgerow.report.page import Text as Line
from hedgerow.report.plan import plan_files
from hedgerow.report.plan_page import sections, write_plan
from hedgerow.report.trials import (
    Trial,
    against_padding,
    against_repeats,
    best_pool,
    recommend,
    try_all,
    waiting,
    within,
)
from hedgerow.sequence import Budget, Cost, Costs
from hedgerow.testing import tiny_encoder, tiny_recipe, write_jsonl, write_mp4, write_png
from hedgerow.tree import Branch, Message, MessageTree, write_trees


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    return {
        "video": Video(str(write_mp4(folder / "v.mp4"))),
        "image": Image(str(write_png(folder / "a.png", size=(60, 40)))),
    }


def user(*content):
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in content))


def bot(*content):
    return Message("assistant", tuple(Text(part) if isinstance(part, str) else part for part in content))


def trees(media):
    point = Points("p", (Point(0.5, 0.5),))
    deep = Branch((user("And why?"), bot("Because."), user("So?"), bot("So it is.")), task="qa")
    return [
        MessageTree("words", (user("Hi"), bot("Hello there.")), task="text"),
        MessageTree(
            "one",
            (user(media["image"], "Look."),),
            (Branch((user("Where?"), bot(point)), task="pointing"), Branch((user("What?"),), (deep,))),
        ),
        MessageTree("two", (user(media["image"], media["image"], "Which?"), bot("The first.")), task="qa"),
        MessageTree(
            "clip",
            (user(media["video"], media["image"], "See."), bot("A square.")),
            (Branch((user("Count."), bot("1")), task="counting"),),
            task="video_caption",
        ),
    ]


def test_a_look_tells_what_encoding_tells(media, encoder):
    for tree in trees(media):
        seen, sequence = look(tree, encoder), encoder(tree)
        assert seen.cost == sequence.cost
        assert list(seen.answers) == [(sample.task, sample.n) for sample in sequence.samples]
    assert [look(tree, encoder).kind for tree in trees(media)] == ["text", "image", "several images", "video"]


def test_annotations_apart_cost_what_each_costs_as_a_conversation_of_its_own(media, encoder):
    for tree in trees(media):
        answered = [node for node in tree.nodes() if any(m.role == "assistant" for m in node.messages)]
        alone = [MessageTree("x", (*node.path, *node.messages)) for node in answered]
        assert list(look(tree, encoder).apart) == [encoder.measure(one) for one in alone]


def test_lengths_are_told_by_kind_and_by_task(media, encoder):
    looks = [look(tree, encoder) for tree in trees(media)]
    kinds = list(by_kind([*looks, looks[0]]))
    assert [(one.name, one.examples) for one in kinds] == [
        ("text", 2), ("image", 1), ("several images", 1), ("video", 1),
    ]  # fmt: skip
    assert kinds[0].tokens.most == looks[0].cost["tokens"]
    assert kinds[1].answers.most == sum(count for _, count in looks[1].answers)
    tasks = Costs.of(
        [Cost(**{task: 1 for task, _ in one.answers}) for one in looks],
    )
    told = {one.name: one for one in by_task(Costs.of([one.cost for one in looks]), tasks, looks)}
    assert {name: one.examples for name, one in told.items()} == {
        "qa": 2, "text": 1, "pointing": 1, "video_caption": 1, "counting": 1,
    }  # fmt: skip
    assert next(iter(told)) == "qa"
    assert told["qa"].tokens.most == max(looks[1].cost["tokens"], looks[2].cost["tokens"])
    assert told["counting"].answers.most == looks[3].answers[1][1]


def test_a_spread_is_that_of_its_amounts():
    assert Spread.of([]) is None
    found = Spread.of(list(range(101)))
    assert (found.median, found.p95, found.most) == (50.0, 95.0, 100)
    assert found.deciles == tuple(range(0, 101, 10))


amounts = st.lists(st.tuples(st.integers(1, 9000), st.integers(0, 60)), min_size=1, max_size=40)


@given(amounts)
@settings(max_examples=60, deadline=None)
def test_a_recommended_budget_holds_what_it_promises(drawn):
    costs = Costs(("tokens", "crops"), drawn)
    budget = recommend(costs)
    tokens, crops = np.array(drawn).T
    assert budget["tokens"] % 512 == 0
    assert len(within(costs, budget)) == len(drawn)  # fewer than 1,000: none is an outlier
    assert budget["tokens"] >= 4 * np.median(tokens)
    smaller = budget["tokens"] - 512
    assert smaller < max(tokens.max(), 4 * np.median(tokens))
    even = budget["tokens"] * crops.sum() / tokens.sum()
    assert budget["crops"] == max(crops.max(), math.ceil(even))


def test_one_in_thousands_that_is_far_longer_is_not_planned_for():
    costs = Costs(("tokens", "crops"), [(1000, 4)] * 2999 + [(9000, 4)])
    assert recommend(costs) == Budget(tokens=4096, crops=17)
    assert within(costs, recommend(costs)).tolist() == list(range(2999))
    near = Costs(("tokens", "crops"), [(1000, 4)] * 2999 + [(2000, 4)])
    assert len(within(near, recommend(near))) == 3000


def planned(rows):
    return Plan([[number] for number in range(rows)], Cost(tokens=rows), Budget(tokens=1))


def test_the_smallest_pool_that_is_as_good_is_recommended():
    trials = [
        Trial("pool", 16, planned(2003)),
        Trial("pool", 32, planned(2002)),
        Trial("pool", 64, planned(2000)),
    ]
    assert best_pool([*trials, Trial("window", 9, planned(1))]) == 32
    assert best_pool([Trial("pool", 16, planned(21)), Trial("pool", 32, planned(20))]) == 16
    assert best_pool([Trial("pool", 16, planned(22)), Trial("pool", 32, planned(20))]) == 32


def test_every_way_is_tried_and_the_last_is_all_at_once():
    costs = Costs.of([Cost(tokens=1 + number % 7, crops=number % 3) for number in range(300)])
    trials = list(try_all(costs, Budget(tokens=20, crops=9)))
    assert [(trial.way, trial.size) for trial in trials] == [
        *(("pool", size) for size in (16, 32, 48, 64, 128)), ("window", 256), ("window", 300),
    ]  # fmt: skip
    assert all(trial.plan.examples == 300 for trial in trials)
    few = list(try_all(costs.take(range(3)), Budget(tokens=20, crops=9)))
    assert [(trial.way, trial.size) for trial in few] == [("pool", 16), ("window", 3)]


def test_padding_is_what_filling_batch_after_batch_computes():
    costs = Costs.of([Cost(tokens=1 + 37 * n % 101, crops=n % 5, pairs=n) for n in range(50)])
    plan = plan_rows(costs, Budget(tokens=200, crops=12))
    size = round(50 / len(plan.rows))
    order = np.random.default_rng(0).permutation(50).tolist()
    filled = []
    for start in range(0, 50, size):
        batch = [costs[n] for n in order[start : start + size]]
        most = Cost(**{name: max(cost[name] for cost in batch) for name in ("tokens", "crops")})
        filled += [most] * len(batch)
    saving = against_padding(costs, plan, MOLMO2_8B)
    assert size > 1
    assert saving.against == f"padded batches of {size}"
    assert saving.tokens == sum(c["tokens"] for c in filled) / costs.total()["tokens"]
    assert saving.crops == sum(c["crops"] for c in filled) / costs.total()["crops"]
    assert saving.flops == pytest.approx(MOLMO2_8B(filled).sum() / MOLMO2_8B(costs).sum())


def test_repeats_are_counted_annotation_by_annotation(media, encoder):
    looks = [look(tree, encoder) for tree in trees(media)]
    apart = list(itertools.chain.from_iterable(one.apart for one in looks))
    saving = against_repeats(looks, MOLMO2_8B)
    total = sum(one.cost["tokens"] for one in looks)
    assert saving.tokens == sum(cost["tokens"] for cost in apart) / total > 1
    assert saving.flops == pytest.approx(
        sum(MOLMO2_8B([cost])[0] for cost in apart) / sum(MOLMO2_8B([one.cost])[0] for one in looks)
    )
    assert against_repeats(looks[:1], MOLMO2_8B).crops is None


def test_waiting_needs_steps_of_several_rows_and_falls_when_rows_are_arranged():
    rng = np.random.default_rng(3)
    costs = Costs(("tokens", "crops"), rng.integers(1, 100, (200, 2)))
    plan = plan_rows(costs, Budget(tokens=120, crops=120))
    tasks = Costs(("qa",), np.ones((200, 1)))
    found = waiting(costs, tasks, plan, MOLMO2_8B, 4)
    assert (found.rows, found.steps) == (4, len(plan.rows) // 4)
    assert 1.0 < found.arranged < found.packed
    assert waiting(costs, tasks, plan, MOLMO2_8B, 1) is None
    assert waiting(costs, tasks, plan, MOLMO2_8B, len(plan.rows) + 1) is None


@pytest.fixture(scope="module")
def data(media, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    long = MessageTree("long", (user("Tell."), bot("again " * 500)), task="text")
    write_trees(folder / "a.jsonl", [*trees(media), long])
    write_jsonl(folder / "bad.jsonl", [{"id": "b", "messages": []}, trees(media)[0].to_dict()])
    return folder


@pytest.fixture
def recipe(data, tmp_path):
    path = tiny_recipe(tmp_path, data / "a.jsonl")
    return load_recipe(path, {"packing.budget": "{tokens: 400, crops: 20}", "rows_per_step": "2"})


def test_a_recipes_budget_stands_beside_the_recommended_and_names_what_it_leaves_out(recipe, data):
    plan = plan_files([], recipe)
    own, best = plan.fits
    assert (own.name, own.budget, own.left_out) == ("recipe", Budget(tokens=400, crops=20), 1)
    assert (own.named[0].where, own.plan.examples) == (f"{data / 'a.jsonl'}:5", 4)
    assert re.fullmatch(r"tokens \d+ > 400", own.named[0].reason)
    assert (best.name, best.left_out, best.plan.examples) == ("recommended", 0, 5)
    assert (plan.examples, plan.looked, plan.basis) == (5, 5, "recipe")
    assert plan.waiting is None or plan.waiting.rows == 2
    assert plan.mixture.sets[0].size == 5


def test_a_budget_that_holds_nothing_is_shown_and_the_recommended_is_tried(recipe):
    room = recipe.packing.budget.model_copy(update={"tokens": 1})
    small = recipe.model_copy(update={"packing": recipe.packing.model_copy(update={"budget": room})})
    plan = plan_files([], small)
    assert (plan.fits[0].left_out, plan.fits[0].rows, plan.basis) == (5, 0, "recommended")
    assert "recipe       " in "\n".join(terminal.lines(sections(plan)))


def test_files_stand_in_for_the_recipes_data(recipe, data):
    plan = plan_files([data / "bad.jsonl"], recipe.model_copy(update={"data": skipping(recipe)}))
    assert (plan.files, plan.examples) == ((str(data / "bad.jsonl"),), 1)
    assert plan.dropped[0].where == f"{data / 'bad.jsonl'}:1"
    shown = {section.title for section in sections(plan)}
    assert "Dropped" in shown


def skipping(recipe):
    return recipe.data.model_copy(update={"on_bad": "skip"})


def test_many_examples_are_looked_at_evenly_and_rows_are_those_of_all(recipe, monkeypatch):
    monkeypatch.setattr(plans, "LOOKED", 2)
    monkeypatch.setattr(plans, "TRIED", 2)
    plan = plan_files([], recipe)
    assert (plan.examples, plan.looked, plan.tried) == (5, 2, 2)
    assert [one.name for one in plan.kinds] == ["text"]  # the first and the last
    assert plan.fits[-1].rows == round(len(plan.fits[-1].plan.rows) * 5 / 2)
    assert "2 of 5 examples, evenly spread" in "\n".join(terminal.lines(sections(plan)))


def test_a_plan_is_plain_data(recipe):
    plan = plan_files([], recipe)
    found = json.loads(json.dumps(plan.to_dict()))
    assert set(found) == {field.name for field in dataclasses.fields(plan)}
    own = found["fits"][0]
    assert own["budget"] == {"tokens": 400, "crops": 20}
    assert own["plan"]["rows"] == own["plan"]["bound"] + own["plan"]["gap"]
    assert found["mixture"]["sets"][0]["examples"] == 1.0


def test_a_page_says_the_same_as_the_lines(recipe, tmp_path):
    plan = plan_files([], recipe)
    html = write_plan(plan, tmp_path / "plan.html").read_text()
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert "<script" not in html
    said = unescape(re.sub(r"<[^>]*>", "", html)).casefold()
    for line in terminal.lines(sections(plan)):
        for cell in re.split(r"\s{2,}", line.strip()):
            assert cell.strip("()").casefold() in said
    hostile = dataclasses.replace(plan, files=("<script>x</script>.jsonl",))
    assert "<script" not in write_plan(hostile, tmp_path / "hostile.html").read_text()


TABLE = Table(("name", "n"), [("a", 1), ("longer", 12345.6), ("none", None)], caption="why")


def test_plain_lines_are_aligned():
    one = Section("One", [Line("Hi."), TABLE, Chart("c", {}, "x", "y")])
    shown = terminal.lines([one, Section("Two", [])])
    assert shown == [
        "ONE", "Hi.", "(why)",
        "name         n", "a            1", "longer  12,346", "none         -",
        "", "TWO",
    ]  # fmt: skip


def test_a_terminal_gets_tables_and_everything_else_plain_lines(monkeypatch, capsys):
    terminal.print_sections([Section("One", [Line("[b]Hi"), TABLE])])
    plain = capsys.readouterr().out
    assert "─" not in plain
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    terminal.print_sections([Section("One", [Line("[b]Hi"), TABLE, Chart("c", {}, "x", "y")])])
    drawn = capsys.readouterr().out
    assert "─" in drawn
    for word in ("One", "[b]Hi", "longer", "12,346", "why"):
        assert word in drawn


def test_measuring_is_told_on_a_terminal_only(monkeypatch, capsys):
    assert terminal.measuring() is None
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    tell = terminal.measuring()
    tell(1000, 2000)
    tell(2000, 2000)
    assert capsys.readouterr().err == "\rmeasured 1,000 of 2,000 trees\rmeasured 2,000 of 2,000 trees\n"
