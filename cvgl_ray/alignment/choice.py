"""Which crops and orientations the vectors use, told by the poses of sure pairs: no label, no guess."""

from dataclasses import dataclass

import numpy as np

from cvgl_ray.alignment.prior import PosePrior

QUANTILES = (1 / 6, 1 / 2, 5 / 6)  # of the found ground widths: a crop for each
ALIKE = 0.1  # crops that differ by less, relatively, count as one
SETTLED = 0.8  # share of the pairs within a step of one heading: then the views share it


@dataclass(frozen=True)
class Choice:
    """Central crops of each view (share of the side, falling); headings: degrees by which the queries are
    turned, then averaged with the reference's `orientations`; evidence: one sentence."""

    query_crops: tuple[float, ...]
    reference_crops: tuple[float, ...]
    query_headings: tuple[float, ...]
    reference_headings: tuple[float, ...]
    evidence: str

    @property
    def forwards(self) -> tuple[int, int]:
        """Backbone forwards per query and per reference."""
        return (
            len(self.query_crops) * len(self.query_headings),
            len(self.reference_crops) * len(self.reference_headings),
        )


def choose(prior: PosePrior, ratios: np.ndarray) -> Choice:
    """The choice for a fitted prior; ratios [W]: the query's ground width over the reference's.

    A query that shows more ground than its reference is cropped to it, and the other way round. Where the
    queries share a heading they are turned to it, and both views keep the two orientations that rings ask
    for; where they do not, eight headings of the query are averaged.
    """
    width = np.exp(prior.width) / np.exp(prior.width).sum()
    order = np.argsort(ratios)
    edges = np.cumsum(width[order])
    found = [float(ratios[order][np.searchsorted(edges, q)]) for q in QUANTILES]
    query_crops, reference_crops = (
        _distinct([min(1.0, x) for x in xs]) for xs in ([1 / r for r in found], found)
    )
    heading = np.exp(prior.heading) / np.exp(prior.heading).sum()
    count = len(heading)
    around = heading + np.roll(heading, 1) + np.roll(heading, -1) if count > 2 else heading
    best = int(around.argmax())
    settled = bool(around[best] >= SETTLED)
    first = best * 360 / count if settled else 0.0
    headings = (first, (first + 90) % 360) if settled else tuple(45.0 * n for n in range(8))
    said = (
        f"{100 * float(around[best]):.0f} % of the sure pairs lie at heading {best * 360 / count:.0f} degrees"
    )
    evidence = (
        f"{said}; the query's ground is {found[0]:.2f} to {found[-1]:.2f} times as wide as the reference's"
    )
    return Choice(query_crops, reference_crops, headings, (0.0, 90.0), evidence)


def _distinct(shares: list[float]) -> tuple[float, ...]:
    kept: list[float] = []
    for share in sorted(shares, reverse=True):
        if not kept or share < kept[-1] * (1 - ALIKE):
            kept.append(share)
    return tuple(round(share, 3) for share in kept)
