"""Rows of a set on the hub, fetched only when a user asks for it by name."""

from collections.abc import Iterator
from typing import Any

from hedgerow.data.adapters.records import Record
from hedgerow.errors import DataError


def read(name: str) -> Iterator[Record]:
    """Yield the rows of a hub set as a stream; images and videos stay encoded.

    Args:
        name: `OWNER/SET`, with a configuration and a split as `OWNER/SET@CONFIG:SPLIT`; `train` by default.
            The path of a folder that is laid out as a set is read likewise.

    Raises:
        DataError: `datasets` is not installed, or the set cannot be had.
    """
    try:
        import datasets
    except ImportError:
        raise DataError(f"{name}: hub sets need the package datasets; pip install 'hedgerow[hub]'") from None
    rest, _, split = name.partition(":")
    place, _, config = rest.partition("@")
    number = 0
    try:
        rows: Any = datasets.load_dataset(place, config or None, split=split or "train", streaming=True)
        for number, row in enumerate(rows.decode(False), 1):
            yield Record(name, place.rsplit("/", 1)[-1], number, dict(row))
    except Exception as error:  # whatever the network or the set does, in the words of the package
        told = str(error).split("\n")[0]
        raise DataError(
            f"{name}: row {number + 1} cannot be had ({told}); correct name, configuration or split"
        ) from None
