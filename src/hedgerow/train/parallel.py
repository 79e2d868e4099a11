"""The few collective operations training needs; without a process group they do nothing."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hedgerow.attention.ulysses import Context
from hedgerow.errors import RecipeError

_T = TypeVar("_T")
_BUCKET = 2**24  # numbers sent at once: enough to hide the start-up cost of a transfer, 64 MB in fp32


@contextmanager
def group() -> Iterator[None]:
    """Join the other processes of `torchrun` while inside; alone, do nothing."""
    if _together() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, 0 when it is alone."""
    return dist.get_rank() if _together() else 0


def world() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if _together() else 1


def context(size: int) -> Context | None:
    """Make the group of `size` neighbouring processes that share each row; None where each has its own.

    All processes call it together.

    Raises:
        RecipeError: the processes cannot be divided into such groups.
    """
    if size == 1:
        return None
    if world() % size:
        raise RecipeError(
            f"context: {size} does not divide the {world()} processes; start a multiple, or give a divisor"
        )
    groups = [dist.new_group(list(range(first, first + size))) for first in range(0, world(), size)]
    return Context(groups[rank() // size])


def gather(value: _T) -> list[_T]:
    """Return the value of every process, in order of rank; values are pickled, so keep them small."""
    if not _together():
        return [value]
    found: list[_T | None] = [None] * world()
    dist.all_gather_object(found, value)
    return found  # type: ignore[return-value]  # all_gather_object has filled it


def sum_in_place(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all processes; all give the same shapes in the same order."""
    if not _together():
        return
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.flatten() for tensor in bucket])
        dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in bucket])
        for tensor, part in zip(bucket, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def share_first(tensors: Iterable[Tensor]) -> None:
    """Give every process the values of rank 0."""
    if _together():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(item.numel() for item in bucket) + tensor.numel() > _BUCKET
        if bucket and (full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()
