"""What benchmarks compare with: mixes fit their budget, and peers are what they are said to be."""

import importlib.util
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from hedgerow.packing.pool import Packer
from hedgerow.sequence import Budget, Costs

pytest.importorskip("numba")
FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmarks():
    """The modules of the folder, which is no package: a script finds its neighbours in it."""
    sys.path.insert(0, str(FOLDER))
    names = ("figures", "mixes", "peers", "packing", "media", "data", "lora")
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(FOLDER))
        for name in names:
            del sys.modules[name]


@pytest.fixture(scope="module")
def mixes(benchmarks):
    return benchmarks["mixes"]


@pytest.fixture(scope="module")
def peers(benchmarks):
    return benchmarks["peers"]


def test_every_mix_fits_its_budget_and_is_the_same_each_time(mixes):
    tiny = full = crops = 0
    for mix in [*mixes.MIXES.values(), *(mixes.random_mix(seed) for seed in range(60))]:
        costs = mix.draw(400, 1)
        sizes = costs.amounts(*mix.budget)
        assert (sizes <= list(mix.budget.values())).all()
        assert (sizes[:, 0] >= 1).all()
        assert mix.draw(400, 1) == costs != mix.draw(400, 2)
        tiny += np.median(sizes[:, 0]) < 128
        full += (sizes[:, 0] > 0.9 * mix.budget["tokens"]).mean() > 0.1
        crops += sizes.shape[1] > 1 and sizes[:, 1].sum() > 0
    assert min(tiny, full, crops) >= 3


def test_kinds_are_those_of_the_drawn_examples(mixes):
    mix = mixes.MIXES["W2"]
    kinds, crops = mix.kinds(500, 3), mix.draw(500, 3).amounts("crops")[:, 0]
    assert ((kinds == 0) == (crops == 0)).all()
    assert set(kinds) == {0, 1, 2, 3}


@pytest.mark.parametrize(("name", "means"), [("W1", (1263, 0)), ("W1L", (4923, 0)), ("W2", (4327, 38.5))])
def test_mixes_have_the_means_they_are_known_by(mixes, name, means):
    found = mixes.MIXES[name].draw(40_000, 0).amounts("tokens", "crops").mean(0)
    assert found == pytest.approx(means, rel=0.03)


def best_value(tokens, crops, values, most_tokens, most_crops):
    """Try every subset."""
    subsets = itertools.product((0, 1), repeat=len(values))
    fits = [s for s in map(np.array, subsets) if s @ tokens <= most_tokens and s @ crops <= most_crops]
    return max(int(s @ values) for s in fits)


@pytest.mark.slow
def test_the_knapsack_finds_the_most_valuable_subset(peers):
    rng = np.random.default_rng(5)
    for _ in range(20):
        tokens, crops = rng.integers(0, 12, (2, 9))
        values = rng.integers(1, 99, 9)
        for solve in (peers.solve_numpy, peers.solve_compiled):
            chosen = solve(tokens, crops, values, np.zeros((10, 21, 16), np.int32))
            assert tokens[chosen].sum() <= 20
            assert crops[chosen].sum() <= 15
            assert values[chosen].sum() == best_value(tokens, crops, values, 20, 15)


@pytest.mark.parametrize(("crops", "first"), [(3, 0), (4, 1)])
def test_a_crop_is_worth_thirty_tokens(peers, crops, first):
    costs = Costs.of([{"tokens": 400, "crops": 0}, {"tokens": 300, "crops": crops}])
    rows, _ = peers.knapsack(costs, Budget(tokens=512, crops=9), 2, peers.solve_numpy)
    assert rows == [[first], [1 - first]]


@pytest.mark.parametrize("name", ["W1", "W2", "random 3", "random 8"])
def test_the_compiled_knapsack_makes_the_packs_of_the_published_one(mixes, peers, name):
    kind, _, seed = name.partition(" ")
    mix = mixes.random_mix(int(seed)) if seed else mixes.MIXES[kind]
    costs = mix.draw(160, 0)
    slow = peers.knapsack(costs, mix.budget, 24, peers.solve_numpy)
    assert peers.knapsack(costs, mix.budget, 24, peers.solve_compiled) == slow
    rows, came = slow
    assert sorted(itertools.chain(*rows)) == list(range(160))
    assert not any_over(costs, mix.budget, rows)
    assert came == sorted(came)
    assert len(came) <= len(rows)


def any_over(costs, budget, rows):
    return any((costs.amounts(*budget)[row].sum(0) > list(budget.values())).any() for row in rows)


def test_the_knapsack_keeps_its_pool_full_and_lets_a_whole_row_leave_at_once(peers):
    budget = Budget(tokens=512, crops=4)
    costs = Costs.of([{"tokens": n} for n in (100, 200, 512, 300, 400)])
    rows, came = peers.knapsack(costs, budget, 2, peers.solve_numpy)
    assert rows == [[2], [0, 1], [4], [3]]
    assert came == [3, 3]  # the fourth found the pool full; it was not in it yet


