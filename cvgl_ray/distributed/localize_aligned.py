"""The best references of single images laid on them: pose and confidence of each."""

from pathlib import Path
from typing import Any

import numpy as np

from cvgl_ray.alignment.cell_adapter import adapted
from cvgl_ray.alignment.learned import adapter_of, combination_of, prior_of
from cvgl_ray.alignment.poses import score_pairs
from cvgl_ray.bundle import BundledAlignment
from cvgl_ray.catalog.table import Catalog, concat
from cvgl_ray.config import Config
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
    "pose"}: the confidence is the share of the candidates' odds, if the gallery shows the place at all; the
    pose as in `Found.pose`.
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
    section, combination = config.alignment, combination_of(alignment.learned)
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
                "pose": found.pose((number, column), section.headings, section.widths),
            }
            for column in np.argsort(-odds[number], kind="stable")
        ]
        for number in range(len(best))
    ]
