"""Strips: the circular search against a naive loop, a known yaw, what is learned of it, and their cells."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backbones import model
from PIL import Image

from cvgl_ray.alignment.aligner import Aligner, Settings
from cvgl_ray.alignment.cell_adapter import aligned_rows
from cvgl_ray.alignment.combine import mutual
from cvgl_ray.alignment.poses import score_pairs
from cvgl_ray.alignment.prior import PosePrior, fit_prior
from cvgl_ray.features.cells import Cells
from cvgl_ray.features.strip_cells import Sectors, StripWork
from cvgl_ray.search.csls import csls


def strips(count, width, seed, seen=None, channels=6):
    generator = torch.Generator().manual_seed(seed)
    maps = F.normalize(torch.randn(count, 1, channels, 1, width, generator=generator), dim=2)
    mask = torch.ones(1, 1, 1, width, dtype=torch.bool)
    if seen is not None:
        mask = torch.rand(count, 1, 1, width, generator=generator) < seen
    return Cells(maps * mask[:, :, None], mask)


def naive(query, reference, prior, q, r):
    """Score of each yaw of a pair, one sector at a time."""
    width, found = query.maps.shape[-1], []
    for shift in range(width):
        total, count = 0.0, 0
        for x in range(width):
            if query.masks[q if len(query.masks) > 1 else 0, 0, 0, x]:
                count += 1
                total += float(query.maps[q, 0, :, 0, x] @ reference.maps[r, 0, :, 0, (x - shift) % width])
        if prior.heading[shift] == -np.inf:
            found.append(-np.inf)
            continue
        bonus = float(prior.bonus(0, np.array([shift]), np.zeros(1))[0, 0, 0])
        found.append((total / math.sqrt(max(1, count)) - prior.level[0]) / prior.unit[0] + bonus)
    return np.array(found)


@pytest.mark.parametrize("scale", [0.2, 0.0])
@pytest.mark.parametrize(("width", "seen"), [(8, None), (9, 0.5), (24, 0.4)])
def test_the_search_is_the_naive_loop(width, seen, scale):
    query, reference = strips(3, width, 0, seen), strips(4, width, 1)
    before = replace(PosePrior.flat(width, 1), level=np.array([0.2]), unit=np.array([0.7]))
    prior = fit_prior(np.array([1, 1, 2]), np.zeros(3, int), np.zeros(3), np.zeros(3), before, scale)
    prior.heading[3] = -np.inf  # is not tried
    found = score_pairs(query, [reference], prior)
    for q in range(3):
        for r in range(4):
            scores = naive(query, reference, prior, q, r)
            assert found.score[q, r] == pytest.approx(scores.max(), abs=1e-5)
            assert found.heading[q, r] == scores.argmax()
            steps = np.abs(np.arange(width) - scores.argmax())
            elsewhere = scores[np.minimum(steps, width - steps) * 360 / width > 15]
            assert found.lead[q, r] == pytest.approx(scores.max() - elsewhere.max(), abs=1e-5)
    candidates = np.array([[3, 0], [1, 1], [2, 3]])
    some = score_pairs(query, [reference], prior, candidates)
    np.testing.assert_allclose(some.score, np.take_along_axis(found.score, candidates, 1), atol=1e-6)
    np.testing.assert_array_equal(some.heading, np.take_along_axis(found.heading, candidates, 1))
    for few in (candidates[1:], np.array([[0, 1, 2, 3], [3, 2, 1, 0]])):  # not all, and all in two orders
        some = score_pairs(query.of(slice(1, 3)), [reference], prior, few)
        np.testing.assert_allclose(some.score, np.take_along_axis(found.score[1:], few, 1), atol=1e-6)


def test_a_known_yaw_is_found_and_its_sectors_laid_on_each_other():
    """The camera looks to 90 degrees: what lies east is in the strip's middle."""
    reference = strips(5, 24, 0)
    query = Cells(reference.maps.roll(-6, -1), reference.masks)
    found = score_pairs(query, [reference], PosePrior.flat(24, 1))
    pair = np.arange(5), np.arange(5)
    assert found.pose((2, 2), 24, [1.0])["heading_deg"] == 90
    assert (found.score.argmax(1) == np.arange(5)).all()
    one, other = aligned_rows(query, [reference], pair, found.take(pair), 1000)
    assert one.shape == (5 * 24, 6)
    torch.testing.assert_close(one, other)


