import pickle
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from hedgerow.content import Image, Subtitle, Video
from hedgerow.errors import MediaError, RecipeError
from hedgerow.sequence import VisionInput
from hedgerow.vision import PATCH, Marks, Molmo2Processor, VisionProcessor, probe
from hedgerow.vision.facts import ImageFacts, VideoFacts
from hedgerow.vision.image import resized
from hedgerow.vision.video import decode_frames

TINY = Molmo2Processor(crop_size=84, patch_size=7, max_crops=4, margins=(2, 3))


def names(layout):
    return [name for piece in layout.pieces if isinstance(piece, Marks) for name in piece.names]


def text(layout):
    return "".join(piece if isinstance(piece, str) else "".join(piece.names) for piece in layout.pieces)


def size_of(rows, columns, processor):
    """An image that is cut into rows x columns windows without being resized."""
    margin = sum(processor.margins) * processor.patch_size
    window = processor.crop_size - margin
    return columns * window + margin, rows * window + margin


def save_image(tmp_path, width, height):
    path = str(tmp_path / f"{width}x{height}.png")
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    return Image(path), pixels


# Images


@pytest.mark.parametrize(
    ("rows", "columns", "most", "high"),
    [(1, 1, 8, 212), (2, 2, 8, 554), (2, 4, 8, 991), (8, 1, 8, 1202), (24, 1, 24, 3482)],
)
def test_an_image_costs_the_published_number_of_tokens(rows, columns, most, high):
    processor = Molmo2Processor(max_crops=most)
    layout = processor.layout(Image("p"), ImageFacts("p", *size_of(rows, columns, processor)))
    found = names(layout)
    assert len(found[found.index("<im_start>") :]) == high
    assert len(found[: found.index("<im_start>")]) == 14 * 14 + 2
    assert layout.crops == 1 + rows * columns
    assert layout.times == ()


def test_no_image_costs_more_than_the_published_most():
    sizes = np.random.default_rng(0).integers(1, 4000, (300, 2))
    for most, limit in [(8, 1400), (24, 3680)]:
        processor = Molmo2Processor(max_crops=most)
        facts = [
            ImageFacts("p", int(width), int(height))
            for width, height in [*sizes, size_of(most, 1, processor)]
        ]
        assert max(len(names(processor.layout(Image("p"), item))) for item in facts) == limit


@pytest.mark.parametrize("processor", [Molmo2Processor(), TINY])
@pytest.mark.parametrize("size", [(640, 480), (200, 1000), (90, 90)])
def test_image_tokens_equal_the_public_code(media, processor, size):
    space = media.load_functions("processing_molmo2.py", ["replace_image_token"], {})
    layout = processor.layout(Image("p"), ImageFacts("p", *size))
    low, high = layout.grids
    settings = SimpleNamespace(
        image_use_col_tokens=True, use_single_crop_col_tokens=False, use_single_crop_start_token=True
    )
    grids = {"image_grids": [[*low[1:], *high[1:]]]}
    assert text(layout) == space["replace_image_token"](settings, grids, 0)
    assert layout.size == size


@pytest.mark.parametrize("processor", [TINY, replace(TINY, image_pooling=3, margins=(0, 0))])
@pytest.mark.parametrize("size", [(84, 84), (150, 90), (60, 300)])
def test_pixels_and_pooling_of_an_image_equal_the_public_code(tmp_path, oracle, processor, size):
    import torch

    image, pixels = save_image(tmp_path, *size)
    layout = processor.layout(image, probe(image))
    vision = processor.visual(image, layout)
    crops, grid = oracle["_build_overlapping_crops"](
        None,
        torch.from_numpy(pixels).permute(2, 0, 1)[None],
        processor.max_crops,
        list(processor.margins),
        84,
        None,
        do_rescale=False,
        rescale_factor=1.0,
        do_normalize=False,
        image_mean=[0.0],
        image_std=[1.0],
        image_patch_size=7,
    )
    pool = processor.image_pooling
    high, *high_shape = oracle["arange_for_pooling"](grid, pool, pool)
    low, *low_shape = oracle["arange_for_pooling"](
        torch.arange(144, dtype=torch.int32).reshape(12, 12), pool, pool
    )
    expected = torch.cat([low, torch.where(high >= 0, high + 144, -1)])
    np.testing.assert_array_equal(vision.pooling, expected.numpy())
    assert (
        vision.grids.tolist() == [[1, *low_shape], [1, *high_shape]] == [list(grid) for grid in layout.grids]
    )
    assert np.abs(vision.crops[1:].astype(int) - crops[0].numpy()).max() <= 1
    np.testing.assert_array_equal(vision.crops[0], resized(pixels, (84, 84), resize="bilinear"))
    assert (vision.crops.dtype, vision.pooling.dtype, vision.grids.dtype) == (np.uint8, np.int32, np.int32)
    assert vision.patches == 144


