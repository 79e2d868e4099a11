"""What an adapter makes of a row."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from hedgerow.content import STRICT
from hedgerow.data.adapters.records import Record
from hedgerow.tree import MessageTree

Turns = Literal["together", "apart"]
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True, config=STRICT)
class PerTree:
    """The most that one tree takes of the rows that share its root.

    With `rows`, they are dealt to the fewest trees that hold them, in numbers that differ by one at most.
    With `points`, a tree is full when the next row would bring it above them; one row is never split.
    """

    rows: Annotated[int, Field(ge=1)] | None = None
    points: Annotated[int, Field(ge=1)] | None = None


NO_LIMIT = PerTree()


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What a user may say of a conversion.

    Attributes:
        turns: questions of one conversation stay together, since a later one may refer to an earlier one, or
            each becomes a branch of its own.
        pattern: file names of media, such as `{video_id}_2fps.mp4`, in place of a mapping's own.
    """

    turns: Turns = "together"
    pattern: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A branch that a mapping answers by points or tracks: they may stand in several rows of a tree.

    Attributes:
        merge: branches of a tree with the same are one, with the points of all; None: each is whole.
        objects: what the row calls the objects that its points number from 1.
    """

    merge: str | None = None
    objects: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A row as a tree of its own, and whether it joins others.

    Attributes:
        tree: media paths stand as in the row.
        key: rows of one source with the same key and the same root become one tree; None: it stays alone.
        asked: of each branch of the tree, by what it joins others; none: they stay as they are.
    """

    tree: MessageTree
    key: str | None = None
    asked: tuple[Asked | None, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Adapter:
    """A foreign format.

    Attributes:
        name: by which users call it.
        misfit: why a row with these columns is not of this format; empty: it is.
        piece: a pure function from a row to its tree; None: the format itself leaves the row out.
        columns: how many columns tell it; of several formats that fit, the one with most is meant.
        per_tree: the most of rows that share a tree.
        known: columns that its rows may have; by these the nearest are named where no format fits.
        needs: columns that the first row of a file has, even where the format is given.
    """

    name: str
    misfit: Callable[[Values], str]
    piece: Callable[[Record, Values, Options], Piece | None]
    columns: int = 1
    per_tree: PerTree = NO_LIMIT
    known: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
