"""Context parallelism: several processes share a row; loss and gradients are those of one (law 6)."""

import dataclasses
import itertools
import multiprocessing
import traceback

import numpy as np
import pytest
import torch
import torch.distributed as dist

from hedgerow.attention import ulysses
from hedgerow.attention.ulysses import Context, Ulysses
from hedgerow.errors import RecipeError
from hedgerow.sequence import VisionInput
from hedgerow.train import parallel
from hedgerow.train.loss import weighted_loss

# Python 3.12 and later warn of a fork beside threads; the children make their own.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def together(count, folder, work):
    """Run `work(context)` in `count` processes that share rows, and return what each gave."""
    context = multiprocessing.get_context("fork")  # a spawned one would import everything again
    answers = context.SimpleQueue()

    def run(rank):
        torch.set_num_threads(1)
        try:
            dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
            answers.put((rank, work(parallel.context(count)), ""))
        except BaseException:
            answers.put((rank, None, traceback.format_exc()))

    processes = [context.Process(target=run, args=(rank,), daemon=True) for rank in range(count)]
    for process in processes:
        process.start()
    found = dict[int, object]()
    for _ in processes:
        rank, value, problem = answers.get()
        assert not problem, problem
        found[rank] = value
    for process in processes:
        process.join()
    return [found[rank] for rank in range(count)]


def trained(model, row, share):
    """The loss of a row, of the targets in `share`, and the gradient of every parameter."""
    model.zero_grad()
    loss = weighted_loss(model(row), share, model.head)
    loss.numerator.backward()
    return loss, {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}


def text_alone(row):
    return dataclasses.replace(row, vision=None, slot=row.slot[:0])


@pytest.mark.parametrize(("count", "heads"), [(2, {}), (4, {"heads": 4, "kv_heads": 4})])
def test_processes_that_share_rows_train_as_one(toy, make_model, tmp_path, count, heads):
    """A row with few and with many crops, one without, lengths that no number of processes divides."""
    model = make_model(sizes=heads)
    rows = [toy(seed, trees=3).whole() for seed in (0, 1, 2)]
    rows.append(text_alone(rows[0]))
    assert {len(row) % count for row in rows} - {0}
    expected = [trained(model, row, row) for row in rows]

    def work(context):
        model.context = context
        found = []
        for row in rows:
            loss, gradients = trained(model, row, context.targets(row))
            parallel.sum_in_place(list(gradients.values()))
            found.append(([part.double().numpy() for part in context.total(loss.numerator, loss.sums)],
                          {name: gradient.numpy() for name, gradient in gradients.items()}))  # fmt: skip
        return found

    for answers in together(count, tmp_path, work):
        for ((numerator, sums), gradients), (loss, wanted) in zip(answers, expected, strict=True):
            assert numerator == pytest.approx(loss.numerator.item(), rel=1e-5)
            np.testing.assert_allclose(sums, loss.sums.numpy(), rtol=1e-5, atol=1e-8)
            whole = torch.cat([gradient.flatten() for gradient in wanted.values()]).norm()
            assert whole > 0
            for name, gradient in gradients.items():
                error = np.linalg.norm(gradient - wanted[name].numpy())
                assert error <= 1e-5 * max(wanted[name].norm(), 1e-3 * whole), name


class _Alone(Context):
    """What one process of several would do, without the others."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


def shared(count, pooling, patches=4):
    crops = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 2, 2, 3)
    return VisionInput(crops, pooling, torch.zeros(0, 3, dtype=torch.int64), patches)


@pytest.mark.parametrize("size", [2, 3, 4, 9])
@pytest.mark.parametrize("seed", range(4))
def test_each_crop_is_encoded_once_and_each_slot_made_once_from_its_own_patches(size, seed):
    """Windows that lie across crops, as in tiled images, keep those crops together."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 12))
    first = np.sort(rng.integers(0, count, 30))
    joined = rng.random(count) < 0.3  # crops that share windows with the next
    last = np.minimum(first + (joined[first] & (rng.random(30) < 0.5)), count - 1)
    table = np.stack([first * 4 + rng.integers(0, 4, 30), last * 4 + rng.integers(0, 4, 30)], axis=1)
    table[rng.random(30) < 0.2, 0] = -1
    table[3] = -1  # a window without a patch
    vision = shared(count, torch.from_numpy(table))
    crops, seen = [], []
    for rank in range(size):
        part, slots = _Alone(rank, size).crops(vision)
        own = slots[rank]
        seen += own.tolist()
        if part is None:
            assert not len(own)
            continue
        here = part.crops[:, 0, 0, 0].tolist()
        crops += here
        back = np.where(part.pooling < 0, -1, part.pooling + 4 * here[0])
        assert back.tolist() == table[own].tolist()
        assert part.pooling.max() < 4 * len(here)
    assert sorted(set(crops)) == crops
    assert set(table[table >= 0] // 4) <= set(crops)
    assert sorted(seen) == list(range(30))


def test_crops_are_shared_evenly_where_no_window_stands_in_the_way():
    vision = shared(8, torch.arange(32)[:, None])
    counts = [len(_Alone(rank, 4).crops(vision)[0].crops) for rank in range(4)]
    assert counts == [2, 2, 2, 2]


@pytest.mark.parametrize(("length", "size"), [(7, 2), (8, 4), (3, 4), (9, 4)])
def test_stretches_cover_a_row_once(length, size):
    own = [_Alone(rank, size).own(length) for rank in range(size)]
    assert [place for one in own for place in range(one.start, one.stop)] == list(range(length))


def test_targets_are_shared_and_none_is_lost(toy):
    row = toy(1).whole()
    shares = [_Alone(rank, 3).targets(row) for rank in range(3)]
    merged = [tokens for parts in itertools.zip_longest(*(share.target.tolist() for share in shares))
              for tokens in parts if tokens is not None]  # fmt: skip
    assert merged == row.target.tolist()
    assert sum(share.weight.sum() for share in shares) == pytest.approx(row.weight.sum())


def test_a_degree_that_does_not_divide_the_heads_says_so(monkeypatch):
    monkeypatch.setattr(ulysses, "_all_to_all", lambda parts, _: parts)
    query, key = torch.zeros(1, 4, 3, 8), torch.zeros(1, 2, 3, 8)
    attention = Ulysses(lambda *_, **__: query, _Alone(0, 4), length=12)
    with pytest.raises(RecipeError, match="4 processes cannot share 4 query and 2 key heads"):
        attention(query, key, key, scale=1.0)


def test_a_degree_that_does_not_divide_the_processes_says_so():
    assert parallel.context(1) is None
    with pytest.raises(RecipeError, match="context: 2 does not divide the 1 processes"):
        parallel.context(2)
