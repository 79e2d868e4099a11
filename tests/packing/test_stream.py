"""Streams: every item once, budgets kept, exact resume, ranks that end together."""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
from packing_toys import BUDGET, epoch_of, facts, toy

from hedgerow.errors import BudgetError, DataError, RecipeError
from hedgerow.packing.pool import Packer
from hedgerow.packing.stream import StreamLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more workers than cores
]


@dataclasses.dataclass(frozen=True)
class Stream:
    """Numbers in an order of each epoch; `ends` are those that it gives."""

    ends: int = 40

    def __call__(self, epoch):
        return iter(np.random.default_rng(epoch).permutation(self.ends).tolist())


@dataclasses.dataclass(frozen=True)
class Encode:
    """Makes toys; `bad` ones raise, `large` ones hold more than a row, at `deadly` the process dies."""

    bad: tuple[int, ...] = ()
    large: tuple[int, ...] = ()
    deadly: int = -1

    def __call__(self, item):
        if item in self.bad:
            raise DataError(f"{item} is bad")
        if item == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return toy(item, 25 if item in self.large else 3 + item * 7 % 11)


def loader(encode=None, stream=None, **options):
    return StreamLoader(stream or Stream(), encode or Encode(), BUDGET, **{"pool": 6} | options)


def examples(found):
    return sorted(example for item in found if item[2] for example in item[2]["examples"])


EVERY = sorted(f"toy-{item}" for item in range(40))


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_every_item_comes_once_an_epoch_within_the_budget(workers):
    rows = loader(workers=workers)
    for epoch in range(2):
        found = list(rows)
        assert {loaded.epoch for loaded in found} == {epoch}
        assert [loaded.number for loaded in found] == list(range(len(found)))
        assert examples(map(facts, found)) == EVERY
        assert all(loaded.row.cost["tokens"] <= BUDGET["tokens"] for loaded in found)


def test_one_worker_gives_the_rows_of_a_packer():
    packer, items = Packer(BUDGET, 6), list(Stream()(0))
    packs = [packer.push(place, Encode()(item).cost) for place, item in enumerate(items)]
    packs = [pack for pack in [*packs, *packer.flush()] if pack]
    expected = [tuple(f"toy-{items[place]}" for place in pack) for pack in packs]
    assert [loaded.row.examples for loaded in loader()] == expected
    assert [loaded.row.examples for loaded in loader(workers=1)] == expected


@pytest.mark.parametrize(("world", "workers"), [(2, 0), (3, 2)])
def test_each_item_goes_to_one_worker_of_one_rank(world, workers):
    items, count = list(Stream()(0)), world * max(workers, 1)
    found = []
    for rank in range(world):
        for loaded in loader(rank=rank, world=world, workers=workers):
            places = {items.index(int(name.removeprefix("toy-"))) % count for name in loaded.row.examples}
            assert len(places) == 1
            assert places.pop() % world == rank
            found.append(facts(loaded))
    assert examples(found) == EVERY
    assert len({number for _, number, *_ in found}) == len(found)


class Counting(Encode):
    """Remembers what it encoded, in this process."""

    seen: list

    def __call__(self, item):
        self.seen.append(item)
        return super().__call__(item)


@pytest.mark.parametrize("bad", [(), (0, 7, 8, 39)])
def test_a_run_resumed_at_any_row_equals_the_uninterrupted_one(bad):
    options = {"encode": Encode(bad=bad), "on_bad": "skip"}
    rows, whole = loader(**options), []
    states = [rows.state_dict()]
    for _ in range(2):
        for loaded in rows:
            whole.append(facts(loaded))
            states.append(rows.state_dict())
    for done, state in enumerate(states[:-1]):
        resumed = loader(**options)
        resumed.load_state_dict(json.loads(json.dumps(state, sort_keys=True)))
        assert epoch_of(resumed) == [item for item in whole[done:] if item[0] == whole[done][0]]
    last = loader(**options)
    last.load_state_dict(states[-1])
    assert {item[0] for item in epoch_of(last)} == {2}


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_resume_in_turn_and_no_prefetched_row_is_lost(workers):
    stream = Stream(31)  # parts of unequal size: some workers end before others
    whole = epoch_of(loader(stream=stream, workers=workers))
    for done in (1, 4, len(whole) - 2, len(whole) - 1):
        rows = loader(stream=stream, workers=workers)
        running = iter(rows)
        found = [facts(next(running)) for _ in range(done)]
        state = rows.state_dict()
        running.close()
        resumed = loader(stream=stream, workers=workers)
        resumed.load_state_dict(state)
        assert found + epoch_of(resumed) == whole
    assert not multiprocessing.active_children()


def test_what_left_in_rows_is_not_encoded_again():
    rows = loader()
    running = iter(rows)
    gone = {example for _ in range(4) for example in next(running).row.examples}
    counting = Counting()
    object.__setattr__(counting, "seen", [])
    resumed = loader(counting)
    resumed.load_state_dict(rows.state_dict())
    list(resumed)
    assert sorted(f"toy-{item}" for item in counting.seen) == sorted(set(EVERY) - gone)


