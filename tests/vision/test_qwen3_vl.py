"""Qwen3-VL's tokens and patches against the processors of `transformers`, which need no torchvision here."""

import dataclasses
import pickle
import re
import subprocess
import sys
from functools import cache

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor, smart_resize
from transformers.video_utils import VideoMetadata

from hedgerow.content import Image, Subtitle, Video
from hedgerow.errors import MediaError, RecipeError
from hedgerow.testing import TINY_QWEN3_VL, public_qwen3_vl, tiny_tokenizer, write_mp4, write_png
from hedgerow.vision import Marks, probe
from hedgerow.vision.cache import FrameCache
from hedgerow.vision.facts import ImageFacts, VideoFacts
from hedgerow.vision.qwen3_vl import Qwen3VLProcessor as Ours
from hedgerow.vision.text import TextProcessor

TINY = Ours(**TINY_QWEN3_VL)
theirs = cache(public_qwen3_vl)


def text_of(layout):
    return "".join(piece if isinstance(piece, str) else "".join(piece.names) for piece in layout.pieces)


# Images


@given(height=st.integers(1, 3000), width=st.integers(1, 3000))
@settings(max_examples=200)
@pytest.mark.parametrize("ours", [Ours(), TINY, Ours(max_pixels=65_536, patch_size=14)])
def test_an_image_is_cut_into_as_many_patches_as_by_transformers(ours, height, width):
    facts = ImageFacts("p", width, height)
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(MediaError, match="200 times the other"):
            ours.layout(Image("p"), facts)
        return
    layout = ours.layout(Image("p"), facts)
    assert layout.crops == theirs(ours).image_processor.get_number_of_image_patches(height, width)
    assert layout.slots * ours.merge_size**2 == layout.crops
    (time, rows, columns), = layout.grids  # fmt: skip
    assert time * rows * columns == layout.slots


@pytest.mark.parametrize("size", [(60, 40), (9, 7), (100, 21), (333, 250)])
@pytest.mark.parametrize("ours", [TINY, Ours(max_pixels=131_072)])
def test_tokens_and_pixels_of_an_image_equal_transformers(tmp_path, ours, size):
    image = Image(str(write_png(tmp_path / "a.png", size=size)))
    layout = ours.layout(image, probe(image))
    vision = ours.visual(image, layout)
    marks = "<|vision_start|><|image_pad|><|vision_end|>"
    given = theirs(ours)(text=[marks], images=[PIL.Image.open(image.path)])
    tokenizer = tiny_tokenizer()
    names = [name for piece in layout.pieces for name in piece.names]
    assert [tokenizer.token_to_id(name) for name in names] == given["input_ids"][0]
    np.testing.assert_allclose(vision.crops / 127.5 - 1.0, given["pixel_values"], atol=1e-6)
    merge = [1, ours.merge_size, ours.merge_size]
    assert (vision.grids * merge).tolist() == np.array(given["image_grid_thw"]).tolist()
    assert vision.pooling.ravel().tolist() == list(range(layout.crops))
    assert (vision.crops.dtype, vision.pooling.dtype, vision.grids.dtype) == (np.uint8, np.int32, np.int32)
    assert vision.patches == 1


def test_an_image_that_changed_since_it_was_measured_is_named(tmp_path):
    image = Image(str(write_png(tmp_path / "a.png")))
    layout = TINY.layout(image, probe(image))
    write_png(tmp_path / "a.png", size=(40, 60))
    with pytest.raises(MediaError, match=r"a\.png: now \(40, 60\) pixels, \(60, 40\) when measured"):
        TINY.visual(image, layout)


def test_images_are_not_labelled_and_crops_of_the_tree_say_nothing():
    facts = ImageFacts("p", 60, 40)
    assert TINY.layout(Image("p", max_crops=3), facts, label="Image 2") == TINY.layout(Image("p"), facts)


# Videos


def video_facts(frames, rate, size=(64, 48)):
    return VideoFacts("v", *size, start=0.0, duration=(frames - 1) / rate, rate=rate)


