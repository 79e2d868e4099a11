from PIL import Image, ImageColor

from hedgerow.content import Point
from hedgerow.grounding.draw import colour_of, draw


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
