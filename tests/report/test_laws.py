"""What a check of the laws looks like as text, data, picture and page."""

import dataclasses
import json
import tracemalloc

import numpy as np
import PIL.Image
import pytest

from hedgerow import visibility
from hedgerow.errors import RecipeError
from hedgerow.report.figure import Figure
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
    assert str(broken).endswith("\nFAILED: 1 of 1 checks, of law 3")


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


HOLDS = Finding(1, "packed is alone", 2e-8, 1e-5, 7, "", "targets", "packing changes nothing", "the row")


def test_a_finding_says_what_it_means_and_where_to_look_only_if_it_is_broken():
    first = "law  1  holds  packed is alone: error 2e-08 (at most 1e-05) in 7 targets"
    assert str(HOLDS).split("\n") == [first, " " * 15 + "packing changes nothing"]
    broken = dataclasses.replace(HOLDS, error=0.5)
    assert str(broken).split("\n")[1:] == [
        " " * 15 + "packing changes nothing",
        " " * 15 + "look at the row",
    ]
    nothing = dataclasses.replace(HOLDS, cases=0)
    assert str(nothing) == "law  1  ----  packed is alone: nothing to check in these trees"


def test_the_verdict_counts_what_ran_and_what_broke():
    broken = [dataclasses.replace(HOLDS, law=law, error=1.0) for law in (13, 3, 3)]
    nothing = dataclasses.replace(HOLDS, cases=0)
    assert Verification((HOLDS, nothing)).verdict == "passed: 1 checks, none broken"
    assert Verification((HOLDS, *broken)).verdict == "FAILED: 3 of 4 checks, of law 3, 13"


def test_a_page_shows_verdict_subject_laws_problems_leaks_trees_and_pictures(tmp_path):
    findings = (
        HOLDS,
        Finding(3, "no leak", 0.5, 0.0, 2, look="the <mask>"),
        Finding(13, "no answer", float("inf"), 0.0, 1, "it <stopped>"),
    )
    given = dataclasses.replace(row(40), examples=("one", "one"), lengths=(15, 25))
    Verification(findings, isolation(leak=0.5), given, "mine.yaml: model M, data D").write(
        tmp_path / "laws.html"
    )
    page = (tmp_path / "laws.html").read_text()
    assert "<h1>Verification FAILED: 2 of 3 checks, of law 3, 13</h1>" in page
    assert '<p class="sub">mine.yaml: model M, data D</p>' in page
    for text in (
        "<p>Law 1, holds: packing changes nothing</p>", "<p>Law 3, BROKEN: look at the &lt;mask&gt;</p>",
        "<p>Law 13, BROKEN: it &lt;stopped&gt;.</p>", "is moved by", "<td>7 targets</td>",
        "Who may attend to whom in a row of 40 tokens", "downwards: the query, which looks, 0 to 39",
        "to the right: the key, which is seen, 0 to 39", "where the next tree begins",
        "the gradient is exactly 0", "Nodes, from left to right: a, a 0, a 1.",
    ):  # fmt: skip
        assert text in page
    assert page.count("data:image/png;base64,") == page.count("<svg") == 2
    lengths = [line.split('<td class="n">')[1] for line in page.splitlines() if "<td>one</td>" in line]
    assert [line.split("<")[0] for line in lengths] == ["15", "25"]


def test_a_figure_that_is_wide_and_low_has_room_for_its_axis():
    figure = Figure("title", PIL.Image.new("RGB", (400, 10)), "right", "d" * 50, [((1, 2, 3), "ink")])
    assert 'viewBox="0 0 423 333.0"' in figure.svg()
    drawn = figure.drawn()
    assert drawn.height > 400
    assert drawn.getpixel((33, drawn.height - 52 + 20)) == (1, 2, 3)
    assert drawn.getpixel((100, 70)) == (0, 0, 0)


@pytest.mark.parametrize("name", ["mask.png", "MASK.PNG"])
def test_a_mask_alone_is_a_picture_with_axes_and_legend(tmp_path, name):
    Verification((), None, row(40)).write(tmp_path / "new" / name)
    with PIL.Image.open(tmp_path / "new" / name) as picture:
        assert picture.width > 480
        assert picture.height > 480 + 4 * 26
        colours = {colour for _, colour in picture.getcolors(1 << 20)}
        assert {(47, 109, 181), WHITE, (194, 87, 26)} <= colours  # one tree has no edge: it is the legend's
    with pytest.raises(ValueError, match="has no mask to draw"):
        Verification(()).write(tmp_path / "mask.png")
    with pytest.raises(RecipeError, match=r"mask\.pdf: name a page \(\.html\) or a picture of the mask"):
        Verification((), None, row(40)).write(tmp_path / "mask.pdf")
