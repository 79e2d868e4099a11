"""Fixtures that tests of several folders share."""

import gc
import sys

import pytest

from hedgerow import cli
from hedgerow.testing import tiny_encoder


def pytest_collection_finish():
    """Leave what was imported out of garbage collection: it stays, and looking through it takes long."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


@pytest.fixture
def hedgerow(monkeypatch, capfd):
    """Run a command line in this process: exit code, stdout, stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["hedgerow", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return code, out, err

    return run
