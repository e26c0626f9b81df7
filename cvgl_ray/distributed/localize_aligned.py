"""The best references of single images laid on them: pose and confidence of each."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cvgl_ray.alignment.cell_adapter import adapted
from cvgl_ray.alignment.early import FIRST, laid_until_clear
from cvgl_ray.alignment.learned import adapter_of, combination_of, prior_of
from cvgl_ray.alignment.poses import Found, score_pairs
from cvgl_ray.bundle import Bundle, BundledAlignment
from cvgl_ray.catalog.table import Catalog, concat
from cvgl_ray.config import Config
from cvgl_ray.distributed.align import settings_of
from cvgl_ray.distributed.cells import Maker, cells_as_learned
from cvgl_ray.features.views import QUERY, REFERENCE


def align_candidates(
    asked: Catalog,
    images: Catalog,
    candidates: tuple[np.ndarray, np.ndarray],
    top: int,
    bundle: Bundle,
    config: Config,
    cache: Path,
    address: str = "",
) -> list[list[dict[str, Any]]]:
    """Of each query the references that its vector found, in the order of vector and alignment together.

    candidates [n, k] each: rows of `images`, best first, and the vectors' scores; cache: of the features,
    beside which cells are kept. Candidates are read and laid until a query's best is clear, `top` of them at
    least. Returns per query rows {"row", "similarity", "confidence", "pose"} of those that were laid: the
    confidence is the share of the candidates' odds, if the gallery shows the place at all; the pose as in
    `Found.pose`.
    """
    best, similarities = candidates
    alignment = bundle.alignment
    assert alignment is not None
    combination = combination_of(alignment.learned)
    assert combination is not None
    laying = _Laying(asked, images, best, bundle, alignment, config, cache, address)
    made = laid_until_clear(similarities, combination, laying, max(top, FIRST))
    section, odds = config.alignment, made.log_odds
    shares = np.exp(odds - odds.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    order = np.argsort(np.where(made.laid, -odds, np.inf), axis=1, kind="stable")
    return [
        [
            {
                "row": int(best[number, column]),
                "similarity": float(similarities[number, column]),
                "confidence": float(shares[number, column]),
                "pose": made.found.pose((number, column), section.headings, section.widths),
            }
            for column in order[number, : made.laid[number].sum()]
        ]
        for number in range(len(best))
    ]


class _Laying:
    """Lays some queries on some of their candidates, whose cells are made now where they are not stored."""

    def __init__(
        self,
        asked: Catalog,
        images: Catalog,
        best: np.ndarray,
        bundle: Bundle,
        alignment: BundledAlignment,
        config: Config,
        cache: Path,
        address: str,
    ) -> None:
        self.asked, self.images, self.best = asked, images, best
        self.bundle, self.alignment, self.config = bundle, alignment, config
        self.cache, self.address = cache, address

    @cached_property
    def maker(self) -> Maker:
        """The model, built once and only where some cells are not stored."""
        return Maker.of(self.config.backbone, self.config.cells.layer)

    def __call__(self, queries: np.ndarray, columns: slice) -> Found:
        """See `alignment.early.Lay`."""
        rows, places = np.unique(self.best[queries, columns], return_inverse=True)
        asked = Catalog(self.asked.rows.take(queries))
        searched = Catalog(self.images.rows.take(rows))
        stores = cells_as_learned(
            concat([asked, searched]),
            self.bundle,
            self.config,
            self.cache.with_name("cells"),
            self.address,
            maker=lambda: self.maker,
            known=self.cache,
        )
        learned = self.alignment.learned
        dataset = self.config.dataset
        [query] = stores.load(dataset.query_view, asked.image_ids)
        references = stores.load(dataset.reference_view, searched.image_ids)
        adapter, kind = adapter_of(learned), settings_of(self.config.alignment).dtype
        return score_pairs(
            adapted(query, adapter, QUERY, kind),
            [adapted(cells, adapter, REFERENCE, kind) for cells in references],
            prior_of(learned),
            places.reshape(len(queries), -1),
            dtype=kind,
        )
