"""What the workers of one training do together; each function is the identity in a single process.

A data-parallel loss equals the single-process one only if candidates and statistics are gathered *with*
gradient: every worker's rows enter every worker's loss.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
_alone: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within the block this process works by itself, as if there were no other workers."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() and not _alone.get() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() and not _alone.get() else 0


def from_rank_zero(value: T | None) -> T:
    """Rank 0's value, on every rank; the others may give None."""
    box: list[Any] = [value]
    if world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    answer: T = box[0]
    return answer


def gather(rows: torch.Tensor) -> torch.Tensor:
    """Every worker's rows [n, ...] (n equal on all) in rank order; gradient flows back to each."""
    if world_size() == 1:
        return rows
    gathered: torch.Tensor = _Gather.apply(rows)
    return gathered


def total(value: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over the workers; gradient flows back to each."""
    if world_size() == 1:
        return value
    summed: torch.Tensor = _Total.apply(value)
    return summed


def _summed(value: torch.Tensor) -> torch.Tensor:
    value = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(value)
    return value


# torch's own differentiable collectives are deprecated or private, hence these two.
class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return _summed(value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _summed(gradient)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        ctx.share = len(rows)
        shares = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(shares, rows.contiguous())
        return torch.cat(shares)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _summed(gradient)[rank() * ctx.share :][: ctx.share]
