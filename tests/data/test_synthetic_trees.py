"""Trees about synthetic scenes: their answers are true, their files repeat, and nothing of them is lost."""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter

import av
import jsonschema
import numpy as np
import pytest

from hedgerow.content import Points, Tracks
from hedgerow.data.schema import shipped_schema
from hedgerow.data.synthetic import VISIBLE, Scenes, Truth, annotate, make_scene, truth, write_scenes
from hedgerow.data.synthetic.kinds import COLOURS
from hedgerow.data.synthetic.story import Story
from hedgerow.errors import DataError, RecipeError
from hedgerow.grounding import format_points, format_tracks
from hedgerow.testing import tiny_encoder
from hedgerow.tree import MessageTree, read_trees

KNOBS = Scenes(look="shapes", size=(160, 120), seconds=4.0, rate=4, speed=0.25, leaving=0.5, occlusion=0.2)
SHORT = Scenes(look="shapes", size=(96, 64), seconds=1.5, rate=4, extent=(0.25, 0.5), speed=0.4)
COUNT = 40
TIME = r"(\d+\.\d) seconds"


@pytest.fixture(scope="module")
def told():
    """Scenes, their truth and their trees; in some, objects stay away, or show only a sliver at first."""
    made = []
    for number in range(COUNT):
        scene = make_scene(KNOBS, seed=11, number=number)
        known = truth(scene)
        known = without(known, 1) if number % 4 == 0 else known
        known = glimpsed(known) if number % 4 == 1 else known
        made.append((scene, known, annotate(scene, known, path="v.mp4")))
    return made


def without(known, id):
    """The truth if an object had stayed outside."""
    owner, shown = np.where(known.owner == id, 0, known.owner), known.shown.copy()
    shown[:, id - 1], shown[:, :, id - 1] = 0, 0
    return dataclasses.replace(known, owner=owner, shown=shown)


def glimpsed(known):
    """The truth if two pixels had been seen of every object in the first second."""
    owner, shown = known.owner.copy(), known.shown.copy()
    for frame in range(known.rate):
        for id in range(1, len(known.labels) + 1):
            rows, columns = np.nonzero(owner[frame] == id)
            owner[frame, rows[2:], columns[2:]] = 0
        shown[frame] = np.diag(np.minimum(np.diag(shown[frame]), 2))
    return dataclasses.replace(known, owner=owner, shown=shown)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), SHORT, 3, seed=5)


def branches(told, task):
    """Each branch of a task: scene, truth, question and answer."""
    for scene, known, tree in told:
        for branch in tree.branches:
            if branch.task == task:
                question, answer = branch.messages
                content = answer.content
                yield scene, known, question.content, content if isinstance(content, str) else content[0]


def visible(scene, known, label, time):
    """Ids of a kind's objects of which a share is visible at a time, counted from the masks."""
    frame = round(time * known.rate)
    alike = [place for place, name in enumerate(known.labels) if name == label]
    return {p + 1 for p in alike if known.mask(frame, p + 1).sum() >= VISIBLE * known.whole[frame, p]}


def appearing(scene, known, label):
    return set().union(*(visible(scene, known, label, frame / known.rate) for frame in known.frames))


def singular(scene, question):
    """The kind, of all that could be asked for, that a question about one or many names."""
    kinds = [*(actor.kind for actor in scene.actors), *scene.absent]
    (kind,) = {k for k in kinds if re.search(rf"\b({k.name}|{k.many})\b", question)}
    return kind


def test_points_are_of_every_visible_object_and_on_it(told):
    empty = 0
    for scene, known, question, part in branches(told, "pointing"):
        assert isinstance(part, Points)
        assert singular(scene, question).name == part.label
        asked = re.search(TIME, question)
        wanted = (
            visible(scene, known, part.label, float(asked[1]))
            if asked
            else appearing(scene, known, part.label)
        )
        assert {point.id for point in part.points} == wanted
        assert len(part.points) == len(wanted)  # each instance once
        empty += not part.points
        for point in part.points:
            frame = round(point.time * known.rate)
            assert frame in known.frames
            assert not asked or point.time == float(asked[1])
            height, width = known.owner.shape[1:]
            for x, y in ((point.x, point.y), (round(point.x, 3), round(point.y, 3))):
                assert known.owner[frame, int(y * height), int(x * width)] == point.id
            x0, y0, x1, y1 = point.box
            assert x0 < point.x < x1
            assert y0 < point.y < y1
            if not asked:
                earlier = [f for f in known.frames if f < frame and known.share[f, point.id - 1] >= 0.5]
                assert not earlier
    assert empty >= COUNT  # kinds that are not there are asked for, too


