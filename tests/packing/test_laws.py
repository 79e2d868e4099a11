"""Laws 7, 8 and 9 of the planned path: exact resume on any ranks and workers, every example once, budgets.

A run is saved at (ranks, workers) and resumed at another pair. Every row and every pair is tried with
simulated workers, which hold rows ahead as real ones do; some pairs with real ones, and with real kills.
"""

import collections
import itertools
import json
import multiprocessing
import os
import random
import signal
import time

import pytest
from packing_toys import BUDGET, facts, loader, toy

import hedgerow.packing.loader
from hedgerow.flops import MOLMO2_8B
from hedgerow.packing.loader import Fixed, RowLoader
from hedgerow.sequence import Cost

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more workers than cores
]

PLACES = list(itertools.product((1, 2, 3), (0, 1, 2, 4)))  # ranks and workers
EVERY = sorted(f"toy-{index}" for index in range(40))
OPTIONS = {"plain": {}, "window": {"window": 25}, "balance": {"balance": MOLMO2_8B, "step": 6}}


def simulated(dataset, jobs, *, workers, prefetch):
    """What `feed` does with workers that hold `prefetch` rows each, in this process."""
    ahead = collections.deque(itertools.islice(jobs, max(workers * prefetch, 1)))
    while ahead:
        job = ahead.popleft()
        ahead.extend(itertools.islice(jobs, 1))
        yield dataset[job]


def ranks_of(make, ranks, workers):
    return [make(rank=rank, world=ranks, workers=workers) for rank in range(ranks)]


def turns(loaders):
    """Step all ranks together through an epoch; yield their rows, and the state after them."""
    for given in zip(*loaders, strict=True):
        states = [rows.state_dict() for rows in loaders]
        assert all(state == states[0] for state in states)
        assert [loaded.number % len(loaders) for loaded in given] == list(range(len(loaders)))
        yield [facts(loaded) for loaded in given], json.loads(json.dumps(states[0]))


def check_law_7(make, saved, resumed, *, most=None):
    """Resume what `saved` ranks and workers did after each row, or at `most` places, on `resumed` ones."""
    whole = sorted(facts(loaded) for loaded in make())
    before, done = ranks_of(make, *saved), []
    states = []
    for given, state in turns(before):
        done += given
        states.append((sorted(item for item in done if item[2]), state))
    after = ranks_of(make, *resumed)
    places = states if most is None else random.Random(repr((saved, resumed))).sample(states, most)
    for had, state in places:
        for rows in after:
            rows.load_state_dict(state)
        if state["row"] == len(whole):  # the epoch is over: the next begins
            (given, _) = next(turns(after))
            assert {item[0] for item in given} == {1}
            continue
        rest = [item for given, _ in turns(after) for item in given]
        assert sorted([*had, *(item for item in rest if item[2])]) == whole


@pytest.mark.parametrize("options", ["plain", pytest.param("window", marks=pytest.mark.slow), "balance"])
def test_law_7_every_row_of_every_pair_simulated(options, monkeypatch):
    monkeypatch.setattr(hedgerow.packing.loader, "feed", simulated)
    kept = {}

    def make(rank=0, world=1, workers=0):
        """Each loader is made once: planning is most of the time."""
        key = rank, world, workers
        if key not in kept:
            kept[key] = loader(rank=rank, world=world, workers=workers, **OPTIONS[options])
        rows = kept[key]
        rows.load_state_dict(loader(**OPTIONS[options]).state_dict())
        return rows

    for saved, resumed in itertools.product(PLACES, PLACES):
        check_law_7(make, saved, resumed)


@pytest.mark.parametrize(
    "pair", random.Random(0).sample(list(itertools.product(PLACES, PLACES)), 12), ids=repr
)
def test_law_7_sampled_pairs_with_real_workers(pair):
    check_law_7(loader, *pair, most=1)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("ranks", "workers"), PLACES)
def test_laws_8_and_9_every_example_once_and_no_budget_exceeded(ranks, workers, options, monkeypatch):
    monkeypatch.setattr(hedgerow.packing.loader, "feed", simulated)
    loaders = ranks_of(lambda **place: loader(**place, **OPTIONS[options]), ranks, workers)
    for _ in range(2):
        rows = [item[2] for given, _ in turns(loaders) for item in given if item[2]]
        assert sorted(name for row in rows for name in row["examples"]) == sorted(
            f"toy-{i}" for i in range(40)
        )
        assert all(len(row["tokens"]) <= BUDGET["tokens"] for row in rows)


COUNT = 150  # examples of the run that is killed


def slow_toy(index):
    time.sleep(0.004)  # as decoding does: the kill comes while workers are at it
    return toy(index, 5 + index % 9)


def consume(log):
    """Go on from the last whole line of a log, and write down each row and the state after it."""
    rows = RowLoader(
        Fixed(slow_toy, [Cost(tokens=5 + i % 9) for i in range(COUNT)]), BUDGET, seed=3, workers=2
    )
    known = log.read_text().splitlines() if log.exists() else []
    if known:
        rows.load_state_dict(json.loads(known[-1])[1])
    with log.open("a") as file:
        for loaded in rows:
            line = json.dumps([loaded.row.examples, rows.state_dict()])
            file.write(line + "\n")
            file.flush()


def whole_lines(log):
    """Cut off what a kill left of a line, and return how many lines there are."""
    text = log.read_text() if log.exists() else ""
    log.write_text(text[: text.rfind("\n") + 1])
    return text.count("\n")


def test_law_7_a_loader_killed_at_three_random_moments_misses_and_repeats_nothing(tmp_path):
    log, rng, fork = tmp_path / "rows.jsonl", random.Random(), multiprocessing.get_context("fork")
    log.touch()
    for _ in range(3):
        before = whole_lines(log)
        process = fork.Process(target=consume, args=(log,))
        process.start()
        moment = before + rng.randint(1, 12)
        while log.read_text().count("\n") < moment and process.is_alive():
            time.sleep(0.001)
        time.sleep(rng.random() * 0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the epoch ended before it could be killed"
    assert whole_lines(log) >= 3
    consume(log)
    found = [example for line in log.read_text().splitlines() for example in json.loads(line)[0]]
    assert sorted(found) == sorted(f"toy-{index}" for index in range(COUNT))
