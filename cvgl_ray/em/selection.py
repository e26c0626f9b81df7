"""Label-free scores: of an E-step, of embeddings, and of a configuration as a whole.

Whether one configuration is better than another is asked of `half_feature_agreement`. The scores of an E-step
watch a training; they rise as a model grows sure of its own mistakes, and must not choose among models
(experiments/LOG.md).
"""

from collections.abc import Callable

import numpy as np

from cvgl_ray.em.matching import PseudoLabels, is_mutual


def label_free_scores(labels: PseudoLabels, previous: PseudoLabels | None = None) -> dict[str, float]:
    """Scores of an E-step over all rows, each in [0, 1] but the margin.

    mutual: share of the rows of the smaller view whose best partner's best partner they are;
    cycle: share of queries that come back to themselves over their best reference;
    coverage: share of references that are some query's best (low: hubs); margin: mean lead of the best
    reference; labelled: share of queries with a pseudo-label; churn: share of queries whose best reference
    differs from the previous round's (only where that round saw the same rows).
    """
    best = labels.best_of_query
    cycle = is_mutual(labels.best_of_query, labels.best_of_reference)
    smaller = min(len(labels.query_rows), len(labels.reference_rows))
    scores = {
        "mutual": float(cycle.sum() / smaller),
        "cycle": float(cycle.mean()),
        "coverage": len(np.unique(best[best >= 0])) / len(labels.reference_rows),
        "margin": float(labels.margin.mean()),
        "labelled": float((labels.of_query >= 0).mean()),
    }
    if previous is not None and _same_rows(previous, labels):
        scores["churn"] = float((previous.best_of_query != best).mean())
    return scores


def pair_agreement(one: PseudoLabels, other: PseudoLabels) -> float:
    """Share of queries, in [0, 1], that two E-steps over the same rows label with the same reference."""
    assert _same_rows(one, other)
    return float(((one.of_query == other.of_query) & (one.of_query >= 0)).mean())


def half_feature_agreement(
    query: np.ndarray,
    reference: np.ndarray,
    label: Callable[[np.ndarray, np.ndarray], PseudoLabels],
    seed: int = 0,
) -> float:
    """How far two models agree that each see a random half of the features' dimensions, in [0, 1].

    query [Nq, D], reference [Nr, D]: frozen features of any float type. label: trains anew on such features
    and returns the mutual pseudo-labels of all their rows. The two err on different rows more often than not,
    so that the share of pairs that both name follows the recall, and neither gains by growing surer of its
    own mistakes. After co-training (Blum and Mitchell, COLT 1998).
    """
    shuffled = np.random.default_rng(seed).permutation(query.shape[1])
    one, other = (label(query[:, half], reference[:, half]) for half in np.array_split(shuffled, 2))
    return pair_agreement(one, other)


def rank_me(embeddings: np.ndarray) -> float:
    """Effective number of dimensions of embeddings [N, W], in [1, min(N, W)]; low after a collapse.

    The exponential of the entropy of the singular values' shares. Garrido et al., ICML 2023.
    """
    singular = np.linalg.svd(embeddings, compute_uv=False)
    shares = singular[singular > 0] / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _same_rows(one: PseudoLabels, other: PseudoLabels) -> bool:
    return np.array_equal(one.query_rows, other.query_rows) and np.array_equal(
        one.reference_rows, other.reference_rows
    )
