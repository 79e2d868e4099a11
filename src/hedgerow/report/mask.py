"""A picture of who sees whom on a row, from the pair counts of blocks: nothing of size N x N is made."""

import numpy as np
from PIL import Image as Pixels

from hedgerow import visibility
from hedgerow.sequence import Row

_INK = np.array((47, 109, 181))
_EDGE = (194, 87, 26)


def mask_picture(row: Row, *, most: int = 512) -> Pixels.Image:
    """Draw a row's mask: queries downwards, keys to the right, both in physical order; darker sees more.

    Lines stand where one tree ends and the next begins.

    Args:
        row: as joined, before `Row.to`.
        most: pixels of a side, at most; a block of tokens is one pixel where the row is longer.

    Returns:
        an RGB picture of `most` pixels a side, or the whole multiple of the row's length below.
    """
    size = -(-len(row) // most)
    counts = visibility.blocks(row.order, row.end, row.group, size=size)
    tokens = np.minimum(size, len(row) - size * np.arange(len(counts)))
    share = counts / (tokens[:, None] * tokens[None, :])
    pixels = np.round(255 - share[..., None] * (255 - _INK)).astype(np.uint8)
    times = max(most // len(counts), 1)
    pixels = pixels.repeat(times, 0).repeat(times, 1)
    for edge in np.cumsum(row.lengths[:-1]):
        place = min(int(edge) * times // size, len(pixels) - 1)
        pixels[place, :] = pixels[:, place] = _EDGE
    return Pixels.fromarray(pixels)
