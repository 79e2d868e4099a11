"""Facts of media files are looked up once, and again when a file changes."""

import json
import os

import pytest

from hedgerow.content import Image, Video
from hedgerow.data import facts as module
from hedgerow.data.facts import MediaFacts
from hedgerow.errors import MediaError
from hedgerow.testing import write_mp4, write_png
from hedgerow.vision.facts import ImageFacts, VideoFacts


@pytest.fixture
def data(tmp_path):
    write_png(tmp_path / "a.png")
    write_mp4(tmp_path / "v.mp4")
    return tmp_path


@pytest.fixture
def looks(monkeypatch):
    """The media that were looked up."""
    found = []
    monkeypatch.setattr(
        module, "probe", lambda media, true=module.probe: found.append(media.path) or true(media)
    )
    return found


def test_a_file_is_looked_up_once_and_again_when_it_changed(data, looks):
    cache, picture = data / "run" / "media.json", str(data / "a.png")
    facts = MediaFacts(cache)
    assert facts(Image(picture)) == facts(Image(picture)) == ImageFacts(picture, 60, 40)
    video = facts(Video(str(data / "v.mp4")))
    facts.save()
    again = MediaFacts(cache)
    assert again(Image(picture)).width == 60
    assert (
        again(Video(str(data / "v.mp4"), 0.0, 1.0))
        == video
        == VideoFacts(video.path, 64, 48, 0.0, 1.5, pytest.approx(video.rate))
    )
    assert len(looks) == 2  # one for each file
    write_png(data / "a.png", size=(30, 50))
    os.utime(picture, ns=(1, 1))
    assert again(Image(picture)) == ImageFacts(picture, 30, 50)
    assert len(looks) == 3
    again.save()
    assert MediaFacts(cache)(Image(picture)).height == 50
    assert len(looks) == 3


def test_a_file_of_the_same_size_with_a_new_time_is_looked_up_again(data, looks):
    facts, picture = MediaFacts(), str(data / "a.png")
    facts(Image(picture))
    os.utime(picture, ns=(5, 5))
    facts(Image(picture))
    assert len(looks) == 2


def test_cuts_are_looked_for_once_and_only_where_they_are_needed(data, looks):
    cache, path = data / "media.json", str(data / "v.mp4")
    facts = MediaFacts(cache)
    assert facts(Video(path)).cuts is None
    assert facts(Video(path, sampling="scene")).cuts == ()
    assert facts(Video(path, 0.0, 1.0, sampling="scene")).cuts == ()
    assert facts(Video(path, sampling="fps")).cuts is None
    assert len(looks) == 2
    facts.save()
    assert MediaFacts(cache)(Video(path, sampling="scene")).cuts == ()
    assert len(looks) == 2


def test_facts_of_another_version_are_looked_up_again(data, looks):
    cache, video = data / "media.json", Video(str(data / "v.mp4"))
    facts = MediaFacts(cache)
    rate = facts(video).rate
    facts.save()
    values = json.loads(cache.read_text())
    del values[f"video {video.path}"][2]["rate"]
    cache.write_text(json.dumps(values))
    assert MediaFacts(cache)(video).rate == rate > 0
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
    cache = data / "media.json"
    cache.write_text(content)
    facts = MediaFacts(cache)
    facts(Image(str(data / "a.png")))
    facts.save()
    assert len(json.loads(cache.read_text())) == 1


def test_what_one_process_looked_up_another_need_not(data, looks):
    picture = Image(str(data / "a.png"))
    first, second = MediaFacts(), MediaFacts()
    first(picture)
    news = first.news()
    assert first.news() == {}
    second.learn(news)
    assert second(picture) == ImageFacts(picture.path, 60, 40)
    assert looks == [picture.path]
    assert second.news() == {}, "what was learned is no news"
