"""The index knows what every example costs, keeps what is good, and names what is not."""

import dataclasses
import gc
import json
import multiprocessing
import pickle
import re
import signal

import numpy as np
import pytest

from hedgerow.data import measure as module
from hedgerow.data.facts import MediaFacts
from hedgerow.data.index import Examples
from hedgerow.data.lines import Dropped, Line, located
from hedgerow.data.measure import Maker
from hedgerow.data.mixture import DataSet, Rates
from hedgerow.data.transforms import HighResolution, Transforms
from hedgerow.errors import BudgetError, DataError, MediaError
from hedgerow.grounding.codec import parse
from hedgerow.packing.loader import RowLoader
from hedgerow.sequence import Budget, Sequence
from hedgerow.testing import tiny_encoder, write_jsonl, write_mp4, write_png
from hedgerow.tree import read_trees


def read(*sets, encoder=None, rates=None, workers=1, progress=None, **options):
    """Index files; each is a path, or a path with its number of repeats."""
    sets = [DataSet(*one) if isinstance(one, tuple) else DataSet(one) for one in sets]
    maker = Maker(encoder or tiny_encoder(), **options)
    return Examples.read(sets, maker, rates=rates, workers=workers, progress=progress)


def line(name, answer="yes", *media):
    shown = [{"type": kind, "path": path} for kind, path in media]
    return {
        "id": name,
        "messages": [{"role": "user", "content": [*shown, {"type": "text", "text": "Well?"}]}],
        "branches": [{"messages": [{"role": "assistant", "content": answer}]}],
    }


@pytest.fixture
def data(tmp_path):
    write_png(tmp_path / "a.png")
    write_mp4(tmp_path / "v.mp4")
    lines = [
        line("one"),
        line("two", "no \u00e9", ("image", "a.png")),
        line("three", "?", ("video", "v.mp4")),
    ]
    path = write_jsonl(tmp_path / "d.jsonl", lines)
    path.write_text("\n" + path.read_text().replace("\n", "\n  \n", 1))  # blank lines count, and hold nothing
    return path


def test_costs_are_those_of_the_encoded_trees_and_lines_are_where_they_stand(data):
    examples = read(data)
    assert [str(place) for place in examples.lines] == [f"{data}:2", f"{data}:4", f"{data}:5"]
    assert [examples.tree(0, n).id for n in range(len(examples))] == ["one", "two", "three"]
    assert [examples.tree(0, n) for n in range(3)] == list(read_trees(data))
    assert list(examples.costs(0)) == [examples.encode(0, n).cost for n in range(3)]
    assert [cost["crops"] for cost in examples.costs(0)] == [0, 3, 4]
    assert examples.dropped == ()


def test_an_example_is_used_as_often_as_its_source_says(data, tmp_path):
    other = write_jsonl(tmp_path / "other.jsonl", [line("four")])
    examples = read((other, 3), (data, 2))
    assert sorted(examples.tree(0, n).id for n in range(len(examples))) == sorted(
        ["four"] * 3 + ["one", "two", "three"] * 2
    )
    assert [examples.encode(0, n).cost for n in range(len(examples))] == list(examples.costs(0))


def bad_lines(path):
    """Append lines that are bad in different ways, and return what must be said of each."""
    bad = {
        b'{"id": "x", "messages": [{"role": "user", "content": "q"}], "brances": []}': "mean 'branches'",
        b'{"id": "x"': "not JSON",
        b'{"id": "x\xff"}': "not UTF-8",
        b'{"id": "\\ud800"}': "not JSON .*surrogate",
        b"[" * 100_000: "not JSON",
        b'{"messages": [], "branches": [' * 400 + b"]}" * 400: "not JSON .*recursion",
        json.dumps(
            line("x", "a", ("image", "gone.png"))
        ).encode(): r"gone\.png: no such file; correct the path",
        json.dumps(line("x", "long " * 300)).encode(): "tokens .* raise packing.budget, or set",
    }
    first = path.read_bytes().count(b"\n") + 1
    path.write_bytes(path.read_bytes() + b"\n".join(bad) + b"\n")
    return {f"{path}:{first + place}": why for place, why in enumerate(bad.values())}


