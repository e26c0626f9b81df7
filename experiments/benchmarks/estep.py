"""The exact E-step, CSLS and both directions, against plain blocked torch: matrix product and top-k.

python experiments/benchmarks/estep.py [--quick] [--rows 50000 --repeats 1]

The peer does the same work as plainly as torch allows: the same two passes over the score matrix, each block
searched along rows and along columns. "products alone" is the time of its two passes without any search.
"""

import click
import numpy as np
import torch
from side_by_side import line, race

from cvgl_ray.em.matching import pseudo_labels

BLOCK = 1024  # query rows a block of the peer
NEIGHBOURS = 5


def two_views(rows: int, dimension: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows of two views of the same places, shuffled by nothing: row i of one belongs to row i."""
    rng = np.random.default_rng(0)
    places = rng.standard_normal((rows, dimension), dtype=np.float32)
    sides = [places + noise * rng.standard_normal((rows, dimension), dtype=np.float32) for _ in range(2)]
    query, reference = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
    return query, reference


def plain_torch(query: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Best reference of each query and best query of each reference by CSLS."""
    starts = range(0, len(query), BLOCK)
    scale_q = torch.empty(len(query))
    best = torch.full((len(reference), NEIGHBOURS), -torch.inf)
    for start in starts:
        scores = query[start : start + BLOCK] @ reference.T
        scale_q[start : start + BLOCK] = scores.topk(NEIGHBOURS, dim=1).values.mean(1)
        columns = scores.T.contiguous().topk(min(NEIGHBOURS, len(scores)), dim=1).values
        best = torch.cat([best, columns], dim=1).topk(NEIGHBOURS, dim=1).values
    scale_r = best.mean(1)
    of_query = torch.empty(len(query), dtype=torch.int64)
    of_reference, lead = (
        torch.zeros(len(reference), dtype=torch.int64),
        torch.full((len(reference),), -torch.inf),
    )
    for start in starts:
        scores = query[start : start + BLOCK] @ reference.T
        scores.mul_(2).sub_(scale_q[start : start + BLOCK, None]).sub_(scale_r)
        of_query[start : start + BLOCK] = scores.topk(2, dim=1).indices[:, 0]  # the second gives the margin
        values, rows = scores.max(dim=0)
        of_reference = torch.where(values > lead, rows + start, of_reference)
        lead = torch.maximum(lead, values)
    return of_query, of_reference


def products_alone(query: torch.Tensor, reference: torch.Tensor) -> None:
    for _ in range(2):
        for start in range(0, len(query), BLOCK):
            query[start : start + BLOCK] @ reference.T


@click.command()
@click.option("--rows", default=20_000, show_default=True, help="of each view")
@click.option("--dimension", default=1280, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--quick", is_flag=True, help="4,000 rows of 256")
def main(rows: int, dimension: int, repeats: int, quick: bool) -> None:
    """Print the ratio of speeds."""
    rows, dimension = (4_000, 256) if quick else (rows, dimension)
    query, reference = two_views(rows, dimension)
    sides = torch.from_numpy(query), torch.from_numpy(reference)
    answers: dict[str, np.ndarray] = {}

    def product() -> None:
        labels = pseudo_labels(query, reference, neighbours=NEIGHBOURS)
        answers["product"] = np.concatenate([labels.best_of_query, labels.best_of_reference])

    def peer() -> None:
        answers["peer"] = torch.cat(plain_torch(*sides)).numpy()

    result = race(product, peer, repeats)
    alone = race(product, lambda: products_alone(*sides), 1).peer_s[0] if quick or rows <= 20_000 else None
    same = float(np.mean(answers["product"] == answers["peer"]))
    figures = [result.by_cpu(), f"same answers {100 * same:.2f} %"]
    figures += [f"products alone {alone:.3g} s"] if alone else []
    print(line(f"E-step {rows} x {rows} x {dimension}, exact, CSLS", result, 0.95, *figures))


if __name__ == "__main__":
    main()
