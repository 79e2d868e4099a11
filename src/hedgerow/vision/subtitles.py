"""Subtitles: rows that stand in the data, or an SRT or WebVTT file beside the video."""

import codecs
import html
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hedgerow.content import Subtitle, Video
from hedgerow.errors import MediaError

_KINDS = (".srt", ".vtt")
_ASIDE = ("NOTE", "STYLE", "REGION")  # blocks of WebVTT that are never shown
_ARROW = "-->"
_TIME = r"(?:([0-9]{1,4}):)?([0-5]?[0-9]):([0-5]?[0-9])(?:[.,]([0-9]{3}))?"
_TIMES = re.compile(rf"\s*{_TIME}\s*{_ARROW}\s*{_TIME}(?:\s.*)?")
_EXAMPLE = "00:01:02,500 --> 00:01:04,000"
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<[0-9:.]+>|\{\\[^{}]*\}")
_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,32};")


def lines_of(video: Video) -> tuple[Subtitle, ...]:
    """Return the subtitles of a clip, their times in seconds from its start.

    Rows are returned as they are. A file is read as `read_subtitles` says; its times count from the start of
    the video. Of a clip it gives the lines that are shown somewhere in it, in the order of their starts; a
    line that began before the clip starts at 0, one that goes on behind it ends with it.

    Raises:
        MediaError: the file is missing, or is no SRT or WebVTT file; the message names it and the line.
    """
    if not isinstance(video.subtitles, str):
        return video.subtitles
    start, end = video.start or 0.0, math.inf if video.end is None else video.end
    return tuple(
        Subtitle(max(line.start - start, 0.0), min(line.end, end) - start, line.text)
        for line in read_subtitles(video.subtitles)
        if line.start <= end and (line.end > start or line.start >= start)
    )


def read_subtitles(path: str) -> tuple[Subtitle, ...]:
    r"""Read an SRT or WebVTT file: the lines that have text, in the order of their starts.

    The file is UTF-8, or UTF-16 with a byte order mark. Tags (`<i>`, `<v Name>`, `{\an8}`) are removed,
    character references resolved, and the lines of one cue joined by spaces. Cues may overlap. A process
    reads a file once, as long as its size and time stay.

    Raises:
        MediaError: the file is missing, is neither kind, or has a cue that cannot be read.
    """
    file = Path(path)
    if file.suffix.lower() not in _KINDS:
        raise MediaError(f"{path}: not an SRT or VTT file; convert it to one, or give the subtitles as rows")
    if not file.is_file():
        raise MediaError(f"{path}: no such file; correct the path or put the subtitles there")
    found = file.stat()
    return _read(_Version(path, found.st_size, found.st_mtime_ns))


@dataclass(frozen=True, slots=True)
class _Version:
    """A file as it was at some time: its size in bytes, and when it was `changed` in nanoseconds."""

    path: str
    size: int
    changed: int


@lru_cache(maxsize=256)
def _read(version: _Version) -> tuple[Subtitle, ...]:
    try:
        data = Path(version.path).read_bytes()
    except OSError as error:
        raise MediaError(f"{version.path}: cannot be read ({error.strerror}); give a file that can") from None
    lines = re.split(r"\r\n|\r|\n", _decoded(version.path, data))
    cues = [cue for first, block in _blocks(lines) if (cue := _cue(version.path, first, block)) is not None]
    return tuple(sorted(cues, key=lambda cue: cue.start))


def _decoded(path: str, data: bytes) -> str:
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise _refused(path, line, "neither UTF-8 nor UTF-16", "save the file as UTF-8") from None
    if "\0" in text:  # UTF-16 of English is UTF-8, with this after each letter
        raise _refused(path, 1, "UTF-16 without a byte order mark, or no text", "save the file as UTF-8")
    return text


def _blocks(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Give the runs of lines between empty ones, with the number of the first.

    A line of spaces may be part of a cue (WebVTT); it ends one only where another cue begins behind it.
    """
    block: list[str] = []
    for number, line in enumerate([*lines, ""], 1):
        blank = not line.strip()
        if blank and (not line or not block or any(_ARROW in later for later in lines[number : number + 2])):
            if block:
                yield number - len(block), block
            block = []
        else:
            block.append(line)


def _cue(path: str, first: int, block: list[str]) -> Subtitle | None:
    """Read the cue of a block, whose first line has this number; None if it shows no text."""
    arrows = [place for place, line in enumerate(block) if _ARROW in line]
    word = block[0].split()[0]
    if not arrows and (word in _ASIDE or (word == "WEBVTT" and first == 1)):
        return None
    if not arrows or arrows[0] > 1:
        given = f"text without times ({block[0].strip()[:40]!r})"
        raise _refused(path, first, given, f"write {_EXAMPLE} before it, or leave no empty line within a cue")
    if len(arrows) > 1:
        raise _refused(path, first + arrows[1], "a cue begins within another", "put an empty line before it")
    place = arrows[0]
    match = _TIMES.fullmatch(block[place])
    if match is None:
        given = f"times {block[place].strip()[:60]!r} cannot be read"
        raise _refused(path, first + place, given, f"write them as {_EXAMPLE}")
    start, end = _seconds(*match.groups()[:4]), _seconds(*match.groups()[4:])
    if end < start:
        given = f"a cue ends at {end:g} s before it starts at {start:g} s"
        raise _refused(path, first + place, given, "correct its times")
    text = _plain(" ".join(block[place + 1 :]))
    return Subtitle(start, end, text) if text else None


def _seconds(hours: str | None, minutes: str, seconds: str, thousandths: str | None) -> float:
    whole = 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds)
    return (1000 * whole + int(thousandths or 0)) / 1000


def _plain(text: str) -> str:
    bare = _TAG.sub("", _BREAK.sub(" ", text))
    # One by one: `html.unescape` of a whole text also resolves `&not` of "&notes", where no `;` ends it.
    resolved = _ENTITY.sub(lambda found: html.unescape(found.group()), bare)
    return " ".join(resolved.split())


def _refused(path: str, line: int, given: str, do: str) -> MediaError:
    return MediaError(f"{path}:{line}: {given}; {do}")