def test_tracks_have_a_point_for_each_time_an_object_is_visible(told):
    returning = 0
    for scene, known, question, part in branches(told, "tracking"):
        assert isinstance(part, Tracks)
        assert singular(scene, question).name == part.label
        found = {(round(point.time * known.rate), point.id) for point in part.points}
        wanted = {
            (frame, id)
            for frame in known.frames
            for id in visible(scene, known, part.label, frame / known.rate)
        }
        assert found == wanted
        for point in part.points:
            x, y = known.point(round(point.time * known.rate), point.id)
            assert (point.x, point.y) == (round(x, 5), round(y, 5))
        returning += any(known.returns(id) for id in {id for _, id in found})
    assert returning > 5  # under the id they had


def test_counts_are_those_of_the_masks(told):
    seen = Counter()
    for scene, known, question, answer in branches(told, "counting"):
        label = singular(scene, question).name
        asked = re.search(TIME, question)
        wanted = visible(scene, known, label, float(asked[1])) if asked else appearing(scene, known, label)
        assert answer == str(len(wanted))
        if asked:
            frame = round(float(asked[1]) * known.rate)
            doubtful = [id for id in scene.ids(singular(scene, question)) if id not in wanted]
            assert not any(known.mask(frame, id).any() for id in doubtful)
        seen[answer] += 1
    assert len(seen) >= 4


def test_choices_offer_the_answer_once_and_nothing_else_that_is_true(told):
    kinds = Counter()
    for scene, known, question, answer in branches(told, "multiple_choice"):
        stem, *options = question.split("\n")
        assert [option[:3] for option in options] == [f"{letter}. " for letter in "ABCD"[: len(options)]]
        assert len({option[3:] for option in options}) == len(options) >= 2
        assert answer in options
        check = next(check for start, check in CHECKS.items() if stem.startswith(start))
        check(scene, known, stem, [option[3:] for option in options], answer[3:])
        kinds[check] += 1
    assert len(kinds) == len(CHECKS)


def check_place(scene, known, stem, options, answer):
    kind = singular(scene, stem)
    (id,) = scene.ids(kind)
    frame = round(float(re.search(TIME, stem)[1]) * known.rate)
    x, y = known.centre[frame, id - 1] / (160, 120)
    rows, columns = np.nonzero(known.mask(frame, id))
    assert (int(3 * x), int(3 * y)) == tuple(int(3 * value) for value in known.point(frame, id))
    assert abs(rows.mean() / 120 - y) < 1 / 6  # what is seen is there, too
    assert abs(columns.mean() / 160 - x) < 1 / 6
    words = [("top", "", "bottom")[int(3 * y)], ("left", "", "right")[int(3 * x)]]
    assert answer == (" ".join(filter(None, words)) or "middle")


def check_way(scene, known, stem, options, answer):
    (id,) = scene.ids(singular(scene, stem))
    first, last = (round(float(time) * known.rate) for time in re.findall(r"\d+\.\d", stem))
    right, down = known.centre[last, id - 1] - known.centre[first, id - 1]
    ways = {"to the left": -right, "to the right": right, "up": -down, "down": down}
    assert answer == max(ways, key=lambda way: ways[way])


def check_colour(scene, known, stem, options, answer):
    shape = re.search(r"the (\w+)\?", stem)[1]
    assert [actor.kind.colour for actor in scene.actors if actor.kind.shape == shape] == [answer]


def check_cover(scene, known, stem, options, answer):
    (id,) = scene.ids(singular(scene, stem))
    shown = known.shown[round(float(re.search(TIME, stem)[1]) * known.rate), id - 1]
    over = {known.labels[place] for place in np.flatnonzero(shown) if place != id - 1}
    assert over == {answer}


