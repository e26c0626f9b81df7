"""The loss terms, each a sum over this worker's rows divided by the count over all workers' rows."""

import torch
import torch.nn.functional as F


def info_nce(
    logits: torch.Tensor, target: torch.Tensor, excluded: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """Cross entropy of each row's positive among its candidates, with label smoothing: [n], 0 without one.

    logits [n, C]; target [n] int64, -1 for a row without a positive; excluded [n, C] bool marks columns that
    are no candidates of a row. Source: van den Oord et al., 2018; smoothing as in torch's cross_entropy.
    """
    log_p = F.log_softmax(logits.masked_fill(excluded, -torch.inf), dim=1)
    labelled = target >= 0
    positive = log_p.gather(1, target.clamp(min=0)[:, None]).squeeze(1)
    spread = log_p.masked_fill(excluded, 0.0).sum(1) / (~excluded).sum(1)
    return torch.where(labelled, -(1 - smoothing) * positive - smoothing * spread, 0.0)


def reconstruction(decoded: torch.Tensor, rows: torch.Tensor, kind: str) -> torch.Tensor:
    """Distance of reconstructions to their unit rows, [n, D] each -> [n].

    "l1": mean absolute difference an entry, the reconstruction L2-normalised first (the reference code);
    "l2": squared Euclidean distance (the paper's |g(f(x)) - x|).
    """
    if kind == "l1":
        return (F.normalize(decoded, dim=-1) - rows).abs().mean(dim=1)
    return (decoded - rows).square().sum(dim=1)


def orthogonality(weight: torch.Tensor) -> torch.Tensor:
    """Mean squared entry of W W^T - I (or W^T W - I for a tall W), times its side: 0 for an isometry."""
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    return (gram - torch.eye(len(gram), device=gram.device)).square().sum() / len(gram)
