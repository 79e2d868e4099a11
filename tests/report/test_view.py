"""`data view`: a page that shows what is trained, names what is not, and works in a browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from hedgerow.content import Image, Point, Points, Text, Video
from hedgerow.data.index import Examples
from hedgerow.data.measure import Maker
from hedgerow.data.mixture import DataSet
from hedgerow.errors import RecipeError
from hedgerow.recipe import load_recipe
from hedgerow.report import view as views
from hedgerow.report.blind import blind
from hedgerow.report.view import view, view_file, weights_note
from hedgerow.sequence import Budget
from hedgerow.testing import tiny_encoder, tiny_recipe, write_jsonl, write_mp4, write_png
from hedgerow.tree import Branch, Message, MessageTree, write_trees
from hedgerow.weights import Weighting
from hedgerow.weights.spans import Opening, Spans

HOSTILE = "<script>alert(1)</script></noscript><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    return {
        "video": Video(str(write_mp4(folder / "v.mp4"))),
        "wide": Image(str(write_png(folder / "a.png", size=(60, 40)))),
    }


def user(*content):
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in content))


def bot(*content):
    return Message("assistant", tuple(Text(part) if isinstance(part, str) else part for part in content))


def page_of(tmp_path, encoder, *given, most=24, **options):
    write_trees(tmp_path / "d.jsonl", given)
    budget = Budget(tokens=360, crops=16)
    maker = Maker(encoder, budget=budget, **options)
    examples = Examples.read([DataSet(tmp_path / "d.jsonl")], maker)
    viewed = view(examples, maker, budget, out=tmp_path / "page.html", most=most)
    return viewed, (tmp_path / "page.html").read_text(encoding="utf-8")


def trees_of(html):
    """The part of a page that stands for each tree."""
    return html.split('<details class="tree" id=')[1:]


@pytest.mark.parametrize("kind", ["text", "image", "video"])
def test_a_page_of_one_kind_of_tree_is_whole(media, encoder, tmp_path, kind):
    shown = {"text": (), "image": (media["wide"],), "video": (media["video"],)}[kind]
    tree = MessageTree(f"only-{kind}", (user(*shown, "Look."), bot("Seen.")))
    viewed, html = page_of(tmp_path, encoder, tree)
    assert (viewed.trees, viewed.rows, viewed.dropped) == (1, 1, ())
    assert html.count("image/webp") == {"text": 0, "image": 2, "video": 4}[kind]
    assert html.count("image/png") == 1  # the mask
    assert f"only-{kind}" in html
    assert "dropped" not in html.split("<main>")[1].split("<script>")[0]
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert not re.search(r"https?://", html)


def test_hostile_trees_stay_text(media, encoder, tmp_path):
    points = Points(HOSTILE, (Point(0.5, 0.5),))
    tree = MessageTree(
        HOSTILE,
        (user(media["wide"], HOSTILE),),
        (Branch((user(HOSTILE), bot(points)), task=HOSTILE), Branch((user(HOSTILE), bot(HOSTILE)))),
        source=HOSTILE,
    )
    _, html = page_of(tmp_path, encoder, tree)
    assert html.count("<script") == 1
    assert html.count("</noscript>") == 1
    assert "<img src=x" not in html
    assert "&lt;script>" in html


def test_a_page_shows_some_and_counts_all(encoder, tmp_path):
    trees = [MessageTree(f"t{number}", (user("Hi"), bot("word " * 100))) for number in range(30)]
    viewed, html = page_of(tmp_path, encoder, *trees, most=6)
    rows = int(re.search(r"of (\d+) rows", html)[1])
    assert (viewed.trees, viewed.rows) == (30, rows)
    assert f"Showing 6 of 30 trees and 3 of {rows} rows; `data view --trees`" in html
    assert len(trees_of(html)) == 6
    assert html.count('class="row"') == 3
    links = re.findall(r'<a href="#(t\d+)">(t\d+)</a>', html)
    assert len(links) == 3  # rows are those of shown trees
    for place, name in links:
        assert f'id="{place}"><summary><span class="id">{name}</span>' in html


def test_what_rows_hold_and_waste_is_told(encoder, tmp_path):
    trees = [MessageTree(f"t{number}", (user("Hi"), bot("word " * 100))) for number in range(4)]
    _, html = page_of(tmp_path, encoder, *trees)
    each = encoder.measure(trees[0])["tokens"]
    rows = int(re.search(r"of (\d+) rows", html)[1])
    cells = re.findall(r'<td class="n">([\d.,]+)</td>', html.split("<td>tokens</td>")[1].split("</tr>")[0])
    assert [float(cell.replace(",", "")) for cell in cells] == pytest.approx(
        [360, 360 * rows, 4 * each, 4 * each / (360 * rows), 360 * rows - 4 * each], rel=5e-3
    )
    assert f"{each:,} of 360, {100 * each / 360:.1f} % used, {360 - each} empty" in html
    assert html.count("Who may attend to whom in a row of") == 2 * 4


def test_a_file_is_shown_without_a_recipe(media, tmp_path):
    bad = {"id": "b", "messages": []}
    good = MessageTree("g", (user(media["video"], "?"), bot("x"))).to_dict()
    path = write_jsonl(tmp_path / "d.jsonl", [bad, good])
    viewed = view_file(path, None, out=tmp_path / "page.html")
    assert str(viewed).splitlines()[0] == f"{tmp_path / 'page.html'}: 1 tree, 1 packed row, 1 dropped"
    assert str(viewed).splitlines()[1].startswith(f"  dropped {path}:1: messages")
    html = (tmp_path / "page.html").read_text()
    assert f'{path}:1</span> <span class="problem" data-problem="dropped">' in html
    assert "<frame_start>".replace("<", "&lt;") + "&lt;im_patch>x81" in html  # Molmo2's 27 patches, 3 by 3


def test_weights_are_shaded_alike_on_all_trees_of_a_page(encoder, tmp_path):
    light = MessageTree("light", (user("Hi"), bot("word " * 60)))
    heavy = MessageTree("heavy", (user("Hi"), bot("1")))
    _, html = page_of(tmp_path, encoder, light, heavy)
    assert html.count('class="tokens scale"') == 1
    shades = [set(re.findall(r"--w:([\d.]+)", part)) for part in trees_of(html)]
    assert shades == [{"0.12"}, {"1.00"}]


def test_tokens_of_no_weight_look_like_nothing_else(tmp_path):
    encoder = tiny_encoder(weights=Weighting(spans=Spans(opening=Opening(factor=0.0))))
    _, html = page_of(tmp_path, encoder, MessageTree("t", (user("Hi"), bot("Sure! Here is it: a cat."))))
    spans = re.findall(r'<([us])(?: style="[^"]*")? title="(?:\d+ tokens, )?weight ([\d.]+)">', html)
    assert {mark for mark, weight in spans if weight == "0"} == {"s"}
    assert {mark for mark, weight in spans if weight != "0"} == {"u"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"weights.schedule": "{qa: [[0, 1.0], [4, 0.5]]}"}, "before any step: without weights.schedule"),
        ({"loss.dynamic": "{name: confidence}"}, "before any step: without loss.dynamic"),
        ({"loss.preference": "{name: dpo}", "loss.reference": "model"}, "by task and length have no part"),
    ],
)
def test_a_page_says_what_of_the_weights_it_cannot_show(changes, said, tmp_path):
    ranked = tuple(Branch((bot(text),), rank=rank) for rank, text in enumerate(("good", "bad")))
    tree = MessageTree("g", (user("Hi"),), (Branch((user("?"),), ranked),))
    file = write_jsonl(tmp_path / "d.jsonl", [tree.to_dict()])
    recipe = load_recipe(tiny_recipe(tmp_path, file), changes)
    note = weights_note(recipe)
    assert (said in note, bool(note)) == (True, bool(said))
    view_file(file, recipe, out=tmp_path / "page.html")
    assert (note or "Trees") in (tmp_path / "page.html").read_text()


def test_more_trees_are_shown_when_asked_for(encoder, tmp_path):
    trees = [MessageTree(f"t{number}", (user("Hi"), bot("x"))) for number in range(30)]
    for most, text in ((1, "Showing 1 of 30 trees and 1 of "), (40, "Showing 30 of 30 trees")):
        _, html = page_of(tmp_path, encoder, *trees, most=most)
        assert text in html
        assert ("--trees" in html) == (most < 30)
    with pytest.raises(RecipeError, match="trees is 0"):
        view_file(tmp_path / "d.jsonl", None, out=tmp_path / "page.html", most=0)


def test_trees_without_pictures_say_so_and_are_the_same_otherwise(media, encoder, tmp_path, monkeypatch):
    spot = Points("p", (Point(0.5, 0.5, time=0.5),))
    trees = [
        MessageTree(f"t{number}", (user(media["video"]),), (Branch((user("?"), bot(spot, "so"))),))
        for number in range(3)
    ]
    _, whole = page_of(tmp_path, encoder, *trees)
    monkeypatch.setattr(views, "PICTURED", 1)
    _, some = page_of(tmp_path, encoder, *trees)
    assert "Pictures are of the first 1 trees." in some
    assert [part.count("image/webp") for part in trees_of(some)] == [4, 0, 0]
    texts = [[part.split('<div class="both">')[1] for part in trees_of(html)] for html in (whole, some)]
    assert texts[0] == texts[1]


def test_no_file_is_opened_for_pixels_that_are_not_shown(media, encoder, tmp_path):
    tree = MessageTree("t", (user(media["wide"], media["wide"], media["video"], "?"), bot("x")))
    whole, seen = encoder(tree), blind(encoder)(tree)
    for name in (
        "tokens",
        "position",
        "order",
        "end",
        "group",
        "slot",
        "source",
        "target",
        "weight",
        "sample",
    ):
        assert np.array_equal(getattr(whole, name), getattr(seen, name))
    assert whole.cost == seen.cost
    assert seen.vision.crops.shape[1:] == (1, 1, 3)
    assert len(seen.vision.crops) == len(whole.vision.crops)


def troubled(media):
    """Trees with problems: a branch is left out for its point, another for its size; and one without."""
    far = Points("dot", (Point(0.5, 0.5, time=0.8),))
    video = Video(media["video"].path, max_frames=2)  # shows 0.0 s and 1.5 s
    gone = MessageTree(
        "gone",
        (user(video),),
        (Branch((user("Where?"), bot(far)), task="pointing"), Branch((user("What?"), bot("That.")))),
    )
    long = MessageTree(
        "long", (user("Hi"),), tuple(Branch((user("Say."), bot("word " * n))) for n in (5, 400, 7))
    )
    return [gone, long, MessageTree("fine", (user("Hi"), bot("x")), task="text")]


def test_problems_are_told_where_they_are(media, encoder, tmp_path):
    viewed, html = page_of(tmp_path, encoder, *troubled(media), oversize="shorten")
    kinds = {
        re.search(r'class="id">(\w+)<', part)[1]: re.findall(
            r'data-problem="([^"]*)">([^<]*)<', part.split("</summary>")[0]
        )
        for part in trees_of(html)
    }
    assert kinds["fine"] == []
    assert kinds["long"] == [("shortened", "shortened by 1 branch")]
    assert kinds["gone"] == [("points lost", "1 of 1 point lost"), ("branches left out", "1 branch left out")]
    assert "branch 0 of the file, left out: points &#39;dot&#39;" in trees_of(html)[0]
    assert "Where?" not in trees_of(html)[0]  # what is not taught is not shown as if it were
    assert viewed.dropped == ()


def test_what_only_decoding_tells_to_be_bad_is_in_no_row(media, encoder, tmp_path):
    torn = write_png(tmp_path / "torn.png", size=(60, 40))
    torn.write_bytes(torn.read_bytes()[:-3000])
    bad = MessageTree("bad", (user(Image(str(torn)), "?"), bot("x")))
    good = MessageTree("good", (user(media["wide"], "?"), bot("x")))
    viewed, html = page_of(tmp_path, encoder, bad, good, on_bad="skip")
    assert [item.where for item in viewed.dropped] == [f"{tmp_path / 'd.jsonl'}:1"]
    assert (viewed.trees, len(viewed.dropped)) == (1, 1)
    assert "Showing 1 of 1 tree and 1 of 1 row. 1 example dropped, named behind the trees." in html
    assert "All trees take 1 row: as few as any packing needs." in html
    assert "bound" not in html
    assert re.findall(r"<h3>(.*?)</h3>", html) == ["Row 0: 1 tree, 2 targets"]
    assert re.findall(r'<a href="#(t\d+)">(\w+)</a>', html) == [("t0", "good")]


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

DRIVER = """<script>
window.addEventListener("load", () => setTimeout(() => {
  const el = id => document.getElementById(id), all = what => [...document.querySelectorAll(what)];
  const found = {};
  const set = (id, value) => {
    el(id).value = value;
    el(id).dispatchEvent(new Event(id === "words" ? "input" : "change"));
  };
  const look = name => {
    const ids = all(".listing > *").map(one => one.querySelector(".id").textContent);
    found[name] = { seen: el("seen").textContent, first: ids[0], n: ids.length };
  };
  found.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.target = document.querySelector(":target")?.id;
  found.texts = all(".tree[open] .node").filter(one => one.offsetParent).map(one => one.id);
  found.current = document.querySelector("nav a[aria-current]")?.textContent;
  location.hash = "";
  set("task", "qa"); look("qa"); set("task", "");
  set("problem", "dropped"); look("dropped"); set("problem", "*"); look("any"); set("problem", "");
  set("words", "TALK 7."); look("words"); set("words", "");
  look("all"); el("on").click(); look("on"); el("back").click(); look("back");
  found.tasks = [...el("task").options].map(one => one.textContent);
  const usable = all("a, button:not(:disabled), input, select, summary").filter(one => one.checkVisibility());
  found.deaf = usable.filter(one => (one.focus(), document.activeElement !== one)).length;
  document.title = "FOUND" + JSON.stringify(found);
}, 50));
</script></body>"""


def browse(path, tmp_path, *, width=1600, address="", driver=DRIVER):
    """Open a page in headless Chromium, let a script use it, and return what it found and what was logged."""
    driven = tmp_path / "driven.html"
    driven.write_text(path.read_text(encoding="utf-8").replace("</body>", driver), encoding="utf-8")
    ended = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'user'}", f"--window-size={width},900", "--dump-dom",
            "--virtual-time-budget=3000",
            f"{driven.as_uri()}{address}",
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    logged = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    title = re.search(r"<title>FOUND(.*?)</title>", ended.stdout)
    assert title, (logged, ended.stdout[:300])
    return json.loads(title[1].replace("&amp;", "&")), logged


@in_a_browser
def test_a_page_is_found_through_in_a_browser(media, tmp_path):
    talk = [
        MessageTree(
            f"talk {number}.",
            (user("Hi"),),
            (Branch((user("Why?"), bot("x")), task="qa"), Branch((bot("y"),), task="text")),
        )
        for number in range(58)
    ]
    folder = tmp_path / "data"
    folder.mkdir()
    path = write_jsonl(
        folder / "d.jsonl", [{"id": "b"}, *(tree.to_dict() for tree in [*troubled(media), *talk])]
    )
    view_file(path, None, out=tmp_path / "page.html", most=100)
    found, logged = browse(tmp_path / "page.html", tmp_path, width=400, address="#t57n2")
    assert logged == []
    assert found["wide"] == 0  # nothing hangs over the right edge
    # A tree of the second page is shown, open, with the path of its node and nothing else.
    assert (found["target"], found["texts"], found["current"]) == ("t57n2", ["t57n0", "t57n2"], "1 text: y")
    assert found["all"] == {"seen": "1 to 50 of 62", "first": "gone", "n": 50}
    assert found["on"] == {"seen": "51 to 62 of 62", "first": "talk 47.", "n": 12}
    assert found["back"] == found["all"]
    assert found["qa"]["seen"] == "1 to 50 of 60"
    assert found["dropped"] == {"seen": "1 to 1 of 1", "first": f"{path}:1", "n": 1}
    assert found["any"] == {"seen": "1 to 2 of 2", "first": "gone", "n": 2}
    assert found["words"] == {"seen": "1 to 1 of 1", "first": "talk 7.", "n": 1}
    assert found["tasks"] == ["any", "qa (60)", "text (59)"]
    assert found["deaf"] == 0  # the keyboard reaches everything
