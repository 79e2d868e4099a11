"""The whole demo, small: every part runs through the command line, and ends with one JSON object."""

import contextlib
import io
import json
import re
import sys

import pytest

from hedgerow import cli

pytest.importorskip("ale_py", reason="the demo needs the extra 'demo'")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(
            sys, "argv", ["hedgerow", "demo", str(out), "--quick", "--json", "--setup-seconds", "12"]
        )
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert end.value.code == 0
    return out, json.loads(printed.getvalue())


def test_the_demo_ends_with_all_its_figures(demo):
    _, found = demo
    assert found["setup_seconds"] == 12
    assert found["seconds"] == pytest.approx(sum(found["seconds_by_part"].values()))
    for name in ("pointing_f1", "count_accuracy", "choice_accuracy"):
        assert 0 <= found[name] <= 1
        assert 0 <= found[f"{name}_untrained"] <= 1
        assert 0 <= found[f"{name}_constant"] <= 1
        assert found[f"{name}_n"] > 0
    kinds = found["pointing_by_kind"]
    assert sum(kind["n"] for kind in kinds.values()) == found["pointing_f1_n"]
    assert {"value", "untrained", "constant", "n"} <= set(next(iter(kinds.values())))


def test_padded_and_packed_hold_the_same_annotations(demo):
    _, found = demo
    padded, packed = found["padded"], found["packed"]
    assert found["annotations"] == 64
    # 64 annotations of 8 clips of 4 frames: padded rows encode a clip once for each of its 8 annotations.
    assert padded["crops"] == 64 * 4
    assert packed["crops"] == 8 * 4
    assert padded["tokens"] > packed["tokens"]
    assert found["speedup_bound"] == padded["crops"] / packed["crops"]


def test_the_report_is_one_file_that_needs_no_network(demo):
    out, found = demo
    page = (out / "report.html").read_text(encoding="utf-8")
    assert found["report"] == str(out / "report.html")
    assert len(page) < 5_000_000
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    for title in ("What it learnt", "Seen and said", "Training", "Padded against packed", "Packed rows"):
        assert title in page