def test_bad_lines_are_counted_and_named_and_no_good_one_is_lost(data):
    whole = read((data, 2))
    said = bad_lines(data)
    examples = read((data, 2), budget=Budget(tokens=200, crops=9), on_bad="skip", oversize="drop")
    assert sorted(examples.lines, key=str) == sorted(whole.lines, key=str)
    assert examples.costs(0) == whole.costs(0)
    assert [item.where for item in examples.dropped] == list(said)
    for item, why in zip(examples.dropped, said.values(), strict=True):
        with pytest.raises(DataError, match=why):
            raise DataError(item.reason)
        assert not item.reason.startswith(item.where)
        assert "\n" not in str(item)


def test_the_first_bad_line_stops_where_bad_lines_raise(data):
    (where, _), *_ = bad_lines(data).items()
    with pytest.raises(DataError, match="^" + where.replace(".", r"\.") + ": brances: unknown key") as caught:
        read(data)
    assert str(caught.value).count(where) == 1


def test_an_example_over_the_budget_is_named_with_its_excess(data):
    where = r"d\.jsonl:4: two: crops 3 > 2 of a row \(it "
    with pytest.raises(BudgetError, match=where + r"takes Cost\(tokens=38, crops=3\), of Budget"):
        read(data, budget=Budget(tokens=200, crops=2), on_bad="skip")


def test_nothing_left_is_an_error_that_names_the_first_reason(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"id": 1}, {"id": 2}])
    with pytest.raises(DataError, match=r"no usable example; it leaves out all 2, .* is .*d\.jsonl:1: "):
        read(path, on_bad="skip")
    path.write_text("\n")
    with pytest.raises(DataError, match="no usable example; it is empty"):
        read(path, on_bad="skip")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.jsonl", on_bad="skip")


@pytest.fixture
def damaged(data):
    """The picture's header is right, its pixels are not all there: only decoding tells."""
    picture = data.parent / "a.png"
    picture.write_bytes(picture.read_bytes()[:-2000])
    return data


def test_pixels_that_turn_out_bad_are_named_by_file_and_line(damaged):
    examples = read(damaged)
    with pytest.raises(MediaError, match=r"d\.jsonl:4: .*a\.png: the image cannot be read"):
        examples.encode(0, 1)
    with pytest.raises(MediaError, match=r"d\.jsonl:4: "):
        examples.attempt(0, 1)
    skipping = read(damaged, on_bad="skip")
    assert len(skipping) == 3
    outcome = skipping.attempt(0, 1)
    assert isinstance(outcome, Dropped)
    assert outcome.where == f"{damaged}:4"
    assert outcome.reason.startswith(f"{damaged.parent / 'a.png'}: the image cannot be read")
    assert isinstance(skipping.attempt(0, 0), Sequence)


def test_a_place_is_named_once_however_often_it_passes():
    with pytest.raises(MediaError, match=r"^f:1: what$"), located("f:1"), located("f:1"):
        raise MediaError("what")
    with pytest.raises(KeyError), located("f:1"):
        raise KeyError("no user's mistake")


def test_a_changed_file_is_read_as_it_is_now(data):
    place = Line(str(data), 2, 1)
    assert place.read().id == "one"
    data.write_text("\n" + '{"id": "on')
    with pytest.raises(DataError, match=r"d\.jsonl:2: not JSON"):
        place.read()


def test_examples_work_after_pickling(data):
    examples = read(data, encoder=tiny_encoder(facts=MediaFacts()))
    again = pickle.loads(pickle.dumps(examples))
    assert (again.encode(0, 2).tokens == examples.encode(0, 2).tokens).all()
    assert again.costs(0) == examples.costs(0)


