"""An image's vector is the mean of its variants', bit for bit, whether they are made or read."""

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from backbones import photo
from PIL import Image

from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import load_config
from cvgl_ray.distributed import extract as stage
from cvgl_ray.features import batches as decoding
from cvgl_ray.features import variants
from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.extraction import Extraction
from cvgl_ray.features.variants import mean_of

IMAGES = 5
ONE, FOUR = ("[1.0]", 1), ("[1.0, 0.6]", 2)  # crops and orientations of the queries: one variant, four


@pytest.fixture
def images(tmp_path: Path) -> Catalog:
    """Large JPEGs, of which crops ask for different fractions, and one tile."""
    rows = []
    for seed in range(IMAGES + 1):
        path = tmp_path / "images" / f"{seed}.jpg"
        path.parent.mkdir(exist_ok=True)
        photo(300, 260, seed=seed).save(path, quality=90)
        view = "drone" if seed < IMAGES else "satellite"
        rows.append({"image_id": path.name, "uri": str(path), "view": view, "split": "train"})
    return Catalog.from_rows(rows)


class Counted:
    """Forwards and decodings of the queries, each of one image."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forwards, self.decoded, self.most = 0, 0, 10**9
        forward, read_pictures = FrozenBackbone._forward, decoding.read_pictures

        def counted(backbone: FrozenBackbone, batch: torch.Tensor) -> torch.Tensor:
            self.forwards += len(batch)
            if self.forwards > self.most:
                raise KeyboardInterrupt
            return forward(backbone, batch)

        def counted_pictures(uri: str, sides: list[int]) -> list[Image.Image]:
            self.decoded += 1
            return read_pictures(uri, sides)

        monkeypatch.setattr(FrozenBackbone, "_forward", counted)
        monkeypatch.setattr(FrozenBackbone, "try_out", lambda _: None)
        monkeypatch.setattr(decoding, "read_pictures", counted_pictures)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def extracted(images: Catalog, folder: Path, query: tuple[str, int]) -> Extraction:
    settings = (
        "backbone.name=test_vit", "backbone.pretrained=false", "backbone.image_size=32", "backbone.rings=[]",
        "features.batch_size=2", "pretransform.reference.orientations=1", "pretransform.reference.crops=[1]",
        f"pretransform.query.crops={query[0]}", f"pretransform.query.orientations={query[1]}",
    )  # fmt: skip
    config = load_config(None, settings)
    root = folder / "features"
    return stage.extract(
        images, config, root, folder / "rejected.parquet", variants=root.with_name("variants")
    )


def queries(extraction: Extraction) -> np.ndarray:
    """Their vectors [N, D]."""
    table = extraction.tables["drone"]
    return table.rows(table.image_ids)


def test_a_changed_pretransform_makes_what_is_missing_and_gives_the_bits_of_a_direct_one(
    images, tmp_path, counted, caplog
):
    direct = extracted(images, tmp_path / "direct", FOUR)
    assert (counted.forwards, counted.decoded) == (4 * IMAGES + 1, IMAGES + 1)
    for query, forwards in (
        (ONE, 1 + 1),  # the tile is new, too
        (("[0.6]", 1), 1),
        (("[0.6]", 4), 3),
        (FOUR, 1),  # the whole picture turned; the three others are there
        (("[0.6, 1.0]", 2), 0),
        (("[0.6]", 2), 0),
    ):
        counted.forwards, counted.decoded = 0, 0
        caplog.clear()
        with caplog.at_level(logging.INFO, logger=stage.__name__):
            found = extracted(images, tmp_path / "step", query)
        tile = 1 if query == ONE else 0
        made = (forwards - tile) * IMAGES + tile
        assert (counted.forwards, counted.decoded) == (made, (IMAGES if forwards else 0) + tile)
        assert f"{counted.decoded} of {IMAGES + 1} images to extract, {made} forwards" in caplog.text
        assert found.extracted + found.reused == IMAGES + 1
        assert found.extracted == counted.decoded
        if query == FOUR:
            np.testing.assert_array_equal(queries(found), queries(direct))
    assert np.abs(queries(found) - queries(direct)).max() > 1e-2
    assert len(list((tmp_path / "step/features/drone").iterdir())) == 6
    # Variants that are a pre-transform by themselves lie there alone: apart are the other four.
    assert len(list((tmp_path / "step/variants/drone").iterdir())) == 4


def test_images_that_lack_other_variants_are_told_apart(images, tmp_path, counted):
    direct = extracted(images, tmp_path / "direct", FOUR)
    some = Catalog(images.rows.take([0, 3, IMAGES]))
    extracted(some, tmp_path / "step", ONE)
    extracted(some.select(view="drone"), tmp_path / "step", ("[0.6]", 2))
    counted.forwards = 0
    found = extracted(images, tmp_path / "step", FOUR)
    assert counted.forwards == 2 * 1 + (IMAGES - 2) * 4
    # Images went through the network in other company, by which floating point may round otherwise.
    np.testing.assert_allclose(queries(found), queries(direct), atol=2e-4)


def test_an_interrupted_extraction_goes_on(images, tmp_path, counted):
    direct = extracted(images, tmp_path / "direct", FOUR)
    counted.forwards, counted.most = 0, 11  # amid the second batch of two images
    with pytest.raises(KeyboardInterrupt):
        extracted(images, tmp_path / "step", FOUR)
    counted.forwards, counted.most = 0, 10**9
    found = extracted(images, tmp_path / "step", FOUR)
    assert counted.forwards == 4 * (IMAGES - 2) + 1
    np.testing.assert_array_equal(queries(found), queries(direct))
    shutil.rmtree(tmp_path / "step/features/drone")  # killed between the variants and their mean
    counted.forwards = 0
    found = extracted(images, tmp_path / "step", FOUR)
    assert counted.forwards == 0
    np.testing.assert_array_equal(queries(found), queries(direct))


def test_variants_are_kept_where_the_disk_has_room_and_change_no_bit(
    images, tmp_path, counted, monkeypatch, caplog
):
    direct = extracted(images, tmp_path / "direct", FOUR)
    needed = sum(
        part.stat().st_size > 0 and 64 * 2 * 2 * IMAGES  # two layers of 64 numbers in half precision
        for part in (tmp_path / "direct/variants").glob("drone/*/manifest.json")
    )
    assert needed == 4 * 64 * 2 * 2 * IMAGES
    for free, kept in ((10 * needed - 10, False), (10 * needed, True)):
        monkeypatch.setattr(variants.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with caplog.at_level(logging.INFO, logger=variants.__name__):
            caplog.clear()
            found = extracted(images, tmp_path / str(free), FOUR)
        assert ("the variants of view 'drone' are not kept" in caplog.text) is not kept
        assert (tmp_path / str(free) / "variants").exists() is kept
        np.testing.assert_array_equal(queries(found), queries(direct))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_mean_is_that_of_rounded_unit_vectors_and_each_rows_own(count):
    rows = torch.randn(count, 600, 33, generator=torch.Generator().manual_seed(0))
    vectors = torch.nn.functional.normalize(rows, dim=-1).half().numpy()
    found = mean_of(iter(vectors))
    exact = vectors.astype(np.float64).sum(axis=0)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    if count == 1:
        np.testing.assert_array_equal(found, vectors[0])
    else:
        assert np.abs(found - exact).max() < 2.0**-12 + 1e-6  # half a unit of half precision
    for part in (slice(0, 1), slice(255, 300)):
        np.testing.assert_array_equal(mean_of(iter(vectors[:, part])), found[part])
