import pytest
from PIL import Image, ImageColor

from hedgerow.content import Point
from hedgerow.grounding.draw import colour_of, contact_sheet, draw


def test_the_picture_given_stays_and_the_copy_is_marked():
    picture = Image.new("L", (200, 100), 128)
    marked = draw(picture, true=[Point(0.25, 0.5, id=1)])
    assert (marked.mode, marked.size) == ("RGB", (200, 100))
    assert picture.getextrema() == (128, 128)
    assert draw(picture).getextrema() == ((128, 128),) * 3


def test_truth_is_a_ring_and_prediction_a_cross():
    point = Point(0.5, 0.5, id=2)
    centre, colour = (100, 50), ImageColor.getrgb(colour_of(point))
    ring = draw(Image.new("RGB", (200, 100)), true=[point])
    cross = draw(Image.new("RGB", (200, 100)), predicted=[point])
    # the radius is 4 pixels here
    assert ring.getpixel(centre) == (0, 0, 0)
    assert ring.getpixel((96, 50)) == colour
    assert cross.getpixel(centre) == colour


def test_a_box_is_drawn_where_it_is_known():
    point = Point(0.5, 0.5, id=1, box=(0.25, 0.2, 0.75, 0.8))
    marked = draw(Image.new("RGB", (200, 100)), true=[point])
    assert marked.getpixel((50, 50)) == ImageColor.getrgb(colour_of(point))


def test_a_colour_belongs_to_an_id():
    assert colour_of(Point(0, 0, id=1)) == colour_of(Point(1, 1, id=1)) != colour_of(Point(0, 0, id=2))
    assert len({colour_of(Point(0, 0, id=n)) for n in range(1, 11)}) == 10


def test_a_sheet_holds_every_picture_in_its_place_with_a_caption():
    pictures = [Image.new("RGB", (40, 20), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    sheet = contact_sheet(pictures, ["one", "two", "a caption of several words"], columns=2, width=80)
    places = {sheet.getpixel((x, y)): (x, y) for x in range(sheet.width) for y in range(sheet.height)}
    red, green, blue = (places[picture.getpixel((0, 0))] for picture in pictures)  # lower right corners
    assert red[1] == green[1] < blue[1]
    assert red[0] == blue[0] == green[0] - 88
    assert red == (87, 47)  # 80 x 40 pixels, 8 from the edges
    below = sheet.crop((8, 48, 88, blue[1] - 40))
    assert below.getextrema()[0][0] < 128  # black letters
    alone = contact_sheet(pictures[:1], ["one"], columns=4, width=80)
    assert alone.width == 96  # no place for what is not there


def test_a_long_caption_takes_more_lines_and_none_is_lost():
    picture = Image.new("RGB", (100, 50))
    short, long = (
        contact_sheet([picture], [text], columns=1, width=100) for text in ("red star", "red star " * 9)
    )
    assert long.height >= short.height + 3 * 16
    assert short.getpixel((107, 70)) == long.getpixel((107, 70)) == (255, 255, 255)


@pytest.mark.parametrize("captions", [[], ["a", "b"]])
def test_a_sheet_needs_a_caption_for_each_picture(captions):
    with pytest.raises(ValueError, match="give one caption for each"):
        contact_sheet([Image.new("RGB", (9, 9))] if captions else [], captions, columns=1, width=9)