def test_padded_batches_are_counted_one_by_one(mixes, peers):
    mix = mixes.MIXES["W2"]
    costs = mix.draw(83, 0)
    sizes = costs.amounts("tokens", "crops")
    batches = [sizes[start : start + peers.BATCH] for start in range(0, 83, peers.BATCH)]
    tokens, crops = (sum(len(batch) * batch[:, n].max() for batch in batches) for n in (0, 1))
    padding, rows = peers.padded(costs, mix.budget)
    assert padding == pytest.approx(1 - sizes[:, 0].sum() / tokens)
    assert rows == pytest.approx(max(tokens / 16384, crops / 128))


def test_waits_count_the_rows_that_left_in_between(benchmarks):
    packing, mix = benchmarks["packing"], benchmarks["mixes"].MIXES["W2"]
    costs = list(mix.draw(300, 0))
    rows, came = packing.push_all(mix, costs)
    packer, left, waited, arrived = Packer(mix.budget, packing.POOL), 0, 0, {}
    for number, cost in enumerate(costs):
        arrived[number] = left
        for pack in filter(None, [packer.push(number, cost)]):
            left += 1
            waited = max(waited, *(left - arrived[key] for key in pack))
    for pack in packer.flush():
        left += 1
        waited = max(waited, *(left - arrived[key] for key in pack))
    assert packing.longest_wait(rows, came) == waited
    assert len(rows) == left


def test_one_object_holds_every_figure(benchmarks, monkeypatch, capsys):
    packing = benchmarks["packing"]
    monkeypatch.setattr(packing, "find_spec", lambda _: None)
    monkeypatch.setattr(packing, "WINDOWS", (8,))
    sizes = ["--examples", "200", "--offline", "90", "--seeds", "2", "--random", "2", "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", ["packing.py", "--json", *sizes])
    packing.main()
    out, err = capsys.readouterr()
    results = json.loads(out)["results"]
    assert "grain is left out; to run it: pip install 'hedgerow[bench]'" in err
    assert all(set(one) == {"case", "metric", "value", "unit"} for one in results)
    found = {(one["case"], one["metric"]): one["value"] for one in results}
    assert len(found) == len(results)
    for name in benchmarks["mixes"].MIXES:
        for metric in ("share_of_bound", "share_with_flush", "examples_per_cpu_second", "longest_wait_packs"):
            assert found[f"{name}, Packer, pool 48", metric] > 0
        assert 0.2 < found[f"{name}, plan_rows, 90 examples", "share_of_bound"] <= 1
    assert found["W2, 8 ranks, 4 steps, arranged", "max_over_mean"] >= 1
    assert 0 < found["W2, window of 8", "median_move"] <= found["W2, window of 8", "largest_move"] < 8
    assert found["W2, window of 90", "share_of_bound"] > found["W2, window of 8", "share_of_bound"]
    case = "2 random mixes of 200, Packer against knapsack of fixed weight"
    assert sum(found[case, name] for name in ("fewer_rows", "as_many_rows", "more_rows")) == 2


def test_media_are_read_as_their_benchmark_says(benchmarks, monkeypatch, capsys):
    media = benchmarks["media"]
    for name, value in {
        "WIDTH": 160,
        "HEIGHT": 90,
        "PHOTOS": ((500, 240),),
        "CROPS": (1, 8),
        "FILM": (128, 72),
    }.items():
        monkeypatch.setattr(media, name, value)
    monkeypatch.setattr(media, "find_spec", lambda _: None)
    options = ["--json", "--seconds", "1", "--repeats", "1", "--huge", "300", "--films", "2"]
    found, err = told(media, options, monkeypatch, capsys)
    assert "PySceneDetect is not installed: pip install 'hedgerow[scenes]'" in err
    assert min(found.values()) >= 0
    assert found["scenes, 2 films", "cuts"] == 10
    assert found["scenes, 2 films", "ours, found"] >= 9
    assert found["scenes, 2 films", "ours, false"] <= 1
    kept = "frames kept, 3 of 720p"
    assert found[kept, "decoding / again"] == found[kept, "decoding"] / found[kept, "again"] > 1
    assert found[kept, "first epoch"] > found[kept, "again"]
    video = "video 1 s 720p h264 at 2 fps"
    assert found[video, "ours / bare PyAV"] == found[video, "ours"] / found[video, "bare PyAV"]
    assert found[video, "peak above import"] > 0
    for most, crops in ((1, 2), (8, 3)):
        image = f"image 500 x 240 JPEG, {most} crops at most"
        assert found[image, "tiles"] == crops
        assert found[image, "tiles a CPU second"] == crops / found[image, "ours"]
    assert found["image 300 x 300 JPEG", "peak above import"] > 0


