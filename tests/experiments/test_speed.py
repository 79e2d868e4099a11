"""Padded and packed rows carry the same annotations, so that the times compare the same work."""

import itertools

import numpy as np
import pytest

from hedgerow.content import Image, Point, Points, Video
from hedgerow.errors import BudgetError
from hedgerow.experiments.speed import Comparison, Side, compare, fill, pack, pad, peak_of, separate
from hedgerow.sequence import Budget, Row
from hedgerow.testing import tiny_encoder, write_mp4, write_png
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.visibility import dense
from hedgerow.weights import Weighting

BUDGET = Budget(tokens=400, crops=24)


def turns(*texts):
    roles = ("user", "assistant") * len(texts)
    return tuple(Message(role, text) for role, text in zip(roles, texts, strict=False))


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    video, image = Video(str(write_mp4(folder / "v.mp4"))), Image(str(write_png(folder / "a.png")))
    spot = Message("assistant", (Points("spot", (Point(0.5, 0.5, time=0.5),)),))
    return [
        MessageTree(
            "film",
            (Message("user", (video,)),),
            (
                Branch((Message("user", "Where?"), spot), task="pointing"),
                Branch(turns("Who?", "They do."), weight=0.5),
                Branch(
                    (Message("user", "Why?"),),
                    tuple(Branch((Message("assistant", a),)) for a in ("So.", "No")),
                ),
            ),
        ),
        MessageTree("alone", (Message("user", (image,)), Message("assistant", "A picture of noise."))),
        MessageTree(
            "root",
            turns("Hi", "Hello", "How?", "Well."),
            (Branch(turns("a", "b", "c", "d e f")),),
            weight=2.0,
        ),
    ]


def carried(rows):
    """Every target with the annotation it belongs to, its weight, and the tokens on its path, in no order."""
    found = []
    for row in rows:
        for source, target, weight, number in zip(
            row.source, row.target, row.weight, row.sample, strict=True
        ):
            sample = row.samples[number]
            path = (row.order <= row.order[source]) & (row.order[source] < row.end)
            before = row.tokens[path][np.argsort(row.order[path])]
            found.append(
                (sample.example, sample.branch, sample.task, int(target), float(weight), tuple(before))
            )
    return sorted(found)


@pytest.mark.parametrize("preset", ["molmo2", "molmo2_code"])
def test_padded_and_packed_rows_train_the_same_targets_with_the_same_weights(trees, preset):
    encoder = tiny_encoder(weights=Weighting(preset=preset))
    packed = pack([encoder(tree) for tree in trees], BUDGET)
    padded = pad([one for tree in trees for one in separate(tree, encoder)], BUDGET)
    assert carried(padded) == carried(packed)
    assert sum(len(row.samples) for row in padded) == sum(len(row.samples) for row in packed) == 7
    totals = [float(sum(row.weight.sum() for row in rows)) for rows in (padded, packed)]
    assert totals[0] == pytest.approx(totals[1])
    assert sum(len(row) for row in padded) > sum(len(row) for row in packed)


def test_separate_keeps_every_annotation_as_one_conversation(trees):
    encoder = tiny_encoder()
    for tree in trees:
        whole, alone = encoder(tree), separate(tree, encoder)
        assert [one.samples for one in alone] == [(sample,) for sample in whole.samples]
        for number, one in enumerate(alone):
            assert set(one.end.tolist()) == {len(one)}  # no branches are left
            assert one.target.tolist() == whole.target[whole.sample == number].tolist()
            assert one.weight.tolist() == whole.weight[whole.sample == number].tolist()
            assert set(one.sample.tolist()) == {0}
            assert one.cost["crops"] == len(one.vision.crops if one.vision else ())
            assert not one.vision or one.cost["crops"] == whole.cost["crops"]  # the media are encoded again


def test_what_fills_a_row_sees_only_itself_and_trains_nothing(trees):
    sequence = tiny_encoder()(trees[0])
    length = len(sequence) + 7
    filled = fill(sequence, length)
    mask = dense(filled.order, filled.end, filled.group)
    assert (
        mask[: len(sequence), : len(sequence)] == dense(sequence.order, sequence.end, sequence.group)
    ).all()
    assert (mask[len(sequence) :] == np.eye(length, dtype=bool)[len(sequence) :]).all()
    assert not mask[: len(sequence), len(sequence) :].any()
    for name in ("slot", "source", "target", "weight", "sample"):
        assert getattr(filled, name).tolist() == getattr(sequence, name).tolist()
    assert len(filled.tokens) == len(filled.position) == filled.cost["tokens"] == length
    assert filled.cost["crops"] == sequence.cost["crops"]
    assert fill(sequence, len(sequence)).tokens.tolist() == sequence.tokens.tolist()


def test_filled_sequences_stay_apart_in_a_row(trees):
    encoder = tiny_encoder()
    parts = [encoder(tree) for tree in trees[1:]]
    row = Row.join([fill(part, 130) for part in parts], BUDGET)
    mask = dense(row.order, row.end, row.group)
    for start, part in zip((0, 130), parts, strict=True):
        own = slice(start, start + len(part))
        assert (mask[own, own] == dense(part.order, part.end, part.group)).all()
        assert mask[own].sum() == mask[own, own].sum()
        assert mask[:, own].sum() == mask[own, own].sum()


def test_a_padded_batch_is_as_long_as_its_longest_and_as_full_as_the_budget_allows(trees):
    encoder = tiny_encoder()
    parts = [one for tree in trees for one in separate(tree, encoder)]
    rows = pad(parts, BUDGET)
    for row in rows:
        assert len(set(row.lengths)) == 1
        assert len(row) <= 400 or len(row.lengths) == 1
    held = [sorted(len(part) for part in parts if part.samples[0] in row.samples) for row in rows]
    assert [row.lengths[0] for row in rows] == [lengths[-1] for lengths in held]
    assert [length for lengths in held for length in lengths] == sorted(map(len, parts))
    for lengths, following in itertools.pairwise(held):
        assert (len(lengths) + 1) * following[0] > 400
    assert pad([], BUDGET) == []
    with pytest.raises(BudgetError):
        pack(parts, Budget(tokens=20, crops=4))


def test_both_sides_make_the_same_number_of_steps_in_turns(trees):
    seen = []
    found = compare(trees, tiny_encoder(), lambda rows: seen.append(carried(rows)), budget=BUDGET, repeats=2)
    assert len(seen) == 6
    assert all(one == seen[0] for one in seen)
    assert found.annotations == 7
    assert found.padded.tokens > found.packed.tokens
    assert found.padded.crops > found.packed.crops
    assert min(found.padded.seconds, found.packed.seconds) > 0


def test_the_gain_and_its_bound_are_ratios_of_padded_to_packed():
    padded, packed = Side(4, 1000, 60, 3.0, None), Side(1, 400, 10, 1.5, 12.0)
    found = Comparison(8, padded, packed)
    assert (found.speedup, found.bound) == (2.0, 6.0)
    assert Comparison(8, Side(4, 1000, 0, 3.0, None), Side(1, 400, 0, 1.5, None)).bound == 2.5
    lines = str(found).splitlines()
    assert lines[1].split() == ["padded", "4", "1,000", "60", "3.000", "-"]
    assert (
        lines[3]
        == "8 annotations: 2.0 times faster; 2.5 times fewer tokens and 6.0 times fewer crops allow 6.0"
    )


def test_the_peak_is_that_of_the_work():
    def work():
        np.ones(2_000_000).sum()  # 16 MB

    peak = peak_of(work)
    assert peak is None or peak >= 14
    assert peak is None or peak_of(lambda: None) < 8
