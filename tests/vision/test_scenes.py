"""Cuts are found where they were made; PySceneDetect is the oracle where it is installed."""

from fractions import Fraction

import av
import numpy as np
import PIL.Image
import pytest

from hedgerow.content import Video
from hedgerow.errors import MediaError
from hedgerow.vision.facts import probe
from hedgerow.vision.processor import Molmo2Processor
from hedgerow.vision.scenes import find_cuts

FPS = 25
SIZE = (96, 128)


def texture(seed):
    """A smooth random picture, larger than a frame, as a place to look around in."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    return np.asarray(PIL.Image.fromarray(coarse).resize((384, 288), PIL.Image.Resampling.BICUBIC))


def shot(seed, frames, *, pan=0.0, shake=0.0):
    """Frames of one place, the camera moving `pan` pixels a frame or trembling."""
    place, random = texture(seed), np.random.default_rng(seed)
    found = []
    for number in range(frames):
        y, x = (20 + random.normal(0, shake, 2)).clip(0, 40).astype(int)
        x = min(int(x + pan * number), 384 - SIZE[1])
        view = place[y : y + SIZE[0], x : x + SIZE[1]].astype(float)
        found.append((view + random.normal(0, 4, view.shape)).clip(0, 255).astype(np.uint8))
    return found


def faded(frames, *, out):
    """The same frames, darker and darker or the other way round."""
    steps = np.linspace(1, 0, len(frames)) if out else np.linspace(0, 1, len(frames))
    return [(pixels * step).astype(np.uint8) for pixels, step in zip(frames, steps, strict=True)]


def write(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


def film(seed):
    """Shots of several kinds, and the times of the cuts between them."""
    random = np.random.default_rng(seed)
    frames, cuts = [], []
    for number in range(6):
        kind = random.integers(3)
        frames += shot(
            100 * seed + number,
            int(random.integers(15, 45)),
            pan=float(random.uniform(1, 5)) if kind == 1 else 0.0,
            shake=3.0 if kind == 2 else 0.0,
        )
        cuts.append(len(frames) / FPS)
    return frames, cuts[:-1]


@pytest.mark.parametrize("seed", range(4))
def test_cuts_are_found_where_they_are(tmp_path, seed):
    frames, cuts = film(seed)
    assert find_cuts(write(tmp_path / "v.mp4", frames)) == pytest.approx(cuts)


def test_pans_shaking_and_flashes_are_no_cuts(tmp_path):
    still = shot(1, 40)
    still[20:23] = [np.full((*SIZE, 3), 255, np.uint8)] * 3
    assert find_cuts(write(tmp_path / "a.mp4", shot(1, 38, pan=6.0))) == ()
    assert find_cuts(write(tmp_path / "b.mp4", shot(1, 60, shake=6.0))) == ()
    assert find_cuts(write(tmp_path / "c.mp4", still)) == ()


def test_a_fade_through_black_is_one_cut_in_its_middle(tmp_path):
    frames = shot(1, 25) + faded(shot(1, 15), out=True)
    frames += [np.zeros((*SIZE, 3), np.uint8)] * 10 + faded(shot(2, 15), out=False) + shot(2, 25)
    (cut,) = find_cuts(write(tmp_path / "v.mp4", frames))
    assert cut == pytest.approx(45 / FPS, abs=2 / FPS)


def test_black_between_two_scenes_is_one_cut(tmp_path):
    black = [np.zeros((*SIZE, 3), np.uint8)] * 16
    (cut,) = find_cuts(write(tmp_path / "v.mp4", shot(1, 25) + black + shot(2, 25)))
    assert cut == pytest.approx(33 / FPS, abs=1 / FPS)


def test_plain_pictures_are_scenes_too(tmp_path):
    colours = [(200, 30, 30), (30, 30, 200), (30, 160, 30)]
    frames = [np.full((*SIZE, 3), colour, np.uint8) for colour in colours for _ in range(25)]
    assert find_cuts(write(tmp_path / "v.mp4", frames)) == pytest.approx([1.0, 2.0])


def test_scenes_shorter_than_the_shortest_are_one(tmp_path):
    frames = [pixels for seed in range(8) for pixels in shot(seed, 4)]
    found = find_cuts(write(tmp_path / "v.mp4", frames))
    assert all(after - before >= 0.4 for before, after in zip((0.0, *found), found, strict=False))


def test_one_frame_has_no_cut(tmp_path):
    assert find_cuts(write(tmp_path / "v.mp4", shot(1, 1))) == ()


def test_facts_hold_cuts_where_frames_are_spread_over_scenes(tmp_path):
    frames, cuts = film(0)
    path = write(tmp_path / "v.mp4", frames)
    assert probe(Video(path)).cuts is None
    facts = probe(Video(path, sampling="scene"))
    assert facts.cuts == pytest.approx(cuts)
    processor = Molmo2Processor(sampling="scene", max_frames=len(cuts) + 1)
    times = processor.layout(Video(path), facts).times
    assert [sum(time > cut for cut in cuts) for time in times] == list(range(len(cuts) + 1))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MediaError, match=r"none\.mp4: no such file"):
        find_cuts(str(tmp_path / "none.mp4"))


def test_what_can_be_seen_of_a_damaged_file_is_searched(tmp_path):
    frames, cuts = film(0)
    path = tmp_path / "v.mp4"
    write(path, frames)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for packet in packets:
        if packet.pts * packet.time_base < cuts[-1] + 0.4:
            continue
        data[packet.pos + 4 : packet.pos + packet.size] = bytes(packet.size - 4)
    path.write_bytes(data)
    assert find_cuts(str(path)) == pytest.approx(cuts)


def test_the_oracle_finds_the_same_cuts(tmp_path):
    scenedetect = pytest.importorskip("scenedetect")
    ours, theirs, both = 0, 0, 0
    for seed in range(4):
        path = write(tmp_path / f"{seed}.mp4", film(seed)[0])
        scenes = scenedetect.detect(path, scenedetect.AdaptiveDetector(min_scene_len=10))
        found, expected = find_cuts(path), [start.seconds for start, _ in scenes[1:]]
        both += sum(min(abs(cut - other) for other in expected) < 0.5 / FPS for cut in found)
        ours, theirs = ours + len(found), theirs + len(expected)
    assert both >= 0.9 * ours
    assert both >= 0.9 * theirs