def told(module, options, monkeypatch, capsys):
    """Run a benchmark with `--json`: its figures by case and metric, and what it says beside them."""
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *options])
    module.main()
    out, err = capsys.readouterr()
    results = json.loads(out)["results"]
    assert all(set(one) == {"case", "metric", "value", "unit"} for one in results)
    found = {(one["case"], one["metric"]): one["value"] for one in results}
    assert len(found) == len(results)
    return found, err


def test_checking_and_aligning_are_measured(benchmarks, monkeypatch, capsys):
    found, _ = told(benchmarks["data"], ["check", "align", "--json", "--rows", "50"], monkeypatch, capsys)
    assert min(found.values()) >= 0
    check = "check, 50 rows"
    assert 1.5 < found[check, "size of a row"] < 3
    assert found[check, "CPU of a row"] == 1e3 * found[check, "CPU"] / 50
    assert 30 < found[check, "largest process"] < 1000
    align = "align, 5 objects of 3,600 keyframes, 128 frames"
    assert found[align, "a point"] == pytest.approx(1e3 * found[align, "all"] / 18_000)


@pytest.mark.slow
def test_duplicates_and_conversions_are_measured(benchmarks, monkeypatch, capsys):
    words = ["duplicates", "convert", "--json", "--rows", "50", "--hashes", "3000"]
    found, _ = told(benchmarks["data"], words, monkeypatch, capsys)
    assert found["duplicates, 3,000 rows", "CPU of a row"] > 0
    for name in ("llava", "trl"):
        assert found[f"convert {name}, 50 rows", "CPU of a row"] > 0


@pytest.mark.slow
def test_pages_are_written_and_measured(benchmarks, monkeypatch, capsys):
    words = ["view", "--json", "--trees", "6", "--scenes", "1"]
    found, _ = told(benchmarks["data"], words, monkeypatch, capsys)
    assert found["view, 1 scenes", "page"] > found["view, 6 trees of five nodes", "page"] > 0.01
    assert found["view, 1 photos", "page"] > 0.01


def test_knobs_are_measured_from_what_is_true_of_the_scenes(benchmarks, monkeypatch, capsys):
    data = benchmarks["data"]
    monkeypatch.setattr(data, "KNOBS", (("objects", 6), ("speed", 0.4)))
    found, _ = told(data, ["synthetic", "--json", "--scenes", "1"], monkeypatch, capsys)
    assert found["synthetic, 6 s at 320 x 240", "CPU of a scene"] > 0
    for knob, asked in data.KNOBS:
        measured = found[f"synthetic, {knob} {asked}, 1 scenes", "measured"]
        assert measured == pytest.approx(asked, rel=0.2 if knob == "speed" else 0)


def test_a_command_that_fails_gives_no_figure(benchmarks, tmp_path):
    with pytest.raises(RuntimeError, match="exit code 2"):
        benchmarks["data"].hedgerow("train", str(tmp_path / "gone.yaml"))  # which imports little


def test_ways_of_training_are_told_by_what_they_hold(benchmarks, monkeypatch, capsys):
    lora = benchmarks["lora"]
    monkeypatch.setattr(lora, "in_a_process", lora.measured)
    monkeypatch.setattr(lora, "PRECISIONS", ("bf16",))
    ways = ("everything", "adapters of language, the rest frozen", "connector alone")
    monkeypatch.setattr(lora, "WAYS", {way: lora.WAYS[way] for way in ways})
    found, _ = told(lora, ["--json", "--small"], monkeypatch, capsys)
    for way in ways:
        case = f"{way}, bf16"
        assert found[case, "gradients"] == 4 * found[case, "trained"] / 1e6
        assert found[case, "moments"] == 2 * found[case, "gradients"]
        assert found[case, "peak"] >= found[case, "before"] > 100
        assert found[case, "step"] > 0
    whole, adapted, part = (f"{way}, bf16" for way in ways)
    assert found[whole, "trained"] == found[whole, "parameters"] == found[part, "parameters"]
    assert found[adapted, "trained"] == found[adapted, "parameters"] - found[whole, "parameters"]
    assert 0 < found[part, "trained"] < 0.5 * found[whole, "trained"]


def test_memory_is_that_of_the_work_alone(benchmarks):
    figures, held = benchmarks["figures"], []
    assert figures.peak_of(lambda: held.append(np.ones(10**7))) == pytest.approx(80, abs=8)
    assert figures.peak_of(lambda: None) < 8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trl_and_grain_keep_every_example(mixes, peers):
    pytest.importorskip("trl")
    pytest.importorskip("grain")
    mix = mixes.MIXES["W2"]
    costs = mix.draw(150, 0)
    for rows in (peers.trl(costs, mix.budget, 150), peers.trl(costs, mix.budget, 50)):
        assert sorted(itertools.chain(*rows)) == list(range(150))
        assert not any_over(costs, Budget(tokens=16384), rows)
    for kind in ("FirstFit", "BestFit"):
        rows = peers.grain(costs, mix.budget, kind)
        assert sorted(itertools.chain(*rows)) == list(range(150))
        assert not any_over(costs, mix.budget, rows)
