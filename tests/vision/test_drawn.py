"""Animations hold every picture for its time, and play what was drawn on the frames of a video."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from hedgerow.content import Video
from hedgerow.errors import DataError, RecipeError
from hedgerow.grounding import parse
from hedgerow.grounding.draw import COLOURS, draw_frames
from hedgerow.testing import write_mp4
from hedgerow.vision import decode_frames
from hedgerow.vision.drawn import write_animation
from hedgerow.vision.facts import probe

TIMES = [0.0, 0.5, 1.0, 1.5]


@pytest.fixture
def drawn(tmp_path):
    """A bright square of 8 pixels goes right, 16 each half second; a reply follows it."""
    write_mp4(tmp_path / "roll.mp4")
    frames = decode_frames(Video(str(tmp_path / "roll.mp4")), TIMES, size=(192, 256))
    coords = ";".join(f"{time} 1 {round(1000 * (4 + 32 * time) / 64):03d} 500" for time in TIMES)
    return draw_frames(frames, TIMES, predicted=parse(f'<tracks coords="{coords}">square</tracks>').parts)


def seen(picture, colour):
    """The middle of the pixels of nearly a colour, and how many there are."""
    rows, columns = np.nonzero(np.abs(np.asarray(picture.convert("RGB")).astype(int) - colour).max(-1) < 50)
    return columns.mean() / picture.width, rows.mean() / picture.height, len(rows)


def test_a_reply_is_drawn_on_the_square_it_follows(drawn):
    for time, picture in zip(TIMES, drawn, strict=True):
        assert picture.getpixel((round(256 * (4 + 32 * time) / 64), 96)) == ImageColor.getrgb(COLOURS[0])
        x, y, _ = seen(picture, (240, 240, 240))
        assert x == pytest.approx((4 + 32 * time) / 64, abs=0.03)  # it is still to be seen
        assert y == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("rate", "duration"), [(2, 500), (8, 120), (50, 20)])
def test_a_gif_shows_every_picture_for_its_time_and_starts_again(drawn, tmp_path, rate, duration):
    write_animation(tmp_path / "a.gif", drawn, rate=rate)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (4, (256, 192), 0)
        for number, picture in enumerate(drawn):
            gif.seek(number)
            assert gif.info["duration"] == duration
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - np.asarray(picture)).mean() < 3


def test_ids_keep_their_colours_in_a_gif_whatever_is_behind_them(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)
    pictures = [Image.fromarray(frame) for frame in noise]
    for picture in pictures:
        for number, colour in enumerate(COLOURS):
            picture.paste(colour, (10 * number, 0, 10 * number + 2, 2))
    write_animation(tmp_path / "a.gif", pictures)
    with Image.open(tmp_path / "a.gif") as gif:
        gif.seek(1)
        shown = gif.convert("RGB")
    assert [shown.getpixel((10 * n, 1)) for n in range(10)] == [ImageColor.getrgb(c) for c in COLOURS]


def test_an_mp4_is_read_back(drawn, tmp_path):
    write_animation(str(tmp_path / "a.mp4"), drawn)
    video = Video(str(tmp_path / "a.mp4"))
    assert probe(video).duration == 1.5
    frames = decode_frames(video, TIMES, size=(192, 256))
    for frame, picture in zip(frames, drawn, strict=True):
        assert np.abs(frame.astype(int) - np.asarray(picture)).mean() < 3


def test_an_mp4_of_odd_sides_loses_a_row_and_a_column(tmp_path):
    write_animation(tmp_path / "a.mp4", [Image.new("RGB", (65, 49), "#808080")])
    facts = probe(Video(str(tmp_path / "a.mp4")))
    assert (facts.width, facts.height) == (64, 48)


@pytest.mark.parametrize(
    ("name", "sizes", "rate", "kind", "why"),
    [
        ("a.webm", [9], 2, RecipeError, r"a.webm: .*GIF or MP4; give a name that ends in .gif or .mp4"),
        ("a", [9], 2, RecipeError, r"give a name that ends"),
        ("a.gif", [9], 0, RecipeError, "0 pictures a second; give 1 to 50"),
        ("a.gif", [9], 51, RecipeError, "51 pictures a second; give 1 to 50"),
        ("a.mp4", [9], 0, RecipeError, "0 pictures a second; give 1 or more"),
        ("a.gif", [], 2, DataError, "no picture to write; an animation needs at least one"),
        ("a.gif", [8, 9], 2, DataError, "picture 1 has 9 x 9 pixels, the first 8 x 8; give pictures of one"),
        ("a.mp4", [8, 9], 2, DataError, "picture 1 has 9 x 9 pixels, the first 8 x 8; give pictures of one"),
    ],
)
def test_what_cannot_be_written_is_an_error_and_no_file(tmp_path, name, sizes, rate, kind, why):
    with pytest.raises(kind, match=why):
        write_animation(tmp_path / name, [Image.new("RGB", (side, side)) for side in sizes], rate=rate)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_the_folder_of_an_animation_is_made(drawn, tmp_path, name):
    write_animation(tmp_path / "new" / "deep" / name, drawn)
    assert (tmp_path / "new" / "deep" / name).stat().st_size > 0
