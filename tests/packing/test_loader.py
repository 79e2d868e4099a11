"""The loader: laws 7 (exact resume) and 8 (each example once), bad examples, workers that end."""

import dataclasses
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from packing_toys import BUDGET, COSTS, TASKS, Encode, epoch_of, facts, loader, toy

import hedgerow.packing.loader
from hedgerow.errors import BudgetError, DataError, MediaError, RecipeError
from hedgerow.flops import MOLMO2_8B
from hedgerow.packing.feed import feed, received
from hedgerow.packing.loader import Dropped, Fixed, RowLoader
from hedgerow.sequence import Cost, Costs

# Python 3.12 and later warn of a fork beside threads; a worker makes none and calls none of its parent's.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_an_epoch_gives_each_example_once_and_the_next_one_another_order():
    rows = loader()
    first, second = list(rows), list(rows)
    for epoch, found in enumerate((first, second)):
        assert {loaded.epoch for loaded in found} == {epoch}
        assert [loaded.number for loaded in found] == list(range(len(rows.plan(epoch).rows)))
        assert sorted(e for loaded in found for e in loaded.row.examples) == sorted(
            f"toy-{i}" for i in range(40)
        )
    assert [loaded.row.examples for loaded in first] != [loaded.row.examples for loaded in second]


def test_the_rows_are_those_of_the_plan():
    rows = loader()
    planned = [tuple(f"toy-{i}" for i in row) for row in rows.plan(0).rows]
    assert [loaded.row.examples for loaded in rows] == planned


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_rows(workers):
    assert epoch_of(loader(workers=workers)) == epoch_of(loader())


@pytest.mark.parametrize("world", [2, 3, 7, 50])
def test_ranks_share_the_rows_and_make_the_same_number_of_steps(world):
    whole = epoch_of(loader())
    shares = [list(loader(rank=rank, world=world)) for rank in range(world)]
    assert {len(share) for share in shares} == {-(-len(whole) // world)}
    assert all(loaded.number % world == rank for rank, share in enumerate(shares) for loaded in share)
    found = [loaded for share in shares for loaded in share if loaded.row]
    assert sorted(map(facts, found)) == whole
    missing = [loaded.number for share in shares for loaded in share if not loaded.row]
    assert all(number >= len(whole) for number in missing)


class Counting:
    """Encodes toys and remembers which, in this process."""

    def __init__(self):
        self.seen = []

    def __call__(self, index):
        self.seen.append(index)
        return Encode()(index)


def test_a_run_resumed_at_any_row_equals_the_uninterrupted_one_and_encodes_nothing_twice():
    rows = loader()
    whole, states = [], [rows.state_dict()]
    for _ in range(2):
        for loaded in rows:
            whole.append(facts(loaded))
            states.append(rows.state_dict())
    for done, state in enumerate(states[:-1]):
        count = Counting()
        resumed = loader(count)
        resumed.load_state_dict(json.loads(json.dumps(state, sort_keys=True)))
        rest = epoch_of(resumed)
        assert rest == [item for item in whole[done:] if item[0] == rest[0][0]]
        assert len(count.seen) == sum(len(item[2]["examples"]) for item in rest)


def test_an_abandoned_iteration_goes_on_where_it_stopped():
    whole, rows = epoch_of(loader()), loader()
    found = []
    while len(found) < len(whole):
        for loaded in rows:
            found.append(facts(loaded))
            if len(found) % 3 == 0:
                break
    assert found == whole


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0)])
def test_prefetched_rows_are_not_lost_when_resumed_on_other_workers(before, after):
    whole, rows = epoch_of(loader()), loader(workers=before)
    running = iter(rows)
    found = [facts(next(running)) for _ in range(5)]
    state = rows.state_dict()
    running.close()
    resumed = loader(workers=after)
    resumed.load_state_dict(state)
    assert found + epoch_of(resumed) == whole


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 3), (3, 1), (4, 3)])
def test_a_run_resumed_on_another_number_of_ranks_misses_and_repeats_nothing(before, after):
    whole, found, states = epoch_of(loader()), [], []
    for rank in range(before):
        rows = loader(rank=rank, world=before)
        running = iter(rows)
        found += [facts(next(running)) for _ in range(3)]
        states.append(rows.state_dict())
    assert all(state == states[0] for state in states)
    steps = set()
    for rank in range(after):
        rows = loader(rank=rank, world=after)
        rows.load_state_dict(states[0])
        rest = epoch_of(rows)
        steps.add(len(rest))
        assert all(number % after == rank for _, number, *_ in rest)
        found += [item for item in rest if item[2]]
    assert len(steps) == 1
    assert sorted(found) == whole


