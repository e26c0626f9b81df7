"""Label-free scores of a model: how well its two views agree, seen from the pseudo-labels alone."""

import numpy as np

from cvgl_ray.em.matching import PseudoLabels, is_mutual

SLACK = 0.02  # of the score: about the chance of a few hundred rows
CHOICE = "score"  # the score by which a sweep prefers one configuration to another; higher is better


def label_free_scores(
    labels: PseudoLabels, previous: PseudoLabels | None = None, *, queries: int = 0
) -> dict[str, float]:
    """Scores of an E-step over all rows, each in [0, 1] but the margin.

    queries: of the whole view, where the E-step has asked a sample of them; shares are then estimates.

    mutual: share of the rows of the smaller view whose best partner's best partner they are;
    cycle: share of queries that come back to themselves over their best reference;
    coverage: share of references that are some query's best (low: hubs); margin: mean lead of the best
    reference; labelled: share of queries with a pseudo-label; churn: share of queries whose best reference
    differs from the previous round's (only where that round saw the same rows).
    """
    best = labels.best_of_query
    cycle = is_mutual(labels.best_of_query, labels.best_of_reference)
    queries = queries or len(best)
    smaller = min(queries, len(labels.reference_rows))
    scores = {
        "mutual": min(1.0, float(cycle.sum() / len(best) * queries / smaller)),
        "cycle": float(cycle.mean()),
        "coverage": len(np.unique(best[best >= 0])) / len(labels.reference_rows),
        "margin": float(labels.margin.mean()),
        "labelled": float((labels.of_query >= 0).mean()),
    }
    if previous is not None and _same_rows(previous, labels):
        scores["churn"] = float((previous.best_of_query != best).mean())
    return scores


def keeps_up(score: float, highest: float) -> bool:
    """Whether a round takes the place of the one kept so far: it is not clearly behind the highest score.

    Later rounds are preferred: a small difference of two scores is chance, a collapse is none.
    """
    return score >= highest - SLACK


def _same_rows(one: PseudoLabels, other: PseudoLabels) -> bool:
    return np.array_equal(one.query_rows, other.query_rows) and np.array_equal(
        one.reference_rows, other.reference_rows
    )