def seen_strips(noise, headings, seen=24, places=30, width=24, channels=12):
    """Both views of places, each with noise in three directions of its own that are everywhere the same."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(channels, 3, generator=generator))[0]
    base = F.normalize(torch.randn(places, channels, width, generator=generator), dim=1)
    rolled = torch.stack([row.roll(-int(h), -1) for row, h in zip(base, headings, strict=True)])
    views = []
    for maps in (rolled, base):
        strength = noise * torch.randn(places, 3, width, generator=generator)
        maps = F.normalize(maps + torch.einsum("cd,ndw->ncw", directions, strength), dim=1)
        views.append(maps[:, None, :, None])
    mask = torch.zeros(1, 1, 1, width, dtype=torch.bool)
    mask[..., (width - seen) // 2 : (width + seen) // 2] = True
    return Cells(views[0] * mask[:, :, None], mask), Cells(views[1], torch.ones_like(mask))


@pytest.mark.parametrize("aligned", [True, False])
def test_rounds_learn_what_tells_views_apart_and_whether_north_is_known(aligned):
    headings = np.zeros(30) if aligned else np.random.default_rng(0).integers(0, 24, 30)
    query, reference = seen_strips(1.0, headings, seen=12)
    aligner = Aligner(query, [reference], Settings())

    def right():
        best = csls(aligner.align(), 5).argmax(1)
        return float((best == torch.arange(30)).float().mean())

    first = right()
    for _ in range(3):
        aligner.learn(*mutual(csls(aligner.align(), 5)))
    assert right() > max(first, 0.8)
    assert (aligner.adapter.factors < 0.6).sum() >= 3
    found = aligner.found.heading[np.arange(30), np.arange(30)]
    assert (found == (-headings) % 24).mean() > 0.8
    share = np.exp(aligner.prior.heading)
    assert (share.argmax() == 0 and share[3:22].max() < 0.2) if aligned else share.min() > 0.05


def test_the_cells_of_a_strip_roll_with_it_and_a_narrow_view_is_masked():
    sectors = Sectors(8, 2, "panorama", (64, 128))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 3, 64, 128), dtype=np.uint8)
    work = strip_work({"street": sectors})
    rows, rolled = (work.rows(some, sectors) for some in (pixels, np.roll(pixels, -32, -1)))
    assert rows.shape == (2, sectors.row_length(work.model.channels))
    [cells], [turned] = sectors.cells(rows, 16), sectors.cells(rolled, 16)
    assert cells.strip
    assert cells.headings == 8
    torch.testing.assert_close(turned.maps.float(), cells.maps.roll(-2, -1).float(), atol=2e-2, rtol=0)
    [narrow] = replace(sectors, field_of_view=90.0).cells(rows, 16)
    assert narrow.masks.flatten().tolist() == [False] * 3 + [True] * 2 + [False] * 3


def strip_work(variants):
    from cvgl_ray.features.cell_model import CellModel
    from cvgl_ray.features.preparing import Preparing

    cells = CellModel(model("test_resnet"))
    return StripWork(cells, variants, Preparing(cells.preprocessing, (64, 128), 1.0, ""))


def test_a_panorama_of_part_of_the_circle_stands_in_the_middle_and_repeats():
    from cvgl_ray.features.pretransform import around

    picture = Image.fromarray(np.arange(4, dtype=np.uint8)[None, :, None].repeat(3, 2))
    assert np.array(around(picture, 120.0))[0, :, 0].tolist() == [0, 1, 2, 3] * 3
    assert np.array(around(picture, 180.0))[0, :, 0].tolist() == [2, 3, 0, 1, 2, 3, 0, 1]
    assert around(picture, 360.0) is picture


def test_strips_are_stored_and_loaded_as_one_row_of_sectors(tmp_path):
    from cvgl_ray.catalog import layouts
    from cvgl_ray.config import load_config
    from cvgl_ray.distributed.alignment import why_not_aligned
    from cvgl_ray.distributed.cells import Maker, extract_cells
    from cvgl_ray.synthetic.street_views import write_streets

    write_streets(tmp_path / "w", places=2, image_size=32, field_of_view=90)
    config = load_config(
        Path(__file__).parents[2] / "experiments/street_panorama.toml",
        (
            f"dataset.root={tmp_path / 'w'}",
            "backbone.name=test_resnet",
            "backbone.pretrained=false",
            "backbone.image_size=[32, 128]",
            "alignment.headings=16",
            "pretransform.query.field_of_view=90",
        ),
    )
    assert why_not_aligned(config, 200, 200) == ""
    catalog = layouts.scan("folders", str(tmp_path / "w"), "street", "satellite")
    maker = Maker.of(config.backbone, config.cells.layer)
    stores, directions = extract_cells(catalog, config, tmp_path / "cells", maker=maker)
    assert directions is not None  # of the cells of a band, wider than 96 channels
    assert len(directions) == 96
    [query], [reference] = (
        stores.load(view, catalog.select(view=view).image_ids) for view in ("street", "satellite")
    )
    assert query.maps.shape == reference.maps.shape == (2, 1, 4 * 96, 1, 16)
    assert query.masks.flatten().tolist() == [False] * 6 + [True] * 4 + [False] * 6
    assert reference.masks.all()
    # Other strips of the same images have directions of their own, wherever they lie.
    other = config.model_copy(update={"alignment": config.alignment.model_copy(update={"bands": 2})})
    extract_cells(catalog, other, tmp_path / "cells", maker=maker)
    assert len(list((tmp_path / "cells").glob("directions-*.npy"))) == 2