CHANGES = {
    "seed was 5 and is 6": {"seed": 6},
    "pool was 6 and is 7": {"pool": 7},
    "window was None and is 20": {"window": 20},
    "balance was None and is": {"balance": MOLMO2_8B},
}


REFUSED = {
    r"balance=True: give the FlopModel": {"balance": True, "step": 2},
    r"workers=-1: give 0": {"workers": -1},
    r"pool=6 and window=20: .*give one": {"pool": 6, "window": 20},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_no_option_is_refused_at_once(message):
    with pytest.raises(RecipeError, match=message):
        loader(**REFUSED[message])


def test_a_list_of_numbers_is_no_list_of_costs():
    with pytest.raises(TypeError, match="give a list with one Cost for each example"):
        Fixed(Encode(), [3, 4])


@pytest.mark.parametrize("message", CHANGES)
def test_a_state_that_would_give_other_rows_is_refused(message):
    with pytest.raises(RecipeError, match=f"cannot resume the same rows: .*{message}"):
        loader(**CHANGES[message]).load_state_dict(loader().state_dict())


def test_a_state_of_balanced_rows_is_refused_with_another_step():
    with pytest.raises(RecipeError, match=r"over 4 rows and is .* over 6 rows"):
        loader(balance=MOLMO2_8B, step=6).load_state_dict(loader(balance=MOLMO2_8B, step=4).state_dict())


def test_a_state_of_other_data_is_refused_even_when_there_is_as_much_of_it():
    state = json.loads(json.dumps(loader().state_dict()))
    costs = [Cost(tokens=4), *COSTS[1:]]
    with pytest.raises(RecipeError, match=r"data was .* and is"):
        RowLoader(Fixed(Encode(), costs), BUDGET, seed=5, pool=6).load_state_dict(state)


def test_a_state_of_balanced_rows_is_refused_when_tasks_have_changed():
    options = {"seed": 5, "pool": 6, "balance": MOLMO2_8B, "step": 4}
    source = Fixed(Encode(), COSTS, [*TASKS[1:], TASKS[0]])
    with pytest.raises(RecipeError, match=r"data was .* and is"):
        RowLoader(source, BUDGET, **options).load_state_dict(loader(**options).state_dict())


def test_a_state_is_small_whatever_the_data():
    many = RowLoader(Fixed(Encode(), [Cost(tokens=5)] * 5000), BUDGET, seed=5)
    assert len(json.dumps(many.state_dict())) < 400


def test_a_state_behind_the_last_row_goes_on_with_the_next_epoch():
    rows = loader()
    running = iter(rows)
    for _ in rows.plan(0).rows:
        next(running)
    state = rows.state_dict()
    assert (state["epoch"], state["row"]) == (0, len(rows.plan(0).rows))
    resumed = loader()
    resumed.load_state_dict(state)
    assert epoch_of(resumed) == epoch_of(rows)


class Growing:
    """A source whose examples are others, and more, in each epoch."""

    def costs(self, epoch):
        return Costs.of([Cost(tokens=3 + (i + 5 * epoch) % 11) for i in range(20 + epoch)])

    def tasks(self, epoch):
        return Costs.of([Cost(qa=1)] * (20 + epoch))

    def encode(self, epoch, number):
        return toy(100 * epoch + number, self.costs(epoch)[number]["tokens"])

    def where(self, epoch, number):
        return f"{number} of {epoch}"


@pytest.mark.parametrize("workers", [0, 2])
def test_each_epoch_has_the_examples_that_its_source_gives_it(workers):
    rows = RowLoader(Growing(), BUDGET, seed=1, workers=workers)
    for epoch in range(3):
        found = [example for loaded in rows for example in loaded.row.examples]
        assert sorted(found) == sorted(f"toy-{100 * epoch + number}" for number in range(20 + epoch))


@pytest.mark.parametrize("options", [{}, {"window": 20}, {"balance": MOLMO2_8B, "step": 6}])
def test_a_plan_is_kept_and_found_again_and_is_the_same(tmp_path, options, monkeypatch):
    fresh = loader(**options)
    first = loader(plans=tmp_path, **options)
    assert [first.plan(epoch).rows for epoch in (0, 1)] == [fresh.plan(epoch).rows for epoch in (0, 1)]
    assert [path.name.split("-")[1] for path in tmp_path.iterdir()] == ["1"]
    monkeypatch.setattr(hedgerow.packing.loader, "plan_epoch", None)  # what is found is not planned again
    assert loader(plans=tmp_path, **options).plan(1) == fresh.plan(1)


def test_a_plan_kept_for_other_settings_is_not_taken(tmp_path):
    loader(plans=tmp_path).plan(0)
    assert loader(plans=tmp_path, seed=6).plan(0) == loader(seed=6).plan(0)


@pytest.mark.parametrize("window", [None, 20])
def test_balance_moves_rows_and_loses_none(window):
    plain, balanced = loader(window=window).plan(0), loader(window=window, balance=MOLMO2_8B, step=6).plan(0)
    assert sorted(balanced.rows) == sorted(plain.rows)
    assert balanced.rows != plain.rows
    assert (balanced.cost, balanced.budget) == (plain.cost, plain.budget)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("error", [DataError("clip-3: no frames"), MediaError("clip-3: cut short")])
def test_a_bad_example_raises_its_own_error_with_its_own_message(workers, error):
    rows = loader(Encode(bad=(17,), error=error), workers=workers)
    with pytest.raises(DataError) as caught:
        list(rows)
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    (at,) = (number for number, row in enumerate(rows.plan(0).rows) if 17 in row)
    assert rows.state_dict()["row"] == at
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_example_is_skipped_alone_and_named(workers):
    encode = Encode(bad=(17, 3), error=MediaError("cut short"))
    good = loader().plan(0).rows
    for loaded in loader(encode, workers=workers, on_bad="skip"):
        planned = good[loaded.number]
        assert loaded.row.examples == tuple(f"toy-{i}" for i in planned if i not in (17, 3))
        assert loaded.dropped == tuple(Dropped(i, "cut short") for i in planned if i in (17, 3))


def test_a_row_whose_examples_are_all_bad_is_none():
    encode = Encode(bad=tuple(range(40)), error=DataError("gone"))
    rows = list(loader(encode, on_bad="skip"))
    assert all(loaded.row is None for loaded in rows)
    assert sorted(drop.index for loaded in rows for drop in loaded.dropped) == list(range(40))


@pytest.mark.parametrize("error", [RecipeError("unknown template"), KeyError("a slip in the code")])
def test_only_bad_data_is_skipped(error):
    with pytest.raises(type(error)):
        list(loader(Encode(bad=(17,), error=error), on_bad="skip"))


def test_an_example_that_overflows_its_row_raises_or_is_skipped_alone():
    rows = loader()
    number, planned = next((n, row) for n, row in enumerate(rows.plan(0).rows) if len(row) > 1)
    encode = Encode(long=(planned[0],), more=20)
    with pytest.raises(
        BudgetError, match=rf"toy-{planned[0]} was planned as .* no room \(tokens .*again, or leave"
    ):
        list(loader(encode))
    skipped = list(loader(encode, on_bad="skip"))
    assert skipped[number].row.examples == tuple(f"toy-{i}" for i in planned[1:])
    assert [drop.index for drop in skipped[number].dropped] == [planned[0]]
    assert "on_bad" not in skipped[number].dropped[0].message  # which is what left it out
    others = [item for item in epoch_of(loader()) if item[1] != number]
    assert [facts(loaded) for loaded in skipped if loaded.number != number] == others


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_in_encode_names_the_example_and_stays_what_it_is(workers):
    error = KeyError("disk gone")
    with pytest.raises(KeyError) as caught:
        list(loader(Encode(bad=(17,), error=error), workers=workers, on_bad="skip"))
    told = "".join(traceback.format_exception(caught.value))
    assert "KeyError: 'disk gone'" in told
    assert "while encoding example 17" in told
    with pytest.raises(TypeError, match="encode returned None"):
        list(loader(lambda _: None))


def test_an_example_larger_than_planned_stays_where_the_row_has_room():
    rows = loader()
    number, planned = next(
        (n, row) for n, row in enumerate(rows.plan(0).rows) if sum(COSTS[i]["tokens"] for i in row) < 24
    )
    found = list(loader(Encode(long=(planned[0],), more=1)))
    assert found[number].row.examples == tuple(f"toy-{i}" for i in planned)


def test_those_within_their_plan_keep_their_place_against_those_that_are_not():
    rows = loader()
    number, planned = next((n, row) for n, row in enumerate(rows.plan(0).rows) if len(row) > 2)
    found = list(loader(Encode(long=tuple(planned[:2]), more=20), on_bad="skip"))[number]
    assert found.row.examples == tuple(f"toy-{i}" for i in planned[2:])
    assert [drop.index for drop in found.dropped] == planned[:2]


def test_rows_are_padded_on_demand():
    assert {len(loaded.row) for loaded in loader(pad=True)} == {24}


def test_a_failing_or_abandoned_run_leaves_no_worker_behind():
    def interrupted():
        for _ in rows:
            assert len(multiprocessing.active_children()) == 2
            raise KeyboardInterrupt

    rows = loader(workers=2)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not multiprocessing.active_children()
    running = iter(rows)
    next(running)
    del running
    assert not multiprocessing.active_children()


def count_threads(index):
    tokens = COSTS[index]["tokens"]
    return toy(index, tokens, first=torch.get_num_threads())


def test_a_worker_uses_one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = next(iter(loader(count_threads, workers=1)))
    finally:
        torch.set_num_threads(before)
    assert found.row.tokens[0] == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_draws_nothing_from_the_global_generators(workers):
    torch_before, numpy_before = torch.get_rng_state(), pickle.dumps(np.random.get_state())
    list(loader(workers=workers))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert pickle.dumps(np.random.get_state()) == numpy_before


SPAWNED = """
import multiprocessing, sys
sys.path[:0] = {path!r}
from packing_toys import epoch_of, loader
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    assert epoch_of(loader(workers=1)) == epoch_of(loader())
"""


@pytest.mark.slow
def test_spawned_workers_give_the_same_rows(tmp_path):
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED.format(path=[str(Path(__file__).parent), *sys.path]))
    subprocess.run([sys.executable, str(script)], check=True, timeout=120)


