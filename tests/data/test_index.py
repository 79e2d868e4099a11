"""The index knows what every example costs, keeps what is good, and names what is not."""

import json
import os
import pickle

import pytest

from hedgerow.content import Image, Video
from hedgerow.data import index
from hedgerow.data.index import Dropped, Examples, Line, MediaFacts, located
from hedgerow.errors import BudgetError, DataError, MediaError
from hedgerow.sequence import Budget, Sequence
from hedgerow.testing import tiny_encoder, write_jsonl, write_mp4, write_png
from hedgerow.tree import read_trees
from hedgerow.vision.facts import ImageFacts, VideoFacts


def line(name, answer="yes", *media):
    shown = [{"type": kind, "path": path} for kind, path in media]
    return {
        "id": name,
        "messages": [{"role": "user", "content": [*shown, {"type": "text", "text": "Well?"}]}],
        "branches": [{"messages": [{"role": "assistant", "content": answer}]}],
    }


@pytest.fixture
def data(tmp_path):
    write_png(tmp_path / "a.png")
    write_mp4(tmp_path / "v.mp4")
    lines = [
        line("one"),
        line("two", "no \u00e9", ("image", "a.png")),
        line("three", "?", ("video", "v.mp4")),
    ]
    path = write_jsonl(tmp_path / "d.jsonl", lines)
    path.write_text("\n" + path.read_text().replace("\n", "\n  \n", 1))  # blank lines count, and hold nothing
    return path


def test_costs_are_those_of_the_encoded_trees_and_lines_are_where_they_stand(data):
    examples = Examples.read([(data, 1)], tiny_encoder())
    assert [str(place) for place in examples.lines] == [f"{data}:2", f"{data}:4", f"{data}:5"]
    assert [examples.tree(n).id for n in range(len(examples))] == ["one", "two", "three"]
    assert [examples.tree(n) for n in range(3)] == list(read_trees(data))
    assert list(examples.costs) == [examples.encode(n).cost for n in range(3)]
    assert [cost["crops"] for cost in examples.costs] == [0, 3, 4]
    assert examples.dropped == ()


def test_an_example_is_used_as_often_as_its_source_says(data, tmp_path):
    other = write_jsonl(tmp_path / "other.jsonl", [line("four")])
    examples = Examples.read([(other, 3), (data, 2)], tiny_encoder())
    assert sorted(examples.tree(n).id for n in range(len(examples))) == sorted(
        ["four"] * 3 + ["one", "two", "three"] * 2
    )
    assert [examples.encode(n).cost for n in range(len(examples))] == list(examples.costs)


def bad_lines(path):
    """Append lines that are bad in different ways, and return what must be said of each."""
    bad = {
        b'{"id": "x", "messages": [{"role": "user", "content": "q"}], "brances": []}': "mean 'branches'",
        b'{"id": "x"': "not JSON",
        b'{"id": "x\xff"}': "not UTF-8",
        b'{"id": "\\ud800"}': "not JSON .*surrogate",
        b"[" * 100_000: "not JSON",
        b'{"messages": [], "branches": [' * 400 + b"]}" * 400: "not JSON .*recursion",
        json.dumps(
            line("x", "a", ("image", "gone.png"))
        ).encode(): r"gone\.png: no such file; correct the path",
        json.dumps(line("x", "long " * 300)).encode(): "tokens .* raise the budget, shorten",
    }
    first = path.read_bytes().count(b"\n") + 1
    path.write_bytes(path.read_bytes() + b"\n".join(bad) + b"\n")
    return {f"{path}:{first + place}": why for place, why in enumerate(bad.values())}


def test_bad_lines_are_counted_and_named_and_no_good_one_is_lost(data):
    whole = Examples.read([(data, 2)], tiny_encoder())
    said = bad_lines(data)
    examples = Examples.read([(data, 2)], tiny_encoder(), budget=Budget(tokens=200, crops=9), on_bad="skip")
    assert sorted(examples.lines, key=str) == sorted(whole.lines, key=str)
    assert examples.costs == whole.costs
    assert [item.where for item in examples.dropped] == list(said)
    for item, why in zip(examples.dropped, said.values(), strict=True):
        with pytest.raises(DataError, match=why):
            raise DataError(item.reason)
        assert not item.reason.startswith(item.where)
        assert "\n" not in str(item)


def test_the_first_bad_line_stops_where_bad_lines_raise(data):
    (where, _), *_ = bad_lines(data).items()
    with pytest.raises(DataError, match="^" + where.replace(".", r"\.") + ": brances: unknown key") as caught:
        Examples.read([(data, 1)], tiny_encoder())
    assert str(caught.value).count(where) == 1


def test_an_example_over_the_budget_is_named_with_its_excess(data):
    with pytest.raises(BudgetError, match=r"d\.jsonl:4: two: crops 3 > 2 of a row; raise the budget"):
        Examples.read([(data, 1)], tiny_encoder(), budget=Budget(tokens=200, crops=2))


