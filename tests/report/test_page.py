"""A page is one file that fetches nothing, says what it was given, and lets no text become markup."""

import base64
import dataclasses
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import numpy as np
import PIL.Image
import pytest

from hedgerow.report import page
from hedgerow.report.figure import Figure
from hedgerow.report.page import (
    Branch,
    Chart,
    Fill,
    Missing,
    Packed,
    Picture,
    Pictures,
    Piece,
    Placed,
    Problem,
    Section,
    Table,
    Text,
    Tile,
    Token,
    Tree,
    Trees,
    exact_uri,
    show,
    small_uri,
    write_page,
)
from hedgerow.report.shades import Shades

HOSTILE = """<script>alert("1")</script> "onload='x' &amp; <img src=http://evil.example/a.png>"""
VOID = {"meta", "link", "img", "line", "circle", "br", "input"}
SCRIPT = Path(page.__file__).parent / "templates" / "page.js"


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links, self.handlers, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [
            value for name, value in attrs if name in ("src", "href", "action", "data", "srcset", "poster")
        ]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(path):
    reader = Reader()
    html = path.read_text(encoding="utf-8")
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader, html


def is_self_contained(reader, html):
    """No link leaves the page, and the only script is the page's own, where trees are paged."""
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert [script.strip() for script in scripts] in ([], [SCRIPT.read_text(encoding="utf-8").strip()])
    assert reader.tags.count("script") == len(scripts) == ('class="listing"' in html)
    assert all(link.startswith(("data:", "#")) for link in reader.links), reader.links
    assert reader.handlers == []
    assert not {"iframe", "object", "embed", "base", "form"} & set(reader.tags)
    styles = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    return True


def blocks(text):
    """One block of each kind, with a text wherever one may stand."""
    tiles = (Tile(text, 0.0, 0.0, 0.5, 1.0), Tile("2", 0.5, 0.0, 0.5, 1.0))
    picture = Picture(small_uri(PIL.Image.new("RGB", (4, 4))), text, (4, 4), (2, 3), tiles)
    plain = Picture(small_uri(PIL.Image.new("RGB", (4, 4))), text)
    tokens = (
        Token([(text, False), ("<im_patch>x9", True)], None, 10),
        Token([(text, False)], 0.5),
        Token([(text, True)], 0.0),
        Token([(text, False)], -1.0, 2),
    )
    tree = Tree(
        text,
        [picture],
        [Branch(text, 0, tokens, text), Branch(text, 1, tokens[:1]), Branch(text, 1, ())],
        Shades(0.1, 1.0, below=True),
        facts=text,
        tasks={text: 2, "qa": 1},
        problems=[Problem(text, text)],
        notes=[text],
        of=5,
    )
    return [
        Text(text),
        Table((text, "n"), [(text, 1234567), (None, 0.123456)], caption=text),
        Chart(text, {text: [(1, 2.0), (2, 1.0)], "other": [(1, 0.5)]}, x=text, y=text),
        Pictures([plain, picture]),
        tree,
        Trees([tree, tree], [Missing(text, text)], Shades(0.1, 4.0)),
        Packed(
            text,
            [
                Placed(text, [Piece(0.3, "vision", text), Piece(0.2, "answer", text)], "t0"),
                Placed("b", [Piece(0.1, "text", "c")]),
            ],
            [Fill(text, 30, 40), Fill("crops", 0, 0)],
            Figure(text, PIL.Image.new("RGB", (4, 4)), text, text, [((1, 2, 3), text)]),
        ),
    ]


KINDS = ("text", "table", "chart", "pictures", "tree", "trees", "packed")


