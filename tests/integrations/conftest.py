import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def runs():
    """The module `runs.py`, which is also a script."""
    spec = importlib.util.spec_from_file_location("integrations_runs", Path(__file__).with_name("runs.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(runs, tmp_path):
    """The trees, encoded for Molmo2."""
    return runs.Noted(tmp_path)
