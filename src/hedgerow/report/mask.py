"""A picture of who sees whom on a row, from the pair counts of blocks: nothing of size N x N is made."""

import numpy as np
from PIL import Image as Pixels

from hedgerow import visibility
from hedgerow.report.figure import Figure
from hedgerow.sequence import Row

_INK, _PAPER = (47, 109, 181), (255, 255, 255)
_EDGE = (194, 87, 26)


def mask_figure(row: Row) -> Figure:
    """Return the picture of a row's mask with the names of its axes and colours."""
    size = _block(row, 512)
    sees = "the query sees the key" + (f"; paler: part of {size} x {size} pairs" if size > 1 else "")
    return Figure(
        title=f"Who may attend to whom in a row of {len(row):,} tokens",
        picture=mask_picture(row),
        across=f"to the right: the key, which is seen, 0 to {len(row) - 1:,}",
        down=f"downwards: the query, which looks, 0 to {len(row) - 1:,}",
        legend=[(_INK, sees), (_PAPER, "hidden"), (_EDGE, "where the next tree begins")],
    )


def mask_picture(row: Row, *, most: int = 512) -> Pixels.Image:
    """Draw a row's mask: queries downwards, keys to the right, both in physical order; darker sees more.

    Lines stand where one tree ends and the next begins.

    Args:
        row: as joined, before `Row.to`.
        most: pixels of a side, at most; a block of tokens is one pixel where the row is longer.

    Returns:
        an RGB picture of `most` pixels a side, or the whole multiple of the row's length below.
    """
    size = _block(row, most)
    counts = visibility.blocks(row.order, row.end, row.group, size=size)
    tokens = np.minimum(size, len(row) - size * np.arange(len(counts)))
    share = counts / (tokens[:, None] * tokens[None, :])
    pixels = np.round(255 - share[..., None] * (255 - np.array(_INK))).astype(np.uint8)
    times = max(most // len(counts), 1)
    pixels = pixels.repeat(times, 0).repeat(times, 1)
    for edge in np.cumsum(row.lengths[:-1]):
        place = min(int(edge) * times // size, len(pixels) - 1)
        pixels[place, :] = pixels[:, place] = _EDGE
    return Pixels.fromarray(pixels)


def _block(row: Row, most: int) -> int:
    """How many tokens a pixel stands for."""
    return -(-len(row) // most)
