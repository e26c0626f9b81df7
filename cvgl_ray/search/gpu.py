"""The exact top-k on a GPU, which has a selection of its own and room for large blocks of scores."""

import torch

ROWS, COLUMNS = 4096, 2**17  # of a block: 2 GiB of scores


def best_on(
    device: str, rows: torch.Tensor, others: torch.Tensor, k: int, term: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of `rows` [n, D] the k best of `others` [m, D] by inner product, less `term` [m] if given.

    All float32 on the CPU, k at most m. Returns scores [n, k], falling, and ids [n, k] int64, on the CPU.
    """
    there = others.to(device)
    term = None if term is None else term.to(device)
    scores, ids = torch.empty(len(rows), k), torch.empty(len(rows), k, dtype=torch.int64)
    for top in range(0, len(rows), ROWS):
        asked = rows[top : top + ROWS].to(device)
        found = []
        for left in range(0, len(others), COLUMNS):
            block = asked @ there[left : left + COLUMNS].T
            if term is not None:
                block -= term[left : left + COLUMNS]
            best = block.topk(min(k, block.shape[1]), dim=1)
            found.append((best.values, best.indices + left))
        values, indices = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        order = values.topk(k, dim=1)
        scores[top : top + ROWS] = order.values.cpu()
        ids[top : top + ROWS] = indices.gather(1, order.indices).cpu()
    return scores, ids
