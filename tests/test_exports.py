import subprocess
import sys

import pytest

import hedgerow


def test_every_exported_name_exists_and_the_list_is_sorted():
    assert hedgerow.__all__ == sorted(hedgerow.__all__)
    for name in hedgerow.__all__:
        assert getattr(hedgerow, name) is not None


def test_an_unknown_name_says_which_exist():
    with pytest.raises(AttributeError, match="MessageTree"):
        hedgerow.Tre  # noqa: B018


def test_using_every_name_loads_neither_torch_nor_transformers():
    code = (
        "import sys, hedgerow\n"
        "[getattr(hedgerow, name) for name in hedgerow.__all__]\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
