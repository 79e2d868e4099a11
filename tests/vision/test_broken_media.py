"""Damaged files are refused or partly used, each with its reason; none hangs, swells or ends the caller."""

import importlib.util
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from hedgerow.content import Image, Media, Video
from hedgerow.data.probes import Outcome, Prober
from hedgerow.vision import Molmo2Processor, probe

REFUSE = Molmo2Processor(crop_size=84, patch_size=7, max_crops=4, margins=(2, 3), max_frames=8)
KEEP = replace(REFUSE, damaged="keep")
MOST = 2**30  # bytes that reading any of these files may take
ROOM = 2**32  # bytes that the child is given, so that it is the code that keeps to `MOST` and not the kernel
SOUNDS = {"aac.mp4", "opus.webm", "pcm.wav"}


@dataclass(frozen=True, slots=True)
class Look:
    """One file as it was looked at, and what came of it."""

    shown: str
    mutant: Any
    outcome: Outcome

    @property
    def told(self) -> str:
        """What the table calls it."""
        damage = getattr(self.outcome.facts, "damage", None)
        return "in part" if damage and self.outcome.kind == "read" else self.outcome.kind

    @property
    def is_helpful(self) -> bool:
        """Whether the reason names the file, says what to do, and fits a line."""
        reason = self.outcome.reason
        name = "image " if self.shown == "bytes" else self.mutant.name
        return name in reason.split(";")[0] and "; " in reason and reason.isprintable()


@pytest.fixture(scope="module")
def mutations():
    spec = importlib.util.spec_from_file_location("mutations", Path(__file__).with_name("mutations.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def whole(mutations, tmp_path_factory):
    return mutations.seeds(tmp_path_factory.mktemp("whole"))


def ways(path, data) -> dict[str, tuple[Media, Molmo2Processor]]:
    """All ways in which a file may be shown."""
    return {
        "image": (Image(path), REFUSE),
        "bytes": (Image(data=data), REFUSE),
        "video, refuse": (Video(path), REFUSE),
        "video, keep": (Video(path), KEEP),
    }


def looked_at(folder, mutants, *, memory=ROOM) -> list[Look]:
    found = []
    with Prober(memory=memory) as prober:
        for mutant in mutants:
            path = folder / mutant.name
            path.write_bytes(mutant.data)
            for shown, (media, processor) in ways(str(path), mutant.data).items():
                found.append(Look(shown, mutant, prober.look(processor.filled(media), processor)))
    return found


def faults(looks, *, allowed=("read", "refused")):
    """What must not be: an end that is neither use nor refusal, much memory, a reason that does not help."""
    wrong = [look for look in looks if look.outcome.kind not in allowed or look.outcome.peak > MOST]
    wrong += [look for look in looks if look.outcome.kind != "read" and not look.is_helpful]
    return [(look.shown, look.mutant.name, look.mutant.damage, look.outcome) for look in wrong]


def table(looks, row) -> str:
    counts = Counter((row(look), look.told) for look in looks)
    columns = sorted({told for _, told in counts})
    lines = [f"{'':22}" + "".join(f"{told:>9}" for told in columns)]
    for name in dict.fromkeys(row(look) for look in looks):
        lines.append(f"{name:22}" + "".join(f"{counts[name, told]:9}" for told in columns))
    return "\n".join(lines)


def test_the_files_are_whole_before_they_are_damaged(mutations, whole, tmp_path):
    same = [mutations.Mutant(0, seed.kind, "none", seed.kind, seed.data) for seed in whole]
    looks = looked_at(tmp_path, same)
    read = {(look.mutant.kind, look.shown) for look in looks if look.told == "read"}
    assert {kind for kind, _ in read} == {seed.kind for seed in whole} - SOUNDS
    stills = {name for name, *_ in (*mutations.STILLS, *mutations.MOVING)}
    for shown, kinds in [("image", stills), ("bytes", stills), ("video, refuse", mutations.VIDEO_NAMES)]:
        assert {kind for kind, way in read if way == shown} >= kinds
    assert {look.told for look in looks if look.mutant.kind in SOUNDS} == {"refused"}


def test_the_same_files_are_made_at_every_call(mutations, whole):
    assert mutations.mutants(whole, 60) == mutations.mutants(whole, 60)
    made = mutations.mutants(whole, 18 * len(whole))
    assert len({(mutant.kind, mutant.damage) for mutant in made}) == len(made)
    untouched = {seed.data for seed in whole}
    assert {mutant.damage for mutant in made if mutant.data in untouched} == {"wrong ending"}


def test_forty_damaged_files(mutations, whole, tmp_path):
    looks = looked_at(tmp_path, mutations.mutants(whole, 1000)[::25])
    assert faults(looks) == []
    assert {look.told for look in looks} >= {"read", "refused"}


@pytest.mark.slow
def test_a_thousand_damaged_files(mutations, whole, tmp_path, capsys, caplog):
    looks = looked_at(tmp_path, mutations.mutants(whole, 1000))
    with capsys.disabled():
        for row in (lambda look: look.shown, lambda look: look.mutant.damage, lambda look: look.mutant.kind):
            print(f"\n{table(looks, row)}")
        print(f"\nmost memory {max(look.outcome.peak for look in looks) / 2**20:.0f} MB")
    assert faults(looks) == []
    assert {look.told for look in looks} == {"read", "in part", "refused"}
    kept = [look for look in looks if look.shown == "video, keep" and look.outcome.kind == "read"]
    refused = {look.mutant.number for look in looks if look.shown == "video, refuse" and look.told != "read"}
    parts = [look for look in kept if look.mutant.number in refused]
    assert len(parts) > 50
    assert [look.mutant.name for look in parts if not says_so(tmp_path / look.mutant.name, caplog)] == []


def says_so(path, caplog) -> bool:
    """Whether a video that is used in part is described so, or a warning names it."""
    caplog.clear()
    facts = probe(Video(str(path)))
    KEEP.visual(Video(str(path)), KEEP.layout(Video(str(path)), facts))
    return bool(facts.damage) or any(path.name in record.getMessage() for record in caplog.records)


@pytest.mark.slow
def test_small_files_of_huge_pictures(mutations, whole, tmp_path, capsys):
    """What is too large is refused, or stopped by the limit of the child; the next file does not suffer."""
    PIL.Image.new("RGB", (11_000, 11_000)).save(tmp_path / "next.jpg")
    looks, suffered = [], []
    with Prober(memory=MOST) as prober:
        for bomb in mutations.bombs(whole):
            (tmp_path / bomb.name).write_bytes(bomb.data)
            for shown, (media, processor) in ways(str(tmp_path / bomb.name), bomb.data).items():
                looks.append(Look(shown, bomb, prober.look(processor.filled(media), processor)))
                if looks[-1].outcome.kind == "memory" and isinstance(media, Video):
                    after = prober.look(REFUSE.filled(Image(str(tmp_path / "next.jpg"))), REFUSE)
                    suffered += [(bomb.name, shown, after)] if after.kind != "read" else []
    with capsys.disabled():
        print(f"\n{table(looks, lambda look: look.shown)}\n\n{table(looks, lambda look: look.mutant.kind)}")
    assert faults(looks, allowed=("read", "refused", "memory")) == []
    assert suffered == []
