"""Prompts as trees, and the parts in which they are answered."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.models.families import families
from hedgerow.sequence import Cost, Sequence

NONE = np.zeros(0, np.int32)


def prompt(tokens, example="a", axes=1):
    own = np.arange(len(tokens), dtype=np.int32)
    return Sequence(
        example=example,
        tokens=np.array(tokens, np.int32),
        position=own if axes == 1 else np.stack([own, own // 2, own % 5]),
        order=own,
        end=np.full(len(own), len(own), np.int32),
        group=np.full(len(own), -1, np.int32),
        slot=NONE,
        source=NONE,
        target=NONE,
        weight=NONE.astype(np.float32),
        sample=NONE,
        samples=(),
        cost=Cost(tokens=len(own)),
    )


TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=6)


@given(st.lists(st.tuples(st.sampled_from("ab"), TOKENS), min_size=1, max_size=6), st.sampled_from([1, 3]))
def test_a_path_of_the_tree_is_the_prompt(drawn, axes):
    prompts = [prompt(tokens, example, axes) for example, tokens in drawn]
    found = families(prompts)
    assert sorted(member for family in found for member in family.members) == list(range(len(prompts)))
    assert [len(family.tree) for family in found] == sorted(len(family.tree) for family in found)
    for family in found:
        for place, member in enumerate(family.members):
            path = family.index[(family.owner == -1) | (family.owner == place)]
            assert family.tree.tokens[path].tolist() == prompts[member].tokens.tolist()
            assert family.tree.position[..., path].tolist() == prompts[member].position.tolist()
            assert family.last[place] == path[-1]
        own = [prompts[member].tokens.tolist() for member in family.members]
        same = [len(set(tokens)) == 1 for tokens in zip(*own, strict=False)]
        assert family.root == (same.index(False) if False in same else len(same))


@given(st.lists(TOKENS, min_size=1, max_size=6), st.integers(0, 5), st.integers(1, 40))
def test_parts_of_a_family_stay_within_the_limit_or_hold_one(drawn, most, limit):
    (family,) = families([prompt([7, 8, *tokens]) for tokens in drawn])
    parts = list(family.split(most=most, limit=limit))
    assert [member for part in parts for member in part.members] == list(family.members)
    sizes = [len(part.index) + most * len(part.members) for part in parts]
    assert all(size <= limit or len(part.members) == 1 for size, part in zip(sizes, parts, strict=True))
    for size, (_, after) in zip(sizes, pairwise(parts), strict=False):
        first = after.branches[0]
        assert size + first.stop - first.start + most > limit
    last = {member: family.last[place] for place, member in enumerate(family.members)}
    assert {m: end for part in parts for m, end in zip(part.members, part.last, strict=True)} == last


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="prompt of a: give a conversation"):
        families([dataclasses.replace(prompt([1]), tokens=NONE, order=NONE, end=NONE)])


@pytest.mark.parametrize(
    ("group", "root"), [([0, 0, 0, 0], 0), ([-1, 0, 0, 0], 1), ([0, 0, 1, 1], 2), ([0, 1, 0, 1], 0)]
)
def test_the_root_ends_before_a_group_that_goes_on_in_a_branch(group, root):
    group = np.array(group, np.int32)
    prompts = [dataclasses.replace(prompt([5, 5, 5, last]), group=group) for last in (1, 2)]
    (family,) = families(prompts)
    assert family.root == root
    branches = [set(family.tree.group[branch].tolist()) for branch in family.branches]
    assert not branches[0] & branches[1]