def test_what_workers_receive_survives_pickling():
    rows = pickle.loads(pickle.dumps(loader()._rows))
    job = next(loader()._jobs(0, 0))
    assert facts(rows[pickle.loads(pickle.dumps(job))]) == facts(next(iter(loader())))


def test_crops_cross_from_a_worker_in_shared_memory_and_arrive_as_numpy():
    job = next(job for job in loader()._jobs(0, 0) if any(index % 3 == 0 for index, _ in job.examples))
    rows = feed(loader(workers=1)._rows, [job], workers=1, prefetch=2)
    (loaded,) = rows
    assert loaded.row.vision.crops.is_shared()
    found = received(loaded.row).vision.crops
    assert type(found) is np.ndarray
    assert np.array_equal(found, loader()._rows[job].row.vision.crops)


@dataclasses.dataclass(frozen=True)
class Deadly:
    """Encodes toys; at one the process dies."""

    index: int
    how: int  # a signal, or 0 to leave without a word

    def __call__(self, index):
        if index == self.index:
            os.kill(os.getpid(), self.how) if self.how else os._exit(3)
        return Encode()(index)


def train(rows, *, busy):
    """Take rows as training does, which may be busy with one when a worker dies."""
    try:
        for _ in rows:
            deadline = time.monotonic() + (60 if busy else 0)
            while time.monotonic() < deadline:
                time.sleep(0.01)
    except RuntimeError as error:
        raise rows.explain(error) from error


