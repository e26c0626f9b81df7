"""EM over pairs and poses on rendered fields: what is found, and what is learned, without a label."""

import numpy as np
import pytest
import torch
from fields import PLACES, SIDE, SIDES, scene, whole

from cvgl_ray.alignment.aligner import Aligner, Settings
from cvgl_ray.alignment.cell_adapter import adapted, halved
from cvgl_ray.alignment.cell_learning import cell_learning
from cvgl_ray.alignment.choice import choose
from cvgl_ray.alignment.combine import combined, mutual
from cvgl_ray.alignment.learned import learned_of, pairs_of, take_over
from cvgl_ray.alignment.matching import alignment_matcher, together
from cvgl_ray.config import load_config
from cvgl_ray.em.rounds import run_rounds, start
from cvgl_ray.features.cell_projection import projected, projection
from cvgl_ray.features.cells import Cells
from cvgl_ray.features.views import QUERY
from cvgl_ray.search.csls import csls


def share_right(scores):
    return float((csls(scores, 5).argmax(1) == torch.arange(len(scores))).float().mean())


def test_rounds_find_the_pose_and_attenuate_what_tells_views_apart():
    aligner = Aligner(*scene(noise=1.2), Settings(candidates=6))
    first = aligner.align()
    for _ in range(2):
        aligner.learn(*mutual(csls(aligner.align(), 5)))
    assert share_right(aligner.align()) > share_right(first)
    assert aligner.prior.heading.argmax() == 1
    assert SIDES[aligner.prior.width.argmax()] == 6
    assert (aligner.adapter.factors < 0.6).sum() >= 3
    choice = choose(aligner.prior, np.array([SIDE / side for side in SIDES]))
    assert choice.query_headings[0] == 90.0
    assert choice.query_crops[-1] == pytest.approx(6 / 8, abs=0.15)
    assert choice.reference_crops == (1.0,)
    assert "heading 90 degrees" in choice.evidence


def test_em_takes_vector_and_alignment_together():
    """The matcher's labels are right where vectors alone are hardly better than chance."""
    rng = np.random.default_rng(0)
    places = rng.standard_normal((PLACES, 16))
    query, reference = (places + 2.5 * rng.standard_normal(places.shape) for _ in range(2))
    config = load_config(None, ("mstep.rounds=2", "run.agreement=false", "estep.neighbourhood=0"))
    learning = config.learning
    learner, _ = start(query, reference, learning)
    aligner = Aligner(*scene(noise=0.8), Settings(candidates=6))
    rounds = list(
        run_rounds(learner, query, reference, learning, matcher=alignment_matcher(aligner, learning.estep))
    )
    queries, references = rounds[-1].labels.pairs()
    assert len(queries) > 0.8 * PLACES
    assert (queries == references).mean() > 0.9


def test_without_a_pair_all_stays_as_it_is():
    aligner = Aligner(*scene(noise=0.5), Settings(candidates=4))
    before = aligner.align()
    aligner.learn(np.array([], int), np.array([], int))
    torch.testing.assert_close(aligner.align(), before)


def test_the_better_score_weighs_more():
    generator = torch.Generator().manual_seed(1)
    right = 4 * torch.eye(40)
    good, bad = (right / scale + torch.randn(40, 40, generator=generator) for scale in (1, 4))
    total, combination = combined([good, bad])
    assert combination.weights[0] > 2 * combination.weights[1]
    assert share_right(total) >= share_right(good)


def test_wide_cells_are_projected_onto_what_varies():
    query, references = scene(noise=0.5)
    directions = projection([query], references, channels=6)
    assert directions is not None
    torch.testing.assert_close(directions @ directions.T, torch.eye(6), atol=1e-5, rtol=0)
    assert projected(query, directions).maps.shape == (PLACES, 4, 6, SIDE, SIDE)
    assert projection([query], references, channels=12) is None


def test_adapted_and_halved_cells_are_of_unit_length_where_they_are_valid():
    query, references = scene(noise=0.5)
    mask = whole(4, SIDE).clone()
    mask[0, 1, :3] = False
    query = Cells(query.maps, mask)
    cells = adapted(query, Aligner(query, references).adapter, QUERY, torch.float32)
    torch.testing.assert_close(cells.maps.norm(dim=2), mask.float().expand(PLACES, -1, -1, -1))
    half = halved(cells)
    assert half.masks[0, 1, :, 0].tolist() == [False, True, True, True]
    torch.testing.assert_close(half.maps.norm(dim=2), half.masks.float().expand(PLACES, -1, -1, -1))


def test_what_was_learned_goes_on_in_another_aligner():
    aligner = Aligner(*scene(noise=0.8), Settings(candidates=6))
    cosines = torch.eye(PLACES)
    together(aligner, cosines, 5)
    aligner.learn(*mutual(csls(aligner.align(), 5)))
    other = Aligner(*scene(noise=0.8), Settings(candidates=6))
    take_over(other, learned_of(aligner))
    assert learned_of(other).keys() == learned_of(aligner).keys()
    torch.testing.assert_close(
        together(other, cosines, 5, keep=True), together(aligner, cosines, 5, keep=True), rtol=0, atol=0
    )
    queries, references, poses = pairs_of(learned_of(other))
    assert (queries == references).mean() > 0.9
    assert (poses.heading == 1).mean() > 0.9


def test_candidates_from_elsewhere_tell_the_poses_wherever_the_right_one_stands():
    rng = np.random.default_rng(0)
    others = [rng.permutation(np.delete(np.arange(PLACES), q))[:5] for q in range(PLACES)]
    proposed = np.stack([rng.permutation([q, *few]) for q, few in enumerate(others)])
    aligner = Aligner(*scene(noise=0.5), Settings(candidates=6))
    scores = aligner.align(proposed)
    assert aligner.prior.heading.argmax() == 1
    assert np.exp(aligner.prior.heading).sum() < 1.5  # of four that might have been
    assert float((scores.argmax(1) == torch.arange(PLACES)).float().mean()) > 0.9


def test_the_papers_loop_learns_on_cells_too():
    """Encoder, decoder, InfoNCE and reconstruction over the cells that lie on each other."""
    config = load_config(None, ("mstep.steps_per_round=40", "mstep.learning_rate=0.005"))
    learning = cell_learning("linear", config.mstep, config.loss, 0)
    aligner = Aligner(*scene(noise=1.2), Settings(candidates=6), learning=learning)
    first = share_right(aligner.align())
    aligner.learn(*mutual(csls(aligner.align(), 5)))
    assert share_right(aligner.align()) > first
    other = Aligner(*scene(noise=1.2), Settings(candidates=6), learning=learning)
    take_over(other, learned_of(aligner))
    torch.testing.assert_close(other.align(), aligner.align(), rtol=0, atol=0)
