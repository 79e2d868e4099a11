"""Which patches make the feature of a slot: tables for attention pooling (arXiv 2601.10611, section 3.1)."""

import numpy as np

from hedgerow.sequence import Array


def windows(grid: Array, *, pool: int) -> tuple[Array, tuple[int, int]]:
    """Group a grid of patch indices into square windows.

    A grid that is no multiple of the window is padded with -1, evenly around it; one missing line goes to
    the bottom or the right.

    Args:
        grid: int32 [h, w], patch indices.
        pool: side of a window in patches.

    Returns:
        int32 [rows * columns, pool * pool], windows row by row, patches row by row within each; (rows,
        columns).
    """
    missing = [-length % pool for length in grid.shape]
    full = np.pad(grid, [(lines // 2, lines - lines // 2) for lines in missing], constant_values=-1)
    rows, columns = full.shape[0] // pool, full.shape[1] // pool
    split = full.reshape(rows, pool, columns, pool).transpose(0, 2, 1, 3)
    return split.reshape(rows * columns, pool * pool).astype(np.int32), (rows, columns)


def stitch(tiling: tuple[int, int], *, side: int, margins: tuple[int, int]) -> Array:
    """Return the one grid that overlapping crops make, each patch of the picture once.

    Args:
        tiling: (rows, columns) of crops; crops are numbered row by row, patches row by row within each.
        side: patches along one side of a crop.
        margins: patches (before, after) of each crop that repeat its neighbour's and are left to it.

    Returns:
        int32 [rows * (side - before - after) + before + after, the same of columns].
    """
    tile_row, row = _lines(tiling[0], side, margins)
    tile_column, column = _lines(tiling[1], side, margins)
    tile = tile_row[:, None] * tiling[1] + tile_column
    return ((tile * side + row[:, None]) * side + column).astype(np.int32)


def _lines(tiles: int, side: int, margins: tuple[int, int]) -> tuple[Array, Array]:
    """For each line of the stitched grid: the tile it comes from, and its line there."""
    before, after = margins
    parts = [
        (tile, np.arange(0 if tile == 0 else before, side if tile == tiles - 1 else side - after))
        for tile in range(tiles)
    ]
    return np.concatenate([np.full(len(part), tile) for tile, part in parts]), np.concatenate(
        [p for _, p in parts]
    )
