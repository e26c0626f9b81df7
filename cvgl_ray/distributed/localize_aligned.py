"""The best references of single images laid on them: pose and confidence of each."""

from pathlib import Path
from typing import Any

import numpy as np

from cvgl_ray.alignment.cell_adapter import adapted
from cvgl_ray.alignment.learned import adapter_of, combination_of, prior_of
from cvgl_ray.alignment.poses import Found, score_pairs
from cvgl_ray.bundle import BundledAlignment
from cvgl_ray.catalog.table import Catalog, concat
from cvgl_ray.config import Alignment, Config
from cvgl_ray.distributed.align import AlignedData, settings_of
from cvgl_ray.distributed.cells import extract_cells
from cvgl_ray.features.views import QUERY, REFERENCE


def align_candidates(
    asked: Catalog,
    images: Catalog,
    best: np.ndarray,
    similarities: np.ndarray,
    alignment: BundledAlignment,
    config: Config,
    cache: Path,
    address: str = "",
) -> list[list[dict[str, Any]]]:
    """Of each query the references that its vector found, in the order of vector and alignment together.

    best, similarities [n, k]: rows of `images`, and the vectors' scores; cache: of the features, beside which
    cells are kept. Only candidates are read. Returns per query rows {"row", "similarity", "confidence",
    "pose"}: the confidence is the share of the candidates' odds, if the gallery shows the place at all.
    """
    rows, places = np.unique(best, return_inverse=True)
    wanted = concat([asked, Catalog(images.rows.take(rows))])
    root, views = cache.with_name("cells"), (config.dataset.query_view, config.dataset.reference_view)
    directions = alignment.directions
    stores, _ = extract_cells(wanted, config, root, address, directions=directions, known=cache)
    data = AlignedData(stores, views, directions)
    query, references = data.load(asked.image_ids, [images.image_ids[row] for row in rows])
    adapter, kind = adapter_of(alignment.learned), settings_of(config.alignment).dtype
    found = score_pairs(
        adapted(query, adapter, QUERY, kind),
        [adapted(cells, adapter, REFERENCE, kind) for cells in references],
        prior_of(alignment.learned),
        places.reshape(best.shape),
        dtype=kind,
    )
    combination = combination_of(alignment.learned)
    assert combination is not None
    odds = combination.log_odds([found.score, similarities])
    shares = np.exp(odds - odds.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return [
        [
            {
                "row": int(best[number, column]),
                "similarity": float(similarities[number, column]),
                "confidence": float(shares[number, column]),
                "pose": _pose(found, (number, column), config.alignment),
            }
            for column in np.argsort(-odds[number], kind="stable")
        ]
        for number in range(len(best))
    ]


def _pose(found: Found, at: tuple[int, int], section: Alignment) -> dict[str, float]:
    """How a query lies on a reference.

    heading_deg: clockwise from the reference's top, where the query's top looks; width: of the query's ground
    over the reference's; down, right: of the query's middle from the reference's, in shares of its side.
    """
    turned = 360 * int(found.heading[at]) / section.headings
    return {
        "heading_deg": (360 - turned) % 360,
        "width": section.widths[int(found.width[at])],
        "down": round(float(found.row[at]), 4),
        "right": round(float(found.column[at]), 4),
    }


def closest(count: int, top: int, section: Alignment) -> int:
    """How many references of a gallery of `count` a vector proposes where `top` are asked."""
    return min(count, max(top, section.candidates))
