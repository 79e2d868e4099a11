import itertools
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Subtitle, Video
from hedgerow.errors import MediaError
from hedgerow.tree import read_trees
from hedgerow.vision import Molmo2Processor, VideoFacts
from hedgerow.vision import subtitles as module
from hedgerow.vision.subtitles import lines_of, read_subtitles

FILM = """\
1
00:00:02,000 --> 00:00:09,500
Before.

2
00:00:08,000 --> 00:00:12,250
It begins
before.

3
00:00:15,500 --> 00:00:16,000
Within.

4
00:00:18,000 --> 00:00:25,000
It goes on.

5
00:00:20,001 --> 00:00:22,000
Behind.
"""
CASES = itertools.count()


@pytest.fixture
def read(tmp_path):
    """Write a file and read it back."""

    def run(content, name="lines.srt"):
        path = tmp_path / str(next(CASES)) / name
        path.parent.mkdir()
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_subtitles(str(path))

    return run


def rows(*triples):
    return tuple(Subtitle(*triple) for triple in triples)


# Files


def test_srt(read):
    assert read(FILM)[:3] == rows(
        (2.0, 9.5, "Before."), (8.0, 12.25, "It begins before."), (15.5, 16.0, "Within.")
    )


def test_webvtt(read):
    found = read(
        "WEBVTT - a title\nKind: captions\nLanguage: en\n\n"
        "STYLE\n::cue { color: red }\n\nREGION\nid:left\nwidth:40%\n\n"
        "NOTE one line\n\nNOTE\nof several\nlines\n\n"
        "intro\n00:01.000 --> 00:02.500 align:start position:0%\nFirst\n\n"
        "01:00:03.000 --> 123:00:04.000\nSecond\n",
        "lines.vtt",
    )
    assert found == rows((1.0, 2.5, "First"), (3603.0, 442804.0, "Second"))


@pytest.mark.parametrize(
    ("times", "start", "end"),
    [
        ("00:00:01,500 --> 00:00:02,000", 1.5, 2.0),
        ("00:00:01.500-->00:00:02.000", 1.5, 2.0),
        ("  0:0:1 \t-->  1:02:03  X1:40 X2:600", 1.0, 3723.0),
        ("59:59.999 --> 1:00:00.000 line:0", 3599.999, 3600.0),
        ("00:00:01,000 --> 00:00:01,000", 1.0, 1.0),
    ],
)
@pytest.mark.parametrize("name", ["lines.srt", "LINES.VTT"])
def test_times_as_files_write_them(read, name, times, start, end):
    assert read(f"1\n{times}\nHello\n", name) == rows((start, end, "Hello"))


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("<i>It</i> is <b>he</b><u>re</u>", "It is here"),
        ("<c.yellow.bg_blue>Who</c> <v Mary Ann>goes <lang en>there</lang>", "Who goes there"),
        ("one<00:00:01.500><c> two</c>", "one two"),
        ('{\\an8}{\\fs20\\b1}Up <font color="#fff">high</font>', "Up high"),
        ("one<br>two<BR />three", "one two three"),
        ("fish &amp; chips &lt;i&gt; &#233;&#xe9;&nbsp;&hellip;", "fish & chips <i> éé …"),
        ("AT&T &notes R&D; 3 < 5 > 4 <3 {x} 2<1", "AT&T &notes R&D; 3 < 5 > 4 <3 {x} 2<1"),
        ("  two\t spaces  \n \n  and lines ", "two spaces and lines"),
        ("7\n8", "7 8"),
        ("&amp;lt;", "&lt;"),
    ],
)
def test_text_is_plain(read, marked, plain):
    assert read(f"1\n00:00:01,000 --> 00:00:02,000\n{marked}\n") == rows((1.0, 2.0, plain))


@pytest.mark.parametrize("text", ["", "  ", "<i></i>", "{\\an8}", "&nbsp;"])
def test_a_cue_without_text_is_left_out(read, text):
    found = read(f"1\n00:00:01,000 --> 00:00:02,000\n{text}\n\n2\n00:00:03,000 --> 00:00:04,000\nx\n")
    assert found == rows((3.0, 4.0, "x"))


@pytest.mark.parametrize("nothing", ["", "\n\n", "WEBVTT", "\ufeffWEBVTT\n\nNOTE x\n"])
def test_a_file_may_have_no_cue(read, nothing):
    assert read(nothing, "lines.vtt") == ()


