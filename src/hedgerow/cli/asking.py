"""The verb that asks a model."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from hedgerow.cli.given import AsJson, aside
from hedgerow.errors import DataError, MediaError, RecipeError

if TYPE_CHECKING:
    from hedgerow.ask import Asked, Said
    from hedgerow.content import Media
    from hedgerow.models.sampling import Sampling

_MEDIA = (  # what a word may not end in that is no file
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif",
    ".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv",
)  # fmt: skip
_ROWS = 20  # of a table of points
_GUARD = 32  # tokens between two looks for loops


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """What is seen of a video.

    Attributes:
        fps: Frames a second of a video.
        max_frames: Most frames of a video.
        start: Where the clip of a video starts, in seconds.
        end: Where it ends, in seconds.
    """

    fps: float | None = None
    max_frames: int | None = None
    start: float | None = None
    end: float | None = None


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, slots=True)
class Writing:
    """How answers are written.

    Attributes:
        max_new_tokens: Most tokens of an answer.
        temperature: Draw at this temperature; 0 takes the most likely token at each step.
        top_p: Draw from the fewest tokens that have this probability together.
        seed: Decides the draws.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None


def ask(
    *words: Annotated[str, Parameter(name="MEDIA-AND-QUESTIONS")],
    model: Path,
    draw: Path | None = None,
    clip: Clip | None = None,
    writing: Writing | None = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model questions about images and videos; all are answered together.

    Parameters
    ----------
    words
        First the files to look at, then the questions. A word is a file if there is one of that name, or if
        it ends as the name of an image or video does; otherwise it is a question.
    model
        Folder of a finished run, or of a saved model.
    draw
        File to write what was shown to, with the points and tracks of the answers: .png, .gif or .mp4.
    """
    files, questions = parted(words)
    from hedgerow.models.folder import placed

    if not placed(model).is_dir():
        raise DataError(f"{model}: no such folder; give that of a finished run or of a saved model")
    from hedgerow.ask import ask as ask_model
    from hedgerow.ask import check_drawable, encoder_of, look, model_folder, shown
    from hedgerow.ask import draw as draw_answers
    from hedgerow.build import device
    from hedgerow.models.chat import check_vocabulary
    from hedgerow.models.pretrained import load

    media = _clipped([look(file) for file in files], clip or Clip())
    sampling = _sampling(writing or Writing())
    if draw is not None:
        check_drawable(draw, media)
    folder = model_folder(model)
    encoder = encoder_of(folder)
    shown(encoder, media)  # what cannot be seen is told before weights are read
    loaded = load(folder)
    check_vocabulary(encoder.chat, len(loaded.hf.get_input_embeddings().weight), where=folder)
    asked = ask_model(loaded.to(device()), encoder, media, questions, sampling)
    lost = 0
    if draw is not None:
        lost = draw_answers(asked, draw, damaged=getattr(encoder.processor, "damaged", "refuse"))
    if as_json:
        drawn = {} if draw is None else {"drawn": str(draw), "points_left_out": lost}
        print(json.dumps({"model": str(folder), **asked.to_dict(), **drawn}))
        return
    print("\n\n".join("\n".join(_told(said)) for said in asked.said))
    _tell(asked, draw, lost)


def parted(words: tuple[str, ...]) -> tuple[list[Path], list[str]]:
    """Part words into files, which stand first, and questions.

    Raises:
        MediaError: a file does not exist, or is a folder.
        RecipeError: a file stands behind a question, or there is no question.
    """
    files: list[Path] = []
    questions: list[str] = []
    for word in words:
        if not _is_file(word):
            questions.append(word)
        elif questions:
            raise RecipeError(
                f"{word} stands behind the question '{questions[0]}'; put files before questions"
            )
        else:
            files.append(Path(word))
    if not questions or not all(question.strip() for question in questions):
        raise RecipeError('no question; write it behind the files, in quotes: "How many are there?"')
    return files, questions


def _is_file(word: str) -> bool:
    path = Path(word)
    try:
        if path.is_dir():
            raise MediaError(f"{word} is a folder; name the images or videos in it")
        if path.is_file():
            return True
    except OSError:  # longer than a name may be
        return False
    if path.suffix.lower() in _MEDIA:
        raise MediaError(
            f"{word}: no such file; correct the path, or end a question with a question mark or a full stop"
        )
    return False


def _clipped(media: "list[Media]", clip: Clip) -> "list[Media]":
    from pydantic import ValidationError

    from hedgerow.content import Video
    from hedgerow.validation import explain

    given = {name: value for name, value in dataclasses.asdict(clip).items() if value is not None}
    if given and not any(isinstance(item, Video) for item in media):
        name = next(iter(given)).replace("_", "-")
        raise RecipeError(f"--{name} is of a video, and none is shown; leave it out")
    if clip.start is not None and clip.end is not None and clip.end < clip.start:
        raise RecipeError(f"--end {clip.end:g} lies before --start {clip.start:g}; swap them")
    try:
        return [Video(**({"path": item.path} | given)) if isinstance(item, Video) else item for item in media]
    except ValidationError as error:
        raise RecipeError(f"--{_option(explain(error, ()))}") from None


def _sampling(writing: Writing) -> "Sampling":
    from pydantic import ValidationError

    from hedgerow.models.sampling import Sampling
    from hedgerow.validation import explain

    given: dict[str, Any] = {
        name: value for name, value in dataclasses.asdict(writing).items() if value is not None
    }
    idle = [name for name in ("top_p", "seed") if name in given]
    if idle and writing.temperature == 0.0:
        raise RecipeError(f"--{_option(idle[0])} does nothing at temperature 0; add --temperature 0.7")
    try:
        return Sampling(**given, guard=_GUARD)
    except ValidationError as error:
        raise RecipeError(f"--{_option(explain(error, ()))}") from None


def _option(text: str) -> str:
    """Write the name of a field that a text begins with as that of an option."""
    name, sign, rest = text.partition(":")
    return f"{name.replace('_', '-')}{sign}{rest}"


def _told(said: "Said") -> list[str]:
    """Lines about one answer: question, text, points, and what was wrong."""
    lines = [f"> {said.question}", said.answer.text if said.answer.text.strip() else "  (an empty answer)"]
    for part in said.parsed.parts:
        lines.append(f"  {part.type} '{part.label}': {len(part.points)}")
        lines += [f"  {line}" for line in _table(part)]
    lines += [f"  not understood: {problem}" for problem in said.parsed.problems[:3]]
    if said.answer.reason == "length":
        lines.append(f"  cut off after {len(said.answer.tokens)} tokens; raise --max-new-tokens")
    elif said.answer.guarded:
        lines.append(f"  ended by the {said.answer.reason}")
    return lines


def _table(part: Any) -> list[str]:
    if not part.points:
        return []
    rows = [("at", "id", "x", "y")]
    for point in part.points[:_ROWS]:
        at = f"image {point.image or 1}" if point.time is None else f"{point.time:.1f} s"
        rows.append((at, str(point.id or ""), f"{point.x:.3f}", f"{point.y:.3f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    more = len(part.points) - _ROWS
    return [*lines, f"... and {more} more; all are in what --json prints"] if more > 0 else lines


def _tell(asked: "Asked", drawn: Path | None, lost: int) -> None:
    found = asked.generated
    aside(
        f"read in {found.prefill_seconds:.2f} s, then {found.tokens} tokens at "
        f"{found.tokens_per_second:.0f} a second"
    )
    if drawn is not None:
        left = f"; {lost} points stand on nothing that was shown" if lost else ""
        aside(f"wrote {drawn}{left}")
