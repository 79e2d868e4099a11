import dataclasses
import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Image, Text
from hedgerow.encode import Encoder
from hedgerow.errors import MediaError
from hedgerow.testing import tiny_encoder, write_png
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.vision import as_image, probe
from hedgerow.vision.image import Tiler, load_image

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


def test_unreadable_images_are_named_with_a_remedy(tmp_path):
    whole = tmp_path / "whole.jpg"
    PIL.Image.fromarray(noise(64, 64)).save(whole)
    cut, text = tmp_path / "cut.jpg", tmp_path / "text.png"
    cut.write_bytes(whole.read_bytes()[:-2000])
    text.write_text("no picture")
    assert probe(Image(str(cut))).width == 64  # the header is whole
    for path, read, why in [
        (tmp_path / "none.jpg", probe, "no such file"),
        (tmp_path, probe, "no such file"),
        (text, probe, "a text file, not an image"),
        (cut, load_image, "truncated"),
    ]:
        with pytest.raises(MediaError, match=why) as error:
            read(Image(str(path)))
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


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


def crops_by_hand(tiler, pixels):
    """One pixel of a crop after another, each mixed of four in float64; not rounded."""
    rows, columns = tiler.tiling(pixels.shape[:2])
    window = tiler.crop - sum(tiler.margins) * tiler.patch
    canvas = rows * window + tiler.crop - window, columns * window + tiler.crop - window
    places = []
    for axis in (0, 1):
        old = pixels.shape[axis]
        place = np.maximum((np.arange(canvas[axis]) + 0.5) * old / canvas[axis] - 0.5, 0)
        places.append([(int(p), min(int(p) + 1, old - 1), p - int(p)) for p in place])
    found = np.zeros((rows * columns, tiler.crop, tiler.crop, 3))
    for crop in range(rows * columns):
        for y in range(tiler.crop):
            for x in range(tiler.crop):
                top, bottom, down = places[0][crop // columns * window + y]
                left, right, across = places[1][crop % columns * window + x]
                upper = (1 - across) * pixels[top, left] + across * pixels[top, right]
                lower = (1 - across) * pixels[bottom, left] + across * pixels[bottom, right]
                found[crop, y, x] = (1 - down) * upper + down * lower
    return found


@pytest.mark.parametrize("size", [(30, 45), (90, 31), (16, 16), (5, 70)])
def test_crops_equal_those_made_pixel_by_pixel(size):
    tiler = Tiler(crop=28, patch=7, margins=(1, 1), max_crops=6)
    exact = crops_by_hand(tiler, noise(*size))
    found = tiler.crops(noise(*size), resize="bilinear")
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() <= 0.5 + 1e-3
    picture = load_image(as_image(noise(*size)))
    np.testing.assert_array_equal(tiler.crops(picture, resize="bilinear"), found)


def test_neighbouring_crops_share_their_margins():
    tiler = Tiler(crop=84, patch=7, margins=(2, 3), max_crops=2)
    left, right = tiler.crops(noise(84, 133), resize="bilinear")
    np.testing.assert_array_equal(left[:, -35:], right[:, :35])


# What images are made of


def pixels_of(image):
    return np.asarray(load_image(image))


def test_a_path_and_bytes_are_kept_as_they_are(tmp_path):
    path = write_png(tmp_path / "p.png")
    for source in (path, str(path)):
        assert as_image(source) == Image(path=str(path))
    assert as_image(path.read_bytes()) == Image(data=path.read_bytes())
    np.testing.assert_array_equal(pixels_of(as_image(path.read_bytes())), pixels_of(as_image(path)))
    assert as_image(Path("gone.png")) == Image(
        path="gone.png"
    )  # whether it is there is asked when it is read


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 9), width=st.integers(1, 9), channels=st.sampled_from([(), (3,), (4,)]))
def test_an_array_loses_nothing(height, width, channels):
    given_pixels = np.random.default_rng(height).integers(0, 256, (height, width, *channels)).astype(np.uint8)
    for pixels in (given_pixels, given_pixels[::-1, ::-1]):
        image = as_image(pixels)
        kept = pixels.copy()
        np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(image.data))), kept)
        if channels != (4,):
            grey = np.broadcast_to(kept.reshape(height, width, -1), (height, width, 3))
            np.testing.assert_array_equal(pixels_of(image), grey)


