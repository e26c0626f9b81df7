"""An adapter in closed form: attenuate the directions in which the two views of a place differ."""

import torch

from cvgl_ray.em.adapter import ViewCentred

NEGLIGIBLE = 1e-10  # of the largest eigenvalue


class Attenuation(ViewCentred):
    """Frozen feature x -> embedding z, [n, D] each: z = x - U^T (1 - f) U x, x centred by view, z normalised.

    U [rank, D] holds orthonormal directions, f [rank] in (0, 1] their factors; outside their span z is x
    itself, and the map can be inverted, so nothing that the frozen model knows is lost. Untrained it is the
    identity. U and f are fitted, not learned by gradient (see `fit`).
    """

    directions: torch.Tensor
    factors: torch.Tensor

    def __init__(self, dimension: int, rank: int, *, norm: str = "view", centre: torch.Tensor | None = None):
        super().__init__(dimension, dimension, norm=norm, centre=centre)
        self.register_buffer("directions", torch.zeros(rank, dimension))
        self.register_buffer("factors", torch.ones(rank))

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        """Normalised features [n, D] -> code [n, D], before its L2 normalisation."""
        return rows - ((rows @ self.directions.T) * (1 - self.factors)) @ self.directions

    def fit(self, differences: torch.Tensor, shrinkage: float) -> None:
        """Fit to the differences query - reference [n, D] of normalised features of pseudo-pairs."""
        directions, factors = pair_attenuation(differences, shrinkage, len(self.factors))
        self.directions.zero_()[: len(factors)] = directions
        self.factors.fill_(1.0)[: len(factors)] = factors


def pair_attenuation(
    differences: torch.Tensor, shrinkage: float, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions [r, D] and factors [r], r <= rank, of the pairs' covariance's shrunk inverse square root.

    With S = mean d d^T / 2 over the differences d [n, D], m the mean of its eigenvalues that can be non-zero
    (trace / min(n, D)) and shrinkage a in (0, 1], the map is ((1 - a) S + a m I)^(-1/2), scaled so that
    directions without any difference keep their length: f = sqrt(a m / ((1 - a) lambda + a m)). Source:
    within-class covariance normalisation, Hatch et al., Interspeech 2006, on pseudo-pairs instead of classes.
    """
    eigenvalues, directions = _principal(differences.double() / (2 * len(differences)) ** 0.5, rank)
    floor = shrinkage * eigenvalues.sum() / len(eigenvalues)
    strongest = eigenvalues[: len(directions)]
    factors = torch.sqrt(floor / ((1 - shrinkage) * strongest + floor))
    return directions.to(differences.dtype), factors.to(differences.dtype)


def _principal(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All min(n, D) eigenvalues of X^T X, falling, for rows X [n, D] float64, and the first's directions.

    Directions [r, D], r <= count, leave out those of rounding alone. The smaller of X^T X and X X^T is
    decomposed: a third of the time of X's singular values, and float64 makes up for the squares.
    """
    wide = len(rows) < rows.shape[1]
    eigenvalues, vectors = torch.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    eigenvalues, vectors = eigenvalues.flip(0).clamp(min=0), vectors.flip(1)
    kept = int((eigenvalues[:count] > NEGLIGIBLE * eigenvalues[:1].sum()).sum())
    directions = vectors[:, :kept].T
    return eigenvalues, directions @ rows / eigenvalues[:kept, None].sqrt() if wide else directions
