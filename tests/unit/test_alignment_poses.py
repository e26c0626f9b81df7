"""Poses: the search against a naive loop, and worlds that are turned, scaled and shifted by known amounts."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fields import Field

from cvgl_ray.alignment.poses import BLOCK, score_pairs
from cvgl_ray.alignment.prior import PosePrior, fit_prior
from cvgl_ray.alignment.refine import refine
from cvgl_ray.features.cells import Cells

HEADINGS = [30.0 * number for number in range(12)]
SIDES = (20, 17, 14, 12, 10, 8, 7)


def random_cells(count, variants, side, seed, whole=False):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, variants, side, side, generator=generator) < (2 if whole else 0.8)
    maps = F.normalize(torch.randn(count, variants, 5, side, side, generator=generator), dim=2)
    return Cells(maps * masks[:, :, None], masks)


def naive(query, references, prior, overlap):
    """Score, heading, width, row and column of the best pose, one query, reference and pose at a time."""
    found = {}
    n = query.maps.shape[-1]
    for q in range(len(query)):
        for r in range(len(references[0])):
            best = (-math.inf,)
            for w, cells in enumerate(references):
                m = cells.maps.shape[-1]
                pad = max(0, n - m) + int((1 - overlap) * min(n, m))
                for h in range(query.maps.shape[1]):
                    least = overlap * min(query.masks[q, h].sum(), cells.masks[r, 0].sum()) - 0.5
                    for top in range(-pad, m + pad - n + 1):
                        for left in range(-pad, m + pad - n + 1):
                            total, count = 0.0, 0
                            for y in range(max(0, top), min(m, top + n)):
                                for x in range(max(0, left), min(m, left + n)):
                                    if query.masks[q, h, y - top, x - left] and cells.masks[r, 0, y, x]:
                                        count += 1
                                        total += float(
                                            query.maps[q, h, :, y - top, x - left] @ cells.maps[r, 0, :, y, x]
                                        )
                            middle = [(shift + (n - m) / 2) / m for shift in (top, left)]
                            if count >= least and count:
                                bonus = float(prior.bonus(w, np.array([h]), np.array(middle, float))[0, 0, 1])
                                score = (total / math.sqrt(count) - prior.level[w]) / prior.unit[w]
                                best = max(best, (score + bonus, h, w, *middle))
            found[q, r] = best
    return found


@pytest.mark.parametrize("whole", [True, False])
def test_the_search_is_the_naive_loop(whole):
    query = random_cells(2, 3, 4, 0, whole)
    references = [random_cells(2, 1, side, side, whole) for side in (5, 3)]
    before = replace(PosePrior.flat(3, 2), level=np.array([0.1, -0.2]), unit=np.array([0.5, 0.7]))
    prior = fit_prior(
        np.array([0, 1]), np.array([1, 1]), np.array([0.1, 0.0]), np.array([0.0, 0.1]), before, 0.3
    )
    expected = naive(query, references, prior, 0.6)
    found = score_pairs(query, references, prior, overlap=0.6)
    for (q, r), (score, *pose) in expected.items():
        assert found.score[q, r] == pytest.approx(score, abs=1e-5)
        got = [getattr(found, name)[q, r] for name in ("heading", "width", "row", "column")]
        assert got == pytest.approx(pose, abs=1e-6)
    assert (found.lead >= 0).all()


def test_candidates_get_what_all_get():
    query = random_cells(3, 2, 4, 0)
    references = [random_cells(5, 1, side, side) for side in (5, 4)]
    prior = PosePrior.flat(2, 2)
    every = score_pairs(query, references, prior)
    candidates = np.array([[4, 0], [1, 2], [3, 3]])
    some = score_pairs(query, references, prior, candidates)
    np.testing.assert_allclose(some.score, np.take_along_axis(every.score, candidates, 1), atol=1e-6)
    np.testing.assert_array_equal(some.width, np.take_along_axis(every.width, candidates, 1))


def test_of_a_width_that_is_left_out_nothing_is_looked_at_but_the_other_width_is_whole():
    query, few, many = random_cells(2, 2, 4, 1), random_cells(2, 1, 5, 2), random_cells(BLOCK + 7, 1, 4, 3)
    prior = PosePrior.flat(2, 2)
    prior = replace(prior, width=np.array([-np.inf, 0.0]))
    found = score_pairs(query, [few, many], prior)  # as an actor is given what is left out
    each = score_pairs(query, [many, many], prior, np.tile(np.arange(len(many)), (2, 1)))
    assert found.score.shape == (2, BLOCK + 7)
    np.testing.assert_allclose(found.score, each.score, rtol=1e-5)
    assert (found.width == 1).all()


@pytest.mark.parametrize(
    ("turned", "ratio", "row", "column"),
    [
        (0, 1.0, 0.0, 0.0),
        (90, 1.4, 0.0, 0.1),
        (47, 1.25, -0.1, 0.05),
        (200, 0.8, 0.15, -0.1),
        (313, 1.8, 0.07, 0.11),
    ],
)
def test_a_known_turn_scale_and_shift_are_found(turned, ratio, row, column):
    """Heading within 5 degrees, width within 10 %, position within half a cell, sub-cell after refining."""
    world = Field(turned)
    whole = torch.ones(1, 1, 14, 14, dtype=torch.bool)
    variants = torch.stack([world.cells(14, ratio, turned - heading, row, column) for heading in HEADINGS])
    query = Cells(variants[None], whole.expand(1, len(HEADINGS), 14, 14))
    references = [
        Cells(
            torch.stack([world.cells(side, 1.0), Field(99).cells(side, 1.0)])[:, None],
            torch.ones(1, 1, side, side) > 0,
        )
        for side in SIDES
    ]
    found = score_pairs(query, references, PosePrior.flat(len(HEADINGS), len(SIDES)))
    assert found.score[0, 0] > 1.5 * found.score[0, 1]
    assert found.lead[0, 0] > 2 * max(found.lead[0, 1], 0)
    index = (np.array([0]), np.array([0]))
    fine = refine(query, references, index, found.take(index), HEADINGS)
    assert abs((fine.heading[0] - turned + 180) % 360 - 180) <= 5
    assert abs(fine.ratio[0] / ratio - 1) <= 0.1
    cell = ratio / 14
    assert abs(fine.row[0] - row) <= cell / 4
    assert abs(fine.column[0] - column) <= cell / 4
