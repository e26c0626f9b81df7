"""What a training leaves: its bundle, its pairs, and what a person looks at."""

from dataclasses import dataclass, replace
from typing import Any

from cvgl_ray.alignment.learned import Learned
from cvgl_ray.alignment.learned import pairs_of as alignment_pairs
from cvgl_ray.bundle import Bundle, BundledAlignment, bundle_of, pairs_of
from cvgl_ray.config import Alignment, Config
from cvgl_ray.distributed.align import AlignedData
from cvgl_ray.distributed.rows import TrainingData
from cvgl_ray.em.build import build_learner
from cvgl_ray.reports.aligned_pairs import AlignedPair
from cvgl_ray.reports.pictures import Example


@dataclass(frozen=True)
class Trained:
    """The bundle of a training, its last pseudo-labels, and examples of retrieval from each of its rounds.

    pairs: (query image_id, reference image_id, cosine); aligned: those that this round laid on each other.
    """

    bundle: Bundle
    pairs: list[tuple[str, str, float]]
    examples: list[list[Example]]
    aligned: list[AlignedPair]

    def poses(self) -> list[dict[str, Any]]:
        """Rows that say which query lies on which reference, and how."""
        return [{"query": pair.query, "reference": pair.reference, **pair.pose} for pair in self.aligned]


def collect(
    state: dict[str, Any],
    data: TrainingData,
    config: Config,
    recipes: dict[str, Any],
    cells: AlignedData | None = None,
) -> Trained:
    """The bundle of the round to keep, from a learner's state."""
    learner = build_learner(config.learning, data.centre.shape[1])
    learner.load_state_dict(state)
    learner.return_to_best()
    pairs = [(data.query_ids[q], data.reference_ids[r], cosine) for q, r, cosine in pairs_of(learner)]
    examples = [
        [(data.query_ids[q], [data.reference_ids[r] for r in best if r >= 0]) for q, *best in rows.tolist()]
        for rows in learner.examples
    ]
    bundle = bundle_of(learner, data.banked, data.row_digests, config, recipes)
    aligned: list[AlignedPair] = []
    learned: Learned | None = state.get("alignment_kept", state.get("alignment"))
    if cells is not None and learned is not None:
        bundle = replace(bundle, alignment=BundledAlignment(learned, cells.directions, cells.stores.recipes))
        aligned = _aligned_pairs(learned, data, config.alignment)
    return Trained(bundle, pairs, examples, aligned)


def _aligned_pairs(learned: Learned, data: TrainingData, section: Alignment) -> list[AlignedPair]:
    found = alignment_pairs(learned)
    if found is None:
        return []
    queries, references, poses = found
    return [
        AlignedPair(
            data.query_ids[query],
            data.reference_ids[reference],
            poses.pose(number, section.headings, section.widths),
        )
        for number, (query, reference) in enumerate(zip(queries, references, strict=True))
    ]