def test_each_high_resolution_slot_pools_the_pixels_at_its_own_place(tmp_path):
    processor = replace(TINY, margins=(2, 2))
    width, height = size_of(2, 2, processor)
    y, x = np.mgrid[:height, :width] // 7
    path = str(tmp_path / "places.png")
    PIL.Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)).save(path)
    vision = processor.visual(Image(path), processor.layout(Image(path), probe(Image(path))))
    patches = vision.crops.reshape(-1, 12, 7, 12, 7, 3)[:, :, 0, :, 0].reshape(-1, 3)
    _, rows, columns = vision.grids[1]
    for slot, window in enumerate(vision.pooling[36:]):
        row, column = divmod(slot, columns)
        expected = [[2 * column + right, 2 * row + down, 0] for down in (0, 1) for right in (0, 1)]
        assert patches[window].tolist() == expected
    assert (rows, columns) == (10, 10)


def test_an_image_that_changed_since_it_was_measured_is_named(tmp_path):
    image, _ = save_image(tmp_path, 90, 60)
    layout = TINY.layout(image, ImageFacts(image.path, 60, 90))
    with pytest.raises(MediaError, match=r"90x60\.png: now \(90, 60\) pixels, \(60, 90\) when measured"):
        TINY.visual(image, layout)


# Videos


@pytest.mark.parametrize("duration", [0.0, 1.3, 9.9])
def test_video_tokens_equal_the_public_code(media, duration):
    space = media.load_functions("processing_molmo2.py", ["get_video_string"], {})
    processor = Molmo2Processor(max_frames=12)
    layout = processor.layout(Video("v"), VideoFacts("v", 320, 240, 0.5, duration))
    (grid,) = layout.grids
    settings = SimpleNamespace(use_frame_special_tokens=True, video_use_col_tokens=False)
    assert text(layout) == space["get_video_string"](settings, np.array(grid), layout.times)
    assert grid == (len(layout.times), 9, 9)
    assert layout.size == (320, 240)
    assert all(len(piece.names) == 83 for piece in layout.pieces if isinstance(piece, Marks))


def test_a_long_video_holds_the_published_number_of_patch_tokens():
    for frames, patches in [(128, 10_368), (384, 31_104)]:
        layout = Molmo2Processor(max_frames=frames).layout(Video("v"), VideoFacts("v", 8, 8, 0.0, 600.0))
        assert layout.slots == patches
        assert layout.crops == frames


def test_pixels_and_pooling_of_a_video(tmp_path, media):
    path = media.write_video(tmp_path / "v.mp4", [300 * number for number in range(12)])
    video = Video(path, start=0.6)
    processor = Molmo2Processor(crop_size=56, patch_size=7, video_pooling=3, margins=(1, 1))
    layout = processor.layout(video, probe(video))
    assert layout.times == (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, pytest.approx(2.7))
    vision = processor.visual(video, layout)
    np.testing.assert_array_equal(vision.crops, decode_frames(video, layout.times, size=(56, 56)))
    assert media.numbers(vision.crops) == [2, 3, 5, 7, 8, 10, 11]
    assert vision.grids.tolist() == [[7, 3, 3]]
    assert vision.pooling.shape == (7 * 9, 9)
    for number, table in enumerate(vision.pooling.reshape(7, -1)):
        assert sorted(table[table >= 0]) == list(range(64 * number, 64 * (number + 1)))


def test_a_video_may_say_its_own_frame_rate_and_most_frames(tmp_path, media):
    path = media.write_video(tmp_path / "v.mp4", [300 * number for number in range(12)])
    facts = probe(Video(path))
    slow, few = Video(path, fps=1.0), Video(path, max_frames=3)
    assert TINY.layout(slow, facts).times == (0.0, 1.0, 2.0, 3.0, pytest.approx(3.3))
    assert TINY.layout(slow, facts) == replace(TINY, fps=1.0).layout(Video(path), facts)
    assert TINY.layout(few, facts) == replace(TINY, max_frames=3).layout(Video(path), facts)
    assert TINY.layout(few, facts).crops == 3
    vision = TINY.visual(slow, TINY.layout(slow, facts))
    assert media.numbers(vision.crops) == [0, 3, 6, 10, 11]


def test_a_video_may_name_its_own_rule(tmp_path, media):
    facts = VideoFacts("v", 64, 48, 0.0, 9.0, rate=10.0, cuts=(8.0,))
    assert TINY.layout(Video("v", max_frames=3), facts).times == (0.0, 4.5, 9.0)
    assert TINY.layout(Video("v", max_frames=3, sampling="scene"), facts).times == (2.0, 6.0, 8.5)
    layout = TINY.layout(Video("v", max_frames=3, sampling="fps"), facts)
    assert (layout.times, layout.step) == ((0.0, 0.5, 1.0), 0.5)
    assert replace(TINY, sampling="fps").layout(Video("v", max_frames=3), facts) == layout


def test_damage_is_refused_or_kept_as_the_processor_says():
    facts = VideoFacts("v", 64, 48, 0.0, 9.0, damage="9.10 s: the file ends within a frame")
    with pytest.raises(
        MediaError, match=r"v, 9\.10 s: the file ends within a frame; copy .* vision\.damaged"
    ):
        TINY.layout(Video("v"), facts)
    kept = replace(TINY, damaged="keep").layout(Video("v"), facts)
    assert kept == TINY.layout(Video("v"), replace(facts, damage=None))


