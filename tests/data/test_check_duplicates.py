"""Duplicates in few bytes a row: the same as a dictionary would find."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.data import check_duplicates
from hedgerow.data.check_duplicates import Duplicates, hashes_of


@given(
    batches=st.lists(st.lists(st.integers(0, 60), max_size=30), max_size=12),
    most=st.sampled_from([1, 8, 2**20]),
    long=st.sampled_from([1, 5, 2**20]),
)
def test_each_hash_is_known_by_the_row_it_stood_in_first(batches, most, long):
    first, duplicates, row = {}, Duplicates(), 0
    largest, check_duplicates._MERGED = check_duplicates._MERGED, most
    longest, check_duplicates._LONG = check_duplicates._LONG, long
    for batch in batches:
        rows = np.arange(row, row + len(batch), dtype=np.uint32)
        expected = [first.setdefault(value, place) for value, place in zip(batch, rows.tolist(), strict=True)]
        expected = [-1 if one == place else one for one, place in zip(expected, rows.tolist(), strict=True)]
        assert duplicates.add(np.array(batch, np.uint64), rows).tolist() == expected
        row += len(batch)
    check_duplicates._MERGED, check_duplicates._LONG = largest, longest


def test_a_row_takes_twelve_bytes_in_few_tables():
    duplicates, rng = Duplicates(), np.random.default_rng(0)
    for start in range(0, 100_000, 250):
        rows = np.arange(start, start + 250, dtype=np.uint32)
        duplicates.add(rng.integers(0, 2**63, 250).astype(np.uint64), rows)
    tables = duplicates._tables
    assert sum(table.hashes.nbytes + table.rows.nbytes for table in tables) == 12 * 100_000
    assert len(tables) < 15


def test_hashes_are_of_what_is_said_and_not_of_how_it_is_written():
    plain = hashes_of('{"id": "a", "messages": [{"role": "user", "content": "?"}]}', Path("x"))
    spaced = hashes_of('{"messages": [{"content":"?","role":"user"}], "id": "b", "source": "s"}', Path("y"))
    assert plain[1] == spaced[1]
    assert plain[0] != spaced[0]
    image = '{"id": "a", "messages": [{"role": "user", "content": [{"type": "image", "path": "%s"}]}]}'
    assert hashes_of(image % "b/c.png", Path("a")) == hashes_of(image % "../b/c.png", Path("a/d"))
    assert hashes_of(image % "c.png", Path("a")) != hashes_of(image % "c.png", Path("b"))
