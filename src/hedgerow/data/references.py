"""Log-probabilities of targets under a reference model, made once and kept in a file beside the data."""

import dataclasses
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.errors import DataError, RecipeError
from hedgerow.sequence import Array, Sequence


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class References:
    """Reference values of examples, found by the id of their tree.

    Attributes:
        places: by id, the place of an example in the arrays below; n examples, M targets in all.
        starts: int64 [n + 1], where the values of each example begin, and where the last ones end.
        checks: uint32 [n], CRC-32 of each example's tokens, so that values of another text are not used.
        values: float32 [M], log p of each target.
        model: what gave the values, as a recipe says it.
    """

    places: dict[str, int]
    starts: Array
    checks: Array
    values: Array
    model: str

    @classmethod
    def of(cls, found: Iterable[tuple[str, Array, Array]], *, model: str) -> "References":
        """Collect values.

        Args:
            found: of each example its id, all its tokens, int [n], and log p of its targets, float [m].
            model: what gave them.

        Raises:
            DataError: two examples have one id.
        """
        places: dict[str, int] = {}
        lengths, checks, values = [0], [], [np.zeros(0, np.float32)]
        for example, tokens, logps in found:
            if example in places:
                raise DataError(
                    f"two trees have the id {example!r}, by which reference values are found; rename one"
                )
            places[example] = len(places)
            lengths.append(len(logps))
            checks.append(_check(tokens))
            values.append(np.asarray(logps, np.float32))
        starts = np.cumsum(lengths, dtype=np.int64)
        return cls(places, starts, np.array(checks, np.uint32), np.concatenate(values), model)

    def __len__(self) -> int:
        return len(self.places)

    def __repr__(self) -> str:
        """Show the size, and which model gave them."""
        return f"References of {len(self):,} examples, {len(self.values):,} targets, by {self.model}"

    def attach(self, sequence: Sequence) -> Sequence:
        """Return a sequence with its reference values.

        Raises:
            DataError: there are none of it, or they are of another text.
        """
        place = self.places.get(sequence.example)
        if place is None:
            raise DataError("data.references has no values of this tree; write the file anew for these data")
        own = self.values[self.starts[place] : self.starts[place + 1]]
        if self.checks[place] != _check(sequence.tokens) or len(own) != len(sequence.target):
            raise DataError(
                "data.references holds values of another text than this tree has now; its prompts or "
                "answers, the tokenizer, the sizes of its media or the branches that fit have changed: write "
                "the file anew"
            )
        return dataclasses.replace(sequence, reference=own)

    def save(self, path: str | Path) -> None:
        """Write the file, in the format of `numpy.savez`, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with part.open("wb") as file:
            arrays = {name: getattr(self, name) for name in _STORED}
            np.savez(file, ids=list(self.places), **arrays)
        part.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "References":
        """Read a file that `save` wrote.

        Raises:
            RecipeError: it cannot be read, or is no such file.
        """
        try:
            with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
                held: dict[str, Any] = {name: file[name] for name in ("ids", *_STORED)}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise RecipeError(
                f"{path}: no file of reference values ({error}); make one: hedgerow data reference RECIPE"
            ) from None
        places = {example: place for place, example in enumerate(held.pop("ids").tolist())}
        return cls(places, **held | {"model": str(held["model"])})


_STORED = ("starts", "checks", "values", "model")


def _check(tokens: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(tokens, np.int32).tobytes())