def test_cues_are_put_in_order_and_may_overlap(read):
    found = read(
        "0:05.000 --> 0:09.000\nc\n\n0:01.000 --> 0:07.000\na\n\n0:01.000 --> 0:02.000\nb\n", "l.vtt"
    )
    assert found == rows((1.0, 7.0, "a"), (1.0, 2.0, "b"), (5.0, 9.0, "c"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-marked"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_ends_of_lines(read, encoding, newline):
    text = FILM.replace("Within", "Größe 象 🐘").replace("\n", newline)
    data = b"\xfe\xff" + text.encode("utf-16-be") if "marked" in encoding else text.encode(encoding)
    assert [line.text for line in read(data)][2] == "Größe 象 🐘."


def test_lines_of_spaces_part_cues_but_not_the_lines_of_one(read):
    found = read(" \nWEBVTT\n \n1\n0:01.000 --> 0:02.000\n \na\n \nb\n\t\n2\n0:03.000 --> 0:04.000\nc\n"[2:])
    assert found == rows((1.0, 2.0, "a b"), (3.0, 4.0, "c"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("1\n00:00:01,000 -> 00:00:02,000\nx\n", ":1: text without times ('1'); write 00:01:02,500 -->"),
        (
            "1\n0:01.000 --> 0:02.000\nx\n\ny z\n",
            ":5: text without times ('y z'); .* empty line within a cue",
        ),
        (
            "\n1\n0:01.000 --> 0:02.000\nx\n2\n0:03.000 --> 0:04.000\ny",
            ":6: a cue begins within another; put",
        ),
        ("WEBVTT\n\nNOTE\nsaid\n0:01.000 --> 0:02.000\n", ":3: text without times"),
        (
            "1\n00:00:01,00 --> 00:00:02,00\nx\n",
            ":2: times '00:00:01,00 --> 00:00:02,00' cannot be read; write",
        ),
        ("00:75:00.000 --> 01:00:00.000\nx\n", ":1: times .* cannot be read"),
        ("-00:01.000 --> 00:01.000\nx\n", ":1: times .* cannot be read"),
        ("00:01.000 -->\nx\n", ":1: times .* cannot be read"),
        ("\u06600:01.000 --> 0:02.000\nx\n", ":1: times .* cannot be read"),
        ("a\r\n00:00:03,000 --> 00:00:02,000\r\nx", ":2: a cue ends at 2 s before it starts at 3 s; correct"),
        ("a dog barks", ":1: text without times"),
        ("x\n\nWEBVTT\n", ":1: text without times"),
        ("0:01.000 --> 0:02.000\nx\n\nWEBVTT\n", ":4: text without times"),
        (
            FILM.replace("Within", "Größe").encode("latin-1"),
            ":12: neither UTF-8 nor UTF-16; save .* as UTF-8",
        ),
        (FILM.encode("utf-16-le"), ":1: UTF-16 without a byte order mark, or no text; save"),
        (FILM.encode("utf-16")[:-1], ":20: neither UTF-8 nor UTF-16; save"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(read, content, why):
    pattern = r"/lines\.srt" + why.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(MediaError, match=pattern):
        read(content)


def test_a_missing_file_and_another_kind_are_refused(tmp_path):
    with pytest.raises(MediaError, match=r"gone\.srt: no such file; correct the path"):
        lines_of(Video("v.mp4", subtitles=str(tmp_path / "gone.srt")))
    with pytest.raises(MediaError, match=r"v\.ass: not an SRT or VTT file; convert it"):
        lines_of(Video("v.mp4", subtitles="v.ass"))


# Clips


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "film.srt"
    path.write_text(FILM)
    return str(path)


def test_rows_are_returned_as_they_are():
    given = rows((3.0, 1.0, "  x  "), (-9.0, -8.0, ""))
    assert lines_of(Video("v", start=5.0, end=6.0, subtitles=given)) == given
    assert lines_of(Video("v")) == ()


def test_lines_of_a_clip_count_from_its_start(film):
    assert lines_of(Video("v", subtitles=film)) == read_subtitles(film)
    assert lines_of(Video("v", start=10.0, end=20.0, subtitles=film)) == rows(
        (0.0, 2.25, "It begins before."), (5.5, 6.0, "Within."), (8.0, 10.0, "It goes on.")
    )
    assert [line.text for line in lines_of(Video("v", start=15.75, subtitles=film))] == [
        "Within.",
        "It goes on.",
        "Behind.",
    ]
    assert lines_of(Video("v", end=8.0, subtitles=film)) == rows(
        (2.0, 8.0, "Before."), (8.0, 8.0, "It begins before.")
    )


@pytest.mark.parametrize(
    ("moment", "shown"),
    [(1.9, []), (2.0, ["Before."]), (9.0, ["Before.", "It begins before."]), (9.5, ["It begins before."])],
)
def test_a_clip_of_one_frame_has_the_lines_shown_at_it(film, moment, shown):
    assert [line.text for line in lines_of(Video("v", start=moment, end=moment, subtitles=film))] == shown


def test_a_line_without_length_is_shown_at_its_moment(tmp_path):
    path = tmp_path / "blink.vtt"
    path.write_text("WEBVTT\n\n0:05.000 --> 0:05.000\nBlink\n")
    for start, end, shown in [(5.0, 5.0, 1), (5.0, 9.0, 1), (2.0, 5.0, 1), (5.001, 9.0, 0), (2.0, 4.999, 0)]:
        assert len(lines_of(Video("v", start=start, end=end, subtitles=str(path)))) == shown


def test_the_processor_writes_the_lines_of_a_clip_in_its_own_time(film):
    processor = Molmo2Processor(crop_size=84, patch_size=7, margins=(2, 3), max_frames=3)
    facts = VideoFacts("v", 8, 8, 0.0, 60.0)
    layout = processor.layout(Video("v", start=10.0, end=20.0, subtitles=film), facts)
    assert layout.times == (0.0, 5.0, 10.0)
    assert layout.pieces[-1] == (
        "\nSubtitles:\n0.0 - 2.2 It begins before.\n5.5 - 6.0 Within.\n8.0 - 10.0 It goes on."
    )


def test_a_path_in_jsonl_is_relative_to_its_file(tmp_path, film):
    message = {"role": "user", "content": [{"type": "video", "path": "v.mp4", "subtitles": "film.srt"}]}
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"id": "a", "messages": [message]}))
    ((video,),) = (tree.media for tree in read_trees(data))
    assert Path(video.subtitles) == tmp_path / "film.srt"
    assert lines_of(video) == read_subtitles(film)


def test_a_file_is_read_once_until_it_changes(film, monkeypatch):
    read = []
    monkeypatch.setattr(
        module, "_decoded", lambda path, data, real=module._decoded: read.append(path) or real(path, data)
    )
    for start in range(20):
        lines_of(Video("v", start=float(start), subtitles=film))
    assert len(read) == 1
    found = Path(film).stat()
    Path(film).write_text(FILM.replace("Within", "WITHIN"))
    os.utime(film, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert read_subtitles(film)[2].text == "WITHIN."
    Path(film).write_text(FILM.replace("Within", "Inside it"))
    os.utime(film, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert read_subtitles(film)[2].text == "Inside it."
    assert len(read) == 3


# Any rows, written and read back


def written(lines, kind, mark, draw):
    """The text of a file with these cues, in one of the ways that programs write them."""
    blocks = ["WEBVTT"] if kind == "vtt" else []
    for number, (start, end, text) in enumerate(lines, 1):
        safe = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("{", "&#123;")
        words = draw(st.sampled_from(["{}", "<i>{}</i>", "{{\\an8}}{}", "<v A B>{}"])).format(safe)
        words = draw(st.sampled_from([" ", "\n", "\n  "])).join(words.split()) if "<v" not in words else words
        times = f"{clock(start, mark, draw)} --> {clock(end, mark, draw)}"
        name = draw(st.sampled_from([f"{number}\n", "", "name of it\n"]))
        blocks.append(f"{name}{times}{draw(st.sampled_from(['', ' align:left']))}\n{words}")
        if kind == "vtt" and draw(st.booleans()):
            blocks.append("NOTE\nskip this")
    return "\n\n".join(blocks) + draw(st.sampled_from(["", "\n", "\n\n\n"]))


def clock(thousandths, mark, draw):
    seconds, rest = divmod(thousandths, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    front = "" if hours == 0 and draw(st.booleans()) else f"{hours:02}:"
    return f"{front}{minutes:02}:{seconds:02}{mark}{rest:03}"


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
moments = st.integers(0, 10**7)


@settings(deadline=None, max_examples=150)
@given(
    data=st.data(),
    spans=st.lists(st.tuples(moments, st.integers(0, 10**5), texts), max_size=5),
    kind=st.sampled_from(["srt", "vtt"]),
    mark=st.sampled_from([",", "."]),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_any_rows_survive_a_file(tmp_path_factory, data, spans, kind, mark, newline, encoding):
    lines = [(start, start + length, " ".join(text.split())) for start, length, text in spans]
    path = tmp_path_factory.getbasetemp() / f"{next(CASES)}.{kind}"
    path.write_bytes(written(lines, kind, mark, data.draw).replace("\n", newline).encode(encoding))
    expected = [(start / 1000, end / 1000, text) for start, end, text in lines if text]
    assert read_subtitles(str(path)) == rows(*sorted(expected, key=lambda row: row[0]))


@settings(deadline=None, max_examples=150)
@given(
    content=st.one_of(st.binary(max_size=60), st.text(alphabet="0123:,.-> \n\r<&;{\\}aWEBVTT", max_size=80))
)
def test_whatever_a_file_holds_it_is_read_or_refused_by_name(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / f"{next(CASES)}.srt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused = ""
    try:
        found = read_subtitles(str(path))
    except MediaError as error:
        found, refused = (), str(error)
    assert not refused or (refused.startswith(f"{path}:") and "\n" not in refused)
    assert all(line.start <= line.end and line.text for line in found)
