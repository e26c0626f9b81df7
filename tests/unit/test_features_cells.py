"""Cells of small models: their shape, their masks, their headings."""

from copy import deepcopy

import pytest
import timm
import torch
from backbones import batch, model

from cvgl_ray.errors import InputError
from cvgl_ray.features.cell_model import CellModel
from cvgl_ray.features.cells import cell_mask, cells_of, turn


def pictures(count=2):
    return torch.from_numpy(batch(count)[:, 0])


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_resnet", "test_convnext"])
def test_any_size_gives_so_many_cells(name):
    made = CellModel(model(name))
    for side in (5, 8):
        cells = cells_of(made, pictures(), side, [0.0, 45.0])
        assert cells.maps.shape == (2, 2, made.channels, side, side)
        assert cells.masks.shape == (1, 2, side, side)
        assert cells.masks[0, 0].all()
        assert not cells.masks[0, 1, 0, 0]  # a corner turned inwards
        assert cells.masks[0, 1, side // 2, side // 2]


def test_a_model_of_windows_takes_each_size_as_if_it_were_the_only_one():
    """Its biases are resampled from its own, never from another size's."""
    small = {"depths": (1, 2, 1, 1), "num_heads": (1, 1, 1, 1), "embed_dim": 8}
    swin = timm.create_model("swin_tiny_patch4_window7_224", **small).eval()
    made, other = CellModel(swin), CellModel(swin)
    made.try_out(), other.try_out()
    sides = (4, 9, 6)
    for side, again in zip(
        sides, [cells_of(other, pictures(), side) for side in sides[::-1]][::-1], strict=True
    ):
        cells = cells_of(made, pictures(), side)
        assert cells.maps.shape == (2, 1, made.channels, side, side)
        assert torch.equal(cells.maps, again.maps)
    assert swin.patch_embed.img_size == (224, 224)


def test_a_turned_picture_gives_the_cells_of_that_heading():
    made = CellModel(model("test_efficientnet"))
    turned = cells_of(made, turn(pictures(), 90), 6)
    torch.testing.assert_close(turned.maps[:, 0], cells_of(made, pictures(), 6, [90.0]).maps[:, 0])


def test_turning_is_counter_clockwise_whatever_the_angle():
    picture = torch.zeros(1, 1, 9, 9)
    picture[0, 0, 4, 8] = 1.0  # in the east
    for degrees in (90.0, 90.0001):
        assert turn(picture, degrees)[0, 0, 0, 4] == pytest.approx(1.0, abs=1e-3)  # now in the north


def test_pixels_that_do_not_count_mask_their_cells():
    valid = torch.ones(2, 160, 160, dtype=torch.bool)
    valid[1, :, :40] = False
    cells = cells_of(CellModel(model("test_resnet")), pictures(), 4, [0.0, 180.0], valid)
    assert cells.masks[0].all()
    assert cells.masks[1].sum((1, 2)).tolist() == [12, 12]
    assert not cells.masks[1, 0, :, 0].any()
    assert not cells.masks[1, 1, :, 3].any()


def test_a_cell_counts_only_where_it_is_covered():
    pixels = torch.ones(1, 1, 8, 8)
    pixels[..., 0] = 0
    assert cell_mask(pixels, 4)[0].tolist() == [[False, True, True, True]] * 4


def test_broken_weights_are_refused():
    broken = deepcopy(model("test_resnet"))  # which other tests share
    next(broken.parameters()).data[:] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        cells_of(CellModel(broken), pictures(1), 4)
