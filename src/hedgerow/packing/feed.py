"""Rows from data workers: the standard `DataLoader`, as both loaders use it."""

import dataclasses
import os
import re
from collections.abc import Callable, Generator, Iterable
from collections.abc import Sequence as Listing
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from hedgerow.errors import DataError, HedgerowError
from hedgerow.sequence import Budget, Row, Sequence

_DEAD = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)(.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True)
class InHand:
    """Which example each worker is encoding, in memory that it shares with the process that waits for it.

    `notes` int64 [workers, 3]: process, row (-1 where it is not known yet), example.
    """

    notes: Tensor

    @classmethod
    def of(cls, workers: int) -> "InHand":
        """Nothing is in hand yet."""
        return cls(torch.full((workers, 3), -1, dtype=torch.int64).share_memory_())  # type: ignore[no-untyped-call]

    def note(self, row: int, example: int) -> None:
        """Say, in a worker, what it takes in hand."""
        info = get_worker_info()
        if info is not None:
            self.notes[info.id] = torch.tensor([os.getpid(), row, example])

    def explain(self, error: RuntimeError, name: Callable[[int, int], str]) -> DataError | None:
        """Name the example that a dead worker had in hand, if that is what the error is about.

        Args:
            error: as the DataLoader raises it.
            name: says what stands at (row, example).
        """
        found = _DEAD.search(str(error))
        if found is None:
            return None
        dead = {int(pid) for pid in found[1].split(",")}
        held = [name(row, example) for pid, row, example in self.notes.tolist() if pid in dead]
        how = " ".join(found[2].split()).rstrip(".")
        return DataError(
            f"a data worker {how} with {' and '.join(held) or 'no example'} in hand; if memory ran out take "
            "fewer workers, if its media crash the decoder leave it out"
        )


def feed(dataset: Dataset[Any], jobs: Iterable[Any] | None, *, workers: int, prefetch: int) -> Generator[Any]:
    """Yield what a dataset makes of each job, in order; without jobs, what it yields itself.

    An exception that it returns is raised here as it is: the DataLoader would bury the message of one that it
    raises in a traceback. The workers end with the iteration, however it ends.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        sampler=jobs,  # any iterable does: nobody asks for its length
        batch_size=None,
        collate_fn=_same,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        generator=torch.Generator(),  # its own: a resumed run must not draw from torch's global generator
    )
    made = iter(loader)
    try:
        for item in made:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        # An error's traceback would keep the iterator, and so its workers, alive; no public call ends them.
        if hasattr(made, "_shutdown_workers"):
            made._shutdown_workers()


def encoded(encode: Callable[[], object], where: Callable[[], str]) -> Sequence:
    """Encode an example; a bug in the user's own code is raised as it is, with a note that names the example.

    The note is part of the traceback, which is all that the DataLoader passes on from a worker.

    Args:
        encode: makes the sequence.
        where: says which example it is.

    Raises:
        TypeError: what was made is no `Sequence`.
    """
    try:
        found = encode()
        if not isinstance(found, Sequence):
            raise TypeError(f"encode returned {found!r:.80}: let it return a hedgerow Sequence")
    except HedgerowError:
        raise
    except Exception as error:
        error.add_note(f"while encoding {where()}")
        raise
    return found


def joined(sequences: Listing[Sequence], budget: Budget, *, pad: bool) -> Row:
    """Join sequences as `Row.join` does; in a worker the crops go to shared memory, a tensor, at once.

    Through a pipe each would be copied four times more, twice of that by the process that waits.
    """
    shown = [item.vision for item in sequences if item.vision is not None]
    if get_worker_info() is None or not shown:
        return Row.join(sequences, budget, pad=pad)
    row = Row.join([_without_pixels(item) for item in sequences], budget, pad=pad)
    assert row.vision is not None
    shape = (sum(len(vision.crops) for vision in shown), *shown[0].crops.shape[1:])
    # As the DataLoader's own collation: `share_memory_` would copy what is already written.
    storage = torch.UntypedStorage._new_shared(int(np.prod(shape)))  # type: ignore[no-untyped-call]
    crops = torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape)  # type: ignore[call-overload]
    np.concatenate([vision.crops for vision in shown], out=crops.numpy())
    return dataclasses.replace(row, vision=dataclasses.replace(row.vision, crops=crops))


def _without_pixels(item: Sequence) -> Sequence:
    if item.vision is None:
        return item
    return dataclasses.replace(item, vision=dataclasses.replace(item.vision, crops=item.vision.crops[:, :0]))


def received(row: Row | None) -> Row | None:
    """Return a row from `joined` with numpy arrays alone; nothing is copied."""
    if row is None or row.vision is None or not isinstance(row.vision.crops, Tensor):
        return row
    return dataclasses.replace(row, vision=dataclasses.replace(row.vision, crops=row.vision.crops.numpy()))


def _same(item: Any) -> Any:
    return item
