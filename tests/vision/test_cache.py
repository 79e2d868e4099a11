"""What is kept on disk is what decoding gives, for this file and these settings and no others."""

import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from hedgerow.content import Image, Video
from hedgerow.errors import MediaError, RecipeError
from hedgerow.vision import VisionProcessor, probe
from hedgerow.vision.cache import FrameCache
from hedgerow.vision.processor import Molmo2Processor

TINY = Molmo2Processor(crop_size=28, patch_size=7, margins=(1, 1), fps=4.0)
ROOM = 10**9


class Counted:
    """A processor that says how often it was asked for pixels."""

    groups = "message"

    def __init__(self, processor):
        self.processor, self.calls = processor, 0

    def __repr__(self):
        return repr(self.processor)

    def filled(self, media, *, several=False):
        return self.processor.filled(media, several=several)

    def layout(self, media, facts, *, label=None):
        return self.processor.layout(media, facts, label=label)

    def visual(self, media, layout):
        self.calls += 1
        return self.processor.visual(media, layout)


@pytest.fixture
def path(tmp_path, media):
    return media.write_video(tmp_path / "v.mp4", [100 * number for number in range(20)])


def see(processor, media):
    media = processor.filled(media)
    return processor.visual(media, processor.layout(media, probe(media), label=None))


def same(one, other):
    for name in ("crops", "pooling", "grids"):
        mine, theirs = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    assert one.patches == other.patches


def files(folder):
    return sorted(folder.iterdir())


def test_what_is_kept_is_what_decoding_gives(tmp_path, path):
    counted = Counted(TINY)
    cache: VisionProcessor = FrameCache(counted, tmp_path / "kept", ROOM)
    miss = see(cache, Video(path))
    hit = see(cache, Video(path))
    assert counted.calls == 1
    same(miss, see(TINY, Video(path)))
    same(hit, miss)
    assert cache.groups == "message"
    hit.crops[:] = 0  # what a caller does to its copy is its own
    same(see(cache, Video(path)), miss)
    assert counted.calls == 1


@pytest.mark.parametrize(
    "other",
    [
        {"fps": 2.0},
        {"start": 0.3},
        {"end": 1.2},
        {"max_frames": 3},
        {"sampling": "fps"},
        {"sampling": "scene"},
        {"fps": 2.0, "sampling": "fps"},
    ],
)
def test_another_setting_of_the_video_is_decoded_anew(tmp_path, path, other):
    counted = Counted(TINY)
    cache = FrameCache(counted, tmp_path / "kept", ROOM)
    see(cache, Video(path))
    same(see(cache, Video(path, **other)), see(TINY, Video(path, **other)))
    assert counted.calls == 2


@pytest.mark.parametrize(
    "other", [{"crop_size": 42}, {"resize": "area"}, {"video_pooling": 2}, {"damaged": "keep"}]
)
def test_another_setting_of_the_processor_is_decoded_anew(tmp_path, path, other):
    see(FrameCache(TINY, tmp_path / "kept", ROOM), Video(path))
    counted = Counted(replace(TINY, **other))
    same(see(FrameCache(counted, tmp_path / "kept", ROOM), Video(path)), see(counted.processor, Video(path)))
    assert counted.calls == 1
    assert len(files(tmp_path / "kept")) == 2


def test_a_changed_file_is_decoded_anew_and_a_copy_is_not(tmp_path, media, path):
    counted = Counted(TINY)
    cache = FrameCache(counted, tmp_path / "kept", ROOM)
    before = see(cache, Video(path))
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(Path(path).read_bytes())
    same(see(cache, Video(str(copy))), before)
    assert counted.calls == 1
    pictures = [media.picture(number + 40) for number in range(20)]
    media.write_video(copy, [100 * number for number in range(20)], pictures=pictures)
    copy.replace(path)
    os.utime(path, ns=(1, 1))
    after = see(cache, Video(path))
    assert counted.calls == 2
    same(after, see(TINY, Video(path)))
    assert not np.array_equal(after.crops, before.crops)


def test_images_are_left_to_the_processor(tmp_path):
    PIL.Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    counted = Counted(TINY)
    cache = FrameCache(counted, tmp_path / "kept", ROOM)
    for _ in range(2):
        same(see(cache, Image(str(tmp_path / "a.png"))), see(TINY, Image(str(tmp_path / "a.png"))))
    assert counted.calls == 2
    assert files(tmp_path / "kept") == []


