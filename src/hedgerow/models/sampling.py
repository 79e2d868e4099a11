"""How the next token is chosen: greedily, or drawn at a temperature from the likeliest, with a penalty.

Letters for shapes: B prompts, W words of the vocabulary, n tokens written so far.
"""

from collections.abc import Sequence as Listing
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hedgerow.content import STRICT

Stop = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True, config=STRICT)
class Sampling:
    """How answers are written; the defaults take the most likely token at each step.

    Settings that do not hold (a top_p above 1, an empty stop string) raise pydantic's ValidationError, a
    ValueError. Molmo2's captions are written with temperature 0.7, top_p 0.95 and frequency_penalty 0.1,
    everything else greedily (arXiv 2601.10611, evaluation settings).

    Attributes:
        max_new_tokens: most tokens of an answer.
        temperature: divides the logits; 0 is greedy, and then `top_p`, `top_k` and `seed` do nothing.
        top_p: draw from the fewest tokens that together have this probability.
        top_k: draw from so many tokens at most, before `top_p`; 0 is no limit.
        seed: an answer depends on it, on the place of its prompt in the list and on the logits, not on
            what else is in a batch.
        frequency_penalty: taken from the logit of a token for each time it stands in the answer so far.
        stop: tokens and strings that end an answer, besides the end of the turn.
        guard: after every so many tokens, end an answer that has become degenerate; 0 is never.
    """

    max_new_tokens: int = Field(default=128, ge=0)
    temperature: float = Field(default=0.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)
    frequency_penalty: float = 0.0
    stop: tuple[Stop, ...] = ()
    guard: int = Field(default=0, ge=0)


def choose(
    logits: Tensor, sampling: Sampling, *, numbers: Listing[int], written: Listing[list[int]]
) -> Tensor:
    """Choose the next token of each prompt.

    Args:
        logits: [B, W].
        sampling: the settings.
        numbers: places of the prompts in the caller's list, which the draws depend on.
        written: the tokens of each answer so far, as many of each.

    Returns:
        int64 [B].
    """
    scores = penalised(logits.float(), written, sampling.frequency_penalty)
    if sampling.temperature == 0.0:
        return scores.argmax(-1)
    scores = filtered(scores / sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p)
    step = len(written[0])
    draws = [np.random.default_rng((sampling.seed, number, step)).random() for number in numbers]
    return drawn(scores, torch.tensor(draws, dtype=torch.float64, device=scores.device))


def penalised(logits: Tensor, written: Listing[list[int]], penalty: float) -> Tensor:
    """Take a penalty from the logits [B, W] for each time a token stands in the answer so far."""
    if penalty == 0.0:
        return logits
    index = torch.tensor(written, dtype=torch.int64, device=logits.device)
    return logits.scatter_add(1, index, logits.new_full(index.shape, -penalty))


def filtered(scores: Tensor, *, top_k: int, top_p: float) -> Tensor:
    """Set the scores [B, W] of tokens that are not to be drawn to minus infinity.

    Of the `top_k` likeliest (0: of all) the fewest are left whose probabilities sum to `top_p`. Tokens as
    likely as the last of the `top_k` stay too.
    """
    if top_k:
        least = scores.topk(min(top_k, scores.shape[1])).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if top_p < 1.0:
        ordered, index = scores.sort(dim=-1, descending=True)
        share = ordered.softmax(-1)
        gone = share.cumsum(-1) - share >= top_p
        gone[:, 0] = False
        scores = scores.masked_fill(torch.zeros_like(gone).scatter(1, index, gone), -torch.inf)
    return scores


def drawn(scores: Tensor, draws: Tensor) -> Tensor:
    """Return the token of each row of scores [B, W] where the running sum of probability passes a draw.

    Args:
        scores: logits; minus infinity is never drawn.
        draws: float64 [B], even in [0, 1).

    Returns:
        int64 [B].
    """
    sums = scores.double().softmax(-1).cumsum(-1)
    total = sums[:, -1:].contiguous()
    found = torch.searchsorted(sums, draws[:, None] * total, right=True)
    last = torch.searchsorted(sums, total)  # rounding may carry a draw to the end
    return torch.minimum(found, last)[:, 0]
