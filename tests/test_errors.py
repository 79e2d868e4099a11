"""Every class of error as users meet it: what was given, what is allowed, what to do, file and line."""

import re
import sys
from pathlib import Path

import pytest

from hedgerow import errors

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "scripts"))

from errors_page import PAGE, page

from errors_cases import CASES
from errors_met import TRAIN, Case, met

EVERY = [case for cases in CASES.values() for case in cases]
LEAVES = {kind for kind in vars(errors).values() if isinstance(kind, type)}


def test_every_class_of_error_has_a_case():
    assert {case.leaf for case in EVERY} == LEAVES
    assert len({case.title for case in EVERY}) == len(EVERY)


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.title)
def test_an_error_says_what_was_given_what_is_allowed_and_what_to_do(case):
    found = met(case)
    assert found.leaf is case.leaf
    assert found.code == (case.code if case.is_command else None)
    for said in (case.given, case.allowed, case.remedy):
        assert said
        assert said in found.message
    assert found.message.count("\n") == 0


@pytest.mark.parametrize(
    "case", [case for case in EVERY if case.row is not None or case.place], ids=lambda case: case.title
)
def test_an_error_from_a_file_begins_with_file_and_line(case):
    if case.leaf is errors.CheckError:  # the lines above it do
        return
    assert case.place
    assert met(case).message.startswith(case.place)
    if case.row is not None:
        assert re.match(r"trees\.jsonl:2: ", met(case).message)


def test_without_a_mistake_there_is_no_error():
    nothing = Case("none", errors.DataError, TRAIN, given="", allowed="", remedy="", why="")
    assert (met(nothing).leaf, met(nothing).code) == (None, 0)


def test_the_page_is_made_of_the_cases():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python scripts/errors_page.py"
