"""Trees and rows as they are shown: the right pixels, every token, every weight."""

import base64
import dataclasses
import io

import numpy as np
import PIL.Image
import pytest

from hedgerow.content import Image, Point, Points, Text, Tracks, Video
from hedgerow.encode import Encoder
from hedgerow.report import pictures
from hedgerow.report.mask import mask_picture
from hedgerow.report.shades import Shades
from hedgerow.report.trees import MOST, media_pictures, row_block, tree_block
from hedgerow.sequence import Budget, Row, VisionInput
from hedgerow.testing import TINY_QWEN3_VL, TINY_VISION, tiny_encoder, write_mp4, write_png
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.vision.processor import Molmo2Processor
from hedgerow.vision.qwen3_vl import Qwen3VLProcessor
from hedgerow.weights import Weighting
from hedgerow.weights.spans import Opening, Spans


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

    monkeypatch.setattr(pictures, "draw", draw)
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
    captions = [f"{time} s, 4 of 4 windows padded" for time in (0.0, 0.5, 1.0, 1.5)]
    assert [picture.caption for picture in block.pictures] == captions
    assert [[point.x for point in true] for _, true, _ in drawn] == [[0.1], [0.25, 0.75], [], [0.2]]
    assert {size for size, _, _ in drawn} == {(240, 180)}  # the shape of the video, not of a crop
    assert {picture.size for picture in block.pictures} == {(360, 270)}  # 4 patches in 2 windows of 3
    assert {picture.grid for picture in block.pictures} == {(2, 2)}
    shown = PIL.Image.open(io.BytesIO(base64.b64decode(block.pictures[1].source.split(",")[1])))
    bright = np.asarray(shown.convert("L"), float)[45:225, 60:300].mean(0)  # without its padding
    assert 16 / 64 - 0.05 < bright.argmax() / len(bright) < 24 / 64 + 0.05  # where the square is at 0.5 s


def test_a_point_of_several_answers_is_drawn_once(media, encoder, drawn):
    point = Points("p", (Point(0.25, 0.5),))
    tree = MessageTree("t", (user(media["wide"]),), tuple(Branch((user("?"), bot(point))) for _ in range(3)))
    tree_block(tree, encoder)
    assert {len(true) for _, true, _ in drawn} == {1}


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
    block = tree_block(tree, encoder, room=10**7)  # each is drawn once
    large = [f"image {n}, of 2 crops" for n in (1, 2, 3)]
    captions = ["image 1", large[0], "image 2", large[1], "image 3", large[2]]
    assert [picture.caption.split(", 3")[0] for picture in block.pictures[:6]] == captions
    assert [picture.caption[:5] for picture in block.pictures[6:]] == ["0.0 s", "0.5 s", "1.0 s", "1.5 s"]
    xs = [[point.x for point in true] for _, true, _ in drawn]
    assert xs == [[0.1], [0.1], [0.2], [0.2], [0.3], [0.3], [], [], [0.4], []]
    assert [size for size, _, _ in drawn[:6:2]] == [(240, 160), (60, 240), (240, 160)]


def test_what_was_predicted_is_drawn_beside_the_truth_or_left_out(media, encoder, drawn):
    tree = MessageTree("t", (user(media["wide"], media["tall"], "?"), bot("x")))
    (prompt,) = encoder.prompts(tree, tree.nodes())
    true = [Points("p", (Point(0.1, 0.5, image=1),))]
    predicted = [Points("p", (Point(0.2, 0.5, image=2), Point(0.3, 0.5, image=7), Point(0.4, 0.5, time=1.0)))]
    pictures = media_pictures(prompt, encoder.layouts(tree), true, predicted)
    assert [picture.caption for picture in pictures] == ["image 1", "image 2"]  # of each the small view
    assert [([p.x for p in one], [p.x for p in other]) for _, one, other in drawn] == [
        ([0.1], []),
        ([], [0.2]),
    ]


def test_no_more_pictures_are_made_than_asked_for(media, encoder, drawn):
    tree = MessageTree("t", (user(media["video"], media["video"], "?"), bot("x")))
    assert len(media_pictures(encoder(tree), encoder.layouts(tree), [], most=5)) == 5
    assert len(drawn) == 5
    tree = MessageTree("t", (user(*[media["video"]] * 4, "?"), bot("x")))
    block = tree_block(tree, encoder)
    assert (len(block.pictures), block.of) == (MOST, 16)
    assert [block.pictures[n].caption[:5] for n in (0, -1)] == ["0.0 s", "1.5 s"]
    assert tree_block(tree, encoder, room=0).pictures == []