def many(folder, count, *, bad=()):
    """A file of trees of different lengths, some with an image, some bad."""
    write_png(folder / "a.png")
    lines = [
        line(f"t{n}", "so " * (n % 7 + 1), *([("image", "a.png")] if n % 3 == 0 else []))
        for n in range(count)
    ]
    for n in bad:
        lines[n]["messages"][0]["content"].insert(0, {"type": "image", "path": f"gone{n}.png"})
    return write_jsonl(folder / "many.jsonl", lines)


SMALL = Budget(tokens=34, crops=9)
VARIED = Transforms(templates={"qa": ("{text}", "Now: {text}", "{text} Say it in a few short words.")})


@pytest.mark.parametrize("transforms", [Transforms(), VARIED], ids=["plain", "transformed"])
def test_any_number_of_processes_gives_the_same_index(tmp_path, monkeypatch, transforms):
    monkeypatch.setattr(module, "_CHUNK", 8)
    path, reports = many(tmp_path, 50, bad=(3, 21, 49)), []
    options = {"budget": SMALL, "on_bad": "skip", "oversize": "drop", "transforms": transforms, "seed": 1}
    facts = [MediaFacts(), MediaFacts()]
    one, two = (
        read(
            path,
            encoder=tiny_encoder(facts=known),
            workers=workers,
            progress=lambda done, total: reports.append((done, total)),
            **options,
        )
        for workers, known in zip((1, 2), facts, strict=True)
    )
    assert list(one.lines) == list(two.lines)
    assert one.dropped == two.dropped
    assert f"{path}:4" in [item.where for item in one.dropped]
    for epoch in (0, 1):
        mine, other = one.epoch(epoch), two.epoch(epoch)
        assert mine.surveys.costs == other.surveys.costs
        assert mine.surveys.tasks == other.surveys.tasks
        assert (mine.surveys.weight == other.surveys.weight).all()
        assert (mine.drawn.examples == other.drawn.examples).all()
        assert mine.dropped == other.dropped
        assert 0 < len(mine.surveys) < 47, "some are over the budget"
        assert list(mine.surveys.costs) == [two.encode(epoch, n).cost for n in range(len(mine.surveys))]
    assert reports == [(min(8 * n, 50), 50) for n in range(1, 8)] * 2
    assert facts[0].news() == facts[1].news() == {}
    assert facts[0]._known == facts[1]._known != {}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_bad_line_of_the_file_is_the_error_of_any_number_of_processes(
    tmp_path, monkeypatch, workers
):
    monkeypatch.setattr(module, "_CHUNK", 4)
    path = many(tmp_path, 40, bad=(14, 15, 37))
    with pytest.raises(MediaError, match=r"^\S+many\.jsonl:15: .*gone14\.png: no such file"):
        read(path, workers=workers)


class Collecting(MediaFacts):
    """Facts that also collect garbage, as a process does now and then."""

    def __call__(self, media):
        gc.collect()
        return super().__call__(media)


def test_frames_decoded_before_do_not_block_the_processes_that_measure(data, tmp_path, monkeypatch):
    def late(*_):
        for process in multiprocessing.active_children():
            process.kill()
        raise TimeoutError("the processes hang")

    monkeypatch.setattr(module, "_CHUNK", 4)
    path = many(tmp_path, 12)
    before = signal.signal(signal.SIGALRM, late)
    gc.disable()
    try:
        read(data).encode(0, 2)
        signal.alarm(20)
        assert len(read(path, encoder=tiny_encoder(facts=Collecting()), workers=2)) == 12
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()


@pytest.fixture
def varied(data):
    """Indexed with every transform, none of which may make costs and trees disagree."""
    transforms = Transforms(
        templates={"qa": ("{text}", "Look: {text}")},
        fps=(1.0, 4.0),
        high_resolution=HighResolution(0.5, 6),
        shuffle_branches=True,
    )
    return read((data, 3), transforms=transforms, seed=3)


