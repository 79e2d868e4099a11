"""The isolation matrix of a row, as text, data and picture: how far each node moves the loss of each."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as Pixels

from hedgerow.report.figure import Figure
from hedgerow.sequence import Array

_WIDEST = 80  # nodes that a line of text can show
_SIDE = 480  # pixels of a picture, about
_COLOURS = {"own": (47, 109, 181), "silent": (255, 255, 255), "leak": (200, 30, 30)}


def finite(value: float) -> float | None:
    """Return a number as JSON has it: None for infinity and NaN."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Isolation:
    """The greatest |gradient| of each node's loss by the embeddings of each node's tokens. L losses, n nodes.

    `names` are the n nodes of a row, `losses` the L of them that have targets. `greatest` float32 [L, n].
    `path` bool [L, n] is True where the second is the first or stands above it; elsewhere nothing but exactly
    0.0 is allowed.
    """

    names: tuple[str, ...]
    losses: tuple[int, ...]
    greatest: Array
    path: Array

    @property
    def leaks(self) -> list[tuple[str, str, float]]:
        """Whose loss, moved by whom, and how far, for each pair that must not meet and does."""
        return [
            (self.names[self.losses[loss]], self.names[node], float(self.greatest[loss, node]))
            for loss, node in np.argwhere(~self.path & (self.greatest != 0.0)).tolist()
        ]

    @property
    def cases(self) -> int:
        """How many losses there are with a node off their path."""
        return int((~self.path).any(axis=1).sum())

    @property
    def error(self) -> float:
        """The greatest gradient off the path, NaN if one is, 0 of none."""
        return float(np.max(self.greatest[~self.path], initial=0.0))

    def to_dict(self) -> dict[str, Any]:
        """Return the whole matrix as plain data."""
        return {
            "nodes": list(self.names),
            "losses": [self.names[node] for node in self.losses],
            "greatest": [[finite(value) for value in line] for line in self.greatest.tolist()],
            "leaks": [
                {"loss": loss, "moved_by": node, "greatest": finite(by)} for loss, node, by in self.leaks
            ],
        }

    def __str__(self) -> str:
        lines = [f"leak: {node} moves the loss of {loss} by {by:.1e}" for loss, node, by in self.leaks]
        if len(self.names) > _WIDEST:
            return "\n".join([f"{len(self.names)} nodes: --json prints the matrix", *lines])
        width = max(map(len, self.names))
        marks = np.where(self.greatest == 0.0, ".", np.where(self.path, "+", "!"))
        grid = [
            f"{self.names[node]:<{width}}  {''.join(line)}"
            for node, line in zip(self.losses, marks, strict=True)
        ]
        legend = f"{'loss of':<{width}}  + its path moves it   . exactly 0   ! leak   (one column a node)"
        return "\n".join([legend, *grid, *lines])

    def figure(self) -> Figure:
        """Return the picture of the matrix with the names of its axes and colours."""
        return Figure(
            title="Whose tokens move whose loss",
            picture=self.picture(),
            across=f"to the right: the tokens of each of {len(self.names)} nodes",
            down=f"downwards: the loss of each of {len(self.losses)} nodes with answers",
            legend=[
                (_COLOURS["own"], "moves it, as its path must"),
                (_COLOURS["silent"], "does not: the gradient is exactly 0"),
                (_COLOURS["leak"], "leak: moves it and must not"),
            ],
        )

    def picture(self) -> Pixels.Image:
        """Draw a line a loss and a column a node: blue moves the loss, red leaks, white is exactly 0."""
        cells = np.empty((*self.greatest.shape, 3), np.uint8)
        cells[:] = _COLOURS["silent"]
        cells[self.path & (self.greatest != 0.0)] = _COLOURS["own"]
        cells[~self.path & (self.greatest != 0.0)] = _COLOURS["leak"]
        times = max(_SIDE // max(cells.shape[:2]), 1)
        return Pixels.fromarray(cells.repeat(times, 0).repeat(times, 1))
