"""One M-step's loss as a module, so that DistributedDataParallel can wrap it whole."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cvgl_ray.em import collective
from cvgl_ray.em.adapters import LinearAdapter
from cvgl_ray.em.batches import Batch
from cvgl_ray.features.views import QUERY, REFERENCE


class Objective(nn.Module):
    """Symmetric InfoNCE over candidates gathered from all workers, plus reconstruction and orthogonality.

    The returned local loss, averaged over workers as DistributedDataParallel averages gradients, is the loss
    of the whole batch: the same for any number of workers.
    """

    def __init__(
        self,
        adapter: LinearAdapter,
        *,
        temperature: float = 1 / 14.28,
        learn_temperature: bool = True,
        label_smoothing: float = 0.1,
        reconstruction_kind: str = "l2",
        reconstruction_weight: float = 1.0,
        orthogonality_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.adapter = adapter
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learn_temperature)
        self.label_smoothing = label_smoothing
        self.reconstruction_kind, self.reconstruction_weight = reconstruction_kind, reconstruction_weight
        self.orthogonality_weight = orthogonality_weight
        if reconstruction_weight == 0:  # a decoder without a loss would be an unused parameter to DDP
            adapter.decoder.requires_grad_(False)
            if adapter.decoder_norm is not None:
                adapter.decoder_norm.requires_grad_(False)

    def forward(
        self,
        query: torch.Tensor,
        query_valid: torch.Tensor,
        reference: torch.Tensor,
        reference_valid: torch.Tensor,
        batch: Batch,
    ) -> dict[str, torch.Tensor]:
        """Loss terms and their weighted sum "loss" (times the number of workers) of this worker's rows.

        query, reference: this worker's frozen features [n, D], [m, D]; *_valid [n], [m] bool: which of them
        count; batch: the whole batch, whose rows are the workers' rows in rank order.
        """
        views = ((query, query_valid, QUERY), (reference, reference_valid, REFERENCE))
        rows = [self.adapter.normalise(features, view) for features, _, view in views]
        codes = [self.adapter.encode(row, valid) for row, (_, valid, _) in zip(rows, views, strict=True)]
        z_query, z_reference = (F.normalize(code, dim=-1) for code in codes)
        terms = {"info_nce": self._contrast(z_query, z_reference, batch)}
        if self.reconstruction_weight:
            counts = len(batch.query_rows), len(batch.reference_rows)
            distances = [
                self._reconstruct(code, row, valid) / count
                for code, row, (_, valid, _), count in zip(codes, rows, views, counts, strict=True)
            ]
            terms["reconstruction"] = self.reconstruction_weight * (distances[0] + distances[1])
        if self.orthogonality_weight:
            gap = orthogonality(self.adapter.encoder.weight) / collective.world_size()
            terms["orthogonality"] = self.orthogonality_weight * gap
        return {**terms, "loss": torch.stack(list(terms.values())).sum() * collective.world_size()}

    def _contrast(self, z_query: torch.Tensor, z_reference: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Both directions' InfoNCE of this worker's rows, each over its labelled rows in the batch."""
        scale = self.log_scale.exp()
        forth = scale * z_query @ collective.gather(z_reference).T
        # One worker holds all candidates: the way back is the same product.
        alone = collective.world_size() == 1
        back = forth.T if alone else scale * z_reference @ collective.gather(z_query).T
        halves = []
        for logits, target, of_other in (
            (forth, batch.of_query, batch.of_reference),
            (back, batch.of_reference, batch.of_query),
        ):
            rows, columns = logits.shape
            start = collective.rank() * rows
            own = _padded(target[start : start + rows], rows)
            excluded = torch.from_numpy(_excluded(own, of_other, start, columns)).to(logits.device)
            own_target = torch.from_numpy(own).to(logits.device)
            losses = info_nce(logits, own_target, excluded, self.label_smoothing)
            halves.append(losses.sum() / max(int((target >= 0).sum()), 1))
        return (halves[0] + halves[1]) / 2

    def _reconstruct(self, code: torch.Tensor, rows: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        distances = reconstruction(self.adapter.decode(code, valid), rows, self.reconstruction_kind)
        return (distances * valid).sum()


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([values, np.full(length - len(values), -1)]).astype(np.int64)


def _excluded(own: np.ndarray, back: np.ndarray, start: int, columns: int) -> np.ndarray:
    """[n, columns] bool: filler columns, and columns whose own positive is this row without being its target.

    The latter are siblings (other queries labelled with the same reference): no negatives.
    """
    back = np.concatenate([back, np.full(columns - len(back), -2)])
    rows = np.arange(start, start + len(own))
    sibling = (back[None, :] == rows[:, None]) & (np.arange(columns)[None, :] != own[:, None])
    sibling &= own[:, None] >= 0
    return sibling | (back == -2)[None, :]


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
