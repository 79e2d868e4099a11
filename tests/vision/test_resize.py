import tracemalloc

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.vision.image import resized
from hedgerow.vision.picture import Picture

SIZES = [
    ((48, 64), (84, 84)),
    ((320, 420), (84, 84)),
    ((5, 1), (9, 4)),
    ((7, 7), (7, 3)),
    ((301, 199), (64, 150)),
    ((40, 2100), (70, 378)),
    ((1, 1), (3, 5)),
]


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def assert_same_but_for_ties(found, expected):
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def bilinear_by_hand(pixels, size):
    """One pixel after another, in float64, not rounded."""
    height, width = pixels.shape[:2]
    found = np.zeros((*size, 3))
    for y in range(size[0]):
        for x in range(size[1]):
            down = max((y + 0.5) * height / size[0] - 0.5, 0.0)
            across = max((x + 0.5) * width / size[1] - 0.5, 0.0)
            top, left = int(down), int(across)
            for row, down_share in ((top, 1 - (down - top)), (top + 1, down - top)):
                for column, across_share in ((left, 1 - (across - left)), (left + 1, across - left)):
                    pixel = pixels[min(row, height - 1), min(column, width - 1)].astype(float)
                    found[y, x] += down_share * across_share * pixel
    return found


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_bilinear_equals_torch_without_antialias_up_to_rounding_ties(old, new):
    import torch

    pixels = noise(*old)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(tensor, size=new, mode="bilinear", antialias=False)
    expected = expected.round()[0].permute(1, 2, 0).numpy()
    assert_same_but_for_ties(resized(pixels, new, resize="bilinear"), expected)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_bilinear_equals_torchvision_without_antialias(old, new):
    torch = pytest.importorskip("torch")
    tvf = pytest.importorskip("torchvision.transforms.v2.functional")
    pixels = noise(*old)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float()
    expected = tvf.resize(tensor, list(new), interpolation=tvf.InterpolationMode.BILINEAR, antialias=False)
    assert_same_but_for_ties(
        resized(pixels, new, resize="bilinear"), expected.round().permute(1, 2, 0).numpy()
    )


side = st.integers(1, 30)


@settings(deadline=None, max_examples=40)
@given(old=st.tuples(side, side), new=st.tuples(side, side), seed=st.integers(0, 99))
def test_bilinear_equals_pixels_mixed_one_by_one(old, new, seed):
    pixels = noise(*old, seed)
    exact = bilinear_by_hand(pixels, new)
    assert np.abs(resized(pixels, new, resize="bilinear") - exact).max() <= 0.5 + 1e-3


def test_a_strided_view_is_resized_as_its_copy():
    pixels = noise(200, 300)
    for view in (pixels[::-1, ::-1], pixels.transpose(1, 0, 2), pixels[3:150, 7:77]):
        for way in ("bilinear", "area"):
            expected = resized(view.copy(), (60, 90), resize=way)
            np.testing.assert_array_equal(resized(view, (60, 90), resize=way), expected)


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 6), width=st.integers(1, 6), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_area_is_the_mean_of_the_pixels_under_each_new_one(height, width, rows, columns):
    pixels = noise(height * rows, width * columns)
    mean = pixels.reshape(height, rows, width, columns, 3).mean((1, 3))
    assert np.abs(resized(pixels, (height, width), resize="area") - mean).max() <= 1


@pytest.mark.parametrize(("old", "new"), [((401, 300), (97, 84)), ((33, 20), (120, 50)), ((500, 9), (55, 3))])
def test_area_made_in_bands_equals_area_made_at_once(old, new):
    pixels = noise(*old)
    whole = PIL.Image.fromarray(pixels).resize((new[1], new[0]), PIL.Image.Resampling.BOX)
    np.testing.assert_array_equal(resized(pixels, new, resize="area"), np.asarray(whole))


def test_a_ball_of_four_pixels_survives_area_but_not_bilinear():
    pixels = np.zeros((320, 420, 3), np.uint8)
    lost = 0
    for x in range(100, 120):
        ball = pixels.copy()
        ball[160:162, x : x + 2] = 255
        assert resized(ball, (84, 84), resize="area").sum() > 0
        lost += resized(ball, (84, 84), resize="bilinear").sum() == 0
    assert lost > 5


def test_resizing_to_the_same_size_changes_nothing():
    for way in ("bilinear", "area"):
        np.testing.assert_array_equal(resized(noise(5, 6), (5, 6), resize=way), noise(5, 6))


TURNS = [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)]


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("size", [(30, 17), (130, 150), (8, 90)])
@pytest.mark.parametrize("way", ["bilinear", "area"])
def test_a_picture_is_resized_as_the_array_of_it(turn, size, way):
    picture = Picture(PIL.Image.fromarray(noise(71, 93)), turn)
    found, expected = resized(picture, size, resize=way), resized(np.asarray(picture), size, resize=way)
    difference = np.abs(found.astype(int) - expected)
    # Transposed, rows are mixed before columns: Pillow rounds in between, float32 at the end.
    assert difference.max() <= turn[0]
    assert (difference > 0).mean() < (0.3 if way == "area" else 1e-3)


@pytest.mark.parametrize("way", ["bilinear", "area"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_no_array_of_a_whole_picture_is_made_to_resize_it(way, mode):
    picture = Picture(PIL.Image.new(mode, (3000, 2000)), (True, False, False))
    tracemalloc.start()
    try:
        resized(picture, (378, 378), resize=way)
        assert tracemalloc.get_traced_memory()[1] < 0.3 * 3000 * 2000 * 3
    finally:
        tracemalloc.stop()