def test_the_limit_holds_and_what_was_used_least_recently_goes_first(tmp_path, path):
    folder = tmp_path / "kept"
    cache = FrameCache(TINY, folder, ROOM)
    clips = [Video(path, start=number / 10, end=number / 10 + 0.5) for number in range(4)]
    see(cache, clips[0])
    (first,) = files(folder)
    cache = FrameCache(Counted(TINY), folder, 3 * first.stat().st_size)
    for clip in (*clips[1:3], clips[0]):
        see(cache, clip)
        time.sleep(0.02)
    assert len(files(folder)) == 3
    see(cache, clips[3])
    assert len(files(folder)) == 3
    assert sum(file.stat().st_size for file in files(folder)) <= cache.limit
    calls = cache.processor.calls
    for clip in (clips[0], clips[2], clips[3]):
        see(cache, clip)
    assert cache.processor.calls == calls
    see(cache, clips[1])
    assert cache.processor.calls == calls + 1


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path, path):
    cache = FrameCache(TINY, tmp_path / "kept", 1000)
    same(see(cache, Video(path)), see(TINY, Video(path)))
    assert files(tmp_path / "kept") == []


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(file.read_bytes()[:3]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"nothing of the kind" * 100),
    ],
)
def test_a_damaged_file_is_made_again(tmp_path, path, damage):
    counted = Counted(TINY)
    cache = FrameCache(counted, tmp_path / "kept", ROOM)
    before = see(cache, Video(path))
    (file,) = files(tmp_path / "kept")
    whole = file.read_bytes()
    damage(file)
    same(see(cache, Video(path)), before)
    assert counted.calls == 2
    assert file.read_bytes() == whole


def test_what_a_killed_process_left_half_written_goes_in_time(tmp_path, path):
    folder = tmp_path / "kept"
    cache = FrameCache(TINY, folder, ROOM)
    for name, age in (("old.part", 7200), ("new.part", 0)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    see(cache, Video(path))
    assert not (folder / "old.part").exists()
    assert (folder / "new.part").exists()


WORK = """
import sys
from pathlib import Path
from hedgerow.content import Video
from hedgerow.vision import Molmo2Processor, probe
from hedgerow.vision.cache import FrameCache
path, folder, limit = sys.argv[1:]
processor = Molmo2Processor(crop_size=28, patch_size=7, margins=(1, 1), fps=4.0)
cache = FrameCache(processor, Path(folder), int(limit))
facts = probe(Video(path))
for number in range(40):
    video = cache.filled(Video(path, start=number % 5 / 10))
    print(cache.visual(video, cache.layout(video, facts)).crops.sum(dtype=int))
"""


def test_two_processes_may_use_one_folder_at_once(tmp_path, path):
    expected = [see(TINY, Video(path, start=n % 5 / 10)).crops.sum(dtype=int) for n in range(40)]
    see(FrameCache(TINY, tmp_path / "sized", ROOM), Video(path))
    (one,) = files(tmp_path / "sized")
    folder, limit = tmp_path / "kept", 3 * one.stat().st_size
    command = [sys.executable, "-c", WORK, path, str(folder), str(limit)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for worker in workers:
        out, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0
        assert [int(line) for line in out.split()] == expected
    assert sum(file.stat().st_size for file in files(folder)) <= limit
    assert all(file.suffix == ".frames" for file in files(folder))


def test_a_cache_survives_pickling(tmp_path, path):
    cache = FrameCache(TINY, tmp_path / "kept", ROOM)
    before = see(cache, Video(path))
    same(see(pickle.loads(pickle.dumps(cache)), Video(path)), before)
    assert len(files(tmp_path / "kept")) == 1


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match=r"file/kept: frames cannot be kept there .* data\.frames") as error:
        FrameCache(TINY, tmp_path / "file" / "kept", ROOM)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_folder_that_cannot_be_written_is_one_clear_error():
    with pytest.raises(RecipeError, match=r"/proc/self: frames cannot be kept there"):
        FrameCache(TINY, Path("/proc/self"), ROOM)


def test_a_disk_that_is_full_is_one_clear_error_and_leaves_nothing(tmp_path, path, monkeypatch):
    cache = FrameCache(TINY, tmp_path / "kept", ROOM)

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RecipeError, match="No space left on device"):
        see(cache, Video(path))
    assert files(tmp_path / "kept") == []


def test_a_missing_video_is_named(tmp_path, path):
    cache = FrameCache(TINY, tmp_path / "kept", ROOM)
    video = cache.filled(Video(path))
    layout = cache.layout(video, probe(video))
    Path(path).unlink()
    with pytest.raises(MediaError, match=r"v\.mp4: "):
        cache.visual(video, layout)
