"""Cells that are read as they are compared: what is asked for at a time, and that no bit depends on it."""

from dataclasses import fields
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cvgl_ray.alignment import cell_adapter
from cvgl_ray.alignment.aligner import Aligner, Settings
from cvgl_ray.alignment.cell_source import Held, Picked
from cvgl_ray.alignment.combine import mutual
from cvgl_ray.alignment.learned import learned_of
from cvgl_ray.alignment.matching import together
from cvgl_ray.alignment.poses import BLOCK, Found, score_pairs
from cvgl_ray.alignment.prior import PosePrior
from cvgl_ray.alignment.scoring import score_rows
from cvgl_ray.features.cell_projection import sample_cells
from cvgl_ray.features.cells import Cells
from cvgl_ray.search.csls import csls

COUNT = 70  # of each view: more than are read at a time


class Watched:
    """A source that is not in memory, and remembers what it was asked for."""

    held = None

    def __init__(self, cells: list[Cells]) -> None:
        self.cells, self.asked = cells, []

    def __len__(self) -> int:
        return len(self.cells[0])

    def of(self, rows: np.ndarray) -> list[Cells]:
        self.asked.append(rows)
        return [cells.of(rows) for cells in self.cells]


def seen(side: int, variants: int = 1, seed: int = 0, masked: float = 0.0) -> Cells:
    """Cells of the same places, each view and size with noise of its own."""
    places = torch.randn(COUNT, 16, 6, 6, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1 + seed)
    maps = torch.stack([F.adaptive_avg_pool2d(places.rot90(v, (-2, -1)), side) for v in range(variants)], 1)
    maps = maps + 0.5 * torch.randn(maps.shape, generator=generator)
    mask = torch.rand(COUNT if masked else 1, variants, side, side, generator=generator) >= masked
    return Cells((F.normalize(maps, dim=2) * mask[:, :, None]).half(), mask)


def views() -> tuple[list[Cells], list[Cells]]:
    return [seen(4, 4)], [seen(5, seed=1), seen(4, seed=2)]


@pytest.mark.parametrize(("proposed", "room", "block"), [(True, 0, 1), (False, 2_700_000, 16)])
def test_rounds_of_cells_that_are_read_are_those_of_cells_in_memory(
    proposed: bool, room: int, block: int
) -> None:
    """They read a few queries and their candidates, BLOCK references, or few images to learn of."""
    query, references = views()
    settings = Settings(sample=8, candidates=4, all_below=0 if proposed else 2**22)
    vectors = torch.randn(COUNT, 8, generator=torch.Generator().manual_seed(3))
    cosines = F.normalize(vectors, dim=1) @ F.normalize(vectors, dim=1).T
    sources = Watched(query), Watched(references)
    learned = []
    for aligner in (
        Aligner(query[0], references, settings),
        Aligner(*sources, settings, partial(score_rows, room=room)),
    ):
        for _ in range(2):
            aligner.learn(*mutual(csls(together(aligner, cosines, 5), 5)))
        aligner.level()
        learned.append(learned_of(aligner))
    one, other = learned
    assert one.keys() == other.keys()
    assert len(one["pairs.query"]) > COUNT / 2
    for name, value in one.items():
        np.testing.assert_array_equal(value.numpy(), other[name].numpy(), name)
    assert max(len(rows) for source in sources for rows in source.asked) <= max(cell_adapter.CHUNK, BLOCK)
    scored = [rows for rows in sources[0].asked if len(rows) == block]
    assert len(scored) >= 2 * (COUNT // block)


@pytest.mark.parametrize("candidates", [True, False])
@pytest.mark.parametrize("strip", [True, False])
def test_no_block_changes_a_bit_where_images_have_masks_of_their_own(candidates: bool, strip: bool) -> None:
    query, references = seen(6, 1 if strip else 4, masked=0.2), [seen(6, seed=1, masked=0.1)]
    if strip:
        query, references = (Cells(c.maps[..., :1, :], c.masks[..., :1, :]) for c in (query, references[0]))
        references = [references]
    prior = PosePrior.flat(query.headings, 1)
    few = np.random.default_rng(0).integers(0, COUNT, (COUNT, 3)) if candidates else None
    whole = score_pairs(query, references, prior, few)
    everything = np.arange(COUNT)
    read = Picked(Held([query]), everything), Picked(Held(references), everything)
    for room in (0, 50_000, 2**30):
        found = score_rows(*read, prior, few, room=room)
        for field in fields(Found):
            np.testing.assert_array_equal(getattr(found, field.name), getattr(whole, field.name))


def test_cells_are_sampled_from_blocks_as_from_the_whole() -> None:
    references = [seen(5, seed=1), seen(4, seed=2, masked=0.3)]
    rows = np.array_split(np.arange(COUNT), 11)
    blocks = ([cells.of(part) for cells in references] for part in rows)
    whole = sample_cells([references], COUNT, limit=320)
    assert 160 < len(whole) < 400
    torch.testing.assert_close(sample_cells(blocks, COUNT, limit=320), whole, rtol=0, atol=0)


def test_of_many_images_and_pairs_few_are_learned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_adapter, "LEARNED_OF", COUNT // 2)
    query, references = (Watched(cells) for cells in views())
    cell_adapter.view_centres(query, references)
    pairs, prior = (np.arange(COUNT), np.arange(COUNT)), PosePrior.flat(4, 2)
    poses = score_pairs(query.cells[0], references.cells, prior, np.arange(COUNT)[:, None])
    one, other = cell_adapter.rows_of_pairs(query, references, pairs, poses.take((pairs[0], 0)), COUNT)
    assert len(one) == len(other) == COUNT
    for source in (query, references):
        assert [len(rows) for rows in source.asked] == [COUNT // 2] * 2
        assert source.asked[1].max() > COUNT * 0.9


def test_university_1652_is_aligned_by_what_vectors_propose_and_too_many_pairs_are_refused() -> None:
    from cvgl_ray.config import load_config
    from cvgl_ray.distributed.alignment import why_not_aligned

    config = load_config(None)
    assert why_not_aligned(config, 37_854, 701) == ""
    assert why_not_aligned(config, 4_000, 1_000) == ""
    assert 4_000 * 1_000 <= Settings().all_below < 37_854 * 701
    assert "20000 queries and 20000 references are 400000000 pairs" in why_not_aligned(config, 20_000, 20_000)
