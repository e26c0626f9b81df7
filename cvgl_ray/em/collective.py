"""What the workers of one training do together; each function is the identity in a single process.

A data-parallel loss equals the single-process one only if candidates and statistics are gathered *with*
gradient: every worker's rows enter every worker's loss.
"""

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_grad


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def gather(rows: torch.Tensor) -> torch.Tensor:
    """Every worker's rows [n, ...] (n equal on all) in rank order; gradient flows back to each."""
    if world_size() == 1:
        return rows
    return torch.cat(dist_grad.all_gather(rows.contiguous()))


def total(value: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over the workers; gradient flows back to each."""
    if world_size() == 1:
        return value
    return dist_grad.all_reduce(value)
