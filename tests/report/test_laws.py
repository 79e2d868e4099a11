"""What a check of the laws looks like as text, data, picture and page."""

import dataclasses
import json
import tracemalloc

import numpy as np
import PIL.Image
import pytest

from hedgerow import visibility
from hedgerow.report.isolation import Isolation
from hedgerow.report.laws import Finding, Verification
from hedgerow.report.mask import mask_picture
from hedgerow.sequence import Budget, Cost, Row
from hedgerow.testing import random_forest

WHITE, RED = (255, 255, 255), (200, 30, 30)


def row(length, *, seed=0, **sizes):
    """Random trees as a row of arrays, or one long plain text."""
    if sizes:
        forest = random_forest(np.random.default_rng(seed), **sizes)
        fields = {name: getattr(forest, name) for name in ("order", "end", "group", "position")}
        length = len(forest)
    else:
        own = np.arange(length, dtype=np.int32)
        fields = {"order": own, "end": own * 0 + length, "group": own * 0 - 1, "position": own}
    none = np.zeros(0, np.int32)
    return Row(
        examples=("one",), lengths=(length,), tokens=np.zeros(length, np.int32), slot=none, source=none,
        target=none, weight=np.zeros(0, np.float32), sample=none, samples=(), cost=Cost(tokens=length),
        budget=Budget(tokens=length), **fields,
    )  # fmt: skip


def isolation(*, leak=0.0):
    greatest = np.array([[0.5, 0.25, leak], [0.5, 0.0, 0.125]], np.float32)
    path = np.array([[True, True, False], [True, False, True]])
    return Isolation(("a", "a 0", "a 1"), (1, 2), greatest, path)


def test_a_matrix_without_leaks_reads_as_a_grid():
    assert str(isolation()) == (
        "loss of  + its path moves it   . exactly 0   ! leak   (one column a node)\na 0  ++.\na 1  +.+"
    )
    assert isolation().error == 0.0
    assert isolation().cases == 2


def test_a_leak_is_named_in_text_data_and_picture():
    found = isolation(leak=1e-30)
    assert found.leaks == [("a 0", "a 1", pytest.approx(1e-30))]
    assert str(found).splitlines()[1:] == [
        "a 0  ++!",
        "a 1  +.+",
        "leak: a 1 moves the loss of a 0 by 1.0e-30",
    ]
    assert found.to_dict()["leaks"] == [{"loss": "a 0", "moved_by": "a 1", "greatest": found.error}]
    picture = found.picture()
    assert picture.getpixel((picture.width - 1, 0)) == RED
    assert picture.getpixel((picture.width // 2, picture.height - 1)) == WHITE


def test_a_gradient_that_is_no_number_is_a_leak_and_json_without_nan():
    found = isolation(leak=np.nan)
    assert len(found.leaks) == 1
    assert np.isnan(found.error)
    broken = Verification((Finding(3, "no leak", float("inf"), 0.0, 1, "it stopped"),), found)
    data = json.loads(json.dumps(broken.to_dict(), allow_nan=False))
    assert data["isolation"]["greatest"][0] == [0.5, 0.25, None]
    assert data["findings"][0]["error"] is None
    assert str(broken).startswith("law  3  BROKEN  no leak: it stopped\n")


def test_a_matrix_of_many_nodes_is_left_to_json():
    names = tuple(map(str, range(100)))
    found = Isolation(names, (0,), np.zeros((1, 100), np.float32), np.eye(1, 100, dtype=bool))
    assert str(found) == "100 nodes: --json prints the matrix"


@pytest.mark.parametrize("most", [16, 512])
def test_the_picture_of_a_mask_shows_the_share_of_pairs(most):
    given = row(0, trees=2, nodes=4, vision=9)
    mask = visibility.dense(given.order, given.end, given.group)
    size = -(-len(given) // most)
    blocks = -(-len(given) // size)
    pixels = np.asarray(mask_picture(given, most=most)).astype(float)
    times = max(most // blocks, 1)
    assert pixels.shape == (blocks * times, blocks * times, 3)
    edges = np.minimum(np.arange(blocks + 1) * size, len(given))
    for i in range(blocks):
        for j in range(blocks):
            share = mask[edges[i] : edges[i + 1], edges[j] : edges[j + 1]].mean()
            wanted = 255 - share * (255 - np.array((47, 109, 181)))
            assert np.abs(pixels[i * times, j * times] - wanted).max() <= 0.5


def test_the_trees_of_a_mask_are_told_apart():
    given = dataclasses.replace(row(8), lengths=(3, 5))
    picture = mask_picture(given, most=16)
    assert {picture.getpixel((6, place)) for place in range(16)} == {(194, 87, 26)}
    assert picture.getpixel((7, 0)) == WHITE


def test_the_picture_of_a_long_row_is_small():
    given = row(36_864)
    mask_picture(row(600))
    tracemalloc.start()
    picture = mask_picture(given)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert picture.size == (512, 512)
    assert most < 100e6
    assert picture.getpixel((511, 0)) == WHITE


def test_a_page_shows_laws_problems_leaks_and_mask(tmp_path):
    findings = (
        Finding(3, "no leak", 0.5, 0.0, 2),
        Finding(13, "no answer", float("inf"), 0.0, 1, "it <stopped>"),
    )
    Verification(findings, isolation(leak=0.5), row(40)).write(tmp_path / "laws.html")
    page = (tmp_path / "laws.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    for text in ("BROKEN", "no leak", "Law 13: it &lt;stopped&gt;", "is moved by", "a 1"):
        assert text in page


def test_a_mask_alone_is_a_picture(tmp_path):
    Verification((), None, row(40)).write(tmp_path / "new" / "mask.png")
    with PIL.Image.open(tmp_path / "new" / "mask.png") as picture:
        assert picture.size == (480, 480)
    with pytest.raises(ValueError, match="has no mask to draw"):
        Verification(()).write(tmp_path / "mask.png")