def test_pictures_keep_to_their_room(media, encoder):
    tree = MessageTree("t", (user(media["video"], "?"), bot("x")))
    for room, most in ((60_000, 4), (20_000, 4), (6_500, 2)):
        block = tree_block(tree, encoder, room=room)
        taken = sum(len(picture.source) for picture in block.pictures)
        assert 0.2 * room < taken <= room
        assert (len(block.pictures), block.of) == (most, 4)
    (least,) = tree_block(tree, encoder, room=1).pictures
    assert max(least.size) == 96 * 3 // 2  # the least size, and the padding around


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
        "root", "0 qa: answer of 4 tokens, weight 2 each",
        f"1 pointing: answer of {sequence.samples[1].n} tokens, weight 0.2 each", "2",
    ]  # fmt: skip
    assert [branch.label for branch in block.branches] == [
        "root: Look.", "0 qa: Say.", "1 pointing: Where?", "2: And?",
    ]  # fmt: skip
    assert [sum(token.count for token in branch.tokens) for branch in block.branches] == list(
        encoder.lengths(tree)
    )
    weighed = [[token for token in branch.tokens if token.weight is not None] for branch in block.branches]
    assert [[token.count for token in tokens] for tokens in weighed] == [
        [], [5], [sequence.samples[1].n + 1], [],
    ]  # fmt: skip
    assert weighed[1][0].parts == [("1 2 3 4", False), ("<|im_end|>", True)]
    assert [token.weight for token in weighed[1]] == [2.0]
    assert weighed[2][0].weight == pytest.approx(0.2)
    assert block.shades(0.2) == pytest.approx(0.12)  # the lightest
    assert block.tasks == {"qa": 1, "pointing": 1}
    assert block.facts.endswith(f" {len(sequence.target)} targets")


def test_the_text_of_a_path_is_what_the_model_is_given(media):
    """Node by node, in logical order; patches are counted, and text of many bytes is not torn."""
    encoder = tiny_encoder()
    tree = MessageTree(
        "t",
        (user(media["tall"], "日本語 <|im_end|>?"),),
        (Branch((bot("naïve — "),)), Branch((user(media["video"], "so"), bot("No.")))),
    )
    texts = ["".join(token.text for token in branch.tokens) for branch in tree_block(tree, encoder).branches]
    assert texts == [
        "<low_res_im_start><im_patch>x4<im_end><im_start>(<im_patch>x2<im_col>)x3<im_end>"
        "<|im_start|>user\n日本語 <|im_end|>?<|im_end|>\n",
        "<|im_start|>assistant\nnaïve — <|im_end|>\n",
        "0.0 <frame_start><im_patch>x4<frame_end> 0.5 <frame_start><im_patch>x4<frame_end> "
        "1.0 <frame_start><im_patch>x4<frame_end> 1.5 <frame_start><im_patch>x4<frame_end>"
        "<|im_start|>user\nso<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n",
    ]
    root = [part for token in tree_block(tree, encoder).branches[0].tokens for part in token.parts]
    assert ("日本語 <|im_end|>?", False) in [(text.removeprefix("user\n"), mark) for text, mark in root]


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
    assert block.tasks == {"qa": 3}
    assert any(token.weight == 0 for token in block.branches[1].tokens)


def test_ranks_are_told():
    branches = tuple(Branch((bot(text),), rank=rank) for rank, text in enumerate(("good", "bad")))
    tree = MessageTree("t", (user("Hi"),), (Branch((user("?"),), branches),))
    titles = [branch.title.split(":")[0] for branch in tree_block(tree, tiny_encoder()).branches]
    assert titles == ["root", "0", "0.0, rank 0 (best)", "0.1, rank 1"]


def test_shades_tell_small_weights_apart_beside_a_great_one():
    shades = Shades.of([np.array([0.0, 0.02, 0.2]), np.array([20.0])])
    found = [shades(weight) for weight in (0.0, 0.02, 0.2, 2.0, 20.0)]
    assert found[0] == 0
    assert found[1] == pytest.approx(0.12)
    assert np.diff(found[1:]) == pytest.approx([0.88 / 3] * 3)  # equal factors are equal steps
    assert found[-1] == 1
    assert shades(1e-9) == found[1]  # not to be taken for 0
    scale = shades.scale()
    assert scale == sorted(scale)
    assert scale[::5] == pytest.approx([0, 20])
    assert scale[1] == pytest.approx(0.02)


def test_nearly_equal_weights_are_shaded_alike_and_negative_ones_told():
    shades = Shades.of([np.array([1.0, 1.1, -0.5])])
    assert shades(1.0) > 0.9
    assert shades(-1.1) == -1
    assert shades.scale()[-1] < 0
    assert min(Shades.of([np.array([1.0])]).scale()) == 0
    assert Shades.of([])(1.0) == Shades.of([np.zeros(3)])(1.0) == 1


