"""A tree that is too large is shortened by whole branches, as a slow reference that measures every choice."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.content import Image, Text
from hedgerow.data.oversize import check_fits, shortened
from hedgerow.errors import BudgetError, DataError
from hedgerow.sequence import Budget
from hedgerow.testing import tiny_encoder, write_png
from hedgerow.tree import Branch, Message, MessageTree

ENCODER = tiny_encoder()
LENGTHS = st.integers(0, 25)


@st.composite
def trees(draw):
    def branch(depth):
        below = [branch(0) for _ in range(draw(st.integers(0, 2)))] if depth else []
        messages = [Message("user", "q " * draw(LENGTHS))]
        if not below or draw(st.booleans()):
            messages.append(Message("assistant", "a " * draw(LENGTHS)))
        return Branch(tuple(messages), tuple(below))

    root = [Message("user", "look " * draw(LENGTHS))]
    if draw(st.booleans()):
        root.append(Message("assistant", "yes"))
    branches = tuple(branch(1) for _ in range(draw(st.integers(1, 5))))
    return MessageTree("t", tuple(root), branches)


def fits(tree, budget):
    """Whether a tree fits, measured whole; one without an answer is measured with one, which is taken off."""
    try:
        return ENCODER.measure(tree)["tokens"] <= budget
    except DataError:
        answered = (*tree.branches, ANSWER)
        alone = dataclasses.replace(tree, branches=answered)
        return ENCODER.measure(alone)["tokens"] - ENCODER.lengths(alone)[-1] <= budget


ANSWER = Branch((Message("user", "q"), Message("assistant", "a")))


def reference(tree, budget):
    """The branches that stay, or None."""
    kept = []
    if not fits(dataclasses.replace(tree, branches=()), budget):
        return None
    for branch in tree.branches:
        if fits(dataclasses.replace(tree, branches=(*kept, branch)), budget):
            kept.append(branch)
    answered = "assistant" in repr([tree.messages, *map(repr, kept)])
    return tuple(kept) if answered else None


@given(trees(), st.integers(1, 160))
@settings(deadline=None, max_examples=100)
def test_branches_stay_in_order_as_the_reference_keeps_them(tree, tokens):
    budget, wanted = Budget(tokens=tokens), reference(tree, tokens)
    if wanted is None:
        with pytest.raises(BudgetError, match=r"^t: (its root alone holds|no branch with an answer fits)"):
            shortened(tree, ENCODER, budget)
        return
    found = shortened(tree, ENCODER, budget)
    assert found == dataclasses.replace(tree, branches=wanted)
    assert budget.fits(ENCODER.measure(found))
    if budget.fits(ENCODER.measure(tree)):
        assert found == tree


def test_the_error_names_the_example_its_cost_and_the_budget():
    tree = MessageTree("big", (Message("user", "q"), Message("assistant", "a " * 40)))
    cost, budget = ENCODER.measure(tree), Budget(tokens=9, crops=2)
    with pytest.raises(BudgetError) as raised:
        check_fits(tree, cost, budget)
    for told in (
        "big: ",
        f"tokens {cost['tokens']} > 9",
        f"Cost(tokens={cost['tokens']}, crops=0)",
        repr(budget),
    ):
        assert told in str(raised.value)
    check_fits(tree, cost, Budget(tokens=cost["tokens"], crops=0))


@pytest.mark.parametrize("crops", [0, 1])
@pytest.mark.parametrize("root", [1, 60])
def test_what_is_to_be_done_suits_the_tree(tmp_path, crops, root):
    seen = [Image(str(write_png(tmp_path / "a.png", size=(20, 20))))] * crops
    answer = Branch((Message("user", "q"), Message("assistant", "a " * 60)))
    tree = MessageTree("t", (Message("user", (*seen, Text("look " * root))),), (answer,))
    tokens = max(ENCODER.node_costs(tree)[0]["tokens"] - (root > 1), 1)
    remedy = "show fewer or smaller media" if crops else "write less text in the tree"
    start = "its root alone holds" if root > 1 else "no branch with an answer fits"
    with pytest.raises(BudgetError, match=rf"^t: {start} .*; raise packing.budget, or {remedy}$"):
        shortened(tree, ENCODER, Budget(tokens=tokens))
