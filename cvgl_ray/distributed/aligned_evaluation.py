"""What vector and alignment together make of test images: the third model beside frozen and adapted."""

from collections.abc import Sequence

import torch

from cvgl_ray.alignment.aligner import Aligner
from cvgl_ray.alignment.learned import take_over
from cvgl_ray.alignment.matching import together
from cvgl_ray.bundle import Bundle
from cvgl_ray.config import Alignment
from cvgl_ray.distributed.align import AlignedData, ClusterScore, settings_of
from cvgl_ray.distributed.data import Data
from cvgl_ray.em.adapters import embed
from cvgl_ray.evaluation.embedded import with_features
from cvgl_ray.evaluation.protocols import Direction, directions
from cvgl_ray.features.views import QUERY, REFERENCE

Sides = tuple[Direction, torch.Tensor, torch.Tensor]


def aligned_sides(
    data: Data, bundle: Bundle, cells: AlignedData, section: Alignment, neighbours: int
) -> list[Sides]:
    """Each direction with vectors of its queries and gallery, whose inner products are the aligned scores.

    neighbours: of CSLS's scale. Both directions share the scores of all pairs. These are corrected for hubs
    by the very images that are asked, as with retrieval.bank = "queries".
    """
    tables, (query_view, reference_view) = data.extraction.tables, cells.views
    directed = directions(with_features(data.catalog, tables), query_view, reference_view)
    ids = [_of_view(directed, view) for view in cells.views]
    scores = aligned_scores(data, ids, bundle, cells, section, neighbours)
    row, column = ({name: number for number, name in enumerate(names)} for names in ids)
    found = []
    for direction in directed:
        asked, searched = direction.queries.image_ids, direction.gallery.image_ids
        if direction.queries.rows["view"][0].as_py() == query_view:
            part = scores[[row[name] for name in asked]][:, [column[name] for name in searched]]
        else:
            part = scores[[row[name] for name in searched]][:, [column[name] for name in asked]].T
        found.append((direction, *_as_vectors(part)))
    return found


def aligned_scores(
    data: Data,
    ids: Sequence[Sequence[str]],
    bundle: Bundle,
    cells: AlignedData,
    section: Alignment,
    neighbours: int,
) -> torch.Tensor:
    """Scores [Nq, Nr] of vector and alignment together of these images of both views, for this bundle."""
    assert bundle.alignment is not None
    query, reference = (
        embed(bundle.adapter, data.extraction.tables[view].rows(names), role)
        for view, names, role in zip(cells.views, ids, (QUERY, REFERENCE), strict=True)
    )
    settings = settings_of(section)
    aligner = Aligner(*cells.sources(ids[0], ids[1], settings), settings, ClusterScore(settings))
    take_over(aligner, bundle.alignment.learned)
    cosines = torch.from_numpy(query) @ torch.from_numpy(reference).T
    return together(aligner, cosines, neighbours, keep=True)


def _of_view(directed: Sequence[Direction], view: str) -> list[str]:
    """Ids of all images of a view that are asked or searched."""
    sides = [side for direction in directed for side in (direction.queries, direction.gallery)]
    return list(dict.fromkeys(name for side in sides for name in side.select(view=view).image_ids))


def _as_vectors(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of queries and gallery whose inner products are these scores [Q, G], as short as can be."""
    queries, gallery = scores.shape
    if gallery <= queries:
        return scores.contiguous(), torch.eye(gallery)
    return torch.eye(queries), scores.T.contiguous()