def test_there_is_an_example_of_every_kind_of_block():
    """A kind that is added must be added here, so that it is rendered and escaped below."""
    declared = {
        kind.__dataclass_fields__["kind"].default
        for kind in vars(page).values()
        if dataclasses.is_dataclass(kind)
        and "kind" in kind.__dataclass_fields__
        and kind not in (Figure, Problem)  # a figure stands in for a chart; a problem has a kind of its own
    }
    assert declared == set(KINDS) == {block.kind for block in blocks("x")}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_block_is_drawn_and_says_its_text(tmp_path, kind):
    (block,) = (block for block in blocks("Hello there") if block.kind == kind)
    empty, _ = read(write_page(tmp_path / "empty.html", "T", [Section("S", [])]))
    reader, html = read(write_page(tmp_path / "page.html", "T", [Section("S", [block])]))
    assert is_self_contained(reader, html)
    assert len(reader.tags) > len(empty.tags)
    marks = {
        "text": ["p"], "table": ["table", "caption", "th", "td"], "chart": ["svg", "polyline"],
        "pictures": ["figure", "img", "figcaption"], "tree": ["details", "summary", "img", "u", "s", "b"],
        "trees": ["details", "noscript", "input", "select", "script"], "packed": ["h3", "dl", "img", "a"],
    }  # fmt: skip
    assert set(marks[kind]) <= set(reader.tags)
    assert html.count("Hello there") >= 1


def test_a_caption_is_no_wider_than_what_is_seen_of_its_table(tmp_path):
    table = Table(("a", "b"), [("x" * 300, 1)], caption="why")
    _, html = read(write_page(tmp_path / "page.html", "T", [Section("S", [table])]))
    assert "<caption><span>why</span></caption>" in html
    (scroll,) = re.findall(r"\.scroll \{([^}]*)\}", html)
    (shown,) = re.findall(r"caption span \{([^}]*)\}", html)
    assert "container-type: inline-size" in scroll  # the width that 100cqi is of
    assert {"position: sticky", "left: 0", "max-width: 100cqi"} <= {part.strip() for part in shown.split(";")}


def test_hostile_text_stays_text_everywhere(tmp_path):
    sections = [Section(HOSTILE, blocks(HOSTILE)), Section("other", [])]
    reader, html = read(write_page(tmp_path / "page.html", HOSTILE, sections, subtitle=HOSTILE))
    assert is_self_contained(reader, html)
    assert html.count("<script") == html.count("<script>\n// ") == 1  # the page's own
    assert "<img src=http" not in html
    shown = "".join(reader.text)
    assert shown.count(HOSTILE) >= 40  # and is shown as it was written
    plain, _ = read(
        write_page(tmp_path / "plain.html", "a", [Section("a", blocks("a")), Section("b", [])], subtitle="a")
    )
    assert reader.tags == plain.tags


def test_a_page_has_a_title_a_way_to_each_section_and_no_icon_to_fetch(tmp_path):
    path = write_page(
        tmp_path / "deep" / "page.html", "My run", [Section("One", []), Section("Two", [])], subtitle="why"
    )
    reader, html = read(path)
    assert [link for link in reader.links if link.startswith("#")] == ["#s1", "#s2"]
    assert html.count('id="s1"') == html.count('id="s2"') == 1
    assert "<title>My run</title>" in html
    assert 'lang="en"' in html
    assert list(path.parent.iterdir()) == [path]  # nothing half written is left
    assert not html.rstrip().endswith("endif %}")


def test_a_page_is_replaced_whole(tmp_path):
    path = write_page(tmp_path / "page.html", "old", [])
    write_page(path, "new", [])
    assert "old" not in path.read_text()


def test_a_block_of_no_known_kind_is_an_error(tmp_path):
    with pytest.raises(jinja2.UndefinedError):
        write_page(tmp_path / "page.html", "T", [Section("S", [Picture("data:,", "x")])])
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.123456, "0.123"), (12345.6, "12,346"), (1234567, "1,234,567"), ("a", "a"), (0.0, "0")],
)
def test_cells_are_short(value, text):
    assert show(value) == text


def opened(uri):
    head, data = uri.split(",")
    return head, PIL.Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(("write", "kind"), [(small_uri, "webp"), (exact_uri, "png")])
def test_pictures_are_files_in_the_page(write, kind):
    head, found = opened(write(PIL.Image.new("RGB", (6, 3), (200, 0, 0))))
    assert head == f"data:image/{kind};base64"
    assert found.format.lower() == kind
    assert found.size == (6, 3)