@pytest.mark.parametrize("most", [1, 9])
def test_an_image_may_say_its_own_most_crops(tmp_path, most):
    plain, _ = save_image(tmp_path, 400, 300)
    own = replace(plain, max_crops=most)
    layout = TINY.layout(own, probe(own))
    assert layout == replace(TINY, max_crops=most).layout(plain, probe(plain))
    assert layout.crops != TINY.layout(plain, probe(plain)).crops
    vision, wanted = TINY.visual(own, layout), replace(TINY, max_crops=most).visual(plain, layout)
    np.testing.assert_array_equal(vision.crops, wanted.crops)
    np.testing.assert_array_equal(vision.pooling, wanted.pooling)


def test_visions_of_images_and_videos_join(tmp_path, media):
    image, _ = save_image(tmp_path, 90, 60)
    video = Video(media.write_video(tmp_path / "v.mp4", [0, 400, 800]))
    visions = [TINY.visual(item, TINY.layout(item, probe(item))) for item in (image, video)]
    joined = VisionInput.join(visions)
    assert joined.pooling.shape == (sum(len(item.pooling) for item in visions), 9)
    assert joined.grids.shape == (3, 3)
    assert len(joined.crops) == sum(len(item.crops) for item in visions)


# Text


def test_a_label_stands_before_the_image_as_text():
    layout = TINY.layout(Image("p"), ImageFacts("p", 90, 60), label="Image 2")
    assert layout.pieces[0] == "Image 2"
    assert text(layout).startswith("Image 2<low_res_im_start><im_patch>")


def test_subtitles_near_a_frame_follow_all_frames_as_text():
    lines = (
        Subtitle(0.0, 1.0, "near the\nfirst"),
        Subtitle(21.0, 24.0, "over one frame at its end"),
        Subtitle(11.1, 28.8, "over two frames"),
        Subtitle(1.01, 18.8, "over none, and none within a second"),
        Subtitle(40.9, 45.0, "   "),
        Subtitle(41.0, 45.0, "within a second of the last"),
        Subtitle(18.0, 19.0, "just before the second"),
        Subtitle(18.0, 18.9, "too early"),
        Subtitle(41.1, 45.0, "too late"),
    )
    processor = replace(TINY, max_frames=3)
    layout = processor.layout(Video("v", subtitles=lines), VideoFacts("v", 8, 8, 0.0, 40.0))
    assert layout.times == (0.0, 20.0, 40.0)
    assert layout.pieces[-1] == (
        "\nSubtitles:\n0.0 - 1.0 near the first\n21.0 - 24.0 over one frame at its end\n"
        "11.1 - 28.8 over two frames\n41.0 - 45.0 within a second of the last\n"
        "18.0 - 19.0 just before the second"
    )
    silent = processor.layout(Video("v", subtitles=lines[4:5]), VideoFacts("v", 8, 8, 0.0, 40.0))
    assert isinstance(silent.pieces[-1], Marks)


# The processor itself


def test_layout_alone_says_how_many_slots_there_are():
    layout = TINY.layout(Image("p"), ImageFacts("p", 90, 60), label=f"not a slot: {PATCH}")
    assert (
        layout.slots == names(layout).count(PATCH) == sum(rows * columns for _, rows, columns in layout.grids)
    )


def test_pixels_that_do_not_match_the_layout_are_never_returned(tmp_path, media):
    video = Video(media.write_video(tmp_path / "v.mp4", [0, 400, 800]))
    layout = TINY.layout(video, probe(video))
    with pytest.raises(AssertionError):
        TINY.visual(video, replace(layout, pieces=layout.pieces[:-1]))
    with pytest.raises(AssertionError):
        TINY.visual(video, replace(layout, crops=2))


def test_a_processor_survives_pickling_and_is_a_vision_processor():
    processor: VisionProcessor = pickle.loads(pickle.dumps(TINY))
    assert processor == TINY
    assert processor.groups == "message"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"crop_size": 80}, "crop_size 80 is no multiple of patch_size 7"),
        ({"margins": (6, 6)}, "leave nothing of a crop of 12 patches"),
        ({"patch_size": 14, "margins": (4, 4)}, r"84, patch_size 14\); give a smaller patch_size, or lower"),
        ({"margins": (-1, 2)}, "margins"),
        ({"fps": 0.0}, "above 0"),
        ({"max_frames": 0}, "above 0"),
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(wrong, why):
    with pytest.raises(RecipeError, match=why):
        replace(TINY, **wrong)


def test_facts_of_an_image_are_refused_for_a_video():
    with pytest.raises(ValueError, match="v is a video"):
        TINY.layout(Video("v"), ImageFacts("v", 8, 8))


def test_importing_the_vision_package_loads_no_torch():
    code = "import sys, hedgerow.vision; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
