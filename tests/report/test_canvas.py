"""What is put together from crops and windows is the picture that was cut into them."""

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Image, Video
from hedgerow.report.canvas import canvases, whole_views
from hedgerow.sequence import VisionInput
from hedgerow.testing import TINY_QWEN3_VL, write_mp4, write_png
from hedgerow.vision.facts import probe
from hedgerow.vision.image import load_image, resized
from hedgerow.vision.processor import Molmo2Processor
from hedgerow.vision.qwen3_vl import Qwen3VLProcessor
from hedgerow.vision.video import decode_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("canvas")


def seen(processor, media):
    return processor.visual(media, processor.layout(media, probe(media)))


@given(
    size=st.tuples(st.integers(8, 90), st.integers(8, 90)),
    pool=st.integers(1, 3),
    margins=st.sampled_from([(0, 0), (1, 1), (2, 1)]),
    crops=st.integers(1, 6),
)
@settings(max_examples=25, deadline=None)
def test_an_image_is_whole_again(folder, size, pool, margins, crops):
    processor = Molmo2Processor(
        crop_size=20, patch_size=4, margins=margins, max_crops=crops, image_pooling=pool
    )
    image = Image(str(write_png(folder / "a.png", size=size)))
    vision = seen(processor, image)
    (small,), (large,) = canvases(vision)
    for canvas in (small, large):
        assert canvas.window == pool
        assert canvas.grid == tuple(side // pool for side in canvas.patches.shape)
    whole = load_image(image)
    for canvas in (small, large):
        lines, columns = canvas.inside
        part = canvas.pixels(vision)[lines.start * 4 : lines.stop * 4, columns.start * 4 : columns.stop * 4]
        assert (part == resized(whole, part.shape[:2], resize="bilinear")).all()
        outside = canvas.patches.copy()
        outside[lines, columns] = -1
        assert (outside == -1).all()
    rows, columns = processor._tiler(processor.filled(image)).tiling(size[::-1])
    assert [region.crop for region in large.regions()] == list(range(1, 1 + rows * columns))
    assert sum(region.width * region.height for region in large.regions()) == pytest.approx(
        (large.patches >= 0).mean()
    )


def test_frames_and_images_of_one_tree_keep_their_windows(folder):
    processor = Molmo2Processor(crop_size=28, patch_size=7, margins=(1, 1), max_crops=2)
    image, video = (
        Image(str(write_png(folder / "b.png", size=(60, 40)))),
        Video(str(write_mp4(folder / "v.mp4"))),
    )
    parts = [seen(processor, media) for media in (image, video, image)]
    joined = VisionInput.join(parts)
    grids = list(canvases(joined))
    assert [[canvas.window for canvas in grid] for grid in grids] == [[2], [2], [3] * 4, [2], [2]]
    frames = parts[1].crops
    for canvas, frame in zip(grids[2], frames, strict=True):
        assert canvas.padded == 4  # 4 patches a side in 2 windows of 3
        assert canvas.inside == (slice(1, 5), slice(1, 5))
        assert (canvas.pixels(joined)[7:35, 7:35] == frame).all()
        assert not canvas.pixels(joined)[:7].any()
    for one, other in zip(grids[:2], grids[3:], strict=True):
        assert (one[0].pixels(joined) == other[0].pixels(joined)).all()


def test_regions_lie_as_the_crops_do(folder):
    """Two crops of 5 patches side by side with a margin of 1: each brings 4 columns."""
    processor = Molmo2Processor(crop_size=20, patch_size=4, margins=(1, 1), max_crops=2, image_pooling=2)
    vision = seen(processor, Image(str(write_png(folder / "c.png", size=(90, 20)))))
    _, (large,) = canvases(vision)
    left, right = large.regions()
    assert large.patches.shape == (6, 8)
    assert (left.crop, left.left, left.width, left.top, left.height) == (1, 0, 0.5, 0, 5 / 6)
    assert (right.crop, right.left, right.width, right.top, right.height) == (2, 0.5, 0.5, 0, 5 / 6)
    assert np.array_equal(np.unique(large.patches[:, :4])[1:] // 25, np.ones(20))


def test_flat_patches_are_whole_again(folder):
    """The frames that Qwen3-VL reads two by two: the first of each pair, at the size it is resized to."""
    processor = Qwen3VLProcessor(**TINY_QWEN3_VL)
    image, video = Image(str(write_png(folder / "d.png"))), Video(str(write_mp4(folder / "v.mp4")))
    layouts = [processor.layout(media, probe(media)) for media in (image, video)]
    vision = VisionInput.join(
        [processor.visual(media, layout) for media, layout in zip((image, video), layouts, strict=True)]
    )
    (small,), frames = canvases(vision)
    size = tuple(8 * side for side in small.grid)
    wanted = PIL.Image.open(image.path).resize(size[::-1], PIL.Image.Resampling.BICUBIC)
    assert (small.pixels(vision) == np.asarray(wanted)).all()
    assert len(frames) == 2
    size = tuple(8 * side for side in frames[0].grid)
    shown = list(decode_frames(video, layouts[1].times, size=(48, 64)))[::2]
    for frame, pixels in zip(frames, shown, strict=True):
        small = PIL.Image.fromarray(pixels).resize(size[::-1], PIL.Image.Resampling.BICUBIC)
        assert (frame.pixels(vision) == np.asarray(small)).all()


def test_of_tiles_the_one_that_shows_all_is_taken():
    tiles = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
    images = np.array([[2, 8, 9, 9, 1], [1, 4, 9, 9, -1], [2, 8, 9, 9, 0]], np.int32)
    vision = VisionInput(
        tiles,
        np.arange(20, dtype=np.int32)[:, None],
        np.tile([1, 2, 2], (5, 1)),
        4,
        images,
        np.zeros((3, 256)),
    )
    first, none, last = whole_views(vision)
    assert (first.pixels(vision) == tiles[1]).all()
    assert none is None
    assert (last.pixels(vision) == tiles[3]).all()