def test_transformed_costs_are_those_of_the_encoded_trees_and_vary_by_pass(varied):
    seen = set()
    for epoch in range(3):
        costs = varied.costs(epoch)
        encoded = [varied.encode(epoch, number) for number in range(len(costs))]
        assert list(costs) == [sequence.cost for sequence in encoded]
        for number, sequence in enumerate(encoded):
            tasks = [sample.task for sample in sequence.samples]
            assert varied.tasks(epoch)[number] == {task: tasks.count(task) for task in set(tasks)}
            weight = varied.epoch(epoch).surveys.weight[number]
            assert weight == pytest.approx(sequence.weight.sum(), rel=1e-6)
        seen |= {(sequence.example, sequence.cost) for sequence in encoded}
        assert varied.costs(epoch) == costs, "an epoch is the same when it is asked for again"
    assert len({cost for name, cost in seen if name == "three"}) > 1, "the frame rate varies"
    assert len({cost["crops"] for name, cost in seen if name == "two"}) == 2, "the resolution varies"


def test_the_copies_of_an_example_are_different_passes(varied):
    assert varied.epoch(1).drawn.turns.tolist() == [3, 4, 5] * 3
    trees = {repr(varied.tree(0, number).to_dict()) for number in (3, 4, 5)}
    assert len(trees) > 1


def test_a_worker_makes_any_epoch_itself(varied):
    """A data worker that holds another epoch, or none, reads the same trees."""
    costs = varied.costs(2)
    again = pickle.loads(pickle.dumps(varied))
    again.costs(0)
    assert [again.encode(2, number).cost for number in range(len(costs))] == list(costs)


def branching(name, *answers):
    tree = line(name)
    tree["branches"] = [
        {"messages": [{"role": "user", "content": "And?"}, {"role": "assistant", "content": answer}]}
        for answer in answers
    ]
    return tree


def test_oversize_examples_are_shortened_or_dropped_and_counted(tmp_path):
    long = "long " * 60
    path = write_jsonl(
        tmp_path / "d.jsonl",
        [
            branching("fits", "a"),
            branching("cut", "a", long, "b"),
            branching("gone", long),
            line("gone", long),
        ],
    )
    short = read(path, budget=Budget(tokens=100), oversize="shorten")
    assert [short.tree(0, n).id for n in range(len(short))] == ["fits", "cut"]
    assert short.epoch(0).surveys.cut.tolist() == [0, 1]
    assert [branch.messages[1].content for branch in short.tree(0, 1).branches] == ["a", "b"]
    assert [short.encode(0, n).cost for n in range(2)] == list(short.costs(0))
    assert short.costs(0)[1]["tokens"] <= 100
    assert [item.reason.split(":")[0] for item in short.dropped] == ["gone", "gone"]
    dropped = read(path, budget=Budget(tokens=100), oversize="drop")
    assert [dropped.tree(0, n).id for n in range(len(dropped))] == ["fits"]
    assert [item.where for item in dropped.dropped] == [f"{path}:{n}" for n in (2, 3, 4)]


def test_what_a_transform_makes_too_large_leaves_that_epoch_alone(data, caplog):
    transforms = Transforms(high_resolution=HighResolution(0.5, 9))
    options = {"transforms": transforms, "budget": Budget(tokens=400, crops=5)}
    examples = read(data, oversize="drop", **options)
    kept = [[examples.tree(e, n).id for n in range(len(examples.costs(e)))] for e in range(8)]
    assert {len(ids) for ids in kept} == {2, 3}
    assert len(examples) == 3
    lost = [item.where for e in range(8) for item in examples.epoch(e).dropped]
    assert lost == [f"{data}:4"] * sum(len(ids) == 2 for ids in kept)
    assert "leaves out 1 of 3 examples, the first is" in caplog.text
    with pytest.raises(BudgetError, match=r"d\.jsonl:4: two: crops \d+ > 5"):
        [read(data, **options).costs(epoch) for epoch in range(8)]