def test_drawings_are_exact():
    for colours in (7, 2000):
        pixels = np.random.default_rng(0).integers(0, 256, (colours, 3), np.uint8)
        drawing = PIL.Image.fromarray(np.tile(pixels, (1, 3)).reshape(colours, 3, 3))
        assert (np.asarray(opened(exact_uri(drawing))[1].convert("RGB")) == np.asarray(drawing)).all()


def test_tokens_say_their_weight_and_how_many_they_are(tmp_path):
    tokens = [Token([("a<b> & c", False), ("<end>", True)], 0.25, 3), Token([("x", False)], 0.0)]
    tree = Tree("t", [], [Branch("root", 0, tokens)], Shades(0.25, 4.0))
    _, html = read(write_page(tmp_path / "page.html", "T", [Section("S", [tree])]))
    assert '<u style="--w:0.12" title="3 tokens, weight 0.25">a&lt;b> &amp; c<b>&lt;end></b></u>' in html
    assert '<s title="weight 0">x</s>' in html


def test_nodes_stand_inside_those_they_continue(tmp_path):
    depths = (0, 1, 2, 2, 1, 2, 3, 1)
    tree = Tree("t", [], [Branch(f"b{n}", depth, ()) for n, depth in enumerate(depths)], Shades(1.0, 2.0))
    _, html = read(write_page(tmp_path / "page.html", "T", [Section("S", [tree])]))
    open_, found = [], {}
    for mark in re.findall(r'<div class="node" id="\w+n(\d+)">|<(div)|<(/div)', html[html.index("texts") :]):
        if mark[2]:
            if not open_:
                break
            open_.pop()
        else:
            open_.append(mark[0])
            if mark[0]:
                found[int(mark[0])] = sum(bool(one) for one in open_) - 1
    assert tuple(found[n] for n in range(len(depths))) == depths


def test_a_page_of_which_a_block_cannot_be_written_leaves_the_old_one(tmp_path):
    path = write_page(tmp_path / "page.html", "old", [])
    with pytest.raises(TypeError):
        write_page(path, "new", [Section("S", [Table(("a",), [None])])])
    assert "old" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def lines_of(chart):
    """The points of each line, in pixels."""
    found = re.findall(r'<polyline points="([^"]*)"', str(chart.svg()))
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in found]


def test_a_chart_keeps_order_and_stays_inside(tmp_path):
    chart = Chart("t", {"a": [(0, 1.0), (10, 3.0), (20, 2.0)], "b": [(0, -1.0), (20, 0.0)]}, "x", "y")
    first, second = lines_of(chart)
    assert len(first) == 3
    assert [x for x, _ in first] == sorted(x for x, _ in first)
    assert first[0][1] > first[2][1] > first[1][1]  # higher is drawn above
    assert second[0][1] > second[1][1] > first[0][1]
    assert all(0 <= x <= 560 and 0 <= y <= 240 for line in (first, second) for x, y in line)
    assert str(chart.svg()).count("<span>") == 2


@pytest.mark.parametrize(
    "series",
    [
        {},
        {"a": []},
        {"a": [(1, math.nan)]},
        {"a": [(1, 2.0)], "b": []},
        {"a": [(1, 2.0), (2, math.nan), (3, math.inf), (4, 1.0)]},
        {"a": [(5, 0.0)]},
    ],
)
def test_a_chart_of_little_or_nothing_is_drawn(series):
    svg = str(Chart("t", series, "x", "y").svg())
    assert "nan" not in svg.replace("Nothing", "")
    assert "inf" not in svg
    assert ("Nothing to draw" in svg) == (
        not any(math.isfinite(y) for line in series.values() for _, y in line)
    )


def test_a_long_line_is_thinned_to_its_means(tmp_path):
    chart = Chart("t", {"a": [(n, float(n % 2)) for n in range(10_000)]}, "x", "y")
    (line,) = lines_of(chart)
    assert len(line) <= 240
    assert {y for _, y in line} == {line[0][1]}  # every mean is one half