def test_an_abandoned_iteration_goes_on_where_it_stopped():
    whole, rows, found = epoch_of(loader()), loader(), []
    while len(found) < len(whole):
        for loaded in rows:
            found.append(facts(loaded))
            if len(found) % 3 == 0:
                break
    assert found == whole


@pytest.mark.parametrize(
    "change", [{"workers": 2}, {"world": 2}, {"pool": 7}], ids=["workers", "world", "pool"]
)
def test_a_state_that_would_give_other_rows_is_refused(change):
    (name,) = change
    with pytest.raises(RecipeError, match=rf"cannot resume the same rows: {name} \d is now {change[name]}"):
        loader(**change).load_state_dict(loader().state_dict())


def test_the_state_of_another_rank_is_refused():
    with pytest.raises(RecipeError, match="that of rank 0 alone, this is rank 1"):
        loader(rank=1, world=2).load_state_dict(loader(rank=0, world=2).state_dict())


@pytest.mark.parametrize("behind", [False, True])
def test_a_stream_that_has_changed_is_refused(behind):
    rows = loader()
    running = iter(rows)
    steps = len(list(loader())) - 1 if behind else 3
    for _ in range(steps):
        next(running)
    resumed = loader(stream=Stream(50) if behind else Stream(4))
    resumed.load_state_dict(rows.state_dict())
    with pytest.raises(DataError, match=r"behind its end when saved|which waits"):
        list(resumed)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_and_oversize_items_raise_or_are_skipped_alone(workers):
    encode = Encode(bad=(3,), large=(8,))
    items = list(Stream()(0))
    skipped = list(loader(encode, workers=workers, on_bad="skip"))
    dropped = {drop.index: drop.message for loaded in skipped for drop in loaded.dropped}
    assert set(dropped) == {items.index(3), items.index(8)}
    assert dropped[items.index(3)] == "3 is bad"
    assert f"example {items.index(8)} costs" in dropped[items.index(8)]
    assert examples(map(facts, skipped)) == sorted(set(EVERY) - {"toy-3", "toy-8"})
    with pytest.raises(DataError, match=r"^3 is bad$"):
        list(loader(Encode(bad=(3,)), workers=workers))
    with pytest.raises(BudgetError, match="costs"):
        list(loader(Encode(large=(8,)), workers=workers))


def test_a_stream_of_bad_items_alone_gives_no_row_and_names_them():
    (loaded,) = loader(Encode(bad=tuple(range(40))), on_bad="skip")
    assert loaded.row is None
    assert len(loaded.dropped) == 40


def test_an_empty_stream_gives_no_rows():
    assert list(loader(stream=Stream(0))) == []


def test_the_death_of_a_worker_names_the_item_it_had_in_hand():
    place = list(Stream()(0)).index(17)
    with pytest.raises(DataError, match=rf"a data worker .* with item {place} of the stream in hand"):
        list(loader(Encode(deadly=17), workers=2))


def test_options_are_checked_at_once():
    with pytest.raises(RecipeError, match="on_bad='ignore'"):
        loader(on_bad="ignore")
    with pytest.raises(ValueError, match="rank=2 of world=2"):
        loader(rank=2, world=2)


TOGETHER = """
import json, sys
from datetime import timedelta
sys.path[:0] = {path!r}
import torch.distributed as dist
from packing_toys import facts
from test_stream import Stream, loader
rank, at, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group(
    "gloo", init_method=f"file://{{folder}}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
)
rows = loader(stream=Stream(31), rank=rank, world=2, workers=2)
found, states = [], []
for loaded in rows:
    found.append(facts(loaded))
    states.append(rows.state_dict())
resumed = loader(stream=Stream(31), rank=rank, world=2, workers=2)
resumed.load_state_dict(json.loads(json.dumps(states[at - 1])))
rest = [facts(loaded) for loaded in resumed]
with open(f"{{folder}}/{{rank}}.json", "w") as file:
    json.dump([found, rest, states], file, default=repr)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_ranks_make_equally_many_steps_and_any_state_serves_all(tmp_path):
    script = tmp_path / "together.py"
    script.write_text(TOGETHER.format(path=[str(Path(__file__).parent), *sys.path]))
    at = 4
    command = [sys.executable, "-W", "ignore", str(script)]
    ranks = [subprocess.Popen([*command, str(rank), str(at), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    (whole, rest, states), (others, _, theirs) = (
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)
    )
    assert states == theirs
    assert len(whole) == len(others)
    assert rest == whole[at:]
    assert examples(whole + others) == sorted(f"toy-{item}" for item in range(31))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_in_encode_names_the_item(workers):
    def broken(item):
        raise KeyError(item)

    with pytest.raises(KeyError) as caught:
        next(iter(loader(broken, workers=workers)))
    first = next(Stream()(0))
    assert "while encoding item 0 of the stream" in "".join(traceback.format_exception(caught.value))
    assert f"KeyError: {first}" in "".join(traceback.format_exception(caught.value))


def test_a_list_is_no_stream():
    with pytest.raises(RecipeError, match=r"stream=\[1, 2\]: give a function of the epoch"):
        loader(stream=[1, 2])
