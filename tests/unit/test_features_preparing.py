"""From a picture to the model's input: resized, cropped, or a strip."""

import io

import numpy as np
import pytest
import torch
from backbones import FAMILIES, ONCE, STREET, backbone, photo
from PIL import Image

from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.pixels import decode
from cvgl_ray.features.pretransform import Pretransform, Variant, unroll
from cvgl_ray.features.tokens import token_maps
from cvgl_ray.features.weights import build_model


def test_preparing_a_picture_of_the_models_size_changes_nothing():
    made = backbone(crop_fraction=1.0)
    np.testing.assert_array_equal(
        made.preparing.prepare(photo(), ONCE)[0], np.asarray(photo()).transpose(2, 0, 1)
    )


@pytest.mark.parametrize(
    ("interpolation", "resampling"),
    [("bicubic", Image.Resampling.BICUBIC), ("bilinear", Image.Resampling.BILINEAR)],
)
def test_preparing_without_a_crop_is_one_resize(interpolation, resampling):
    image = photo(200, 200)
    found = backbone(crop_fraction=1.0, image_size=96, interpolation=interpolation).preparing.prepare(
        image, ONCE
    )
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[0], np.asarray(image.resize((96, 96), resampling)).transpose(2, 0, 1))


def test_preparing_resizes_the_shorter_side_and_takes_the_middle():
    image = photo(320, 128)
    found = backbone(crop_fraction=0.5, image_size=32).preparing.prepare(image, ONCE)[0]
    resized = np.asarray(image.resize((160, 64), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(found, resized[16:48, 64:96].transpose(2, 0, 1))


def test_each_crop_is_prepared_apart():
    image, made = photo(200, 200), backbone(crop_fraction=1.0)
    whole, half = made.preparing.prepare(image, Pretransform(crops=(1.0, 0.5)))
    np.testing.assert_array_equal(whole, made.preparing.prepare(image, ONCE)[0])
    np.testing.assert_array_equal(half, made.preparing.prepare(image.crop((50, 50, 150, 150)), ONCE)[0])


def test_what_exceeds_the_sufficient_side_hardly_changes_a_feature():
    made, view = backbone(crop_fraction=0.5, image_size=32), Pretransform(crops=(0.8, 0.5))
    side = made.preparing.sufficient_side(view.variants[1])
    assert made.preparing.sufficient_side(Variant()) == 2 * 64
    assert [made.preparing.sufficient_side(one) for one in view.variants] == [side, side] == [2 * 128] * 2
    stream = io.BytesIO()
    photo(40, 40).resize((600, 600), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=95)
    sides = [decode(stream.getvalue(), side) for side in (0, side, 64)]
    assert [picture.width for picture in sides] == [600, 300, 75]
    whole, half, too_small = (
        made.embed(made.preparing.prepare(picture, view)[None], view)[0] for picture in sides
    )
    assert 1 - whole @ half < 1e-4
    assert 1 - whole @ half < 0.1 * (1 - whole @ too_small)


def test_a_panorama_is_resized_whole():
    image = photo(500, 100)
    made = backbone("test_resnet", image_size=(32, 160), interpolation="bicubic")
    found = made.preparing.prepare(image, STREET)
    resized = np.asarray(image.resize((160, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(found[0], resized.transpose(2, 0, 1))


def test_a_tile_is_cropped_brought_to_a_square_and_unrolled():
    image = photo(300, 200)
    view = Pretransform(crops=(1.0, 0.5), projection="polar")
    found = backbone("test_resnet", image_size=(32, 128)).preparing.prepare(image, view)
    assert found.shape == (2, 3, 32, 128)
    for crop, half in zip(found, (100, 50), strict=True):
        middle = image.crop((150 - half, 100 - half, 150 + half, 100 + half))
        square = np.asarray(middle.resize((64, 64), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        expected = unroll(torch.from_numpy(square.copy()), (32, 128)).numpy()
        assert np.abs(crop.astype(int) - expected).mean() < 2  # resizing before or after cropping


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_a_strip(name):
    strip = FrozenBackbone(
        build_model(name, pretrained=False, image_size=(64, 256)), layers=(1, "final"), image_size=(64, 256)
    )
    found = strip.embed(np.stack([strip.preparing.prepare(photo(700, 150), STREET)]), STREET)
    assert np.linalg.norm(found) == pytest.approx(1)


def test_a_strips_tokens_keep_their_places():
    strip = FrozenBackbone(
        build_model("test_vit", pretrained=False, image_size=(32, 128)), layers=(0, "final")
    )
    both = FrozenBackbone(strip.model, layers=(5,), facet="key")
    pixels = torch.rand(1, 3, 32, 128)
    assert {
        found.grid
        for made in (strip, both)
        for found in token_maps(made.model, pixels, made.layers, made.facet)
    } == {(2, 8)}


def test_the_mean_over_rolls_ignores_where_the_seam_is():
    made = backbone("test_resnet", image_size=(32, 128))
    pixels = made.preparing.prepare(photo(512, 128), STREET)[None]
    rolled = np.roll(pixels, 16, axis=-1)
    eight = Pretransform(orientations=8, projection="panorama")
    np.testing.assert_allclose(made.embed(rolled, eight), made.embed(pixels, eight), atol=1e-5)
    assert np.abs(made.embed(rolled, STREET) - made.embed(pixels, STREET)).max() > 1e-3


def panorama(tile: Image.Image, heading: float, height: int = 48, width: int = 192) -> Image.Image:
    """What a camera over a flat tile's centre sees, facing `heading` (radians from north); a third is sky."""
    pixels, side = np.asarray(tile), tile.width
    down = np.radians(8 + 70 * np.clip((np.arange(height) - height // 3) / (height * 2 / 3), 0, 1))[:, None]
    azimuth = ((np.arange(width) + 0.5) / width * 2 - 1)[None, :] * np.pi + heading
    x, y = (side / 2 * (1 + 0.12 / np.tan(down) * step) for step in (np.sin(azimuth), -np.cos(azimuth)))
    seen = pixels[np.clip(y.astype(int), 0, side - 1), np.clip(x.astype(int), 0, side - 1)]
    seen[: height // 3] = (150, 180, 255)
    return Image.fromarray(seen)


def test_unrolled_tiles_find_street_panoramas_of_any_heading_better_than_plane_ones():
    tiles = [photo(128, 128, seed) for seed in range(24)]
    headings = np.random.default_rng(5).uniform(0, 2 * np.pi, len(tiles))
    streets = [panorama(*pair) for pair in zip(tiles, headings, strict=True)]
    strip, plane = (
        backbone("test_efficientnet", layers=(0, 1, 2), pooling="max", image_size=size, **more)
        for size, more in (((48, 192), {}), (96, {"crop_fraction": 1.0}))
    )

    def features(made: FrozenBackbone, images: list[Image.Image], view: Pretransform) -> np.ndarray:
        rows = made.embed(np.stack([made.preparing.prepare(image, view) for image in images]), view)
        return rows - rows.mean(axis=0)

    def hits(rows: np.ndarray) -> int:
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return int(((query @ rows.T).argmax(axis=1) == np.arange(len(tiles))).sum())

    query = features(strip, streets, Pretransform(orientations=8, projection="panorama"))
    unrolled = hits(features(strip, tiles, Pretransform(projection="polar")))
    assert unrolled >= 2 * hits(features(plane, tiles, Pretransform(orientations=4)))
    assert unrolled >= len(tiles) / 4