def marks_of(chart):
    """Centre and radius of each ring."""
    found = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', str(chart.svg()))
    return [tuple(map(float, ring)) for ring in found]


def labels_of(chart):
    """Each text on the drawing with its place and where it is anchored."""
    found = re.findall(
        r'<text x="([\d.]+)" y="([\d.]+)"(?: text-anchor="(\w+)")?>([^<]*)</text>', str(chart.svg())
    )
    return [(float(x), float(y), anchor or "start", text) for x, y, anchor, text in found]


def test_points_that_coincide_are_seen_with_the_values_of_both_axes():
    chart = Chart("t", {"a": [(0.25, 0.0)] * 4, "b": [(0.25, 0.0)]}, "across", "up")
    rings = marks_of(chart)
    assert len(rings) == 5
    assert len({ring[:2] for ring in rings}) == 1
    assert rings[-1][2] > rings[0][2]  # the ring of the second stands around that of the first
    assert 100 < rings[0][0] < 460
    texts = [text for *_, text in labels_of(chart)]
    assert texts.count("0.25") == 2  # once as a tick of the y axis, once below
    assert {"across", "up", "0", "1"} <= set(texts)


def test_equal_lines_look_different():
    line = [(1, 0.5), (2, 0.7)]
    svg = str(Chart("t", {"a": line, "b": line, "c": line}, "x", "y").svg())
    assert len(set(re.findall(r'stroke-dasharray="([^"]*)"', svg))) == 3
    assert svg.count("repeating-linear-gradient") == 2  # and so does the legend
    long = str(Chart("t", {name: [(n, n) for n in range(99)] for name in "ab"}, "x", "y").svg())
    assert set(re.findall(r'stroke-dasharray="([^"]*)"', long)) == {""}
    assert "<circle" not in long


def test_intervals_stand_inside_and_side_by_side():
    series = {"a": [(1, 0.5), (2, 0.7)], "b": [(1, 0.5), (2, 0.7)], "level": [(1, 0.1), (2, 0.1)]}
    bars = {name: [(1, 0.2, 1.4), (2, 0.6, 0.8)] for name in "ab"}
    svg = str(Chart("t", series, "x", "y", bars).svg())
    found = re.findall(r'<line x1="([\d.]+)" x2="\1" y1="([\d.]+)" y2="([\d.]+)" stroke="(#\w+)"', svg)
    places = [float(x) for x, *_ in found]
    (edges,) = set(re.findall(r'<line x1="([\d.]+)" x2="([\d.]+)" y1="[\d.]+" y2="[\d.]+" class="grid"', svg))
    assert len(set(places)) == 4
    assert all(float(edges[0]) + 5 < x < float(edges[1]) - 5 for x in places)
    assert all(14 <= float(high) < float(low) <= 210 for _, low, high, _ in found)
    assert len({colour for *_, colour in found}) == 2


@pytest.mark.parametrize(
    ("low", "high"),
    [(-0.461, 0.475), (0.0, 0.00694), (-0.000123, 0.000321), (0, 123456.0), (-5e-7, 0.0), (0.0, 0.0)],
)
def test_ticks_are_round_and_their_labels_are_whole(low, high):
    chart = Chart("t", {"a": [(0, low), (1, high)]}, "x", "y")
    ticks = [label for label in labels_of(chart) if label[2] == "end" and label[3] != "x"]
    values = [float(text.replace(",", "")) for *_, text in ticks]
    assert 4 <= len(ticks) <= 9
    assert values[0] <= min(low, 0.0)
    assert values[-1] >= high
    assert 0.0 in values
    assert np.diff(values) == pytest.approx([values[1] - values[0]] * (len(values) - 1), rel=1e-2)
    assert all(x - 6.6 * len(text) >= 0 for x, _, _, text in ticks)  # nothing hangs over the left edge
    line = lines_of(chart)[0]
    assert all(14 <= y <= 210 for _, y in line)