@pytest.mark.parametrize("groups", ["message", "none"])
def test_a_row_shows_what_is_vision_text_and_answer(media, groups):
    encoder = Encoder(ChatFormat(load_tokenizer()), Molmo2Processor(**TINY_VISION, groups=groups))
    image = MessageTree("i", (user(media["wide"]), bot("A cat.")))
    text = MessageTree("t", (user("Hi"),), (Branch((bot("a"),)), Branch((bot("b"),))))
    sequences = [encoder(image), encoder(text)]
    row = Row.join(sequences, Budget(tokens=200, crops=8), pad=True)
    block = row_block(row, 3, ["t7", ""])
    assert block.title == f"Row 3: 2 trees, {len(row.target)} targets"
    assert [(tree.name, tree.link) for tree in block.trees] == [("i", "t7"), ("t", "")]
    fills = [(fill.name, fill.used, fill.most) for fill in block.fills]
    assert fills == [("tokens", sum(map(len, sequences)), 200), ("crops", 3, 8)]
    assert block.fills[1].share == 3 / 8
    assert block.mask.picture.size == mask_picture(row).size
    for pieces, sequence in zip((tree.pieces for tree in block.trees), sequences, strict=True):
        assert sum(piece.share for piece in pieces) == pytest.approx(len(sequence) / 200)
        by_tone = {
            tone: sum(p.share for p in pieces if p.tone == tone) * 200 for tone in ("vision", "answer")
        }
        assert by_tone["answer"] == pytest.approx(len(sequence.target))
        if groups == "message":
            assert by_tone["vision"] == pytest.approx((sequence.group >= 0).sum())
        else:
            assert by_tone["vision"] == pytest.approx(len(sequence.slot))
    assert block.trees[0].pieces[-1].note.endswith(" tokens")


def test_frames_read_in_pairs_are_shown_once_a_pair(media, drawn):
    """The points of the first frame of a pair stand on it; patches of their own size are no crops."""
    points = Points("p", (Point(0.25, 0.5, time=0.0), Point(0.75, 0.5, time=1.5)))
    tree = MessageTree("t", (user(media["video"], media["wide"]),), (Branch((user("?"), bot(points))),))
    block = tree_block(tree, tiny_encoder(Qwen3VLProcessor(**TINY_QWEN3_VL)))
    assert [picture.caption for picture in block.pictures] == ["0.0 s", "1.0 s", "image 1"]
    assert [[point.x for point in true] for _, true, _ in drawn] == [[0.25], [], []]
    assert {size for size, _, _ in drawn} == {(240, 180), (240, 160)}
    assert not any(picture.tiles for picture in block.pictures)


def test_of_tiles_the_whole_view_is_shown_with_its_points(media, drawn):
    class Tiled(Molmo2Processor):
        def visual(self, _, layout):
            """Two tiles of an image or a frame, of which the second shows all."""
            count = max(len(layout.times), 1)
            crops = np.arange(2 * count, dtype=np.uint8)[:, None, None, None] * np.ones((4, 4, 3), np.uint8)
            told = np.tile(np.array([2, layout.slots // count, 9, 9, 1], np.int32), (count, 1))
            window = np.arange(layout.slots, dtype=np.int32)[:, None]
            return VisionInput(crops, window, np.zeros((0, 3), np.int32), 99, told, np.zeros((3, 256)))

        def layout(self, media, facts, *, label=None):
            found = super().layout(media, facts, label=label)
            return dataclasses.replace(found, crops=2 * max(len(found.times), 1))

    points = Points("p", (Point(0.25, 0.5, time=0.5),))
    tree = MessageTree("t", (user(media["tall"], media["video"]),), (Branch((user("?"), bot(points))),))
    encoder = tiny_encoder(Tiled(**TINY_VISION))
    block = tree_block(tree, encoder)
    whole = ", whole among 2 crops"
    times = [f"{time} s{whole}" for time in (0.0, 0.5, 1.0, 1.5)]
    assert [picture.caption for picture in block.pictures] == [f"image 1{whole}", *times]
    assert [[point.x for point in true] for _, true, _ in drawn] == [[], [], [0.25], [], []]
    shown = [PIL.Image.open(io.BytesIO(base64.b64decode(p.source.split(",")[1]))) for p in block.pictures]
    shades = [round(np.asarray(picture.convert("L")).mean()) for picture in shown]
    assert shades == [1, 1, 3, 5, 7]  # tiles of each start at 0
    assert len(media_pictures(encoder(tree), encoder.layouts(tree), [])) == 5