def test_a_pillow_image_is_kept_as_it_is_shown(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(noise(6, 10)).save(tmp_path / "turned.jpg", exif=exif)
    with PIL.Image.open(tmp_path / "turned.jpg") as picture:
        image = as_image(picture)
    np.testing.assert_array_equal(pixels_of(image), pixels_of(Image(str(tmp_path / "turned.jpg"))))
    assert probe(image).width == 6
    faint = PIL.Image.new("RGBA", (2, 2), (255, 0, 0, 51))
    assert (pixels_of(as_image(faint)) == (255, 204, 204)).all()


@pytest.mark.parametrize(
    ("source", "error", "why"),
    [
        (np.zeros((2, 3, 3), np.float32), MediaError, r"array float32 \[2, 3, 3\]; give uint8 \[H, W\], "),
        (np.zeros((2, 3, 2), np.uint8), MediaError, r"array uint8 \[2, 3, 2\]"),
        (np.zeros((1, 2, 3, 3), np.uint8), MediaError, r"array uint8 \[1, 2, 3, 3\]"),
        (np.zeros((0, 3, 3), np.uint8), MediaError, r"array \[0, 3, 3\] without a pixel"),
        ([[1, 2], [3, 4]], TypeError, "an image from list; give a path, bytes, a NumPy array or a Pillow"),
    ],
)
def test_anything_else_is_refused(source, error, why):
    with pytest.raises(error, match=why):
        as_image(source)


def test_a_tree_is_encoded_alike_from_a_file_its_bytes_and_its_pixels(tmp_path):
    path = write_png(tmp_path / "p.png", size=(70, 50))
    with PIL.Image.open(path) as picture:
        images = [as_image(source) for source in (path, path.read_bytes(), np.asarray(picture), picture)]
    first, *others = [tiny_encoder()(tree_of([image])) for image in images]
    for other in others:
        np.testing.assert_array_equal(other.tokens, first.tokens)
        np.testing.assert_array_equal(other.vision.crops, first.vision.crops)


# Several images


def tree_of(images):
    return MessageTree(
        id="t",
        messages=(Message("user", (*images, Text("Compare."))),),
        branches=(Branch((Message("user", "How?"), Message("assistant", "They differ."))),),
    )


def said(encoder, row):
    return "".join(encoder.chat.show(token) for token in row.tokens.tolist())


def test_several_images_are_labelled_and_have_their_own_cap_of_crops(tmp_path):
    sizes = [(40, 300), (240, 300), (440, 300)]  # (height, width)
    images = [Image(str(write_png(tmp_path / f"{h}.png", size=(w, h), seed=h))) for h, w in sizes]
    plain = tiny_encoder()
    processor = dataclasses.replace(plain.processor, max_crops=6, max_multi_image_crops=2)
    encoder = Encoder(plain.chat, processor, vision_first=False)
    one, several = (
        [1 + int(np.prod(Tiler(28, 7, (1, 1), most).tiling(size))) for size in sizes] for most in (6, 2)
    )
    assert one != several
    alone = [encoder(tree_of([image])) for image in images]
    assert [len(row.vision.crops) for row in alone] == one
    assert not any("Image" in said(encoder, row) for row in alone)
    together = encoder(tree_of(images))
    assert len(together.vision.crops) == sum(several) == together.cost["crops"]
    assert encoder.measure(tree_of(images)) == together.cost
    labels = said(encoder, together).split("Image ")[1:]
    assert [label[: len("1<low_res_im_start>")] for label in labels] == [
        f"{number}<low_res_im_start>" for number in (1, 2, 3)
    ]
    uncapped = Encoder(plain.chat, dataclasses.replace(processor, max_multi_image_crops=None))
    assert len(uncapped(tree_of(images)).vision.crops) == sum(one)


def test_an_image_that_says_its_own_most_crops_keeps_them_among_several(tmp_path):
    image = Image(str(write_png(tmp_path / "p.png", size=(300, 200))), max_crops=5)
    plain = tiny_encoder()
    encoder = Encoder(plain.chat, dataclasses.replace(plain.processor, max_multi_image_crops=1))
    own = 1 + int(np.prod(Tiler(28, 7, (1, 1), 5).tiling((200, 300))))
    assert len(encoder(tree_of([image, Image(image.path)])).vision.crops) == own + 2
