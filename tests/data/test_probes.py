"""Media are looked at in a child process, and whatever kills it is an outcome like any other."""

import functools
import subprocess
import sys
import time
from pathlib import Path

import PIL.Image
import pytest

from hedgerow.content import Image, Video
from hedgerow.data import check as checking
from hedgerow.data import probes
from hedgerow.data.probes import Prober, probe_apart
from hedgerow.sequence import Budget
from hedgerow.testing import TINY_VISION, write_jsonl, write_mp4, write_png
from hedgerow.vision.facts import ImageFacts, probe
from hedgerow.vision.processor import Molmo2Processor

# A child whose reader does by the name of a file what hostile files do to real ones.
HOSTILE = """
import faulthandler, re, sys
from hedgerow.data import check as checking
from hedgerow.data import probes
real = probes.probe
def probe(media):
    if "crash" in media.name:
        faulthandler._sigsegv()
    if "hang" in media.name:
        re.match("(a+)+$", 40 * "a" + "b")
    if "greedy" in media.name:
        bytearray(2**31)
    if "odd" in media.name:
        raise ZeroDivisionError(f"torch is loaded: {'torch' in sys.modules}")
    return real(media)
probes.probe = probe
probes.serve()
"""
PROCESSOR = Molmo2Processor(**TINY_VISION)


@pytest.fixture
def good(tmp_path):
    return Image(str(write_png(tmp_path / "a.png", size=(60, 40))), max_crops=2)


def test_what_is_read_apart_is_what_is_read_here(tmp_path, good):
    video = PROCESSOR.filled(Video(str(write_mp4(tmp_path / "v.mp4"))))
    with Prober() as prober:
        for media in (good, video):
            outcome = prober.look(media, PROCESSOR)
            assert (outcome.kind, outcome.facts, outcome.reason) == ("read", probe(media), "")
            assert 2**24 < outcome.peak < 2**29
        # Facts that are known are taken as they are.
        wrong = ImageFacts(good.name, 7, 7)
        assert prober.look(good, facts=wrong).facts == wrong
        assert "60" in prober.look(good, PROCESSOR, facts=wrong).reason


def test_bytes_are_looked_at_too(good):
    outcome = probe_apart(Image(data=Path(good.path).read_bytes(), max_crops=2))
    assert outcome.facts is not None
    assert (outcome.facts.width, outcome.facts.height) == (60, 40)


def test_what_kills_a_reader_is_told_and_the_next_file_is_read(monkeypatch, tmp_path, good):
    monkeypatch.setattr(probes, "_PROGRAM", HOSTILE)
    found = {}
    with Prober(seconds=1.5) as prober:
        for name in ("crash", "hang", "greedy", "odd", "gone"):
            outcome = prober.look(Image(str(tmp_path / f"{name}.png")))
            assert outcome.facts is None
            assert outcome.reason.startswith(str(tmp_path / f"{name}.png: "))
            found[name] = (outcome.kind, outcome.reason.split(": ", 1)[1])
            assert prober.look(good).kind == "read"
    assert found == {
        "crash": ("crashed", "its decoder crashes (SIGSEGV); leave it out, or encode it again"),
        "hang": ("hung", "not read within 1.5 s; leave it out, or encode it again"),
        "greedy": ("memory", "reading it takes more than 1,024 MB; make it smaller"),
        "odd": ("crashed", "its decoder fails (ZeroDivisionError: torch is loaded: False); leave it out"),
        "gone": ("refused", "no such file; correct the path or put the image there"),
    }


def test_to_a_check_it_is_a_line_and_the_check_goes_on(monkeypatch, tmp_path, good, encoder):
    monkeypatch.setattr(probes, "_PROGRAM", HOSTILE)
    monkeypatch.setattr(checking, "Prober", functools.partial(Prober, seconds=1.5))
    paths = [*(f"{name}.png" for name in ("crash", "hang", "greedy", "odd")), good.path]
    rows = [
        {
            "id": path,
            "messages": [
                {"role": "user", "content": [{"type": "image", "path": path}]},
                {"role": "assistant", "content": "Noise."},
            ],
        }
        for path in paths
    ]
    found = []
    settings = checking.Settings(encoder, Budget(tokens=400, crops=16), workers=2)
    result = checking.check([write_jsonl(tmp_path / "a.jsonl", rows)], settings, tell=found.append)
    assert [problem.line for problem in found] == [1, 2, 3, 4]
    assert {problem.fault.kind for problem in found} == {"media"}
    assert [problem.fault.text.split(": ", 1)[1].split(" (")[0] for problem in found] == [
        "its decoder crashes",
        "not read within 1.5 s; leave it out, or encode it again",
        "reading it takes more than 1,024 MB; make it smaller",
        "its decoder fails",
    ]
    assert (result.rows, result.good) == (5, 1)


def test_a_look_may_take_longer_than_the_others(monkeypatch, tmp_path):
    monkeypatch.setattr(
        probes,
        "_PROGRAM",
        "import time; from hedgerow.data import probes\n"
        "probes.probe = lambda media: time.sleep(0.4)\nprobes.serve()",
    )
    with Prober(seconds=0.1) as prober:
        assert prober.look(Image("a.png")).kind == "hung"
        assert prober.look(Image("a.png"), longer=30.0).kind == "read"


def test_a_picture_that_unpacks_to_more_than_the_memory_is_told(tmp_path):
    path = tmp_path / "large.png"
    PIL.Image.new("RGB", (7000, 7000)).save(path, compress_level=1)
    outcome = probe_apart(Image(str(path)), memory=200 * 2**20)
    assert outcome.kind == "memory"
    assert outcome.reason == f"{path}: reading it takes more than 200 MB; make it smaller"
    assert outcome.peak < 300 * 2**20
    assert probe_apart(Image(str(path)), decode=False, memory=200 * 2**20).kind == "read"


@pytest.mark.parametrize("alone", [False, True], ids=["closed", "left alone"])
def test_no_child_stays_behind(good, alone):
    if alone:  # its caller is killed
        code = (
            "import os; from hedgerow.data.probes import Prober; from hedgerow.content import Image\n"
            f"p = Prober(); p.look(Image({good.path!r})); print(p._child.pid, flush=True); os._exit(0)"
        )
        pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    else:
        with Prober() as prober:
            prober.look(good)
            pid = prober._child.pid
    for _ in range(6000):  # a minute, for a busy machine
        if not _runs(pid):
            return
        time.sleep(0.01)
    pytest.fail("the child still runs")


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


SLOW_START = """
import time
from hedgerow.data import probes
from hedgerow.vision.processor import Molmo2Processor
real = Molmo2Processor.layout
def layout(*args, **options):
    time.sleep(1.2)
    return real(*args, **options)
Molmo2Processor.layout = layout
probes.serve()
"""


def test_a_processor_that_loads_slowly_is_not_the_fault_of_the_file(monkeypatch, good):
    monkeypatch.setattr(probes, "_PROGRAM", SLOW_START)
    with Prober(seconds=1.0) as prober:
        assert prober.look(good, PROCESSOR).kind == "read"
