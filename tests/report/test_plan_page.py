"""A data plan tells what is there: lengths as encoded, budgets that hold, savings as counted one by one."""

import dataclasses
import itertools
import json
import re
from html import unescape

import numpy as np
import pytest

from hedgerow.build import build_encoder, training_examples
from hedgerow.content import Image, Point, Points, Text, Video
from hedgerow.errors import RecipeError
from hedgerow.flops import MOLMO2_8B
from hedgerow.packing.plan import Plan, plan_rows
from hedgerow.recipe import load_recipe
from hedgerow.report import plan as plans
from hedgerow.report import terminal
from hedgerow.report.lengths import Spread, by_kind, by_task, look
from hedgerow.report.page import Chart, Section, Table
from hedgerow.report.page import Text as Line
from hedgerow.report.plan import plan_files
from hedgerow.report.plan_page import check_page, sections, write_plan
from hedgerow.report.trials import (
    Trial,
    Waiting,
    against_padding,
    against_repeats,
    best_pool,
    try_all,
    waiting,
)
from hedgerow.sequence import Budget, Cost, Costs
from hedgerow.testing import tiny_recipe, write_jsonl, write_mp4, write_png
from hedgerow.tree import Branch, Message, MessageTree, write_trees


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
    assert (plan.examples, plan.looked, plan.kept) == (5, 5, False)
    assert plan.waiting is None or plan.waiting.rows == 2
    assert (own.mixture.sets[0].size, best.mixture.sets[0].size) == (4, 5)


def test_a_budget_that_holds_nothing_is_shown_and_the_recommended_is_tried(recipe):
    room = recipe.packing.budget.model_copy(update={"tokens": 1})
    small = recipe.model_copy(update={"packing": recipe.packing.model_copy(update={"budget": room})})
    plan = plan_files([], small)
    assert (plan.fits[0].left_out, plan.fits[0].rows, plan.kept) == (5, 0, False)
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
    assert own["mixture"]["sets"][0]["examples"] == 1.0


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


