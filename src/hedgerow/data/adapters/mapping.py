"""The language of mappings: YAML that says what the columns of a data set mean, so that it needs no code."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hedgerow.content import Frame
from hedgerow.data.adapters.paths import HERE, PathText, Template
from hedgerow.data.adapters.piece import PerTree
from hedgerow.errors import RecipeError
from hedgerow.validation import explain, parse_yaml


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Condition(_Words):
    """What must hold for a value; of several words all must. A list is compared by its length.

    Attributes:
        equals: it is this.
        one_of: it is one of these.
        none_of: it is none of these.
        at_least: it is so much or more.
        at_most: it is so much or less.
        above: it is more.
        given: there is a value that is not empty, or (false) there is none.
        multiple_of: a whole multiple of what stands at this path.
    """

    equals: Any = None
    one_of: tuple[Any, ...] | None = None
    none_of: tuple[Any, ...] | None = None
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    given: bool | None = None
    multiple_of: PathText | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Condition":
        if not self.model_fields_set:
            raise ValueError(f"an empty condition; give one of {', '.join(type(self).model_fields)}")
        return self


When = dict[PathText, Condition]


class Lines(_Words):
    """Subtitles: paths to starts, ends and texts of their lines, in seconds from the start of the clip."""

    start: PathText
    end: PathText
    text: PathText


class Media(_Words):
    """An image or a video that the root shows, or one for each item of a list.

    Attributes:
        image: its file name.
        video: its file name.
        each: a list; `{item}` is its item, and the keys of an item are columns.
        start: seconds of the file at which the clip starts.
        end: seconds of the file at which it ends.
        subtitles: lines spoken in it.
        annotation_fps: so often a second its tracks were annotated.
        when: only then it is shown; a row of which nothing is shown is left out.
    """

    image: Template | None = None
    video: Template | None = None
    each: PathText | None = None
    start: PathText | None = None
    end: PathText | None = None
    subtitles: Lines | None = None
    annotation_fps: PathText | None = None
    when: When = {}

    @model_validator(mode="after")
    def _is_one_thing(self) -> "Media":
        if (self.image is None) == (self.video is None):
            raise ValueError("give one of image and video, the name of its file")
        of_videos = ("start", "end", "subtitles", "annotation_fps")
        odd = next((name for name in of_videos if getattr(self, name) is not None), None)
        if self.image is not None and odd:
            raise ValueError(f"an image has no {odd}; leave it out")
        return self


class Grounding(_Words):
    """Points or tracks; paths with `[]` are expanded side by side to one point each.

    Attributes:
        label: what is pointed at.
        x: path; one without a value is no point.
        y: path.
        time: path, in seconds.
        times: whether they count from the start of the clip or of the file.
        id: path; objects are numbered in the order they come.
        image: path, the number of the image, from 1.
        frame: the unit of x and y.
        width: path; pixels are then brought to fractions of it.
        height: path, likewise.
        clamp: points outside the frame are moved to its edge.
        unless: path; where it is true there is no point, as for an object that is hidden.
        among: path to a list of ids; points of other objects are left out.
        only: all points, or the first and the last of each object.
    """

    label: Template
    x: PathText
    y: PathText
    time: PathText | None = None
    times: Literal["clip", "file"] = "clip"
    id: PathText | None = None
    image: PathText | None = None
    frame: Frame = "fraction"
    width: PathText | None = None
    height: PathText | None = None
    clamp: bool = False
    unless: PathText | None = None
    among: PathText | None = None
    only: Literal["all", "ends"] = "all"

    @model_validator(mode="after")
    def _sides_go_together(self) -> "Grounding":
        sizes = [side for side in (self.width, self.height) if side is not None]
        if sizes and (len(sizes) < 2 or self.frame != "pixels"):
            raise ValueError("width and height are given together, and for frame: pixels")
        return self


class Choices(_Words):
    """Multiple choice: options are written below the question, the answer is the letter and its words.

    The place of the right one is drawn from the question, so that it is the same in every conversion.
    """

    right: PathText
    wrong: PathText


class BranchRule(_Words):
    """A branch that a row brings, or one for each item of a list.

    Attributes:
        task: as in the native format.
        question: text; `{}` in it shows the first point of the tracks.
        answer: text; `{}` in it is where points or tracks stand.
        points: the answer points.
        merge_by: paths; branches of one tree that agree in them are one, with the points or tracks of all.
        tracks: the answer tracks.
        choices: the answer is one of several.
        speakers: marks of user and assistant: the question is a whole dialogue, written with these.
        each: a list; `{item}` is its item, and the keys of an item are columns.
        when: only then there is the branch; with `each`, for each item.
    """

    question: Template
    task: Annotated[str, Field(min_length=1)] | None = None
    answer: Template | None = None
    points: Grounding | None = None
    merge_by: tuple[PathText, ...] = ()
    tracks: Grounding | None = None
    choices: Choices | None = None
    speakers: tuple[str, str] | None = None
    each: PathText | None = None
    when: When = {}

    @model_validator(mode="after")
    def _has_one_answer(self) -> "BranchRule":
        kinds = [kind for kind in ("points", "tracks", "choices") if getattr(self, kind) is not None]
        if len(kinds) > 1 or (kinds == ["choices"] and self.answer is not None):
            both = [*kinds, *(["answer"] if self.answer is not None else [])]
            raise ValueError(f"a branch has one answer, not {' and '.join(both)}; write several branches")
        if not kinds and self.answer is None:
            raise ValueError("a branch needs an answer; give answer, points, tracks or choices")
        if self.answer is not None and (HERE in self.answer) != bool(kinds):
            raise ValueError("points stand at {} in the answer: give both, or neither")
        grounding = self.points or self.tracks
        if self.merge_by and grounding is None:
            raise ValueError("merge_by merges points or tracks, and there are none; leave it out")
        if self.merge_by and grounding is not None and (grounding.only != "all" or HERE in self.question):
            raise ValueError("merge_by takes all points of a row: leave out 'only', and {} in the question")
        if HERE in self.question and self.tracks is None:
            raise ValueError("{} in a question shows the first point of tracks, and there are none")
        return self


class RowMapping(_Words):
    """What the columns of one data set mean.

    Attributes:
        about: the data set, in a line.
        read_in: where its columns were read.
        source: the data set of the trees.
        columns: those by which a file of it is known; none: only by its name.
        without: columns that no file of it has.
        id: of the tree; the file and the number of the row without it.
        when: other rows are left out and counted.
        media: what the root shows, in order.
        group_by: rows that agree in these paths, and show the same, share a tree; none: every row is one.
        group_when: only rows for which this holds share a tree.
        per_tree: the most that one tree takes.
        branches: what is asked and answered.
    """

    source: Annotated[str, Field(min_length=1)]
    branches: Annotated[tuple[BranchRule, ...], Field(min_length=1)]
    about: str = ""
    read_in: str = ""
    columns: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    id: Template | None = None
    when: When = {}
    media: tuple[Media, ...] = ()
    group_by: tuple[PathText, ...] = ()
    group_when: When = {}
    per_tree: PerTree = PerTree()

    @model_validator(mode="after")
    def _has_a_root(self) -> "RowMapping":
        if not self.media and (len(self.branches) > 1 or self.branches[0].each or self.group_by):
            raise ValueError("without media a row is one conversation; give one branch, and no group_by")
        if not self.group_by and any(rule.merge_by and not rule.each for rule in self.branches):
            raise ValueError("merge_by merges rows that share a tree, and no rows do; give group_by")
        return self


def read_mapping(path: Path) -> RowMapping:
    """Read a mapping.

    Raises:
        RecipeError: there is no such file, it is not YAML, or a word is wrong; the message
            names the nearest that is right.
    """
    try:
        return RowMapping.model_validate(_keys_and_values(path))
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain(error, _WORDS, RowMapping)}") from None


def _keys_and_values(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such mapping; give a file in YAML, {_PAGE}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RecipeError(f"{path}: no mapping can be read here ({why}); give a file in YAML") from None
    given = parse_yaml(text, where=str(path))
    if not isinstance(given, dict):
        raise RecipeError(f"{path}: holds no mapping; write 'key: value' lines, {_PAGE}")
    return given


_PAGE = "see 'A format of your own' in docs/sources.md"
_WORDS = {
    word
    for kind in (RowMapping, BranchRule, Choices, Grounding, Media, Lines, Condition)
    for word in kind.model_fields
}
