import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Image
from hedgerow.errors import MediaError
from hedgerow.vision.facts import ImageFacts, probe
from hedgerow.vision.image import Tiler, load_image, resized

MOLMO2 = Tiler(crop=378, patch=14, margins=(4, 4), max_crops=8)
TILERS = (
    MOLMO2,
    Tiler(378, 14, (4, 4), 24),
    Tiler(84, 7, (2, 3), 6),
    Tiler(84, 7, (0, 0), 4),
    Tiler(56, 14, (1, 0), 9),
)
SIZES = (
    (100, 100),
    (112, 500),
    (113, 500),
    (378, 378),
    (640, 480),
    (1080, 1920),
    (3000, 200),
    (60, 2000),
    (90, 91),
)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tiff"])
def test_size_and_pixels_are_upright_whatever_the_orientation(tmp_path, kind, orientation):
    path = str(tmp_path / f"picture.{kind}")
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(noise(6, 10)).save(path, exif=exif)
    with PIL.Image.open(path) as image:
        expected = np.asarray(PIL.ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(load_image(Image(path)), expected)
    assert probe(Image(path)) == ImageFacts(path, expected.shape[1], expected.shape[0])
    assert (expected.shape[1] == 6) == (5 <= orientation <= 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_8_bit_kind_of_pixels_becomes_rgb(tmp_path, mode):
    path = str(tmp_path / ("picture.tiff" if mode == "CMYK" else "picture.png"))
    PIL.Image.fromarray(noise(5, 7)).convert(mode).save(path)
    assert load_image(Image(path)).shape == (5, 7, 3)


def test_unreadable_images_are_named_with_a_remedy(tmp_path):
    whole = tmp_path / "whole.jpg"
    PIL.Image.fromarray(noise(64, 64)).save(whole)
    cut, text, deep = tmp_path / "cut.jpg", tmp_path / "text.png", tmp_path / "deep.png"
    cut.write_bytes(whole.read_bytes()[:-2000])
    text.write_text("no picture")
    PIL.Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(deep)
    assert probe(Image(str(cut))).width == 64  # the header is whole
    for path, read, why in [
        (tmp_path / "none.jpg", probe, "no such file"),
        (tmp_path, probe, "no such file"),
        (text, probe, "not an image"),
        (cut, load_image, "truncated"),
        (deep, load_image, "8 bits"),
    ]:
        with pytest.raises(MediaError, match=why) as error:
            read(Image(str(path)))
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new"), [((48, 64), (84, 84)), ((320, 420), (84, 84)), ((5, 1), (9, 4)), ((7, 7), (7, 3))]
)
def test_bilinear_equals_torch_without_antialias_up_to_rounding_ties(old, new):
    import torch

    pixels = noise(*old)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(tensor, size=new, mode="bilinear", antialias=False)
    expected = expected.round()[0].permute(1, 2, 0).numpy()
    difference = np.abs(resized(pixels, new, resize="bilinear") - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 6), width=st.integers(1, 6), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_area_is_the_mean_of_the_pixels_under_each_new_one(height, width, rows, columns):
    pixels = noise(height * rows, width * columns)
    mean = pixels.reshape(height, rows, width, columns, 3).mean((1, 3))
    assert np.abs(resized(pixels, (height, width), resize="area") - mean).max() <= 1


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


def test_tiling_equals_the_public_code(oracle):
    rng = np.random.default_rng(0)
    drawn = [tuple(int(side) for side in rng.integers(1, 2500, 2)) for _ in range(60)]
    for tiler in TILERS:
        for size in [*SIZES, *drawn]:
            given = (*size, tiler.max_crops, list(tiler.margins), tiler.crop, tiler.patch)
            rows, columns, *canvas = oracle["compute_crop_geometry"](*given)
            assert tiler.tiling(size) == (rows, columns), size
            assert [side * tiler.patch for side in tiler.patch_grid(size).shape] == canvas


@pytest.mark.parametrize("tiler", TILERS[2:])
def test_crops_and_patch_grid_equal_the_public_code(oracle, tiler):
    import torch

    for size in [(48, 64), (90, 200), (300, 80)]:
        pixels = noise(*size)
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        crops, grid = oracle["_build_overlapping_crops"](
            None,
            images,
            tiler.max_crops,
            list(tiler.margins),
            tiler.crop,
            None,
            do_rescale=False,
            rescale_factor=1.0,
            do_normalize=False,
            image_mean=[0.0],
            image_std=[1.0],
            image_patch_size=tiler.patch,
        )
        found = tiler.crops(pixels, resize="bilinear")
        assert found.dtype == np.uint8
        assert found.shape == crops[0].shape
        assert np.abs(found.astype(int) - crops[0].numpy()).max() <= 1
        np.testing.assert_array_equal(tiler.patch_grid(size), grid.numpy())


def test_neighbouring_crops_share_their_margins():
    tiler = Tiler(crop=84, patch=7, margins=(2, 3), max_crops=2)
    left, right = tiler.crops(noise(84, 133), resize="bilinear")
    np.testing.assert_array_equal(left[:, -35:], right[:, :35])