def check_order(scene, known, stem, options, answer):
    first = {}
    for label in options:
        first[label] = next(f for f in known.frames if visible(scene, known, label, f / known.rate))
    assert all(frame < first[answer] for label, frame in first.items() if label != answer)
    before = [frame for frame in known.frames if frame < first[answer]]
    assert not any(known.mask(f, p + 1).any() for f in before for p in np.flatnonzero(known.labels == answer))


CHECKS = {
    "Of three rows": check_place,
    "From ": check_way,
    "What colour": check_colour,
    "What covers": check_cover,
    "Which of these": check_order,
}


def test_sentences_are_true(told):
    kinds = Counter()
    for scene, known, question, answer in branches(told, "qa"):
        times = [round(float(time) * known.rate) for time in re.findall(TIME, answer)]
        if question.startswith("Are there more"):
            one, other = re.search(r"more (.+) than (.+) in", question).groups()
            count = {actor.kind.many: len(appearing(scene, known, actor.kind.name)) for actor in scene.actors}
            more = count[one] - count[other]
            assert answer.startswith("Yes." if more > 0 else "No." if more < 0 else "There are as many.")
            assert re.findall(r"\d+", answer) == [str(count[one]), str(count[other])]
        else:
            places = [id - 1 for id in scene.ids(singular(scene, question))]
            if answer.startswith("No."):
                assert (known.inside[:, places] >= 0.5).all()
            elif answer.startswith("Yes."):
                out, back = times
                away = ~known.inside[out, places].astype(bool) & known.visible[back, places]
                assert (away & known.visible[:out, places].any(0)).any()
            else:
                (id,) = scene.ids(singular(scene, question))
                assert known.visible[times[0], id - 1]
                assert not known.inside[[frame for frame in known.frames if frame < times[0]], id - 1].any()
        kinds[question.split()[0], answer.split()[0]] += 1
    assert {("Does", "Yes."), ("Does", "No."), ("When", "At"), ("Are", "Yes."), ("Are", "No.")} <= set(kinds)


def test_captions_are_true(told):
    facts = Counter()
    for scene, known, _, text in branches(told, "video_caption"):
        counted = re.findall(r"(\d+) ((?:\w+ )\w+)", text.split(". ")[0])
        besides = re.search(r"Apart from that, (.*) can be seen", text)
        counted += re.findall(r"(\d+) ((?:\w+ )\w+)", besides[1]) if besides else []
        names = {
            actor.kind.name if count == "1" else actor.kind.many: actor.kind
            for actor in scene.actors
            for count in "12"
        }
        wanted = {actor.kind: len(appearing(scene, known, actor.kind.name)) for actor in scene.actors}
        assert {names[name]: int(count) for count, name in counted} == {k: n for k, n in wanted.items() if n}
        for front, back, time in re.findall(rf"At {TIME} (the .+?) covers a part of (the .+?)\.", text) and [
            (f, b, t) for t, f, b in re.findall(rf"At {TIME} (the .+?) covers a part of (the .+?)\.", text)
        ]:
            frame = round(float(time) * known.rate)
            fronts, backs = (scene.ids(singular(scene, name)) for name in (front, back))
            assert known.shown[frame][np.ix_([b - 1 for b in backs], [f - 1 for f in fronts])].any()
            facts["covers"] += 1
        for sentence in text.split(". "):
            out = re.search(rf"is out of the picture at {TIME} and back at {TIME}", sentence)
            if out:
                ids = scene.ids(singular(scene, sentence))
                away, back = (round(float(time) * known.rate) for time in out.groups())
                assert any(not known.inside[away, id - 1] and known.visible[back, id - 1] for id in ids)
                facts["returns"] += 1
            last = re.search(rf"last seen at {TIME}", sentence)
            if last:
                ids = scene.ids(singular(scene, sentence))
                frames = [
                    max(f for f in known.frames if known.visible[f, id - 1])
                    for id in ids
                    if known.visible[known.frames, id - 1].any()
                ]
                assert round(float(last[1]) * known.rate) in frames
                facts["last"] += 1
    assert min(facts["covers"], facts["returns"], facts["last"]) >= 3


