"""Text saved under the name of an image or a video is named as what it is."""

from pathlib import Path

import pytest

from hedgerow.content import Image, Video
from hedgerow.errors import MediaError
from hedgerow.testing import write_jsonl, write_mp4, write_png
from hedgerow.vision.facts import probe
from hedgerow.vision.mistaken import HEAD, mistaken

FILES = {
    "an HTML page": [
        b"<!DOCTYPE html><title>404 Not Found</title>",
        b"\xef\xbb\xbf\r\n<HTML lang=en><body>Sign in</body></HTML>" + b" " * 9000,
        b"<?xml version='1.0'?>\n<!-- a > b -->\n<!doctype\nhtml><html></html>",
        "<html><p>キャッシュ".encode() * 900,
    ],
    "an SVG drawing": [b"<?xml version='1.0'?><svg xmlns='x'/>", b"<!DOCTYPE svg><svg/>"],
    "JSON": [b'{"error": "quota exceeded"}', b"[]\n"],
    "a pointer of Git LFS": [b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"],
    "a text file": [
        b"Access denied\n",
        b"no video\n" * 400,
        b"<Error><Code>AccessDenied</Code></Error>",
        "ab é".encode() * 1500,
    ],
}
CASES = [(what, data) for what, files in FILES.items() for data in files]


@pytest.mark.parametrize(("what", "data"), CASES)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm", "clip.txt", "photo.jpg"])
def test_text_in_place_of_media_is_named(tmp_path, name, what, data):
    path = tmp_path / name
    path.write_bytes(data)
    for media, wanted in ((Video(str(path)), "a video"), (Image(str(path)), "an image")):
        with pytest.raises(MediaError) as error:
            probe(media)
        assert str(error.value).startswith(f"{path}: {what}, not {wanted}; ")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("what", "data"), CASES)
def test_bytes_of_text_are_named_too(what, data):
    image = Image(data=data)
    with pytest.raises(MediaError, match=f"{what}, not an image; ") as error:
        probe(image)
    assert str(error.value).startswith(f"{image.name}: ")


@pytest.mark.parametrize(
    ("what", "remedy"),
    [("HTML", "download it again"), ("SVG", "save it as PNG"), ("LFS", "fetch the file with `git lfs pull`")],
)
def test_the_remedy_is_that_of_the_kind(what, remedy):
    (kind,) = (found for found in FILES if what in found)
    assert all(mistaken(data[:HEAD]).remedy == remedy for data in FILES[kind])


def test_what_is_no_text_is_not_named(tmp_path):
    kinds = [write_png(tmp_path / "a.png"), write_mp4(tmp_path / "a.mp4")]
    others = [b"\xff\xd8\xff\xe0", b"caf\xe9 au lait", b"", b" \n", b"a\x00b"]
    for data in [path.read_bytes() for path in kinds] + others:
        assert mistaken(data[:HEAD]) is None


def test_a_cut_or_foreign_file_keeps_its_own_reason(tmp_path):
    clip = write_mp4(tmp_path / "clip.mp4")
    with pytest.raises(MediaError, match="not an image; give a JPEG"):
        probe(Image(str(clip)))
    clip.write_bytes(clip.read_bytes()[:900])
    with pytest.raises(MediaError, match="no video, or cut off"):
        probe(Video(str(clip)))
    (tmp_path / "none.jpg").touch()
    with pytest.raises(MediaError, match=r"none\.jpg: the file is empty"):
        probe(Image(str(tmp_path / "none.jpg")))


@pytest.mark.parametrize(("kind", "name"), [("video", "clip.mp4"), ("image", "photo.jpg")])
def test_the_check_names_a_page_saved_as_media(hedgerow, tmp_path, monkeypatch, kind, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(FILES["an HTML page"][0])
    shown = {"role": "user", "content": [{"type": kind, "path": name}]}
    write_jsonl(
        Path("clips.jsonl"), [{"id": "a", "messages": [shown, {"role": "assistant", "content": "Yes."}]}]
    )
    code, out, _ = hedgerow("data", "check", "clips.jsonl")
    article = "an" if kind == "image" else "a"
    assert code == 1
    assert (
        f"clips.jsonl:1: root: {name}: an HTML page, not {article} {kind}; download it again [media]" in out
    )
