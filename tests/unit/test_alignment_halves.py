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
    for query, references in (scene(noise=0.8, places=PLACES), strips(0.5)):
        aligner = Aligner(query, references, Settings(candidates=PLACES))
        aligner.prior = replace(
            aligner.prior, spread=1.0
        )  # known, so that no pose is worth more than another
        together(aligner, torch.eye(PLACES), 5)
        halves = laid_halves(aligner, 5, seed=0)
        order = np.argsort(-aligner.found.score, axis=1, kind="stable")
        found = np.take_along_axis(aligner.found.score, order, 1)
        np.testing.assert_allclose(halves.scores[0], found, atol=2e-3)
        np.testing.assert_allclose(halves.scores[1:].sum(0) / 2**0.5, found, atol=2e-3)
        np.testing.assert_array_equal(halves.candidates, np.take_along_axis(aligner.candidates, order, 1))


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
    for _ in run_rounds(
        learner, query, reference, LEARNING, matcher=alignment_matcher(aligner, LEARNING.estep)
    ):
        aligner.level()
    return [models.judge(learner, laid)["score"] for laid in (None, laid_halves(aligner, 5, seed=0))]


def test_the_score_follows_what_cells_find_where_vectors_find_nothing():
    alone, with_cells = judged(noise=0.4, vectors_noise=4.0)
    assert alone < 0.3
    assert with_cells > 0.8
    _, in_vain = judged(noise=30.0, vectors_noise=4.0)
    assert in_vain < 0.3
