"""Trees and rows as they are shown: the right pixels, every token, every weight."""

import base64
import io
import re

import numpy as np
import PIL.Image
import pytest

from hedgerow.content import Image, Point, Points, Text, Tracks, Video
from hedgerow.data.index import Examples
from hedgerow.data.measure import Maker
from hedgerow.data.mixture import DataSet
from hedgerow.encode import Encoder
from hedgerow.errors import RecipeError
from hedgerow.recipe import load_recipe
from hedgerow.report import trees as blocks
from hedgerow.report.trees import Shades, media_pictures, row_block, tree_block
from hedgerow.report.view import view, view_file, weights_note
from hedgerow.sequence import Budget, Row
from hedgerow.testing import TINY_VISION, tiny_encoder, tiny_recipe, write_jsonl, write_mp4, write_png
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.tree import Branch, Message, MessageTree, write_trees
from hedgerow.vision.processor import Molmo2Processor
from hedgerow.weights import Weighting
from hedgerow.weights.spans import Opening, Spans

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    return {
        "video": Video(str(write_mp4(folder / "v.mp4"))),
        "wide": Image(str(write_png(folder / "a.png", size=(60, 40)))),
        "tall": Image(str(write_png(folder / "b.png", size=(20, 80)))),
    }


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn on each picture: the points, true and predicted."""
    found = []

    def draw(picture, *, true, predicted):
        found.append((picture.size, list(true), list(predicted)))
        return picture

    monkeypatch.setattr(blocks, "draw", draw)
    return found


def user(*content):
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in content))


def bot(*content):
    return Message("assistant", tuple(Text(part) if isinstance(part, str) else part for part in content))


def test_a_video_is_shown_frame_by_frame_with_the_points_of_its_time(media, encoder, drawn):
    points = Points("p", (Point(0.25, 0.5, time=0.5), Point(0.75, 0.5, time=0.5)))
    tracks = Tracks("t", (Point(0.1, 0.1, id=1, time=0.0), Point(0.2, 0.2, id=1, time=1.5)))
    tree = MessageTree(
        "t", (user(media["video"]),), (Branch((user("?"), bot(points))), Branch((user("!"), bot(tracks))))
    )
    block = tree_block(tree, encoder)
    assert [picture.caption for picture in block.pictures] == ["0.0 s", "0.5 s", "1.0 s", "1.5 s"]
    assert [[point.x for point in true] for _, true, _ in drawn] == [[0.1], [0.25, 0.75], [], [0.2]]
    assert {size for size, _, _ in drawn} == {(240, 180)}  # the shape of the video, not of a crop
    shown = PIL.Image.open(io.BytesIO(base64.b64decode(block.pictures[1].source.split(",")[1])))
    bright = np.asarray(shown.convert("L"), float).mean(0)
    assert 16 / 64 - 0.05 < bright.argmax() / len(bright) < 24 / 64 + 0.05  # where the square is at 0.5 s


def test_points_stand_on_the_image_that_their_branch_shows(media, encoder, drawn):
    """Numbers count along a path: image 2 of the second branch is the third of the tree."""
    on = [Points("p", (Point(x, 0.5, image=number),)) for x, number in ((0.1, 1), (0.2, 2), (0.3, 2))]
    timed = Points("p", (Point(0.4, 0.5, time=1.0),))
    tree = MessageTree(
        "t",
        (user(media["wide"], "One."),),
        (
            Branch((user("?"), bot(on[0]))),
            Branch((user(media["tall"], "?"), bot(on[1]))),
            Branch(
                (user(media["wide"], "?"), bot(on[2])), (Branch((user(media["video"], "?"), bot(timed))),)
            ),
            Branch((user("nothing"), bot("to see"))),
        ),
    )
    block = tree_block(tree, encoder)
    captions = ["image 1", "image 2", "image 3", "0.0 s", "0.5 s", "1.0 s", "1.5 s"]
    assert [picture.caption for picture in block.pictures] == captions
    assert [[point.x for point in true] for _, true, _ in drawn] == [[0.1], [0.2], [0.3], [], [], [0.4], []]
    assert [size for size, _, _ in drawn[:3]] == [(240, 160), (60, 240), (240, 160)]


def test_what_was_predicted_is_drawn_beside_the_truth_or_left_out(media, encoder, drawn):
    tree = MessageTree("t", (user(media["wide"], media["tall"], "?"), bot("x")))
    (prompt,) = encoder.prompts(tree, tree.nodes())
    true = [Points("p", (Point(0.1, 0.5, image=1),))]
    predicted = [Points("p", (Point(0.2, 0.5, image=2), Point(0.3, 0.5, image=7), Point(0.4, 0.5, time=1.0)))]
    pictures = media_pictures(prompt, encoder.layouts(tree), true, predicted)
    assert [picture.caption for picture in pictures] == ["image 1", "image 2"]
    assert [([p.x for p in one], [p.x for p in other]) for _, one, other in drawn] == [
        ([0.1], []),
        ([], [0.2]),
    ]


def test_no_more_pictures_are_made_than_asked_for(media, encoder, drawn):
    tree = MessageTree("t", (user(media["video"], media["video"], "?"), bot("x")))
    assert len(media_pictures(encoder(tree), encoder.layouts(tree), [], most=5)) == 5
    assert len(drawn) == 5
    tree = MessageTree("t", (user(*[media["video"]] * 4, "?"), bot("x")))
    assert len(tree_block(tree, encoder).pictures) == blocks.MOST == 12


def test_every_token_is_shown_once_with_its_weight(media, encoder):
    tree = MessageTree(
        "t",
        (user(media["wide"], "Look."),),
        (
            Branch((user("Say."), bot("1 2 3 4")), task="qa"),
            Branch((user("Where?"), bot(Points("x", (Point(0.5, 0.5),)))), task="pointing"),
            Branch((user("And?"),)),
        ),
    )
    block, sequence = tree_block(tree, encoder), encoder(tree)
    assert [branch.depth for branch in block.branches] == [0, 1, 1, 1]
    assert [branch.title for branch in block.branches] == [
        "root ", "0 qa: answer of 4 tokens, weight 2 each",
        f"1 pointing: answer of {sequence.samples[1].n} tokens, weight 0.2 each", "2 ",
    ]  # fmt: skip
    count = 0
    for branch in block.branches:
        for token in branch.tokens:
            run = re.fullmatch(r"<im_patch>x(\d+)", token.text)
            count += int(run[1]) if run else 1
    assert count == len(sequence)
    weighed = [[token for token in branch.tokens if token.shade is not None] for branch in block.branches]
    assert [len(tokens) for tokens in weighed] == [0, 5, sequence.samples[1].n + 1, 0]
    assert "".join(token.text for token in weighed[1]) == "1 2 3 4<|im_end|>"
    assert {token.shade for token in weighed[1]} == {1.0}
    assert {round(token.shade, 6) for token in weighed[2]} == {0.12}  # the lightest
    assert {token.note for token in weighed[2]} == {"weight 0.2"}


def test_a_title_tells_the_weights_that_weighers_and_data_leave(encoder):
    weights = Weighting(spans=Spans(opening=Opening(factor=0.0)))
    answers = ("Sure! Here is the caption: A cat.", Text("plain but heavy", weight=3.0), "1")
    tree = MessageTree(
        "t",
        (user("Look."),),
        tuple(Branch((user("Say."), bot(answer)), task="qa") for answer in answers),
    )
    encoder = tiny_encoder(weights=weights)
    block, sequence = tree_block(tree, encoder), encoder(tree)
    for number, branch in enumerate(block.branches[1:]):
        sample = sequence.samples[number]
        own = sequence.weight[sequence.sample == number]
        told = f"{number} qa: answer of {sample.n} token{'s' if sample.n > 1 else ''}, "
        if number == 2:
            assert branch.title == f"{told}weight 4 each"
        else:
            assert own.min() < own.max()
            base = f"base weight {sample.weight:.3g}, tokens weigh {own.min():.3g} to {own.max():.3g}"
            assert branch.title == told + base
    assert block.title.endswith(
        f"(qa {sequence.samples[0].n} tokens, qa {sequence.samples[1].n} tokens, qa 1 token)"
    )
    assert any(token.shade == 0 and token.note == "weight 0" for token in block.branches[1].tokens)


def test_ranks_are_told():
    branches = tuple(Branch((bot(text),), rank=rank) for rank, text in enumerate(("good", "bad")))
    tree = MessageTree("t", (user("Hi"),), (Branch((user("?"),), branches),))
    titles = [branch.title.split(":")[0] for branch in tree_block(tree, tiny_encoder()).branches]
    assert titles == ["root ", "0 ", "0.0 , rank 0 (best)", "0.1 , rank 1"]


def test_shades_tell_small_weights_apart_beside_a_great_one():
    shades = Shades.of([np.array([0.0, 0.02, 0.2]), np.array([20.0])])
    found = [shades(weight) for weight in (0.0, 0.02, 0.2, 2.0, 20.0)]
    assert found[0] == 0
    assert found[1] == pytest.approx(0.12)
    assert np.diff(found[1:]) == pytest.approx([0.88 / 3] * 3)  # equal factors are equal steps
    assert found[-1] == 1
    assert shades(1e-9) == found[1]  # not to be taken for 0
    assert [token.shade for token in shades.scale()] == sorted(token.shade for token in shades.scale())
    assert [token.text for token in shades.scale()][::5] == ["0", "20"]


def test_nearly_equal_weights_are_shaded_alike_and_negative_ones_told():
    shades = Shades.of([np.array([1.0, 1.1, -0.5])])
    assert shades(1.0) > 0.9
    assert shades(-1.1) == -1
    assert shades.scale()[-1].shade == -1
    assert not any(token.shade < 0 for token in Shades.of([np.array([1.0])]).scale())
    assert Shades.of([])(1.0) == Shades.of([np.zeros(3)])(1.0) == 1


@pytest.mark.parametrize("groups", ["message", "none"])
def test_a_row_shows_what_is_vision_text_and_answer(media, groups):
    encoder = Encoder(ChatFormat(load_tokenizer()), Molmo2Processor(**TINY_VISION, groups=groups))
    image = MessageTree("i", (user(media["wide"]), bot("A cat.")))
    text = MessageTree("t", (user("Hi"),), (Branch((bot("a"),)), Branch((bot("b"),))))
    sequences = [encoder(image), encoder(text)]
    row = Row.join(sequences, Budget(tokens=200, crops=8), pad=True)
    block = row_block(row, 3)
    assert block.title.startswith("Row 3: 2 trees: ")
    assert [name for name, _ in block.trees] == ["i", "t"]
    for (_, pieces), sequence in zip(block.trees, sequences, strict=True):
        assert sum(piece.share for piece in pieces) == pytest.approx(len(sequence) / 200)
        by_tone = {
            tone: sum(p.share for p in pieces if p.tone == tone) * 200 for tone in ("vision", "answer")
        }
        assert by_tone["answer"] == pytest.approx(len(sequence.target))
        if groups == "message":
            assert by_tone["vision"] == pytest.approx((sequence.group >= 0).sum())
        else:
            assert by_tone["vision"] == pytest.approx(len(sequence.slot))
    assert block.trees[0][1][-1].note.endswith(" tokens")


def page_of(tmp_path, encoder, *given):
    write_trees(tmp_path / "d.jsonl", given)
    budget = Budget(tokens=300, crops=16)
    examples = Examples.read([DataSet(tmp_path / "d.jsonl")], Maker(encoder, budget=budget))
    viewed = view(examples, budget, out=tmp_path / "page.html")
    return viewed, (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["text", "image", "video"])
def test_a_page_of_one_kind_of_tree_is_whole(media, encoder, tmp_path, kind):
    shown = {"text": (), "image": (media["wide"],), "video": (media["video"],)}[kind]
    tree = MessageTree(f"only-{kind}", (user(*shown, "Look."), bot("Seen.")))
    viewed, html = page_of(tmp_path, encoder, tree)
    assert (viewed.trees, viewed.rows, viewed.dropped) == (1, 1, ())
    assert html.count("<img ") == {"text": 0, "image": 1, "video": 4}[kind]
    assert f"only-{kind}" in html
    assert "Dropped" not in html
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert not re.search(r"https?://", html)


def test_hostile_trees_stay_text(media, encoder, tmp_path):
    points = Points(HOSTILE, (Point(0.5, 0.5),))
    tree = MessageTree(
        HOSTILE,
        (user(media["wide"], HOSTILE),),
        (Branch((user(HOSTILE), bot(points)), task="pointing"), Branch((user(HOSTILE), bot(HOSTILE)))),
        source=HOSTILE,
    )
    _, html = page_of(tmp_path, encoder, tree)
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_a_page_shows_some_and_counts_all(encoder, tmp_path):
    trees = [MessageTree(f"t{number}", (user("Hi"), bot("word " * 30))) for number in range(30)]
    write_trees(tmp_path / "d.jsonl", trees)
    budget = Budget(tokens=120, crops=1)
    examples = Examples.read([DataSet(tmp_path / "d.jsonl")], Maker(encoder, budget=budget))
    viewed = view(examples, budget, out=tmp_path / "page.html", most=6)
    html = (tmp_path / "page.html").read_text()
    rows = int(re.search(r"of (\d+) rows", html)[1])
    assert (viewed.trees, viewed.rows) == (30, rows)
    assert f"Showing 6 of 30 trees and 3 of {rows} rows; `data view --trees`" in html
    assert html.count("<details>") == 6
    assert html.count('class="row"') == 3


def test_a_file_is_shown_without_a_recipe(media, tmp_path):
    bad = {"id": "b", "messages": []}
    good = MessageTree("g", (user(media["video"], "?"), bot("x"))).to_dict()
    path = write_jsonl(tmp_path / "d.jsonl", [bad, good])
    viewed = view_file(path, None, out=tmp_path / "page.html")
    assert str(viewed).splitlines()[0] == f"{tmp_path / 'page.html'}: 1 trees, 1 packed rows, 1 dropped"
    assert str(viewed).splitlines()[1].startswith(f"  dropped {path}:1: messages")
    assert f"{path}:1" in (tmp_path / "page.html").read_text()


def test_weights_are_shaded_alike_on_all_trees_of_a_page(encoder, tmp_path):
    light = MessageTree("light", (user("Hi"), bot("word " * 60)))
    heavy = MessageTree("heavy", (user("Hi"), bot("1")))
    _, html = page_of(tmp_path, encoder, light, heavy)
    first, second = html.split("<details>")[1:]
    scale = re.search(r'<div class="tokens scale">(.*?)</div>', first)[0]
    assert scale in second
    nodes = [part.split('class="node"')[1] for part in (first, second)]
    shades = [set(re.findall(r"--shade:([\d.]+)", part)) for part in nodes]
    assert shades[1] == {"0.75"}
    assert max(shades[0]) < "0.75"


def test_tokens_of_no_weight_look_like_nothing_else(tmp_path):
    encoder = tiny_encoder(weights=Weighting(spans=Spans(opening=Opening(factor=0.0))))
    _, html = page_of(tmp_path, encoder, MessageTree("t", (user("Hi"), bot("Sure! Here is it: a cat."))))
    spans = re.findall(r'<span class="(\w+)"( style="[^"]*")? title="weight ([\d.]+)">', html)
    assert {look for look, _, weight in spans if weight == "0"} == {"zero"}
    assert {look for look, _, weight in spans if weight != "0"} == {"loss"}


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


def test_more_trees_are_shown_when_asked_for(tmp_path):
    trees = [MessageTree(f"t{number}", (user("Hi"), bot("x"))) for number in range(30)]
    write_trees(tmp_path / "d.jsonl", trees)
    for most, text in ((1, "Showing 1 of 30 trees and 1 of "), (40, "Showing 30 of 30 trees")):
        view_file(tmp_path / "d.jsonl", None, out=tmp_path / "page.html", most=most)
        html = (tmp_path / "page.html").read_text()
        assert text in html
        assert ("--trees" in html) == (most < 30)
    with pytest.raises(RecipeError, match="trees is 0"):
        view_file(tmp_path / "d.jsonl", None, out=tmp_path / "page.html", most=0)
