"""Figures and held-out photos with the captions written for them, as text and as a page."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from photos import Photo
from PIL import Image
from scoring import Scores

from hedgerow.report.page import Picture, Pictures, Section, Table, Text, small_uri, write_page

_NAMES = {
    "right": "loss with the right photo",
    "shuffled": "loss with another photo",
    "blind": "loss without a photo",
    "gain": "what the right photo gains over another",
    "choice": "right one of four captions",
    "blind_choice": "the same without a photo (chance .25)",
    "lift": "caption the photo makes likelier most",
}
_ABOUT = (
    "Held-out photos are of things that no training photo shows. Losses are in nats a token, of the caption "
    "given the photo and the question. Another photo shows another thing and has another caption. Wrong "
    "captions of a choice are those of other held-out things; the likeliest of four is taken. Intervals are "
    "95 %, bootstrapped over things."
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Scores by set of photos, and photos with what was written for them, as they came."""

    scores: Mapping[str, Scores]
    written: tuple[tuple[Photo, str], ...]

    def __str__(self) -> str:
        lines = []
        for name, scores in self.scores.items():
            lines.append(f"{name:<42}   mean  95 % interval     photos")
            lines += [f"  {_NAMES[field.name]:<40}{getattr(scores, field.name)}" for field in fields(scores)]
        lines.append("held-out photos: what people said | what the model says")
        lines += [f"  {photo.captions[0]} | {text}" for photo, text in self.written]
        return "\n".join(lines)


def write_report(path: Path, outcome: Outcome) -> Path:
    """Write the page and return its path."""
    tables = [
        Table(("", "mean", "low", "high", "photos"), [_row(scores, name) for name in _NAMES], title)
        for title, scores in outcome.scores.items()
    ]
    sections = [Section("Measured", [Text(_ABOUT), *tables])]
    sections.append(Section("Seen and said", [Pictures([_shown(*one) for one in outcome.written])]))
    return write_page(
        path, "A connector between packaged weights", sections, subtitle="EfficientNet-lite0 and SmolLM2-135M"
    )


def _row(scores: Scores, name: str) -> tuple[object, ...]:
    mean = getattr(scores, name)
    return (_NAMES[name], mean.value, mean.low, mean.high, mean.n)


def _shown(photo: Photo, text: str) -> Picture:
    with Image.open(photo.path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((224, 224))
    return Picture(small_uri(small), f"said: {text} true: {photo.captions[0]}", size=small.size)
