"""Ways to compare embeddings at retrieval that the product has, and those that were tried beside them."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from cvgl_ray.em.adapter import ViewCentred
from cvgl_ray.em.embedding import embed
from cvgl_ray.em.retrieval import Banks, Retriever
from cvgl_ray.features.views import QUERY, REFERENCE

# Embeddings of queries [Q, W], gallery [G, W], the training's of the queries' view [n, W] -> scores [Q, G].
Compare = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def own(
    adapter: ViewCentred,
    banks: Banks,
    features: tuple[np.ndarray, np.ndarray],
    asked: int,
    *,
    scores: str = "csls",
    neighbours: int = 10,
    transductive: bool = False,
) -> torch.Tensor:
    """The product's scores [Q, G] of frozen features of queries and gallery; asked: the queries' view."""
    retriever = Retriever(adapter, banks, scores, neighbours, transductive)
    queries, gallery = retriever.sides(*features, asked)
    return queries @ gallery.T


def tried(
    adapter: ViewCentred,
    banks: Banks,
    features: tuple[np.ndarray, np.ndarray],
    asked: int,
    *,
    compare: Compare,
) -> torch.Tensor:
    """Scores [Q, G] by one of the functions below; arguments as in `own`."""
    views = (QUERY, REFERENCE) if asked == QUERY else (REFERENCE, QUERY)
    queries, gallery = (
        torch.from_numpy(embed(adapter, f, view)) for f, view in zip(features, views, strict=True)
    )
    return compare(queries, gallery, torch.from_numpy(banks[asked].astype(np.float32)))


def bank_softmax(
    queries: torch.Tensor, gallery: torch.Tensor, bank: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Inverted softmax over the training's queries (Smith et al., ICLR 2017; Bogolin et al., CVPR 2022).

    temperature: in standard deviations of the cosines.
    """
    cosines = queries @ gallery.T
    scale = temperature * cosines.std()
    return cosines / scale - (bank @ gallery.T / scale).logsumexp(dim=0)


def expanded(
    queries: torch.Tensor, gallery: torch.Tensor, _bank: torch.Tensor, neighbours: int, power: float
) -> torch.Tensor:
    """Each query with its nearest of the gallery added (Chum et al., ICCV 2007), weighted by cosine^power.

    The weights: Radenovic et al., TPAMI 2019.
    """
    best = (queries @ gallery.T).topk(neighbours, dim=1)
    weights = best.values.clamp(min=0) ** power
    added = queries + (weights[:, :, None] * gallery[best.indices]).sum(dim=1)
    return F.normalize(added, dim=-1) @ gallery.T


def reranked(
    queries: torch.Tensor, gallery: torch.Tensor, _bank: torch.Tensor, reciprocal: int
) -> torch.Tensor:
    """Overlap of k-reciprocal neighbours, 0.7, and cosine, 0.3 (Zhong et al., CVPR 2017).

    Neighbours are looked for among all queries and the gallery: transductive.
    """
    rows = torch.cat([queries, gallery])
    cosines = rows @ rows.T
    order = cosines.topk(reciprocal + 1, dim=1).indices
    near = torch.zeros_like(cosines, dtype=torch.bool).scatter_(1, order, True)
    encoded = F.normalize(torch.where(near & near.T, (cosines - 1).exp(), 0.0), p=1, dim=1)
    encoded = encoded[order[:, :3]].mean(dim=1)  # the paper's local query expansion
    asked, searched = encoded[: len(queries)], encoded[len(queries) :]
    overlap = torch.stack([torch.minimum(row, searched).sum(dim=1) for row in asked])
    return 0.3 * queries @ gallery.T + 0.7 * overlap / (2 - overlap)


OPTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "CSLS, 10 of the bank (the product's)": own,
    "cosine": partial(own, scores="cosine"),
    "CSLS, 5 of the bank": partial(own, neighbours=5),
    "CSLS, 20 of the bank": partial(own, neighbours=20),
    **{
        f"inverted softmax, bank, {t}": partial(tried, compare=partial(bank_softmax, temperature=t))
        for t in (0.2, 0.4, 0.8)
    },
    "3 of the gallery added": partial(tried, compare=partial(expanded, neighbours=3, power=0.0)),
    "3 added by cosine^3": partial(tried, compare=partial(expanded, neighbours=3, power=3.0)),
    "CSLS, 5 queries, transductive": partial(own, neighbours=5, transductive=True),
    "CSLS, 10 queries, transductive": partial(own, transductive=True),
    "6-reciprocal re-ranking, transductive": partial(tried, compare=partial(reranked, reciprocal=6)),
    "12-reciprocal re-ranking, transductive": partial(tried, compare=partial(reranked, reciprocal=12)),
}