def test_rates_say_how_often_a_set_is_drawn_and_the_report_what_that_brings(data, tmp_path):
    other = write_jsonl(tmp_path / "other.jsonl", [line(f"o{n}", "word " * 20) for n in range(12)])
    sets = [DataSet(data, group="seen"), DataSet(other, group="said", cap=4)]
    maker = Maker(tiny_encoder())
    examples = Examples.read(sets, maker, rates=Rates({"seen": 1.0, "said": 3.0}, 40))
    counts = np.zeros(2)
    for epoch in range(3):
        ids = [examples.tree(epoch, n).id for n in range(len(examples.costs(epoch)))]
        seen = sum(name in ("one", "two", "three") for name in ids)
        counts += [seen, len(ids) - seen]
    assert counts.tolist() == [30, 90]
    report = examples.report()
    assert [one.examples for one in report.sets] == pytest.approx([0.25, 0.75])
    costs = [sequence.cost["tokens"] for sequence in (examples.encode(0, n) for n in range(40))]
    owners = examples.lines.files[examples.epoch(0).drawn.examples]
    drawn = sum(cost for cost, owner in zip(costs, owners, strict=True) if owner == 1) / sum(costs)
    assert report.sets[1].tokens == pytest.approx(drawn, abs=0.02)


def test_a_set_with_a_rate_must_hold_something(data, tmp_path):
    empty = write_jsonl(tmp_path / "empty.jsonl", [])
    with pytest.raises(DataError, match=r"empty\.jsonl: no usable example, but it has a rate"):
        read(data, empty, rates=Rates(draws=5))
    assert len(read(data, empty)) == 3


@pytest.mark.parametrize("transforms", [Transforms(), Transforms(shuffle_branches=True)])
def test_the_report_is_of_what_is_left_and_counts_what_is_cut(data, tmp_path, transforms):
    answers = [{"messages": [{"role": "assistant", "content": "word " * 30}]}] * 9
    long = write_jsonl(tmp_path / "long.jsonl", [line(f"l{n}") | {"branches": answers} for n in range(3)])
    budget = Budget(tokens=200, crops=16)
    found = {}
    for rule in ("drop", "shorten"):
        examples = read(data, long, transforms=transforms, budget=budget, oversize=rule)
        epoch = examples.epoch(0)
        files = examples.lines.files[epoch.drawn.examples]
        tokens = np.bincount(files, epoch.surveys.costs.amounts("tokens")[:, 0], minlength=2)
        found[rule] = report = examples.report()
        assert [one.tokens for one in report.sets] == pytest.approx(tokens / tokens.sum())
        assert [one.examples for one in report.sets] == pytest.approx(
            np.bincount(files, minlength=2) / len(files)
        )
    assert (found["drop"].sets[1].examples, found["drop"].cuts) == (0.0, "")
    kept = len(examples.tree(0, 3).branches)
    assert found["shorten"].cuts == f"3 trees shortened, {3 * (9 - kept)} branches left out"