def talk(name, branches, words):
    said = [Branch((user("Why?"), bot("because " * words)), task="text") for _ in range(branches)]
    return MessageTree(name, (user("Hi"),), tuple(said))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Two data sets of text: 30 trees of which 3 are too large for 400 tokens, and 20 of which 5 are."""
    folder = tmp_path_factory.mktemp("large")
    one = [talk(f"a{n}", 12 if n % 10 == 0 else 1 + n % 3, 20) for n in range(30)]
    write_trees(folder / "one.jsonl", one)
    write_trees(folder / "two.jsonl", [talk(f"b{n}", 9 if n % 4 == 0 else 2, 25) for n in range(20)])
    return folder


def mixed(large, tmp_path, **changes):
    path = tiny_recipe(tmp_path, large / "one.jsonl")
    sets = f"[{{path: {large / 'one.jsonl'}}}, {{path: {large / 'two.jsonl'}}}]"
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    return load_recipe(path, {"data.train": sets, "packing.budget": "{tokens: 400, crops: 0}", **changed})


GROUPS = {
    "data__groups": "{a: 3, b: 1}", "data__train.0.group": "a", "data__train.1.group": "b",
    "data__epoch": "80", "data__workers": "1",
}  # fmt: skip
VARIED = {"data__transforms": "{shuffle_branches: true}"}


@pytest.mark.parametrize("rule", ["shorten", "drop"])
@pytest.mark.parametrize("more", [{}, {"data__train.1.repeat": "2"}, GROUPS, VARIED, GROUPS | VARIED])
def test_a_plan_packs_and_mixes_what_is_trained_on(large, tmp_path, rule, more):
    recipe = mixed(large, tmp_path, packing__oversize=rule, **more)
    trained = training_examples(recipe, build_encoder(recipe))
    plan = plan_files([], recipe)
    own = plan.fits[0]
    costs = trained.costs(0)
    assert (own.plan.examples, own.plan.cost["tokens"]) == (len(costs), costs.total()["tokens"])
    assert own.rows == len(own.plan.rows)
    shares = np.array([[one.tokens, one.weight, one.samples, one.examples] for one in own.mixture.sets])
    files = trained.lines.files[trained.epoch(0).drawn.examples]
    known = trained.epoch(0).surveys
    tasks = known.tasks.amounts(*known.tasks.names).sum(axis=1)
    amounts = (known.costs.amounts("tokens")[:, 0], known.weight, tasks, np.ones(len(files)))
    drawn = np.array([np.bincount(files, amount, 2) / amount.sum() for amount in amounts]).T
    assert shares == pytest.approx(drawn, abs=0.02 if GROUPS.items() <= more.items() else 1e-9)
    cut = trained.surveys.cut if "data__transforms" not in more else known.cut
    assert (own.mixture.shortened, own.mixture.branches) == (np.count_nonzero(cut), cut.sum())
    said = "\n".join(terminal.lines(sections(plan)))
    told = f"{own.mixture.shortened} trees shortened, {cut.sum()} branches left out."
    assert (told in said) == bool(cut.sum())


def test_a_plan_counts_the_trees_and_branches_that_are_cut(large, tmp_path):
    own = plan_files([], mixed(large, tmp_path, packing__oversize="shorten")).fits[0]
    encoder = build_encoder(mixed(large, tmp_path))
    cost = encoder.node_costs(talk("x", 1, 20)), encoder.node_costs(talk("x", 1, 25))
    room = [(400 - root["tokens"]) // branch["tokens"] for root, branch in cost]
    assert (own.over, own.left_out, own.mixture.shortened) == (8, 0, 8)
    assert own.mixture.branches == 3 * (12 - room[0]) + 5 * (9 - room[1])


def test_a_fuller_budget_of_the_recipe_is_kept(large, tmp_path):
    wide = mixed(large, tmp_path, packing__budget="{tokens: 4096, crops: 3}", packing__window="40")
    tight = mixed(large, tmp_path, packing__budget="{tokens: 1917, crops: 3}", packing__window="40")
    plan = plan_files([], wide)
    assert not plan.kept
    for recipe in (wide, tight):
        plan = plan_files([], recipe)
        own, best = plan.fits
        assert not own.beats(best)
        told = "\n".join(terminal.lines(sections(plan)))
        (line,) = re.findall("^As YAML: (.*)$", told, re.MULTILINE)
        again = load_recipe(tmp_path / "recipe.yaml", {"packing": line.removeprefix("packing: ")}).packing
        assert again.budget.model_dump() == best.budget
        assert ((again.pool, again.window) == (plan.pool, None)) != plan.kept
    assert plan.kept
    assert (own.budget, again.window) == (best.budget, 40)
    assert "keep the recipe's own, nothing tried is better: a budget of 1,917 tokens" in told
    assert "recipe, recommended   1,917" in told


def test_an_outlier_is_named_with_what_to_do(large, tmp_path):
    far = tmp_path / "far.jsonl"
    write_trees(far, [*(talk(f"t{n}", 1, 20) for n in range(30)), talk("far", 60, 20)])
    for rule, told in (
        ("raise", "set packing.oversize to shorten, which leaves out branches that do not fit, or to drop;"),
        ("drop", "left out, by packing.oversize: drop;"),
        ("shorten", "by packing.oversize: shorten, 1 tree shortened, "),
    ):
        recipe = mixed(large, tmp_path, packing__oversize=rule, packing__budget="{tokens: 512, crops: 0}")
        plan = plan_files([far], recipe)
        best = plan.fits[-1]
        said = terminal.lines(sections(plan))[2]
        assert best.budget["tokens"] == 512 < plan.whole["tokens"]
        assert said.startswith(f"Larger than such a row: {far}:31 ({best.named[0].reason}); {told}")
        assert said.endswith(f"a row that holds all takes {plan.whole['tokens']:,} tokens and 0 crops.")
        safe = "drop" if rule == "drop" else "shorten"
        assert f"oversize: {safe}}}" in terminal.lines(sections(plan))[3]


def test_a_set_of_nothing_but_outliers_is_held(large, tmp_path):
    write_trees(tmp_path / "far.jsonl", [talk("far", 60, 20)])
    rates = {"data__groups": "{a: 30, b: 1}", "data__epoch": "31"}  # it is drawn once
    changes = {"data__train.1.path": str(tmp_path / "far.jsonl"), "packing__oversize": "drop"}
    plan = plan_files([], mixed(large, tmp_path, **GROUPS | rates | changes))
    assert plan.kinds[0].tokens.deciles[-2] < plan.kinds[0].tokens.most / 2
    assert plan.fits[0].mixture is None
    assert plan.fits[-1].budget == plan.whole
    said = "\n".join(terminal.lines(sections(plan)))
    assert "no example that a run needs fits into a row; 4 examples larger than a row, here 0" in said
    assert "shares as trained under the recommended budget" in said


def test_few_steps_or_no_gain_of_balance_are_explained(recipe):
    plan = plan_files([], recipe)
    for waited, told in (
        (Waiting(2, 7, 1.02, 1.05), "7 steps of 2 rows: too few to tell. Steps are arranged 8 at a time"),
        (Waiting(2, 8, 1.02, 1.02), "Nothing is gained here: each step keeps its share of every task"),
        (Waiting(2, 8, 1.05, 1.02), None),
    ):
        said = "\n".join(terminal.lines(sections(dataclasses.replace(plan, waiting=waited))))
        below = said.split("(balance: true)")[1].split("\n")[1]
        assert below.startswith(told) if told else not below


def test_one_of_a_kind_is_said_in_the_singular(data, tmp_path):
    write_trees(tmp_path / "a.jsonl", [talk("a", 1, 3)])
    recipe = mixed(tmp_path, tmp_path, data__train=f"[{{path: {tmp_path / 'a.jsonl'}}}]")
    said = "\n".join(terminal.lines(sections(plan_files([], recipe))))
    assert "For 1 example: " in said
    assert "an epoch is about 1 row of 1.0 examples" in said
    assert not re.search(r"\b1 (rows|trees|examples|draws|steps|tokens)\b", said)


@pytest.mark.parametrize("name", ["plan.pdf", "plan", "plan.html.gz"])
def test_a_page_has_the_name_of_a_page(name, tmp_path):
    assert check_page(tmp_path / "Plan.HTML").name == "Plan.HTML"
    with pytest.raises(RecipeError, match=rf"{name}: a plan is written as HTML; give a name that ends in"):
        check_page(tmp_path / name)


def test_a_recipe_in_place_of_data_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"r\.YAML: a recipe is not data; write --recipe .*r\.YAML, or"):
        plan_files([tmp_path / "r.YAML"], None)


def test_what_was_left_out_is_said_to_stop_training(data):
    said = "\n".join(terminal.lines(sections(plan_files([data / "bad.jsonl"], None))))
    assert "DROPPED\n(Left out, as by data.on_bad: skip; with raise, the default, training stops" in said


def test_a_plan_without_a_recipe_says_whose_settings_these_are(recipe, data):
    first = terminal.lines(sections(plan_files([data / "bad.jsonl"], None)))[1]
    assert first.startswith("Measured with Molmo2's vision settings (crops of 378 pixels)")
    assert "--recipe FILE" in first
    assert plan_files([], recipe).note == ""


def test_points_that_are_weighted_as_text_are_told_in_a_plan(recipe, tmp_path):
    part = {"type": "points", "label": "dot", "points": [{"x": 0.5, "y": 0.5}]}
    shown = {"type": "image", "path": str(write_png(tmp_path / "a.png"))}
    said = [{"role": "user", "content": [shown]}, {"role": "assistant", "content": [part]}]
    for name, count in {"qa": 1, "pointing": 0}.items():
        file = write_jsonl(tmp_path / f"{name}.jsonl", [{"id": "a", "messages": said, "task": name}])
        plan = plan_files([file], recipe)
        assert plan.astray == count
        told = [line for line in terminal.lines(sections(plan)) if "points or tracks" in line]
        assert [line.startswith("Warning: 1 answer gives points or tracks under") for line in told] == [
            True
        ] * count
