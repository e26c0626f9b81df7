"""The hit rate against the count that VIGOR's evaluation makes, one query at a time."""

import numpy as np
import pytest
import torch

from cvgl_ray.evaluation.hit_rate import hits
from cvgl_ray.search.ranks import of_pairs


def oracle(scores, right, near):
    """Per query: no reference that is neither right nor near scores as high as the best right one."""
    found = []
    for row, own, margin in zip(scores, right, near, strict=True):
        best = max((row[g] for g in own), default=-np.inf)
        others = [score for g, score in enumerate(row) if g not in own and g not in margin]
        found.append(bool(own) and best > max(others, default=-np.inf))
    return found


def as_pairs(sets):
    pairs = np.array([(query, g) for query, own in enumerate(sets) for g in own], np.int64).reshape(-1, 2)
    return of_pairs(pairs[:, 0], pairs[:, 1], len(sets))


@pytest.mark.parametrize("gallery", [6, 12, 60])
def test_hits_equal_the_oracle(gallery):
    rng = np.random.default_rng(gallery)
    query, references = (
        torch.from_numpy(rng.integers(-2, 3, (n, 4)).astype(np.float32)) for n in (80, gallery)
    )
    drawn = [rng.permutation(gallery) for _ in range(80)]
    right = [set(order[: row % 3].tolist()) for row, order in enumerate(drawn)]
    near = [set(order[2 : 2 + row % 4].tolist()) for row, order in enumerate(drawn)]
    for row in range(1, 80, 6):
        references[next(iter(right[row]))] = 3 * query[row]
    found = hits(query, references, as_pairs(right), as_pairs(near))
    assert found.tolist() == oracle((query @ references.T).numpy(), right, near)
    assert 0 < found.sum() < 80
