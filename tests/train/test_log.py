import json
import sys

import pytest

from hedgerow.sequence import Budget, Cost
from hedgerow.train import log
from hedgerow.train.log import MetricsFile, Step, reporter
from hedgerow.train.loss import Sums


def step(number, **changes):
    sums = {
        ("qa", "a"): Sums(weighted=2.0, nll=6.0, weight=4.0, squares=6.0, targets=3, tokens=3, samples=1),
        ("qa", "b"): Sums(weighted=1.0, nll=2.0, weight=2.0, squares=4.0, targets=1, tokens=1, samples=1),
        ("pointing", "a"): Sums(weighted=0.0, nll=5.0, weight=0.0, targets=2, tokens=0, samples=1),
    }
    fields = {
        "number": number, "epoch": 0, "loss": 0.5, "z_loss": 0.0, "sums": sums,
        "cost": Cost(tokens=90, crops=1), "budget": Budget(tokens=120, crops=4), "seconds": 0.5,
        "waiting": 0.25, "grad_norm": 2.0, "rates": {"vision": 0.1}, "memory": 2**20,
    }  # fmt: skip
    return Step(**fields | changes)


def test_a_line_has_means_by_task_and_by_data_set():
    line = step(3).to_dict()
    assert line["tasks"] == {
        "pointing": {"loss": 0.0, "nll": 2.5, "targets": 2, "share": 0.0, "effective": 0.0},
        "qa": {"loss": 0.5, "nll": 2.0, "targets": 4, "share": 1.0, "effective": 3.6},  # 6^2 / 10
    }
    assert line["sources"] == {
        "a": {"loss": 0.5, "nll": 2.2, "targets": 5, "share": 0.6667, "effective": 2.7},  # 4^2 / 6
        "b": {"loss": 0.5, "nll": 2.0, "targets": 1, "share": 0.3333, "effective": 1.0},
    }


def test_a_line_has_fill_speed_and_the_rest():
    line = step(3, dropped=("tree-1: broken",)).to_dict()
    assert line["fill"] == {"tokens": 0.75, "crops": 0.25}
    assert (line["tokens_per_second"], line["crops_per_second"], line["waiting"]) == (180.0, 2.0, 0.25)
    assert (line["step"], line["memory_mb"], line["lr"]) == (3, 1.0, {"vision": 0.1})
    assert line["dropped"] == ["tree-1: broken"]


def write(toy, folder, numbers, after=0, **changes):
    with MetricsFile(toy.recipe(folder, **changes), after=after) as file:
        for number in numbers:
            file.on_step(step(number))
    return [json.loads(line)["step"] for line in (folder / "run/metrics.jsonl").read_text().splitlines()]


def test_lines_after_the_checkpoint_are_cut_on_resume(toy, tmp_path):
    assert write(toy, tmp_path, [1, 2, 3, 4]) == [1, 2, 3, 4]
    assert write(toy, tmp_path, [3], after=2) == [1, 2, 3]
    assert write(toy, tmp_path, [1]) == [1]


def test_a_line_cut_off_by_a_kill_is_removed(toy, tmp_path):
    write(toy, tmp_path, [1, 2])
    path = tmp_path / "run/metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert write(toy, tmp_path, [2], after=2) == [1, 2]


def test_every_nth_step_and_the_last_are_written(toy, tmp_path):
    assert write(toy, tmp_path, range(1, 6), log_every=2, steps=5) == [2, 4, 5]


def test_plain_lines_show_the_first_the_last_and_few_between(capsys):
    with reporter(3) as shown:
        for number in (1, 2, 3):
            shown.on_step(step(number))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"step {n}/3  loss 0.5000  180 tokens/s  waiting 25%" for n in (1, 3)]


def test_a_terminal_gets_a_bar_and_without_rich_plain_lines(monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with reporter(3) as shown:
        shown.on_step(step(2))
    assert isinstance(shown, log.Bar)
    monkeypatch.setattr(log, "Progress", None)
    assert isinstance(reporter(3), log.Lines)


@pytest.mark.parametrize(("done", "said"), [(0, ""), (3, "going on from step 3 of 8\n")])
def test_a_resumed_run_says_where_it_goes_on(capsys, done, said):
    log.Lines(8).on_start(log.Run(None, None, done))
    assert capsys.readouterr().err == said