@given(
    frames=st.integers(1, 400),
    rate=st.sampled_from([1.0, 4.0, 23.976, 25.0, 29.97, 60.0]),
    size=st.tuples(st.integers(6, 900), st.integers(6, 900)),
)
@settings(max_examples=150)
@pytest.mark.parametrize("ours", [Ours(), Ours(max_frames=9, video_max_pixels=300_000), TINY])
def test_frames_times_and_tokens_of_a_video_equal_transformers(ours, frames, rate, size):
    processor = theirs(ours)
    layout = ours.layout(Video("v"), video_facts(frames, rate, size))
    metadata = VideoMetadata(total_num_frames=frames, fps=rate)
    chosen = processor.video_processor.sample_frames(metadata, fps=ours.fps)
    np.testing.assert_allclose(layout.times, chosen / rate, atol=1e-9)
    pair = {"temporal_factor": 2, "factor": ours.patch_size * 2}
    limits = {"min_pixels": ours.video_min_pixels, "max_pixels": ours.video_max_pixels}
    count = max(len(chosen), 2)  # theirs refuses a single frame, which is repeated here
    height, width = smart_resize(count, size[1], size[0], **pair, **limits)
    groups = -(-len(chosen) // 2)
    grid = [groups, height // ours.patch_size, width // ours.patch_size]
    assert [groups, *(2 * side for side in layout.grids[0][1:])] == grid
    assert layout.crops == np.prod(grid)
    metadata.frames_indices = chosen
    given = {"video_grid_thw": np.array([grid]), "video_metadata": [metadata]}
    inner = processor.replace_video_token(given, 0)
    shown, _ = processor.get_text_with_replacements(
        ["<|vision_start|><|video_pad|><|vision_end|>"], videos_replacements=[inner]
    )
    assert text_of(layout) == shown[0]


@pytest.mark.parametrize("frames", [1, 2, 5, 7])
def test_pixels_of_a_video_are_cut_as_by_transformers(tmp_path, frames):
    video = Video(str(write_mp4(tmp_path / "v.mp4", frames=frames, fps=2, size=(64, 48))))
    layout = TINY.layout(video, probe(video))
    vision = TINY.visual(TINY.filled(video), layout)
    _, rows, columns = layout.grids[0]
    shown = TINY._frames(video, layout.times, (8 * rows, 8 * columns))
    cut, *grid = Qwen3VLVideoProcessor().patchify(
        torch.from_numpy(shown).permute(0, 3, 1, 2)[None], patch_size=4, merge_size=2, temporal_patch_size=2
    )
    assert vision.crops.tolist() == cut[0].tolist()
    assert (vision.grids * [1, 2, 2]).tolist() == [grid]


def test_frames_are_those_shown_at_their_times(tmp_path):
    """The square of the file moves 8 pixels a frame; every second frame is sampled, of the clip alone."""
    ours = dataclasses.replace(TINY, video_max_pixels=100_000, max_frames=4)
    video = Video(str(write_mp4(tmp_path / "v.mp4", frames=7, fps=4)), start=0.5, end=1.25)
    layout = ours.layout(video, probe(video))
    assert layout.times == (0.0, 0.25, 0.5, 0.75)
    frames = ours._frames(video, layout.times, (48, 64))
    bright = [int(frame[24].mean(axis=1).argmax()) // 8 for frame in frames]
    assert bright == [2, 3, 4, 5]


def test_rules_of_the_library_choose_frames_where_one_is_named():
    facts = video_facts(41, 10.0)
    named = TINY.layout(Video("v", sampling="uniform_last_frame", max_frames=3), facts)
    assert named.times == (0.0, 2.0, 4.0)
    assert re.findall(r"<([0-9.]+) seconds>", text_of(named)) == ["1.0", "4.0"]
    steady = dataclasses.replace(TINY, sampling="fps")
    assert steady.layout(Video("v", fps=1), facts).times == (0, 1, 2, 3, 4)


def test_subtitles_stand_behind_the_frames():
    video = Video("v", subtitles=(Subtitle(0.4, 0.9, "hello there"),))
    plain, spoken = (TINY.layout(item, video_facts(7, 4.0)) for item in (Video("v"), video))
    assert spoken.pieces == (*plain.pieces, "\nSubtitles:\n0.4 - 0.9 hello there")


def test_a_damaged_video_is_refused_or_kept():
    facts = dataclasses.replace(video_facts(7, 4.0), damage="at 1 s: no frame")
    with pytest.raises(MediaError, match=r"at 1 s.*vision\.damaged"):
        TINY.layout(Video("v"), facts)
    assert dataclasses.replace(TINY, damaged="keep").layout(Video("v"), facts).times


def test_a_cache_of_frames_is_of_the_family_of_what_it_keeps(tmp_path):
    video = TINY.filled(Video(str(write_mp4(tmp_path / "v.mp4"))))
    layout, cache = TINY.layout(video, probe(video)), FrameCache(TINY, tmp_path / "kept", 10**6)
    assert (cache.groups, cache.axes, cache.placement) == ("none", 3, "inside")
    own = TINY.visual(video, layout)
    for kept in (cache.visual(video, layout), cache.visual(video, layout)):
        for name in ("crops", "pooling", "grids", "patches"):
            np.testing.assert_array_equal(getattr(kept, name), getattr(own, name))
    assert len(list((tmp_path / "kept").iterdir())) == 1


# Positions


def test_positions_of_a_frame_are_time_row_and_column():
    (frame,) = TINY.layout(Image("p"), ImageFacts("p", 24, 16)).pieces
    assert isinstance(frame, Marks)
    assert frame.position.tolist() == [
        [0, 1, 1, 1, 1, 1, 1, 4],
        [0, 1, 1, 1, 2, 2, 2, 4],
        [0, 1, 2, 3, 1, 2, 3, 4],
    ]


# Settings


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"patch_size": 0}, "above 0"),
        ({"fps": 0.0}, "above 0"),
        ({"min_pixels": 2000}, "min_pixels 2000 is more than max_pixels 1024"),
        ({"min_frames": 6}, "min_frames 6 is more than max_frames 5"),
        ({"video_min_pixels": 9000}, "video_min_pixels 9000 is more than video_max_pixels 3072"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(wrong, said):
    with pytest.raises(RecipeError, match=said):
        dataclasses.replace(TINY, **wrong)


def test_it_can_be_pickled_and_loads_neither_torch_nor_transformers():
    assert pickle.loads(pickle.dumps(TINY)) == TINY
    code = (
        "import sys, hedgerow.vision.qwen3_vl, hedgerow.vision.text;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_processor_for_text_refuses_all_media():
    text = TextProcessor()
    assert (text.groups, text.axes) == ("none", 1)
    for media, kind in ((Image("a.png"), "an image"), (Video("v.mp4"), "a video")):
        with pytest.raises(MediaError, match=f"{media.path} is {kind}, a media type the model cannot see"):
            text.filled(media)
