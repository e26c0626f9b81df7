"""Crops, headings and mirror images."""

import numpy as np
import pytest
import torch
from PIL import Image

from cvgl_ray.features.pretransform import Pretransform, central_crop, orient


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


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
    turned = list(orient(images, 4, flip=False))
    assert len(turned) == 4
    for turns, found in enumerate(turned):
        assert torch.equal(found, torch.rot90(images, turns, dims=(2, 3)))


def test_fewer_orientations_are_the_first_of_four():
    images = pictures(1, 3, 6, 6)
    four = list(orient(images, 4, flip=False))
    for count in (1, 2):
        assert all(torch.equal(a, b) for a, b in zip(orient(images, count, flip=False), four, strict=False))
        assert len(list(orient(images, count, flip=False))) == count


def test_eight_orientations_hold_the_four_in_order():
    images = pictures(1, 3, 6, 6)
    eight = list(orient(images, 8, flip=False))
    assert len(eight) == 8
    assert all(torch.equal(a, b) for a, b in zip(eight[::2], orient(images, 4, flip=False), strict=True))


def test_eight_orientations_turn_all_the_same_way():
    side = 64
    axis = (torch.arange(side) - (side - 1) / 2) / (side / 2)
    spot = torch.exp(-((axis[None, :] - 0.5) ** 2 + axis[:, None] ** 2) / 0.02)[
        None, None
    ]  # right of the centre
    angles = []
    for turned in orient(spot, 8, flip=False):
        mass = turned[0, 0] / turned.sum()
        angles.append(torch.atan2(-(mass.sum(1) @ axis), mass.sum(0) @ axis).rad2deg() % 360)
    np.testing.assert_allclose([float(a + 1) % 360 for a in angles], np.arange(0, 360, 45) + 1, atol=0.5)


def test_eight_orientations_keep_a_rotation_symmetric_picture():
    axis = (torch.arange(65) - 32) / 32.5
    radius = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
    image = torch.cos(3 * radius)[None, None]
    disc = radius < 0.95  # beyond it, oblique headings show what the border reflects
    for turned in orient(image, 8, flip=False):
        torch.testing.assert_close(turned[..., disc], image[..., disc], atol=5e-3, rtol=0)


def test_oblong_pictures_keep_their_shape_and_angles():
    wide = torch.zeros(1, 1, 32, 64)
    wide[..., 14:18, 46:50] = 1  # 16 px right of the centre
    upward = list(orient(wide, 4, flip=False))[1]
    assert upward.shape == wide.shape
    assert upward[0, 0, :2, 31:33].mean() > 0.4  # 16 px above it: at the border
    assert torch.equal(list(orient(wide, 4, flip=False))[2], wide.flip(-1, -2))


def test_flip_adds_the_same_headings_of_the_mirror_image():
    images = pictures(1, 3, 6, 6)
    found = list(orient(images, 4, flip=True))
    expected = [*orient(images, 4, flip=False), *orient(images.flip(-1), 4, flip=False)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("orientations", "crops", "flip"), [(1, (1.0,), False), (4, (1.0, 0.5), True)])
def test_forwards_counts_what_is_run(orientations, crops, flip):
    found = Pretransform(orientations, crops, flip)
    run = len(crops) * len(list(orient(pictures(1, 1, 2, 2), orientations, flip)))
    assert found.forwards == run
