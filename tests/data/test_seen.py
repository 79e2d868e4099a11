"""Branches that no sampled frame shows: measuring and encoding leave out the same ones, and count them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Point, Points, Text, Tracks, Video
from hedgerow.data.measure import Maker
from hedgerow.data.oversize import shortened
from hedgerow.data.seen import losses, seen
from hedgerow.encode import Encoder
from hedgerow.errors import BudgetError, DataError
from hedgerow.grounding.codec import parse
from hedgerow.sequence import Budget, VisionInput
from hedgerow.testing import TINY_VISION
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.vision.facts import VideoFacts
from hedgerow.vision.processor import Molmo2Processor

CHAT = ChatFormat(load_tokenizer("tiny"))


class Blind(Molmo2Processor):
    """Sees videos that are not there: all that follows from facts is as ever, pixels are black."""

    def visual(self, media, layout):  # noqa: ARG002 - no pixel is read
        side = self.crop_size
        pooling = np.full((layout.slots, self.video_pooling**2), -1, np.int32)
        crops = np.zeros((layout.crops, side, side, 3), np.uint8)
        return VisionInput(crops, pooling, np.array(layout.grids, np.int32), self._side**2)

    def layout(self, media, facts, *, label=None):
        laid.append(media)
        return super().layout(media, facts, label=label)


laid = []  # media that were laid out


def film(media):
    """`12.5 3 7.25`: lasts 12.5 s, with cuts at 3 and 7.25 s."""
    duration, *cuts = map(float, media.path.split())
    cuts = [cut for cut in cuts if cut < duration]
    return VideoFacts(media.path, 64, 48, 0.0, duration, 30.0, cuts=tuple(cuts))


ENCODER = Encoder(CHAT, Blind(**TINY_VISION), facts=film)


def asks(*parts, branches=()):
    return Branch((Message("user", "Where?"), Message("assistant", parts)), branches)


def shows(video, *branches, reply=None):
    last = () if reply is None else (Message("user", "Where?"), Message("assistant", (reply,)))
    return MessageTree("t", (Message("user", (video,)), *last), branches)


def points(*times):
    return Points("ball", tuple(Point(0.5, 0.5, time=time) for time in times))


def track(*times):
    return Tracks("car", tuple(Point(0.5, 0.5, id=1, time=time) for time in times))


LONG = Video("60")  # four frames, 20 s apart, meant to lie 0.5 s apart
GOOD, LOST, PART = points(20.1), points(10.0, 12.0), points(0.0, 10.0, 40.25)


def test_a_branch_that_cannot_be_taught_is_left_out_with_all_below_it_and_counted():
    below = (asks(Text("Fine.")), asks(GOOD))
    deep = asks(Text("So."), branches=(asks(GOOD), asks(Text("x"), track(9.0, 10.0), GOOD)))
    tree = shows(LONG, asks(GOOD), asks(LOST, branches=below), asks(PART), deep)
    found = seen(tree, ENCODER)
    assert found.tree == shows(LONG, asks(GOOD), asks(PART), asks(Text("So."), branches=(asks(GOOD),)))
    # the ball at 12 s and the good point beside the lost car are no more taught than what is below
    assert (found.points, found.lost, found.branches) == (1 + 2 + 1 + 3 + 1 + 3, 2 + 1 + 1 + 3, 2)
    told = {one.address: (one.points, one.lost, one.left_out) for one in losses(tree, ENCODER)}
    assert told == {
        "0": (1, 0, False),
        "1": (2, 2, True),
        "1.1": (1, 1, True),
        "2": (3, 1, False),
        "3.0": (1, 0, False),
        "3.1": (3, 3, True),
    }
    reasons = {one.address: one.reason for one in losses(tree, ENCODER)}
    frames = (
        "(4 frames at 0.0, 20.0, 40.0, 60.0 s, a step of 0.5 s; a point moves by 0.25 s at most); the clip "
        "has its most frames: raise max_frames, show a shorter clip, or leave the branch out"
    )
    assert reasons["0"] == reasons["3.0"] == ""
    assert reasons["2"] == f"points 'ball': 1 of its 3 points stand on no sampled frame {frames}"
    assert reasons["3.1"] == f"tracks 'car': 2 of its 2 points stand on no sampled frame {frames}"
    assert reasons["1.1"] == "it stands below a branch that is left out"


def test_a_tree_that_loses_no_branch_stays_the_same_object_and_one_without_times_is_not_looked_up():
    tree = shows(LONG, asks(GOOD), asks(PART))
    assert seen(tree, ENCODER).tree is tree
    assert dataclasses.astuple(seen(tree, ENCODER))[1:] == (4, 1, 0)
    nowhere = Encoder(CHAT, ENCODER.processor, facts=lambda _: pytest.fail("facts were looked up"))
    plain = shows(LONG, asks(Text("Here.")), asks(points()))
    assert losses(plain, nowhere) == ()
    assert seen(plain, nowhere).tree is plain


def test_what_the_root_points_to_or_all_that_is_answered_cannot_be_left_out():
    told = "2 of its 2 points stand on no sampled frame .*the clip has its most frames: raise max_frames"
    with pytest.raises(DataError, match=f"^t, root: points 'ball': {told}"):
        seen(shows(LONG, asks(GOOD), reply=LOST), ENCODER)
    with pytest.raises(
        DataError, match=f"^t, branch 0: points 'ball': {told.split('.*')[0]}.* no other answer"
    ):
        seen(shows(LONG, asks(LOST), Branch((Message("user", "Nobody answers."),))), ENCODER)
    with pytest.raises(DataError, match=r"^t, branch 0: points 'ball' have times, but no video is shown"):
        losses(MessageTree("t", (Message("user", "Hi"),), (asks(GOOD),)), ENCODER)


def test_times_are_of_the_video_shown_last_before_them():
    """The short one is seen every half second; a branch sees what its path shows, not what siblings do."""
    short = Video("1")
    at = (Message("user", "Where?"), Message("assistant", (points(0.5),)))
    tree = shows(
        LONG,
        Branch((*at, Message("user", (short,)), *at)),
        Branch(
            (Message("user", (LONG, short)), *at), (Branch(at), Branch((Message("user", (short, LONG)), *at)))
        ),
        Branch(at),
    )
    told = [(one.address, one.points, one.lost) for one in losses(tree, ENCODER)]
    assert told == [("0", 2, 2), ("1", 1, 0), ("1.0", 1, 0), ("1.1", 1, 1), ("2", 1, 1)]
    assert seen(tree, ENCODER).tree == shows(
        LONG, dataclasses.replace(tree.branches[1], branches=(Branch(at),))
    )


def test_a_question_that_points_where_nothing_is_seen_cannot_be_asked():
    asked = Branch((Message("user", (LOST, Text("What is this?"))), Message("assistant", "A ball.")))
    assert seen(shows(LONG, asked, asks(GOOD)), ENCODER).tree == shows(LONG, asks(GOOD))


# --- random trees

TIMES = st.lists(
    st.floats(0, 12).map(lambda t: round(t, 2)) | st.integers(0, 24).map(lambda n: n / 2),
    min_size=1, max_size=5, unique=True,
)  # fmt: skip


@st.composite
def videos(draw):
    cuts = sorted(draw(st.sets(st.integers(1, 40), max_size=3)))
    return Video(
        " ".join(map(str, [draw(st.floats(0, 12).map(lambda t: round(t, 2))), *(n / 4 for n in cuts)])),
        fps=draw(st.sampled_from([None, 1.0, 3.0])),
        max_frames=draw(st.sampled_from([None, 1, 2, 6, 12, 30])),
        sampling=draw(st.sampled_from(["uniform_last_frame", "fps", "scene"])),
        annotation_fps=draw(st.sampled_from([None, 1.0, 4.0, 0.25])),
    )


@st.composite
def parts(draw):
    times = draw(TIMES)
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return Text("Nothing.")
    if kind == 1:
        return points(*times)
    where = st.integers(0, 1000).map(lambda n: n / 1000)
    return Tracks(
        "car", tuple(Point(draw(where), 0.5, id=draw(st.integers(1, 2)), time=time) for time in times)
    )


def branches(depth):
    below = branches(depth - 1) if depth else st.just(())
    one = st.builds(
        lambda said, below: asks(*said, branches=below), st.lists(parts(), min_size=1, max_size=2), below
    )
    return st.lists(one, max_size=3).map(tuple)


@dataclasses.dataclass(frozen=True)
class Held:
    """A line that is already read."""

    tree: MessageTree

    def read(self):
        return self.tree


def teachable(branch, video):
    """Whether a branch can be encoded, what is below it aside."""
    try:
        ENCODER.measure(shows(video, dataclasses.replace(branch, branches=())))
    except DataError:
        return False
    return True


def pruned(branches, video):
    """Leave out what cannot be encoded, by trying each branch."""
    kept = [branch for branch in branches if teachable(branch, video)]
    return tuple(dataclasses.replace(branch, branches=pruned(branch.branches, video)) for branch in kept)


def spoken(sequence):
    """The points of all targets, each with its part."""
    found = [CHAT.decode(sequence.target[sequence.sample == n]) for n in range(len(sequence.samples))]
    return [part for text in found for part in parse(text, strict=True).parts]


@settings(max_examples=80, deadline=None)
@given(videos(), branches(2), st.integers(1, 40))
def test_law_14_and_what_is_left_out_is_the_same_measured_and_encoded(video, below, size):
    tree = shows(video, *below)
    wanted = shows(video, *pruned(below, video))
    maker = Maker(ENCODER)
    if not wanted.branches:
        with pytest.raises(DataError, match=r"no supervised answer|no other answer is left"):
            maker.survey(Held(tree), 0)
        return
    found, (survey, cut, _) = seen(tree, ENCODER), maker.survey(Held(tree), 0)
    assert found.tree == wanted
    every = [point for node in tree.nodes() for m in node.messages for p in m.parts for point in points_of(p)]
    assert (survey.points, survey.lost, survey.left) == (found.points, found.lost, found.branches)
    assert found.points == len(every)
    assert (survey.left > 0) == (wanted != tree)
    sequence = ENCODER(found.tree)
    assert (survey.cost, cut) == (sequence.cost, 0)
    assert survey.tasks == tuple(sample.task for sample in sequence.samples)
    (layout,) = ENCODER.layouts(found.tree)
    said = spoken(sequence)
    assert {f"{p.time:.1f}" for part in said for p in part.points} <= {f"{time:.1f}" for time in layout.times}
    assert all(part.points for part in said), "nothing is taught to be absent that was annotated"
    truths = [part for node in found.tree.nodes()[1:] for part in ENCODER.answer(node)]
    assert len(said) == sum(not isinstance(part, Text) for part in truths)
    budget = Budget(tokens=max(len(sequence) - size, 0))
    try:
        short = shortened(found.tree, ENCODER, budget)
    except BudgetError:
        return
    small, cut, _ = dataclasses.replace(maker, budget=budget, oversize="shorten").survey(Held(tree), 0)
    assert cut == len(wanted.branches) - len(short.branches) > 0
    assert small.cost == ENCODER(short).cost
    assert (small.points, small.lost, small.left) == (survey.points, survey.lost, survey.left)


def points_of(part):
    return part.points if isinstance(part, Points | Tracks) else ()


def test_frames_are_sampled_once_where_no_branch_is_left_out():
    laid.clear()
    Maker(ENCODER).survey(Held(shows(LONG, asks(GOOD), asks(PART), asks(track(0.0)))), 0)
    assert len(laid) == 1
    laid.clear()
    losses(shows(LONG, asks(GOOD), asks(PART), asks(track(0.0))), ENCODER)
    assert len(laid) == 1