def test_places_have_a_name_where_point_and_centre_are_clearly_in_one_ninth(told):
    named = 0
    for scene, known, _ in told[2::4]:
        for frame, place in np.argwhere(known.visible):
            name = Story(scene, known).place(frame, place + 1)
            ninths = [
                (3 * x, 3 * y)
                for x, y in (known.point(frame, place + 1), known.centre[frame, place] / (160, 120))
            ]
            (x, y), other = ([int(value) for value in ninth] for ninth in ninths)
            apart = np.abs(np.array(ninths[1])[:, None] - np.arange(4)).min()
            assert (name is None) == ([x, y] != other or apart < 0.12)
            words = ("top", "", "bottom")[y], ("left", "", "right")[x]
            assert name in (None, " ".join(filter(None, words)) or "middle")
            named += name is not None
    assert named > 50


def test_a_tree_has_many_branches_of_all_tasks(told):
    tasks = Counter(branch.task for _, _, tree in told for branch in tree.branches)
    assert {"pointing", "tracking", "counting", "video_caption", "multiple_choice", "qa"} == set(tasks)
    assert min(len(tree.branches) for *_, tree in told) >= 9
    captions = {
        branch.messages[0].content
        for _, _, t in told
        for branch in t.branches
        if branch.task == "video_caption"
    }
    assert len(captions) > 1  # wordings differ


def test_written_trees_are_valid_and_their_points_lie_on_the_colour_they_name(written):
    lines = [json.loads(line) for line in written.trees.read_text(encoding="utf-8").splitlines()]
    validator = jsonschema.Draft202012Validator(shipped_schema())
    trees = [MessageTree.from_dict(line) for line in lines]
    assert (written.count, written.branches) == (3, sum(len(tree.branches) for tree in trees))
    checked = 0
    for line, tree in zip(lines, read_trees(written.trees), strict=True):
        assert not list(validator.iter_errors(line))
        known = Truth.load(written.truths / f"{tree.id}.npz")
        (video,) = tree.media
        assert video.path == str(written.videos / f"{tree.id}.mp4")
        with av.open(video.path) as file:
            frames = {frame.time: frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)}
        assert [known.time(frame) for frame in range(len(known.owner))] == pytest.approx(sorted(frames))
        for branch in tree.branches:
            for part in branch.messages[1].parts:
                for point in part.points if isinstance(part, Points | Tracks) else ():
                    pixel = frames[point.time][int(point.y * 64), int(point.x * 96)].astype(int)
                    colours = {name: np.abs(pixel - colour).sum() for name, colour in COLOURS.items()}
                    checked += 1
                    assert min(colours, key=lambda name: colours[name]) == part.label.split()[0]
    assert checked > 30


def test_encoding_loses_nothing(written):
    encoder = tiny_encoder()
    for tree in read_trees(written.trees):
        sequence = encoder(tree)
        assert len(sequence.samples) == len(tree.branches)
        text = encoder.chat.decode(sequence.tokens)
        for branch in tree.branches:
            (part,) = branch.messages[1].parts
            kinds = {Points: format_points, Tracks: format_tracks}
            assert kinds[type(part)](part) in text if type(part) in kinds else part.text in text


def test_another_process_writes_the_same_bytes_and_another_seed_others(written, tmp_path):
    code = (
        "import sys; from pathlib import Path; from hedgerow.data.synthetic import *\n"
        "knobs = Scenes(look='shapes', size=(96, 64), seconds=1.5, rate=4, extent=(0.25, 0.5), speed=0.4)\n"
        "write_scenes(Path(sys.argv[1]), knobs, 3, seed=int(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "same"), "5"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "123"})
    write_scenes(tmp_path / "other", SHORT, 3, seed=6)
    same, other, here = (
        {path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*.*")}
        for folder in (tmp_path / "same", tmp_path / "other", written.trees.parent)
    )
    assert same == here
    assert len(here) == 7
    assert not set(here.values()) & set(other.values())


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="count=0: give 1 or more"):
        write_scenes(tmp_path, SHORT, 0, seed=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written to"):
        write_scenes(tmp_path / "file", SHORT, 1, seed=0)
