import logging
import math

import numpy as np
import pytest

from hedgerow.errors import DataError, RecipeError
from hedgerow.sequence import Budget, Row
from hedgerow.testing import tiny_encoder
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.weights import PRESETS, TASKS, Weighting, sample_weight


def asked(answer):
    return Message("user", "?"), Message("assistant", answer)


@pytest.mark.parametrize(
    ("task", "tokens", "branches", "preset", "expected"),
    [
        ("video_caption", 1200, 1, "molmo2", 0.1),  # flat, at any length
        ("video_caption", 1200, 4, "molmo2_code", 0.1),
        ("pointing", 300, 1, "molmo2", 0.2),
        ("tracking", 300, 4, "molmo2_code", 0.2),
        ("qa", 1, 1, "molmo2", 4.0),  # 4 / 1
        ("qa", 16, 1, "molmo2", 1.0),  # 4 / 4
        ("multiple_choice", 2, 4, "molmo2", 2.8284271247461903),  # 4 / 1.4142, branches do not matter
        ("image_caption", 400, 1, "molmo2", 0.2),  # 4 / 20
        ("counting", 64, 1, "molmo2", 0.5),  # 4 / 8: 0.5 stays 0.5
        ("text", 100, 1, "molmo2_code", 0.2),  # 2 / 10 x 1 / 1
        ("qa", 4, 4, "molmo2_code", 0.5),  # 2 / 2 x 1 / 2
        ("multiple_choice", 2, 4, "molmo2_code", 0.7071067811865475),  # 2 / 1.4142 x 1 / 2
        ("video_caption", 1200, 1, "uniform", 1.0),
        ("qa", 9, 7, "uniform", 1.0),
    ],
)
def test_law_11_weights_are_those_of_the_table(task, tokens, branches, preset, expected):
    assert sample_weight(task, tokens, branches=branches, preset=preset) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(("n", "weight"), [(1, 4), (4, 2), (16, 1), (64, 0.5), (100, 0.4), (400, 0.2)])
def test_law_11_the_weight_of_n_tokens_from_a_tree_of_n_tokens(n, weight):
    """n as the tokenizer counts, the end of the turn not among them."""
    sequence = tiny_encoder()(MessageTree("t", asked("1" * n), task="qa"))
    assert [sample.n for sample in sequence.samples] == [n]
    assert sequence.weight.tolist() == [np.float32(weight)] * (n + 1)
    assert sample_weight("qa", n) == pytest.approx(weight, rel=1e-15)


@pytest.mark.parametrize(
    ("preset", "caption", "with_ends"), [("uniform", 0.976, 0.952), ("molmo2", 0.5, 0.333)]
)
def test_one_long_caption_among_many_short_answers(preset, caption, with_ends):
    """What a caption of 4,000 tokens takes of the weight of a batch with 100 answers of one token."""
    encoder = tiny_encoder(weights=Weighting(preset=preset))
    short = Branch(asked("7"), task="multiple_choice")
    trees = [
        MessageTree("caption", asked("1" * 4000), task="video_caption"),
        *(MessageTree(f"{n}", (Message("user", "Look."),), (short,) * 4) for n in range(25)),
    ]
    sequences = [encoder(tree) for tree in trees]
    row = Row.join(sequences, Budget(tokens=100_000))
    assert [sample.n for sample in row.samples] == [4000] + [1] * 100
    own = row.sample == 0
    said = row.target != encoder.chat.stop
    shares = [
        row.weight[own & among].sum(dtype=np.float64) / row.weight[among].sum(dtype=np.float64)
        for among in (said, np.ones_like(said))
    ]
    assert shares == pytest.approx([caption, with_ends], abs=5e-4)


def test_c_and_tasks_stand_instead_of_the_table():
    assert sample_weight("qa", 16, c=6) == 1.5
    assert sample_weight("qa", 4, branches=4, preset="molmo2_code", c=4) == 1.0
    tasks = {"pointing": "otherwise", "qa": 0.25, "caption-of-mine": 0.0}
    assert sample_weight("pointing", 16, tasks=tasks) == 1.0
    assert sample_weight("qa", 16, tasks=tasks) == 0.25
    assert sample_weight("caption-of-mine", 16, tasks=tasks) == 0.0
    assert sample_weight("tracking", 16, tasks=tasks) == 0.2
    assert sample_weight("qa", 16, preset="uniform", tasks=tasks) == 0.25
    assert sample_weight("pointing", 16, preset="uniform", tasks=tasks) == 1.0


def test_a_task_with_a_weight_of_its_own_is_known(caplog):
    sample_weight("caption-of-yours", 16, tasks={"caption-of-yours": 0.5})
    assert not caplog.records


@pytest.mark.parametrize("tokens", [1, 2, 7, 100, 5000])
def test_law_11_a_sample_weighs_four_roots_of_its_length(tokens):
    assert tokens * sample_weight("qa", tokens) == pytest.approx(4 * math.sqrt(tokens))


def test_the_paper_is_the_default():
    assert sample_weight("qa", 25) == sample_weight("qa", 25, branches=9, preset="molmo2") == 0.8


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("task", TASKS)
def test_a_sample_without_an_answer_is_refused(task, preset):
    with pytest.raises(DataError, match=f"a {task} sample has 0 answer tokens"):
        sample_weight(task, 0, preset=preset)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match="'molmo3'; choose one of molmo2, molmo2_code, uniform"):
        sample_weight("qa", 5, preset="molmo3")


def test_a_tree_has_at_least_one_branch():
    with pytest.raises(ValueError, match="branches=0"):
        sample_weight("qa", 5, branches=0)


def test_an_unknown_task_is_weighted_as_otherwise_and_named_once(caplog):
    with caplog.at_level(logging.WARNING, logger="hedgerow"):
        weights = [sample_weight("riddle-of-this-test", 16) for _ in range(3)]
    assert weights == [1.0, 1.0, 1.0]
    named = [record.getMessage() for record in caplog.records if "riddle-of-this-test" in record.getMessage()]
    assert len(named) == 1
    assert "known tasks: video_caption" in named[0]


def test_known_tasks_are_not_named(caplog):
    for task in TASKS:
        sample_weight(task, 3)
    assert not caplog.records
