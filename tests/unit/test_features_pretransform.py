"""Crops, headings and mirror images."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from cvgl_ray.features.pretransform import Pretransform, Variant, central_crop, turned, unroll


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def orient(images: torch.Tensor, view: Pretransform) -> Iterator[torch.Tensor]:
    """The pictures in each of the view's variants, of one crop."""
    return (turned(images, variant) for variant in view.variants)


def test_one_crop_is_the_picture_itself():
    image = Image.new("RGB", (31, 17))
    assert central_crop(image, 1.0) is image


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (101, 50)])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.01])
def test_a_crop_is_the_middle(size, share):
    width, height = size
    columns, rows = np.meshgrid(np.arange(width, dtype=np.uint8), np.arange(height, dtype=np.uint8))
    found = np.asarray(central_crop(Image.fromarray(np.stack([columns, rows, rows], axis=2)), share))
    assert found.shape[:2] == (max(1, round(height * share)), max(1, round(width * share)))
    for axis, side in ((found[0, :, 0], width), (found[:, 0, 1], height)):
        before, after = int(axis[0]), side - 1 - int(axis[-1])
        assert after - before in (0, 1)
        np.testing.assert_array_equal(axis, np.arange(before, side - after))


def test_four_orientations_are_rot90_exactly():
    images = pictures(2, 3, 6, 6)
    turned = list(orient(images, Pretransform(4)))
    assert len(turned) == 4
    for turns, found in enumerate(turned):
        assert torch.equal(found, torch.rot90(images, turns, dims=(2, 3)))


def test_fewer_orientations_are_the_first_of_four():
    images = pictures(1, 3, 6, 6)
    four = list(orient(images, Pretransform(4)))
    for count in (1, 2):
        assert all(torch.equal(a, b) for a, b in zip(orient(images, Pretransform(count)), four, strict=False))
        assert len(list(orient(images, Pretransform(count)))) == count


def test_eight_orientations_hold_the_four_in_order():
    images = pictures(1, 3, 6, 6)
    eight = list(orient(images, Pretransform(8)))
    assert len(eight) == 8
    assert all(torch.equal(a, b) for a, b in zip(eight[::2], orient(images, Pretransform(4)), strict=True))


def test_a_heading_turns_first():
    images = pictures(1, 3, 6, 6)
    four = list(orient(images, Pretransform(4)))
    found = list(orient(images, Pretransform(2, heading=270.0)))
    assert [torch.equal(found[0], four[3]), torch.equal(found[1], four[0])] == [True, True]
    [slanted] = orient(images, Pretransform(1, heading=45.0))
    assert torch.equal(slanted, list(orient(images, Pretransform(8)))[1])


def test_eight_orientations_turn_all_the_same_way():
    side = 64
    axis = (torch.arange(side) - (side - 1) / 2) / (side / 2)
    spot = torch.exp(-((axis[None, :] - 0.5) ** 2 + axis[:, None] ** 2) / 0.02)[
        None, None
    ]  # right of the centre
    angles = []
    for one in orient(spot, Pretransform(8)):
        mass = one[0, 0] / one.sum()
        angles.append(torch.atan2(-(mass.sum(1) @ axis), mass.sum(0) @ axis).rad2deg() % 360)
    np.testing.assert_allclose([float(a + 1) % 360 for a in angles], np.arange(0, 360, 45) + 1, atol=0.5)


def test_eight_orientations_keep_a_rotation_symmetric_picture():
    axis = (torch.arange(65) - 32) / 32.5
    radius = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
    image = torch.cos(3 * radius)[None, None]
    disc = radius < 0.95  # beyond it, oblique headings show what the border reflects
    for one in orient(image, Pretransform(8)):
        torch.testing.assert_close(one[..., disc], image[..., disc], atol=5e-3, rtol=0)


def test_oblong_pictures_keep_their_shape_and_angles():
    wide = torch.zeros(1, 1, 32, 64)
    wide[..., 14:18, 46:50] = 1  # 16 px right of the centre
    upward = list(orient(wide, Pretransform(4)))[1]
    assert upward.shape == wide.shape
    assert upward[0, 0, :2, 31:33].mean() > 0.4  # 16 px above it: at the border
    assert torch.equal(list(orient(wide, Pretransform(4)))[2], wide.flip(-1, -2))


def test_flip_adds_the_same_headings_of_the_mirror_image():
    images = pictures(1, 3, 6, 6)
    found = list(orient(images, Pretransform(4, flip=True)))
    expected = [*orient(images, Pretransform(4)), *orient(images.flip(-1), Pretransform(4))]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_strip_is_rolled_in_equal_shares_of_its_width():
    strip = pictures(1, 3, 4, 16)
    for count in (1, 2, 4, 8):
        rolled = list(orient(strip, Pretransform(count, projection="panorama")))
        assert len(rolled) == count
        for turn, found in enumerate(rolled):
            assert torch.equal(found, strip.roll(turn * 16 // count, dims=-1))


def test_unrolling_equals_the_formula_pixel_by_pixel():
    height, width, side = 8, 40, 16
    tile = torch.randint(0, 256, (1, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = unroll(tile, (height, width))[0]
    for row, column in np.ndindex(height, width):
        radius = side / 2 * (height - row - 0.5) / height
        angle = 2 * np.pi * (column + 0.5) / width - np.pi  # the strip's middle looks north, that is up
        x, y = side / 2 + radius * np.sin(angle) - 0.5, side / 2 - radius * np.cos(angle) - 0.5
        left, top = int(np.floor(x)), int(np.floor(y))
        value = 0.0
        for i, j in np.ndindex(2, 2):
            weight = (1 - abs(y - top - i)) * (1 - abs(x - left - j))
            inside = np.clip((top + i, left + j), 0, side - 1)
            value += weight * float(tile[0, inside[0], inside[1]])
        assert abs(value - int(found[row, column])) < 0.51


def test_unrolling_puts_the_south_at_the_seam_the_west_first_and_the_far_on_top():
    side = 64
    axis = torch.arange(side) - (side - 1) / 2
    tile = torch.zeros(1, side, side, dtype=torch.uint8)
    tile[0, (axis[:, None].square() + axis.square()).sqrt() < side / 4] = 100  # near
    tile[0, :, : side // 2] += 50  # west
    strip = unroll(tile, (32, 128))[0]
    assert (strip[:15] < 60).all()
    assert (strip[17:] > 90).all()
    assert (strip[:15, 3:61] == 50).all()
    assert (strip[:15, 67:125] == 0).all()


def test_a_quarter_turn_of_the_tile_rolls_the_strip_by_a_quarter():
    tile = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    clockwise = torch.rot90(tile, -1, dims=(1, 2))
    expected = unroll(tile, (32, 128)).roll(32, dims=-1)
    difference = unroll(clockwise, (32, 128)).int() - expected.int()
    assert difference.abs().max() <= 1


def test_variants_that_several_pretransforms_have_are_the_same():
    turns = Pretransform(4, (1.0, 0.5), flip=True).variants
    assert len(turns) == len(set(turns)) == 16
    assert set(Pretransform(2, (0.5,), heading=270.0).variants) < set(turns)
    assert turns[:2] == [Variant(1.0, 0.0), Variant(1.0, 90.0)]
    assert Pretransform(8, heading=350.1).variants[1] == Variant(degrees=35.1)
    strips = Pretransform(4, projection="panorama", heading=90.0, field_of_view=90.0).variants
    assert strips[1] == Variant(degrees=90.0, projection="panorama", field_of_view=90.0)