def test_nothing_left_is_an_error_that_names_the_first_reason(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"id": 1}, {"id": 2}])
    with pytest.raises(DataError, match=r"no usable example; the first of 2 bad ones: .*d\.jsonl:1: "):
        Examples.read([(path, 1)], tiny_encoder(), on_bad="skip")
    path.write_text("\n")
    with pytest.raises(DataError, match="no usable example; it is empty"):
        Examples.read([(path, 1)], tiny_encoder(), on_bad="skip")
    with pytest.raises(DataError, match="cannot be read"):
        Examples.read([(tmp_path / "none.jsonl", 1)], tiny_encoder(), on_bad="skip")


@pytest.fixture
def damaged(data):
    """The picture's header is right, its pixels are not all there: only decoding tells."""
    picture = data.parent / "a.png"
    picture.write_bytes(picture.read_bytes()[:-2000])
    return data


def test_pixels_that_turn_out_bad_are_named_by_file_and_line(damaged):
    examples = Examples.read([(damaged, 1)], tiny_encoder())
    with pytest.raises(MediaError, match=r"d\.jsonl:4: .*a\.png: the image cannot be read"):
        examples.encode(1)
    with pytest.raises(MediaError, match=r"d\.jsonl:4: "):
        examples.attempt(1)
    skipping = Examples.read([(damaged, 1)], tiny_encoder(), on_bad="skip")
    assert len(skipping) == 3
    outcome = skipping.attempt(1)
    assert isinstance(outcome, Dropped)
    assert outcome.where == f"{damaged}:4"
    assert outcome.reason.startswith(f"{damaged.parent / 'a.png'}: the image cannot be read")
    assert isinstance(skipping.attempt(0), Sequence)


def test_a_place_is_named_once_however_often_it_passes():
    with pytest.raises(MediaError, match=r"^f:1: what$"), located("f:1"), located("f:1"):
        raise MediaError("what")
    with pytest.raises(KeyError), located("f:1"):
        raise KeyError("no user's mistake")


def test_a_changed_file_is_read_as_it_is_now(data):
    place = Line(str(data), 2, 1)
    assert place.read().id == "one"
    data.write_text("\n" + '{"id": "on')
    with pytest.raises(DataError, match=r"d\.jsonl:2: not JSON"):
        place.read()


def test_examples_work_after_pickling(data):
    examples = Examples.read([(data, 1)], tiny_encoder(facts=MediaFacts()))
    again = pickle.loads(pickle.dumps(examples))
    assert (again.encode(2).tokens == examples.encode(2).tokens).all()
    assert again.costs == examples.costs


@pytest.fixture
def looks(monkeypatch):
    """The media that were looked up."""
    found = []
    monkeypatch.setattr(
        index, "probe", lambda media, true=index.probe: found.append(media.path) or true(media)
    )
    return found


def test_a_file_is_looked_up_once_and_again_when_it_changed(data, looks):
    cache, picture = data.parent / "run" / "media.json", str(data.parent / "a.png")
    facts = MediaFacts(cache)
    assert facts(Image(picture)) == facts(Image(picture)) == ImageFacts(picture, 60, 40)
    video = facts(Video(str(data.parent / "v.mp4")))
    facts.save()
    again = MediaFacts(cache)
    assert again(Image(picture)).width == 60
    assert (
        again(Video(str(data.parent / "v.mp4"), 0.0, 1.0))
        == video
        == VideoFacts(video.path, 64, 48, 0.0, 1.5)
    )
    assert len(looks) == 2  # one for each file
    write_png(data.parent / "a.png", size=(30, 50))
    os.utime(picture, ns=(1, 1))
    assert again(Image(picture)) == ImageFacts(picture, 30, 50)
    assert len(looks) == 3
    again.save()
    assert MediaFacts(cache)(Image(picture)).height == 50
    assert len(looks) == 3


def test_a_file_of_the_same_size_with_a_new_time_is_looked_up_again(data, looks):
    facts, picture = MediaFacts(), str(data.parent / "a.png")
    facts(Image(picture))
    os.utime(picture, ns=(5, 5))
    facts(Image(picture))
    assert len(looks) == 2


def test_a_missing_file_is_an_error_each_time_and_not_remembered(tmp_path):
    facts, path = MediaFacts(), str(tmp_path / "late.png")
    for _ in range(2):
        with pytest.raises(MediaError, match="no such file"):
            facts(Image(path))
    write_png(tmp_path / "late.png")
    assert facts(Image(path)).width == 60


def test_one_file_can_be_shown_as_image_and_as_video(tmp_path):
    import PIL.Image

    path = str(tmp_path / "a.gif")
    frames = [PIL.Image.new("RGB", (16, 8), (shade, 0, 0)) for shade in (0, 120, 240)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=500)
    facts = MediaFacts()
    assert isinstance(facts(Image(path)), ImageFacts)
    assert isinstance(facts(Video(path)), VideoFacts)
    assert isinstance(facts(Image(path)), ImageFacts)


@pytest.mark.parametrize("content", ["", '{"a": [[', "[1]", '{"a": 1}', '{"a": [[1, 2], "Other", {}]}'])
def test_a_cache_that_cannot_be_read_is_made_again(data, content):
    cache = data.parent / "media.json"
    cache.write_text(content)
    facts = MediaFacts(cache)
    facts(Image(str(data.parent / "a.png")))
    facts.save()
    assert len(json.loads(cache.read_text())) == 1
