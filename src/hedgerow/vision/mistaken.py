"""What a file is that holds text where an image or a video is expected: a failed download, mostly."""

import codecs
import re
from dataclasses import dataclass

HEAD = 4096  # bytes that are looked at


@dataclass(frozen=True, slots=True)
class Mistaken:
    """What a file is in place of media, with its article, and what to do."""

    what: str
    remedy: str


_AGAIN = "download it again"
_KINDS = (
    (re.compile(rb"<(!doctype\s+)?(html|head|title|body|meta)\b", re.I), Mistaken("an HTML page", _AGAIN)),
    (re.compile(rb"<(!doctype\s+)?svg\b", re.I), Mistaken("an SVG drawing", "save it as PNG")),
    (re.compile(rb"[{\[]"), Mistaken("JSON", _AGAIN)),
    (
        re.compile(rb"version https://git-lfs"),
        Mistaken("a pointer of Git LFS", "fetch the file with `git lfs pull`"),
    ),
)
_TEXT = Mistaken("a text file", f"{_AGAIN}, or correct the path")
_PREAMBLE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?.*?\?>\s*|<!--.*?-->\s*)*", re.DOTALL)
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def mistaken(head: bytes) -> Mistaken | None:
    """Say what a file is that cannot be read as media, None where it does not begin with text in UTF-8.

    Args:
        head: its first `HEAD` bytes.
    """
    if not head.strip() or _CONTROLS.search(head):
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # its last character may be cut off
    except UnicodeDecodeError:
        return None
    preamble = _PREAMBLE.match(head)
    begin = preamble.end() if preamble else 0
    return next((kind for pattern, kind in _KINDS if pattern.match(head, begin)), _TEXT)
