import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.vision.pooling import stitch, windows

QUICK = settings(deadline=None, max_examples=60)


def windows_by_hand(grid, pool):
    height, width = grid.shape
    rows, columns = -(-height // pool), -(-width // pool)
    top, left = (rows * pool - height) // 2, (columns * pool - width) // 2
    table = np.full((rows * columns, pool * pool), -1)
    for y in range(height):
        for x in range(width):
            row, column = (y + top) // pool, (x + left) // pool
            place = (y + top) % pool * pool + (x + left) % pool
            table[row * columns + column, place] = grid[y, x]
    return table, (rows, columns)


def stitch_by_hand(tiling, side, margins):
    """Write every crop onto the canvas without the margins it leaves to its neighbours."""
    window = side - sum(margins)
    canvas = np.full([count * window + sum(margins) for count in tiling], -1)
    patch = 0
    for row in range(tiling[0]):
        for column in range(tiling[1]):
            for y in range(side):
                for x in range(side):
                    inside = (
                        (row == 0 or y >= margins[0])
                        and (row == tiling[0] - 1 or y < side - margins[1])
                        and (column == 0 or x >= margins[0])
                        and (column == tiling[1] - 1 or x < side - margins[1])
                    )
                    if inside:
                        place = row * window + y, column * window + x
                        assert canvas[place] == -1
                        canvas[place] = patch
                    patch += 1
    return canvas


@QUICK
@given(height=st.integers(1, 15), width=st.integers(1, 15), pool=st.integers(1, 5))
def test_windows_equal_those_filled_one_by_one(height, width, pool):
    grid = np.random.default_rng(height).permutation(height * width).reshape(height, width)
    table, shape = windows(grid, pool=pool)
    expected, expected_shape = windows_by_hand(grid, pool)
    assert shape == expected_shape
    assert table.dtype == np.int32
    np.testing.assert_array_equal(table, expected)


def test_one_missing_line_is_padded_at_the_bottom_and_right():
    table, shape = windows(np.arange(9).reshape(3, 3), pool=2)
    assert shape == (2, 2)
    assert table.tolist() == [[0, 1, 3, 4], [2, -1, 5, -1], [6, 7, -1, -1], [8, -1, -1, -1]]


@QUICK
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    margins=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    window=st.integers(1, 6),
)
def test_a_stitched_grid_holds_each_place_of_the_picture_once(rows, columns, margins, window):
    side = window + sum(margins)
    found = stitch((rows, columns), side=side, margins=margins)
    assert found.dtype == np.int32
    expected = stitch_by_hand((rows, columns), side, margins)
    assert (expected >= 0).all()
    np.testing.assert_array_equal(found, expected)


def test_windows_equal_the_public_code(oracle):
    import torch

    for height, width, pool in [(27, 27, 2), (27, 27, 3), (12, 12, 3), (46, 65, 2), (14, 13, 3), (5, 7, 4)]:
        grid = torch.arange(height * width, dtype=torch.int32).reshape(height, width)
        expected, *shape = oracle["arange_for_pooling"](grid, pool, pool)
        table, found = windows(grid.numpy(), pool=pool)
        assert found == tuple(shape)
        np.testing.assert_array_equal(table, expected.numpy())
