"""Choosing a token: the filters of `transformers`, a slow penalty, and draws that depend on nothing else."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from hedgerow.models.sampling import Sampling, choose, drawn, filtered, penalised

WORDS = 50


def logits(seed, count=16, words=WORDS, scale=3.0):
    return scale * torch.randn(count, words, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("top_k", [0, 1, 7, WORDS, 3 * WORDS])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_filters_are_those_of_transformers(temperature, top_k, top_p):
    given = logits(top_k)
    theirs = TemperatureLogitsWarper(temperature)(None, given)
    theirs = TopKLogitsWarper(top_k)(None, theirs) if top_k else theirs
    theirs = TopPLogitsWarper(top_p)(None, theirs) if top_p < 1.0 else theirs
    assert torch.equal(filtered(given / temperature, top_k=top_k, top_p=top_p), theirs)


def test_the_penalty_counts_each_time_a_token_stands_in_the_answer():
    given, written = logits(0, count=3), [[1, 1, 2, 1], [0, 5, 5, 9], [7, 7, 7, 7]]
    slow = given.clone()
    for row, answer in enumerate(written):
        for token in set(answer):
            slow[row, token] -= 0.25 * answer.count(token)
    assert torch.allclose(penalised(given, written, 0.25), slow, atol=1e-6)
    assert torch.equal(penalised(given, [[], [], []], 0.25), given)


def test_greedy_takes_the_most_likely_token_after_the_penalty():
    given = torch.tensor([[1.0, 3.0, 2.5], [0.0, 0.5, 1.0]])
    written = [[1, 1], [0, 0]]
    assert choose(given, Sampling(), numbers=[0, 1], written=written).tolist() == [1, 2]
    assert choose(given, Sampling(frequency_penalty=0.5), numbers=[0, 1], written=written).tolist() == [2, 2]


def test_draws_have_the_probabilities_that_transformers_would_draw_from():
    count, given = 20_000, logits(1, count=1)
    sampling = Sampling(temperature=1.7, top_p=0.9, top_k=20, seed=3)
    kept = TopPLogitsWarper(0.9)(None, TopKLogitsWarper(20)(None, given / 1.7))
    expected = kept.softmax(-1)[0].double()
    found = choose(given.expand(count, -1), sampling, numbers=range(count), written=[[]] * count)
    share = torch.bincount(found, minlength=WORDS) / count
    assert (share[expected == 0] == 0).all()
    spread = (expected * (1 - expected) / count).sqrt()
    assert (share - expected)[expected > 0].div(spread[expected > 0]).abs().max() < 4


def test_a_draw_depends_on_seed_prompt_and_step_and_on_nothing_else():
    given, sampling = logits(2, count=200, scale=0.5), Sampling(temperature=1.0, seed=5)
    numbers = list(range(200))

    def chosen(some, sampling=sampling, step=3):
        return choose(given[some], sampling, numbers=some, written=[[0] * step] * len(some)).tolist()

    whole = chosen(numbers)
    assert chosen(numbers[150:]) + chosen(numbers[:150]) == whole[150:] + whole[:150]
    others = [chosen(numbers, step=4), chosen(numbers, Sampling(temperature=1.0, seed=6))]
    assert all(np.mean(np.array(other) == whole) < 0.2 for other in others)
    same = choose(given[:1].expand(200, -1), sampling, numbers=numbers, written=[[]] * 200)
    assert len(set(same.tolist())) > 10


def test_no_draw_falls_on_a_token_that_is_filtered_out():
    scores = torch.full((3, 8), -torch.inf)
    scores[:, 2], scores[:, 5] = 0.0, 1e-9
    draws = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)  # 1.0 is what rounding can make of a draw
    assert drawn(scores, draws)[[0, 2]].tolist() == [2, 5]
    assert set(drawn(scores, draws).tolist()) <= {2, 5}


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}, {"max_new_tokens": -1},
        {"stop": ("",)}, {"stop": (-1,)}, {"guard": -1}, {"seed": -1}, {"heat": 1.0},
    ],
)  # fmt: skip
def test_settings_that_do_not_hold_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Sampling(**wrong)