@pytest.mark.parametrize("how", [signal.SIGKILL, 0])
@pytest.mark.parametrize("busy", [False, True])
def test_the_death_of_a_worker_names_the_example_it_had_in_hand(how, busy):
    index = loader().plan(0).rows[1][-1]
    rows = loader(Deadly(index, how), workers=2)
    message = rf"a data worker .* with example {index} \(row 1 of epoch 0\) in hand"
    with pytest.raises(DataError, match=message):
        train(rows, busy=busy)
    assert not multiprocessing.active_children()


def test_other_errors_of_a_worker_are_left_alone():
    rows = loader(Encode(bad=(17,), error=RuntimeError("a slip in the code")), workers=1)
    with pytest.raises(RuntimeError, match="a slip in the code"):
        list(rows)
    assert rows.explain(RuntimeError("a slip in the code")) is None


def test_options_are_checked_at_once():
    with pytest.raises(RecipeError, match="on_bad='ignore': choose 'raise' or 'skip'"):
        loader(on_bad="ignore")
    with pytest.raises(ValueError, match="rank=2 of world=2"):
        loader(rank=2, world=2)
    with pytest.raises(RecipeError, match="step=3 rows on world=2: give a multiple"):
        loader(world=2, step=3, balance=MOLMO2_8B)


def test_bad_costs_are_refused_before_anything_is_encoded():
    with pytest.raises(DataError, match="no example"):
        next(iter(RowLoader(Fixed(Encode(), []), BUDGET, seed=0)))
    with pytest.raises(BudgetError, match="example 1 costs"):
        next(iter(RowLoader(Fixed(Encode(), [Cost(tokens=1), Cost(tokens=25)]), BUDGET, seed=0)))
