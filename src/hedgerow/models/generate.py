"""Answers to many prompts at once; those about the same media become a tree with their start as root.

Letters for shapes as in `hedgerow.sequence`; also B prompts.
"""

import dataclasses
import time
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from hedgerow.models.answer import Answer, Draft
from hedgerow.models.decode import Kept
from hedgerow.models.families import Family, families
from hedgerow.models.rows import RowModel
from hedgerow.models.sampling import Sampling, choose
from hedgerow.sequence import Budget, Row, Sequence
from hedgerow.text import ChatFormat


@dataclasses.dataclass(frozen=True, slots=True)
class Generated:
    """Answers in the order of their prompts, and the seconds it took to read prompts and to write."""

    answers: tuple[Answer, ...]
    prefill_seconds: float
    decode_seconds: float

    @property
    def tokens(self) -> int:
        """How many tokens were written."""
        return sum(len(answer.tokens) for answer in self.answers)

    @property
    def tokens_per_second(self) -> float:
        """Tokens written a second, all answers together, the reading of prompts left out."""
        return self.tokens / self.decode_seconds if self.tokens else 0.0


_Part = tuple[Family, int]  # a family, and where its tree starts in the row


class _Going(NamedTuple):
    """An answer that is not at its end, of prompt `number`; `place` is its family and member in the cache."""

    number: int
    place: tuple[int, int]
    draft: Draft


@torch.inference_mode()
def generate(
    model: RowModel,
    prompts: Listing[Sequence],
    chat: ChatFormat,
    sampling: Sampling | None = None,
    *,
    limit: int = 32768,
) -> Generated:
    """Answer prompts.

    The answers are those of one prompt at a time without a cache, but for ties that rounding decides.

    Args:
        model: left in the mode (training or not) it was in.
        prompts: encoded conversations in logical order, no trees, as `Encoder.prompts` gives them. Those of
            one `example` with the same media share the vision tower, the reading of their common start, and
            its keys and values while they are answered.
        chat: names the token that ends a turn, and turns tokens into text.
        sampling: how to write; None takes the most likely token at each step, 128 at most.
        limit: most tokens read at once, and most kept in a cache while writing, padding included; lower it
            where memory is short. What is larger alone runs alone.

    Raises:
        ValueError: a prompt is empty, or is no single conversation in logical order.
    """
    sampling = Sampling() if sampling is None else sampling
    drafts = [Draft(chat, sampling, frames=_frames(prompt)) for prompt in prompts]
    begin, prefill = time.perf_counter(), 0.0
    training = model.training
    model.eval()
    try:
        found = families(prompts)
        for batch in _rows(found, limit) if sampling.max_new_tokens else ():
            prefill += _answer(model, batch, drafts, sampling, limit=limit)
    finally:
        model.train(training)
    decode = time.perf_counter() - begin - prefill
    return Generated(tuple(draft.answer() for draft in drafts), prefill, decode)


def _frames(prompt: Sequence) -> int:
    return 0 if prompt.vision is None else int(prompt.vision.grids[:, 0].max(initial=0))


def _rows(found: list[Family], limit: int) -> Iterator[list[Family]]:
    """Cut families into rows of so many tokens, or of one."""
    row: list[Family] = []
    for family in found:
        if row and sum(len(other.tree) for other in row) + len(family.tree) > limit:
            yield row
            row = []
        row.append(family)
    if row:
        yield row


def _answer(
    model: RowModel, batch: list[Family], drafts: list[Draft], sampling: Sampling, *, limit: int
) -> float:
    """Read families as one row, then write the answers of all; return the seconds it took to read."""
    begin = time.perf_counter()
    trees = [family.tree for family in batch]
    row = Row.join(trees, Budget(tokens=sum(map(len, trees)))).to(model.device)
    cache = DynamicCache()
    hidden = model.language(model.embed(row), row, cache=cache)
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    seconds = time.perf_counter() - begin
    starts = np.cumsum([0, *map(len, trees[:-1])])
    parts = [
        (part, int(start))
        for family, start in zip(batch, starts, strict=True)
        for part in family.split(most=sampling.max_new_tokens, limit=limit)
    ]
    batches = list(_batches(parts, most=sampling.max_new_tokens, limit=limit))
    for together in batches:
        layers = cache.layers if together is not batches[-1] else _drained(cache.layers)
        kept = Kept(model, layers, row.position, together)
        last = torch.tensor([place + start for part, start in together for place in part.last])
        going = [
            _Going(number, (row, column), drafts[number])
            for row, (part, _) in enumerate(together)
            for column, number in enumerate(part.members)
        ]
        _write(model, kept, hidden[last.to(model.device)], going, sampling)
    return seconds


def _drained(layers: list[Any]) -> Iterator[Any]:
    """Yield layers and let go of each, so that keys and values are in memory once."""
    while layers:
        yield layers.pop(0)


def _batches(parts: list[_Part], *, most: int, limit: int) -> Iterator[list[_Part]]:
    """Put parts of alike size together, as many as a cache may hold with what they write; one at least."""
    batch: list[_Part] = []
    for part in sorted(parts, key=lambda part: (len(part[0].members), len(part[0].owner))):
        longest = max(len(family.owner) for family, _ in [*batch, part])
        if batch and (len(batch) + 1) * (longest + len(part[0].members) * most) > limit:
            yield batch
            batch = []
        batch.append(part)
    yield batch


def _write(model: RowModel, kept: Kept, hidden: Tensor, going: Listing[_Going], sampling: Sampling) -> None:
    """Write answers to their ends, beginning with the hidden states [B, D] of the last tokens of prompts."""
    while going:
        numbers, written = [one.number for one in going], [one.draft.tokens for one in going]
        token = choose(model.head(hidden), sampling, numbers=numbers, written=written)
        on = [place for place, new in enumerate(token.tolist()) if going[place].draft.add(new)]
        going = [going[place] for place in on]
        if going:
            hidden = kept.step(token[on], np.array([one.place for one in going]))
