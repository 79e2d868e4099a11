"""Questions about media, answered together, with the points and tracks of the answers."""

from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import PIL.Image

from hedgerow.content import Frame, Image, Media, Video
from hedgerow.encode import Encoder
from hedgerow.errors import MediaError
from hedgerow.grounding.codec import Parsed, parse
from hedgerow.models.answer import Answer
from hedgerow.models.generate import Generated, generate
from hedgerow.models.rows import RowModel
from hedgerow.models.sampling import Sampling
from hedgerow.sequence import Sequence
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.vision.facts import probe
from hedgerow.vision.processor import MediaLayout
from hedgerow.vision.qwen3_vl import Qwen3VLProcessor

# In which unit a family writes numbers whose form does not say it.
_UNITS: Final[dict[type, Frame]] = {Qwen3VLProcessor: "thousandths"}
_MOVING = ("GIF", "PNG")  # as Pillow calls the formats of pictures that FFmpeg reads as videos


@dataclass(frozen=True, slots=True)
class View:
    """An image or video with the settings of the model, and what the model sees of it."""

    media: Media
    layout: MediaLayout


@dataclass(frozen=True, slots=True)
class Said:
    """A question, its answer, and the points and tracks of the answer."""

    question: str
    answer: Answer
    parsed: Parsed

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, points and tracks in the native format."""
        return {
            "question": self.question,
            "answer": self.answer.text,
            "reason": self.answer.reason,
            "tokens": len(self.answer.tokens),
            "parts": _native(self.parsed),
            "problems": [problem._asdict() for problem in self.parsed.problems],
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """Answers to questions about the same media, in the order of the questions."""

    views: tuple[View, ...]
    said: tuple[Said, ...]
    generated: Generated

    def to_dict(self) -> dict[str, Any]:
        """Return media, answers and speed as plain data."""
        return {
            "media": [_plain(view) for view in self.views],
            "answers": [said.to_dict() for said in self.said],
            "prefill_seconds": self.generated.prefill_seconds,
            "decode_seconds": self.generated.decode_seconds,
            "tokens_per_second": self.generated.tokens_per_second,
        }


def look(path: str | Path) -> Media:
    """Tell by its content whether a file is an image or a video; a GIF or PNG that moves is a video.

    Raises:
        MediaError: it is missing, or neither.
    """
    path = Path(path)
    if not path.is_file():
        raise MediaError(f"{path}: no such file; correct the path")
    try:
        with PIL.Image.open(path) as picture:
            moves = picture.format in _MOVING and getattr(picture, "n_frames", 1) > 1
        return Video(str(path)) if moves else Image(str(path))
    except PIL.UnidentifiedImageError:
        pass  # it may be a video
    except Exception:  # damaged or too large: read as an image, it is refused with the reason
        return Image(str(path))
    try:
        probe(Video(str(path)))
    except MediaError as error:
        raise MediaError(f"{path} is no image, and as a video it cannot be read ({error})") from None
    return Video(str(path))


def shown(encoder: Encoder, media: Listing[Media]) -> tuple[View, ...]:
    """Return what a model sees of media; no pixel is decoded.

    Raises:
        MediaError: a file cannot be read, a clip lies outside it, or the model cannot see such media.
    """
    several = sum(isinstance(item, Image) for item in media) > 1
    processor, found = encoder.processor, []
    for item in media:
        filled = processor.filled(item, several=several)
        found.append(View(filled, processor.layout(filled, encoder.facts(filled), label=None)))
    return tuple(found)


def ask(
    model: RowModel,
    encoder: Encoder,
    media: Listing[Media],
    questions: Listing[str],
    sampling: Sampling | None = None,
) -> Asked:
    """Ask questions about the same images and videos; these are read once.

    Args:
        model: on any device.
        encoder: of the model, see `encoder_of`.
        media: shown in this order before each question; none for a question about nothing.
        questions: one conversation each.
        sampling: as for `generate`.

    Raises:
        MediaError: a file cannot be read, a clip lies outside it, or the model cannot see such media.
        RecipeError: media were encoded for another model.
    """
    views = shown(encoder, media)
    found = generate(model, _prompts(encoder, media, questions), encoder.chat, sampling)
    unit = _UNITS.get(type(encoder.processor))
    pairs = zip(questions, found.answers, strict=True)
    said = tuple(Said(question, answer, parse(answer.text, frame=unit)) for question, answer in pairs)
    return Asked(views, said, found)


def _prompts(encoder: Encoder, media: Listing[Media], questions: Listing[str]) -> list[Sequence]:
    asked = [Message("user", question) for question in questions]
    if media:
        tree = MessageTree(
            "asked", (Message("user", tuple(media)),), tuple(Branch((one,)) for one in asked), "ask"
        )
        return encoder.prompts(tree, tree.nodes()[1:])
    trees = [MessageTree("asked", (one,), (), "ask") for one in asked]
    return [prompt for tree in trees for prompt in encoder.prompts(tree, tree.nodes())]


def _native(parsed: Parsed) -> list[Any]:
    if not parsed.parts:
        return []
    tree = MessageTree("said", (Message("user", parsed.parts),))
    return list(tree.to_dict()["messages"][0]["content"])


def _plain(view: View) -> dict[str, Any]:
    width, height = view.layout.size
    fields: dict[str, Any] = {"type": view.media.type, "path": view.media.name}
    fields |= {"width": width, "height": height}
    return fields | {"times": list(view.layout.times)} if view.layout.times else fields
