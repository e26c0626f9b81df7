"""Half models of an alignment: they say what all channels say, each for itself, and the judge hears them."""

from dataclasses import replace

import numpy as np
import torch
from fields import scene

from cvgl_ray.alignment.aligner import Aligner, Settings
from cvgl_ray.alignment.halves import laid_halves
from cvgl_ray.alignment.matching import alignment_matcher, together
from cvgl_ray.config import load_config
from cvgl_ray.em.judge import HalfModels
from cvgl_ray.em.rounds import run_rounds, start

PLACES = 24  # of fewer than 20 the judge says nothing
LEARNING = load_config(None, ("mstep.rounds=1", "estep.neighbourhood=0")).learning


def strips(noise):
    """Panoramas' sectors seen twice, the camera turned by five of them."""
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(PLACES, 1, 8, 1, 24, generator=generator)
    sides = [one, one.roll(5, -1)]
    query, reference = (side + noise * torch.randn(one.shape, generator=generator) for side in sides)
    whole = torch.ones(1, 1, 1, 24, dtype=torch.bool)
    cells = type(scene(noise=0.8)[0])
    return cells(query, whole), [cells(reference, whole)]


def test_all_channels_score_as_the_search_does_and_their_halves_add_up_to_it():
    aligner = Aligner(*scene(noise=0.8, places=PLACES), Settings(candidates=6))
    aligner.prior = replace(aligner.prior, spread=1.0)  # so none is looked for
    together(aligner, torch.eye(PLACES), 5)
    scores = laid_halves(aligner, 5, seed=0).scores
    np.testing.assert_allclose(scores[0], aligner.found.score, atol=2e-3)
    np.testing.assert_allclose(scores[1:].sum(0) / 2**0.5, aligner.found.score, atol=2e-3)


def test_halves_of_strips_look_for_the_yaw_themselves_and_agree_where_cells_tell():
    for noise, least, most in ((0.5, 0.9, 1.0), (50.0, 0.0, 0.3)):
        aligner = Aligner(*strips(noise), Settings())
        aligner.prior = replace(aligner.prior, spread=1.0)
        aligner.align()
        halves = laid_halves(aligner, 5, seed=0)
        np.testing.assert_allclose(halves.scores[0], aligner.found.score, atol=1e-4)
        best = [
            halves.candidates[row, part.argmax(1)]
            for part in halves.scores[1:]
            for row in [np.arange(PLACES)]
        ]
        assert least <= (best[0] == best[1]).mean() <= most


def judged(noise, vectors_noise):
    """The label-free score after a round, by vectors alone and with cells."""
    rng = np.random.default_rng(0)
    places = rng.standard_normal((PLACES, 32))
    query, reference = (places + vectors_noise * rng.standard_normal(places.shape) for _ in range(2))
    aligner, models = (
        Aligner(*scene(noise, places=PLACES), Settings(candidates=8)),
        HalfModels(query, reference, LEARNING),
    )
    learner, _ = start(query, reference, LEARNING)
    list(run_rounds(learner, query, reference, LEARNING, matcher=alignment_matcher(aligner, LEARNING.estep)))
    return [models.judge(learner, laid)["score"] for laid in (None, laid_halves(aligner, 5, seed=0))]


def test_the_score_follows_what_cells_find_where_vectors_find_nothing():
    alone, with_cells = judged(noise=0.4, vectors_noise=4.0)
    assert alone < 0.3
    assert with_cells > 0.8
    _, in_vain = judged(noise=30.0, vectors_noise=4.0)
    assert in_vain < 0.3
