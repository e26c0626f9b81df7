"""Files to stored cells: what a row holds, and that it is what the model gives."""

from copy import deepcopy

import numpy as np
import torch
from backbones import model, photo
from PIL import Image

from cvgl_ray.features.batches import run_here
from cvgl_ray.features.cell_batches import CellWork, Variants
from cvgl_ray.features.cell_model import CellModel
from cvgl_ray.features.cell_projection import projected, projection
from cvgl_ray.features.cells import cells_of

QUERY, REFERENCE = Variants((6,), (0.0, 30.0, 90.0)), Variants((8, 5))


def batch(view, paths):
    names = [path.name for path in paths]
    return {"view": view, "digests": names, "image_ids": names, "uris": [str(path) for path in paths]}


def test_a_row_holds_the_cells_of_every_size_and_heading(tmp_path):
    made = CellModel(deepcopy(model("test_efficientnet")))  # which is folded
    paths = [tmp_path / f"{seed}.png" for seed in range(2)]
    for seed, path in enumerate(paths):
        photo(200, 160, seed).save(path)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    paths.append(tmp_path / "broken.png")
    work = CellWork(made, {"query": QUERY, "reference": REFERENCE})
    rows = {one["view"]: one for one in run_here([batch("query", paths), batch("reference", paths)], work)}
    assert [one["broken"] for one in rows.values()] == [["broken.png"], ["broken.png"]]
    assert rows["query"]["features"].shape == (2, QUERY.row_length(made.channels))

    [found] = QUERY.cells(rows["query"]["features"], made.stride)
    square = photo(200, 160, 1).crop((20, 0, 180, 160)).resize((96, 96), Image.Resampling.BICUBIC)
    pictures = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
    wanted = cells_of(made, pictures, 6, QUERY.headings)
    assert found.maps.shape == (2, 3, made.channels, 6, 6)
    assert torch.equal(found.masks, wanted.masks)
    close = torch.nn.functional.cosine_similarity(found.maps[1].float(), wanted.maps[0].float(), dim=1)
    assert float(close.min()) > 0.98  # Pillow and torch round apart
    large, small = REFERENCE.cells(rows["reference"]["features"], made.stride)
    assert (large.maps.shape[-1], small.maps.shape[-1]) == (8, 5)


def test_wide_cells_are_stored_along_few_directions(tmp_path):
    made = CellModel(deepcopy(model("test_resnet")))
    photo(96, 96).save(tmp_path / "0.png")
    variants = {"query": QUERY}
    [whole] = run_here([batch("query", [tmp_path / "0.png"])], CellWork(made, variants))
    [cells] = QUERY.cells(whole["features"], made.stride)
    directions = projection([cells], [cells], channels=16)
    assert directions is not None
    [few] = run_here([batch("query", [tmp_path / "0.png"])], CellWork(made, variants, directions))
    assert few["features"].shape == (1, QUERY.row_length(16))
    torch.testing.assert_close(
        QUERY.cells(few["features"], made.stride)[0].maps,
        projected(cells, directions).maps,
        atol=2e-3,
        rtol=0,
    )