def capped(folder, count, *, rooted=()):
    """A file of clips of which only 0 and 1.5 s are seen: of each, one branch of three cannot be taught."""
    write_mp4(folder / "v.mp4")
    clip = {"type": "video", "path": "v.mp4", "max_frames": 2}

    def says(*times):
        points = [{"x": 0.5, "y": 0.5, "time": time} for time in times]
        part = {"type": "points", "label": "ball", "points": points}
        return [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": [part]}]

    lines = []
    for n in range(count):
        branches = [{"messages": says(0.1)}, {"messages": says(0.6, 0.9)}, {"messages": says(0.7, 1.4)}]
        root = [{"role": "user", "content": [clip, {"type": "text", "text": "Look. " * (n % 3)}]}]
        root += says(0.7) if n in rooted else []
        lines.append({"id": f"c{n}", "messages": root, "branches": branches})
    return write_jsonl(folder / "capped.jsonl", lines)


@pytest.mark.parametrize(
    "transforms", [Transforms(), Transforms(shuffle_branches=True)], ids=["plain", "varied"]
)
def test_branches_whose_points_no_frame_shows_are_left_out_from_file_to_row(
    tmp_path, monkeypatch, transforms
):
    monkeypatch.setattr(module, "_CHUNK", 4)
    path, budget = capped(tmp_path, 12), Budget(tokens=300, crops=8)
    other = write_jsonl(tmp_path / "other.jsonl", [line("o")])
    one, two = (
        read(path, other, workers=workers, transforms=transforms, budget=budget, encoder=tiny_encoder())
        for workers in (1, 2)
    )
    for examples in (one, two):
        known = examples.epoch(0).surveys
        assert known.points.tolist() == [5] * 12 + [0]
        assert known.lost.tolist() == [3] * 12 + [0]
        assert known.left.tolist() == [1] * 12 + [0]
        assert known.cut.tolist() == [0] * 13
        assert list(known.costs) == [examples.encode(0, n).cost for n in range(13)]
        assert [len(examples.tree(0, n).branches) for n in range(13)] == [2] * 12 + [1]
        assert [str(lost) for lost in examples.losses()] == [
            "capped.jsonl: 36 of 60 points (60 %) fall between sampled frames and are not taught; 12 "
            "branches left out; `hedgerow data view` shows where (problem: points lost)"
        ]
    assert one.costs(0) == two.costs(0)
    rows = [list(RowLoader(one, budget, seed=0, workers=workers)) for workers in (1, 2)]
    assert [[found.row.examples for found in each] for each in rows] == [
        [f.row.examples for f in rows[0]]
    ] * 2
    assert sorted(name for found in rows[0] for name in found.row.examples) == sorted(
        ["o", *(f"c{n}" for n in range(12))]
    )
    assert not any(found.dropped for found in rows[0])
    for found in rows[0]:
        parts = parse(one.encoder.chat.decode(found.row.target), strict=True).parts
        assert {point.time for part in parts for point in part.points} == {0.0, 1.5}
        assert all(part.points for part in parts)


def test_a_tree_whose_root_points_where_no_frame_is_is_bad(tmp_path):
    path = capped(tmp_path, 4, rooted=(2,))
    told = (
        r"capped\.jsonl:3: c2, root: points 'ball': 1 of its 1 points stand on no sampled frame \(2 frames at"
    )
    with pytest.raises(DataError, match=told):
        read(path)
    examples = read(path, on_bad="skip")
    assert [item.where for item in examples.dropped] == [f"{path}:3"]
    assert [examples.tree(0, n).id for n in range(3)] == ["c0", "c1", "c3"]
    assert examples.surveys.take(np.array([2, 0])).left.tolist() == [1, 1]


def test_two_sets_of_one_name_are_told_apart_and_one_that_loses_nothing_is_not_named(tmp_path, data):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    paths = [capped(tmp_path / name, count) for name, count in (("a", 1), ("b", 2))]
    found = read(*paths, data).losses()
    assert [(one.name, one.points, one.lost, one.branches) for one in found] == [
        (str(path), 5 * n, 3 * n, n) for n, path in enumerate(paths, 1)
    ]
    shares = [str(dataclasses.replace(found[0], lost=lost, points=9840)) for lost in (9840, 312, 1)]
    assert [re.search(r"\(.*?\)", told)[0] for told in shares] == ["(100 %)", "(3.17 %)", "(0.0102 %)"]


def test_what_a_frame_rate_that_is_drawn_loses_is_told_of_the_first_epoch(tmp_path):
    """At 0.25 frames a second a point moves by 2 s at most, and nothing is lost."""
    path = capped(tmp_path, 8)
    examples = read(path, transforms=Transforms(fps=(0.25, 2.0)), seed=1)
    lost = [int(examples.epoch(epoch).surveys.lost.sum()) for epoch in range(3)]
    assert len(set(lost)) > 1
    assert [(one.points, one.lost, one.branches) for one in examples.losses()] == [
        (40, lost[0], lost[0] // 3)
    ]
    for epoch in range(2):
        costs = examples.costs(epoch)
        assert list(costs) == [examples.encode(epoch, n).cost for n in range(8)]
