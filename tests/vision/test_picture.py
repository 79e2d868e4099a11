"""Every kind of image file, pixel by pixel."""

import io
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from hedgerow.content import Image
from hedgerow.errors import MediaError
from hedgerow.vision.facts import ImageFacts, probe
from hedgerow.vision.image import as_image, image_size, load_image, resized
from hedgerow.vision.picture import MAX_PIXELS, opened

COLOURS = np.array(
    [[[255, 0, 0], [0, 128, 0], [10, 20, 250]], [[0, 0, 0], [255, 255, 255], [90, 60, 30]]], np.uint8
)
ALPHA = np.array([[255, 0, 128], [1, 254, 77]], np.uint8)
GREY = np.array([[0, 7, 255], [128, 60, 200]], np.uint8)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def over_white(colours, alpha):
    share = alpha[..., None] / 255
    return np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)


def file_of(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return Image(data=file.getvalue())


def shown(image):
    """The pixels of an image, which resizing must see too."""
    picture = load_image(image)
    pixels = np.asarray(picture)
    assert (pixels.dtype, pixels.shape) == (np.uint8, picture.shape)
    size = pixels.shape[0] + 1, pixels.shape[1]
    expected = resized(pixels.copy(), size, resize="bilinear")
    np.testing.assert_array_equal(resized(picture, size, resize="bilinear"), expected)
    return pixels


def assert_shown(image, expected):
    np.testing.assert_array_equal(shown(image), expected)


def png(bits, kind, rows, *chunks, size=None):
    """Write a PNG by hand: rows are of bytes, chunks stand before them; `size` is what its header says."""
    size = size or (len(rows[0]) * 8 // (bits * {0: 1, 2: 3}[kind]), len(rows))
    header = struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", header), *chunks, (b"IDAT", body), (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + name + content
        data += struct.pack(">I", zlib.crc32(name + content))
    return Image(data=data)


def tiff(width, height, bits, data, *, form=1):
    """Write an uncompressed little-endian TIFF of one channel by hand; `form` 3 is floating point."""
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    tags += [(279, len(data)), (339, form)]
    listing = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    start = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return Image(data=start + data + struct.pack("<H", len(tags)) + listing + bytes(4))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tiff"])
def test_size_and_pixels_are_upright_whatever_the_orientation(tmp_path, kind, orientation):
    path = str(tmp_path / f"picture.{kind}")
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(noise(6, 10)).save(path, exif=exif)
    with PIL.Image.open(path) as image:
        expected = np.asarray(PIL.ImageOps.exif_transpose(image))
    assert_shown(Image(path), expected)
    assert probe(Image(path)) == ImageFacts(path, expected.shape[1], expected.shape[0])
    assert (expected.shape[1] == 6) == (5 <= orientation <= 8)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("TGA", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("JPEG2000", {}),
        ("QOI", {}),
    ],
)
def test_pixels_of_lossless_files_are_kept_also_after_the_file_is_gone(tmp_path, kind, options):
    path = tmp_path / "picture"
    PIL.Image.fromarray(COLOURS).save(path, kind, **options)
    picture = load_image(Image(str(path)))
    path.unlink()
    np.testing.assert_array_equal(np.asarray(picture), COLOURS)
    np.testing.assert_array_equal(resized(picture, (4, 3), resize="area"), COLOURS.repeat(2, axis=0))


def test_what_is_transparent_lies_on_white():
    rgba = np.concatenate([COLOURS, ALPHA[..., None]], axis=2)
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        assert_shown(file_of(PIL.Image.fromarray(rgba), kind, **options), over_white(COLOURS, ALPHA))
    la = PIL.Image.merge("LA", [PIL.Image.fromarray(GREY), PIL.Image.fromarray(ALPHA)])
    assert_shown(file_of(la), over_white(GREY[..., None].repeat(3, axis=2), ALPHA))


def test_a_colour_hidden_behind_full_transparency_is_not_seen():
    hidden = np.zeros((4, 4, 4), np.uint8)
    hidden[..., 0] = 255
    assert (shown(file_of(PIL.Image.fromarray(hidden))) == 255).all()


def test_a_palette_may_hold_transparency():
    plain = PIL.Image.fromarray(COLOURS).quantize(6)
    numbers, table = np.asarray(plain), np.array(plain.getpalette()).reshape(-1, 3)
    assert_shown(file_of(plain), table[numbers])
    some = bytes([255, 0, 128, 1])  # of the first four colours; the others are opaque
    alpha = np.array([*some, 255, 255], np.uint8)[numbers]
    assert_shown(file_of(plain, transparency=some), over_white(table[numbers], alpha))
    one = np.where(numbers == 2, 0, 255)
    for kind in ("PNG", "GIF"):
        assert_shown(file_of(plain, kind, transparency=2), over_white(table[numbers], one))
    both = PIL.Image.merge("PA", [PIL.Image.fromarray(numbers), PIL.Image.fromarray(ALPHA)])
    both.putpalette(plain.getpalette())
    assert_shown(as_image(both), over_white(table[numbers], ALPHA))


def test_one_colour_may_be_declared_transparent():
    key = struct.pack(">HHH", *COLOURS[0, 1])
    expected = COLOURS.copy()
    expected[0, 1] = 255
    assert_shown(png(8, 2, [row.tobytes() for row in COLOURS], (b"tRNS", key)), expected)
    grey = np.where(GREY == 60, 255, GREY)[..., None].repeat(3, axis=2)
    assert_shown(png(8, 0, [row.tobytes() for row in GREY], (b"tRNS", struct.pack(">H", 60))), grey)


def test_of_16_bits_the_upper_8_are_kept_in_grey_and_in_colour():
    deep = np.array([[0, 255, 256], [40_000, 65_280, 65_535]], np.uint16)
    expected = np.array([[0, 0, 1], [156, 255, 255]], np.uint8)[..., None].repeat(3, axis=2)
    rows = [row.astype(">u2").tobytes() for row in deep]
    assert_shown(png(16, 0, rows), expected)
    assert_shown(png(16, 2, [row.astype(">u2").repeat(3).tobytes() for row in deep]), expected)
    assert_shown(file_of(PIL.Image.fromarray(deep), "TIFF"), expected)
    assert_shown(file_of(PIL.Image.fromarray(deep.astype(">u2")), "TIFF"), expected)
    assert_shown(file_of(PIL.Image.fromarray(deep), "JPEG2000"), expected)
    assert_shown(Image(data=b"P5 3 2 65535\n" + b"".join(rows)), expected)
    clear = png(16, 0, rows, (b"tRNS", struct.pack(">H", 40_000)))
    expected[1, 0] = 255
    assert_shown(clear, expected)


def test_12_bits_of_grey_are_not_taken_for_16():
    packed = bytes([0x00, 0x08, 0x00, 0xFF, 0xF7, 0xFF])  # 0x000, 0x800, 0xFFF, 0x7FF
    expected = np.array([[0, 128], [255, 127]], np.uint8)[..., None].repeat(3, axis=2)
    assert_shown(tiff(2, 2, 12, packed), expected)


@pytest.mark.parametrize(("form", "kind"), [(1, "I"), (2, "I"), (3, "F")])
def test_32_bits_and_floating_point_are_refused(form, kind):
    with pytest.raises(MediaError, match=rf"image \w+: pixels of kind {kind}, 8 or 16 bits .* save it so"):
        load_image(tiff(1, 1, 32, bytes(4), form=form))
    with pytest.raises(MediaError, match="the Pillow image: pixels of kind F"):
        as_image(PIL.Image.new("F", (2, 2)))


def test_one_bit_is_black_and_white():
    bits = np.array([[0, 255, 255], [255, 0, 255]], np.uint8)
    for kind in ("PNG", "TIFF", "GIF"):
        picture = PIL.Image.fromarray(bits).convert("1")
        assert_shown(file_of(picture, kind), bits[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_become_colours_also_where_a_jpeg_holds_them_inverted(kind):
    inks = np.array([[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255]], np.uint8)
    colours = [[255, 255, 255], [0, 255, 255], [255, 0, 0], [0, 0, 0]]
    for ink, colour in zip(inks, colours, strict=True):
        picture = PIL.Image.new("CMYK", (16, 16), tuple(int(part) for part in ink))
        image = file_of(picture, kind)
        assert (b"Adobe" in image.data) == (kind == "JPEG")  # the mark of inverted inks
        assert np.abs(shown(image).astype(int) - colour).max() <= 1


@pytest.mark.parametrize("kind", ["YCbCr", "HSV", "LAB"])
def test_other_ways_of_writing_colours_come_close(kind):
    picture = PIL.Image.fromarray(COLOURS).convert(kind)
    for image in (as_image(picture), *([] if kind == "HSV" else [file_of(picture, "TIFF")])):
        difference = np.abs(shown(image).astype(int) - COLOURS)
        assert difference.max() <= (16 if kind == "LAB" else 6)
        assert difference.mean() <= 3


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_taken(kind):
    frames = [PIL.Image.new("RGB", (5, 4), colour) for colour in ("red", "lime", "blue")]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    image = file_of(frames[0], kind, save_all=True, append_images=frames[1:], **lossless)
    with opened(image) as picture:
        assert picture.n_frames == 3
    assert_shown(image, np.full((4, 5, 3), (255, 0, 0), np.uint8))


def test_images_over_the_limit_are_refused_from_the_header_alone():
    for size in ((MAX_PIXELS, 1), (20_000, 10_000)):
        assert image_size(png(8, 0, [bytes(1)], size=size)) == size
    for size in ((MAX_PIXELS + 1, 1), (20_000, 10_001), (2**31 - 1, 2**31 - 1)):
        why = f"{size[0]} x {size[1]} pixels, 200,000,000 in all are allowed; make the image smaller"
        for read in (image_size, load_image):
            with pytest.raises(MediaError, match=why):
                read(png(8, 0, [bytes(1)], size=size))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_an_image_over_pillows_own_limit_is_read_without_a_warning(kind):
    side, before = 9500, PIL.Image.MAX_IMAGE_PIXELS
    assert before < side**2 < MAX_PIXELS
    options = {"compression": "group4"} if kind == "TIFF" else {"compress_level": 1}
    picture = PIL.Image.new("1", (side, side))
    picture.paste(1, (side // 2, 0, side, side))
    pixels = resized(load_image(file_of(picture, kind, **options)), (2, 4), resize="bilinear")
    assert pixels[..., 0].tolist() == [[0, 0, 255, 255]] * 2
    assert before == PIL.Image.MAX_IMAGE_PIXELS


def test_pillows_own_limit_comes_back_when_the_last_thread_is_done(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 77)
    image, inside, leave = file_of(PIL.Image.fromarray(noise(9, 9))), threading.Barrier(3), threading.Event()

    def hold():
        with opened(image):
            inside.wait()
            leave.wait()

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    try:
        assert image_size(image) == (9, 9)
        assert PIL.Image.MAX_IMAGE_PIXELS is None  # two still have it open
    finally:
        leave.set()
        for thread in threads:
            thread.join()
    assert PIL.Image.MAX_IMAGE_PIXELS == 77
    with pytest.raises(MediaError, match="not an image"), opened(Image(data=b"no image")):
        pass
    assert PIL.Image.MAX_IMAGE_PIXELS == 77


def test_a_process_forked_while_an_image_is_open_has_pillows_limit():
    code = """
import os, sys, PIL.Image
from hedgerow.vision.image import as_image, image_size
from hedgerow.vision.picture import opened
import numpy as np
image, before = as_image(np.zeros((4, 4), np.uint8)), PIL.Image.MAX_IMAGE_PIXELS
with opened(image):
    child = os.fork()
    if child == 0:
        good = PIL.Image.MAX_IMAGE_PIXELS == before and image_size(image) == (4, 4)
        os._exit(0 if good and PIL.Image.MAX_IMAGE_PIXELS == before else 1)
    print(os.waitpid(child, 0)[1], PIL.Image.MAX_IMAGE_PIXELS)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "None"]


def test_an_image_that_is_a_program_is_not_run():
    with pytest.raises(MediaError, match="EPS is a program, which is not run; save the image as PNG"):
        image_size(file_of(PIL.Image.fromarray(COLOURS), "EPS"))


def what_is_wrong(image):
    try:
        shown(image)
    except MediaError as error:
        return str(error)
    return None


def test_damage_of_any_kind_is_an_error_that_names_the_image():
    rng = np.random.default_rng(0)
    refused = 0
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "JPEG2000", "TGA", "ICO", "DDS", "PCX", "SGI"):
        whole = file_of(PIL.Image.fromarray(noise(24, 24)), kind).data
        for _ in range(25):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 200), 6):
                data[place] = rng.integers(0, 256)
            image = Image(data=bytes(data[: rng.integers(1, len(data) + 1)]))
            wrong = what_is_wrong(image)
            refused += wrong is not None
            assert wrong is None or (wrong.startswith(image.name) and "\n" not in wrong)
    assert refused > 100
