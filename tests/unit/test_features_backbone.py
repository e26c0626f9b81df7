"""The frozen backbone against timm called by hand, and what it refuses."""

import io
import pickle
from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from cvgl_ray.errors import InputError
from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.pixels import decode
from cvgl_ray.features.pooling import gem, ring_members
from cvgl_ray.features.pretransform import Pretransform, unroll
from cvgl_ray.features.weights import build_model

ONCE = Pretransform()
STREET = Pretransform(projection="panorama")
FAMILIES = ["test_vit", "test_efficientnet", "test_resnet", "test_convnext"]


@cache
def model(name: str = "test_vit") -> nn.Module:
    return build_model(name, pretrained=False, seed=0).eval()


def backbone(name: str = "test_vit", **options: Any) -> FrozenBackbone:
    return FrozenBackbone(model(name), **options)


def photo(width: int = 160, height: int = 160, seed: int = 0) -> Image.Image:
    """Smooth coloured blobs, so that resizing matters but does not dominate."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def batch(count: int = 2, crops: int = 1) -> np.ndarray:
    """[count, crops, 3, 160, 160] uint8, as `prepare` makes them."""
    images = [np.asarray(photo(seed=seed)).transpose(2, 0, 1) for seed in range(count * crops)]
    return np.stack(images).reshape(count, crops, 3, 160, 160)


def model_input(images: np.ndarray, name: str = "test_vit") -> torch.Tensor:
    """What the first crop is to the model, by the formula."""
    data = timm.data.resolve_model_data_config(model(name))
    mean, std = (torch.tensor(data[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (torch.from_numpy(images[:, 0]).float() / 255 - mean) / std


def final_tokens(images: np.ndarray, name: str = "test_vit") -> torch.Tensor:
    """The model's last patch tokens or map positions [B, N, D]."""
    with torch.inference_mode():
        output = model(name).forward_features(model_input(images, name))
    if output.ndim == 3:
        return output[:, 1:]
    if getattr(model(name), "output_fmt", "NCHW") == "NHWC":
        return output.flatten(1, 2)
    return output.flatten(2).transpose(1, 2)


def assert_features(found: np.ndarray, expected: torch.Tensor, atol: float = 1e-5) -> None:
    expected = F.normalize(expected, dim=-1)
    np.testing.assert_allclose(found, expected.numpy(), atol=atol, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_picture_to_feature_equals_timm_by_hand(name):
    image = photo(300, 200)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model(name)))
    with torch.inference_mode():
        output = model(name).forward_features(transform(image)[None])
    tokens = output[:, 1:] if output.ndim == 3 else output.flatten(2).transpose(1, 2)
    made = backbone(name)
    found = made.embed(made.prepare(image, ONCE)[None], ONCE)
    assert found.dtype == np.float32
    assert_features(found, gem(tokens, 3.0))


@pytest.mark.parametrize("name", [*FAMILIES, "test_mambaout"])  # the last answers [B, H, W, D]
def test_the_final_map_is_the_same_alone_and_beside_a_layer(name):
    images = batch()
    expected = F.normalize(final_tokens(images, name).mean(dim=1), dim=-1)
    assert_features(backbone(name, pooling="mean").embed(images, ONCE), expected)
    both = backbone(name, layers=(0, "final"), pooling="mean").embed(images, ONCE)
    assert_features(both[:, -expected.shape[1] :] * 2**0.5, expected)


@pytest.mark.parametrize("facet", ["query", "key", "value"])
@pytest.mark.parametrize("block", [0, 2, -1])
def test_a_facet_is_its_slice_of_the_projection_of_the_blocks_input(facet, block):
    seen = []
    part = model().blocks[block]
    hook = part.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model().forward_features(model_input(batch()))
        hook.remove()
        third = ["query", "key", "value"].index(facet)
        width = part.attn.qkv.in_features
        rows = slice(third * width, (third + 1) * width)
        tokens = F.linear(part.norm1(seen[0]), part.attn.qkv.weight[rows], part.attn.qkv.bias[rows])[:, 1:]
    found = backbone(layers=(block,), facet=facet, pooling="gem_signed", gem_power=1.0).embed(batch(), ONCE)
    assert_features(found, tokens.mean(dim=1))


def test_facets_leave_no_hook_behind():
    backbone(layers=(1, 3), facet="value").embed(batch(1), ONCE)
    assert not any(block.attn.qkv._forward_hooks for block in model().blocks)


@pytest.mark.parametrize(
    ("name", "layer", "path"),
    [("test_vit", 2, "blocks.2"), ("test_vit", -2, "blocks.4"), ("test_resnet", -1, "layer4")],
)
def test_a_layer_is_the_output_of_its_block_or_stage(name, layer, path):
    seen = []
    hook = model(name).get_submodule(path).register_forward_hook(lambda _m, _i, output: seen.append(output))
    with torch.inference_mode():
        model(name).forward_features(model_input(batch(), name))
    hook.remove()
    tokens = seen[0][:, 1:] if seen[0].ndim == 3 else seen[0].flatten(2).transpose(1, 2)
    assert_features(backbone(name, layers=(layer,), pooling="mean").embed(batch(), ONCE), tokens.mean(dim=1))


@pytest.mark.parametrize(
    ("name", "layers", "facet"),
    [
        ("test_vit", (4, "final", 1), "token"),
        ("test_vit", (-1, 0), "value"),
        ("test_efficientnet", (3, -5), "token"),
        ("test_convnext", ("final", 2, 0), "token"),
    ],
)
def test_layers_are_concatenated_in_the_order_asked_each_normalised(name, layers, facet):
    found = backbone(name, layers=layers, facet=facet).embed(batch(), ONCE)
    each = [backbone(name, layers=(layer,), facet=facet).embed(batch(), ONCE) for layer in layers]
    np.testing.assert_allclose(found, np.concatenate(each, axis=1) / len(layers) ** 0.5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_rings_are_pooled_apart_and_concatenated():
    tokens = final_tokens(batch())
    parts = [F.normalize(gem(tokens[:, ring], 3.0), dim=-1) for ring in ring_members((10, 10), (0.5, 1.5))]
    assert_features(backbone(rings=(0.5, 1.5)).embed(batch(), ONCE), torch.cat(parts, dim=1))


def test_a_lone_spot_changes_the_ring_it_lies_in_alone():
    centre, corner = (np.full((1, 1, 3, 160, 160), 128, np.uint8) for _ in range(2))
    centre[..., 72:88, 72:88] = 255
    corner[..., :16, :16] = 255
    rings = backbone("test_resnet", layers=(0,), pooling="mean", rings=(0.5, 1.5))
    flat = rings.embed(np.full((1, 1, 3, 160, 160), 128, np.uint8), ONCE)
    half = flat.shape[1] // 2
    change_centre, change_corner = (np.abs(rings.embed(spot, ONCE) - flat)[0] for spot in (centre, corner))
    assert change_centre[half:].max() < 1e-6 < change_centre[:half].max()
    assert change_corner[:half].max() < 1e-6 < change_corner[half:].max()


def test_tokens_are_normalised_before_pooling_where_asked():
    tokens = F.normalize(final_tokens(batch()), dim=-1)
    assert_features(backbone(normalize_tokens=True, gem_power=4.0).embed(batch(), ONCE), gem(tokens, 4.0))


def test_cls_is_the_class_token():
    with torch.inference_mode():
        expected = model().forward_features(model_input(batch()))[:, 0]
    assert_features(backbone(pooling="cls").embed(batch(), ONCE), expected)


def test_preparing_a_picture_of_the_models_size_changes_nothing():
    made = backbone(crop_fraction=1.0)
    np.testing.assert_array_equal(made.prepare(photo(), ONCE)[0], np.asarray(photo()).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("interpolation", "resampling"),
    [("bicubic", Image.Resampling.BICUBIC), ("bilinear", Image.Resampling.BILINEAR)],
)
def test_preparing_without_a_crop_is_one_resize(interpolation, resampling):
    image = photo(200, 200)
    found = backbone(crop_fraction=1.0, image_size=96, interpolation=interpolation).prepare(image, ONCE)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[0], np.asarray(image.resize((96, 96), resampling)).transpose(2, 0, 1))


def test_preparing_resizes_the_shorter_side_and_takes_the_middle():
    image = photo(320, 128)
    found = backbone(crop_fraction=0.5, image_size=32).prepare(image, ONCE)[0]
    resized = np.asarray(image.resize((160, 64), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(found, resized[16:48, 64:96].transpose(2, 0, 1))


def test_each_crop_is_prepared_apart():
    image, made = photo(200, 200), backbone(crop_fraction=1.0)
    whole, half = made.prepare(image, Pretransform(crops=(1.0, 0.5)))
    np.testing.assert_array_equal(whole, made.prepare(image, ONCE)[0])
    np.testing.assert_array_equal(half, made.prepare(image.crop((50, 50, 150, 150)), ONCE)[0])


def test_what_exceeds_the_sufficient_side_hardly_changes_a_feature():
    made, view = backbone(crop_fraction=0.5, image_size=32), Pretransform(crops=(0.8, 0.5))
    assert made.sufficient_side(ONCE) == 2 * 64
    assert made.sufficient_side(view) == 2 * 128
    stream = io.BytesIO()
    photo(40, 40).resize((600, 600), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=95)
    sides = [decode(stream.getvalue(), side) for side in (0, made.sufficient_side(view), 64)]
    assert [picture.width for picture in sides] == [600, 300, 75]
    whole, half, too_small = (made.embed(made.prepare(picture, view)[None], view)[0] for picture in sides)
    assert 1 - whole @ half < 1e-4
    assert 1 - whole @ half < 0.1 * (1 - whole @ too_small)


def test_a_panorama_is_resized_whole():
    image = photo(500, 100)
    made = backbone("test_resnet", image_size=(32, 160), interpolation="bicubic")
    found = made.prepare(image, STREET)
    resized = np.asarray(image.resize((160, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(found[0], resized.transpose(2, 0, 1))


def test_a_tile_is_cropped_brought_to_a_square_and_unrolled():
    image = photo(300, 200)
    view = Pretransform(crops=(1.0, 0.5), projection="polar")
    found = backbone("test_resnet", image_size=(32, 128)).prepare(image, view)
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
    found = strip.embed(np.stack([strip.prepare(photo(700, 150), STREET)]), STREET)
    assert np.linalg.norm(found) == pytest.approx(1)


def test_a_strips_tokens_keep_their_places():
    strip = FrozenBackbone(
        build_model("test_vit", pretrained=False, image_size=(32, 128)), layers=(0, "final")
    )
    both = FrozenBackbone(strip.model, layers=(5,), facet="key")
    pixels = torch.rand(1, 3, 32, 128)
    assert {found.grid for found in [*strip._maps(pixels), *both._maps(pixels)]} == {(2, 8)}


def test_the_mean_over_rolls_ignores_where_the_seam_is():
    made = backbone("test_resnet", image_size=(32, 128))
    pixels = made.prepare(photo(512, 128), STREET)[None]
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
        rows = made.embed(np.stack([made.prepare(image, view) for image in images]), view)
        return rows - rows.mean(axis=0)

    def hits(rows: np.ndarray) -> int:
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return int(((query @ rows.T).argmax(axis=1) == np.arange(len(tiles))).sum())

    query = features(strip, streets, Pretransform(orientations=8, projection="panorama"))
    unrolled = hits(features(strip, tiles, Pretransform(projection="polar")))
    assert unrolled >= 2 * hits(features(plane, tiles, Pretransform(orientations=4)))
    assert unrolled >= len(tiles) / 4


@pytest.mark.parametrize("name", FAMILIES)
def test_the_composition_of_a_batch_does_not_matter(name):
    made, images = backbone(name), batch(5)
    together = made.embed(images, ONCE)
    alone = np.concatenate([made.embed(images[i : i + 1], ONCE) for i in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.linalg.norm(together[0] - together[1]) > 1e-3  # and the features do tell pictures apart


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_the_mean_over_four_orientations_ignores_quarter_turns(name):
    made, images = backbone(name), batch()
    turned = np.rot90(images, axes=(-2, -1))
    four = Pretransform(orientations=4)
    np.testing.assert_allclose(made.embed(turned, four), made.embed(images, four), atol=1e-5)
    assert np.abs(made.embed(turned, ONCE) - made.embed(images, ONCE)).max() > 1e-3


def test_four_orientations_and_flip_ignore_mirroring():
    made, images = backbone(), batch()
    every = Pretransform(orientations=4, flip=True)
    expected = made.embed(images, every)
    np.testing.assert_allclose(made.embed(images[..., ::-1], every), expected, atol=1e-5)
    np.testing.assert_allclose(made.embed(images[..., ::-1, :], every), expected, atol=1e-5)


def test_variants_count_alike_each_normalised():
    made, images = backbone(), batch(2, crops=3)
    found = made.embed(images, Pretransform(crops=(1.0, 0.8, 0.6)))
    each = sum(torch.from_numpy(made.embed(images[:, [crop]], ONCE)) for crop in range(3))
    assert_features(found, each)


@pytest.mark.parametrize(
    "facet", [{"layers": (5,), "facet": "value"}, {"normalize_tokens": True}, {"pooling": "cls"}]
)
def test_bfloat16_stays_near_float32(facet):
    exact = backbone(**facet).embed(batch(), ONCE)
    rounded = FrozenBackbone(build_model("test_vit", pretrained=False), dtype=torch.bfloat16, **facet)
    found = rounded.embed(batch(), ONCE)
    assert found.dtype == np.float32
    assert (np.sum(found * exact, axis=1) > 0.999).all()


def test_a_backbone_survives_the_way_to_another_process():
    made = pickle.loads(pickle.dumps(backbone(layers=(1, "final"))))
    made.to("cpu")
    np.testing.assert_array_equal(
        made.embed(batch(), ONCE), backbone(layers=(1, "final")).embed(batch(), ONCE)
    )
    np.testing.assert_array_equal(made.prepare(photo(50, 70), ONCE), backbone().prepare(photo(50, 70), ONCE))


def test_the_model_is_frozen_and_in_evaluation_mode():
    trainable = build_model("test_resnet", pretrained=False).train()
    made = FrozenBackbone(trainable)
    before = [buffer.clone() for buffer in made.model.buffers()]
    made.embed(batch(), ONCE)
    assert not made.model.training
    assert not any(parameter.requires_grad for parameter in made.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, made.model.buffers(), strict=True))


def test_features_that_are_not_finite_never_leave():
    broken = build_model("test_vit", pretrained=False)
    nn.init.constant_(broken.norm.weight, float("nan"))
    with pytest.raises(InputError, match=r"not finite in torch\.float32; .*backbone\.precision"):
        FrozenBackbone(broken).embed(batch(1), ONCE)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("test_vit", {"layers": (6,)}, r"layer 6 is not one of the 6 layers of VisionTransformer \(0 to 5\)"),
        ("test_vit", {"layers": (-7,), "facet": "value"}, "layer -7 is not one of the 6 layers"),
        ("test_resnet", {"layers": ("final", 5)}, "layer 5 is not one of the 5 layers of ResNet"),
        (
            "test_vit",
            {"layers": (2, 2)},
            r"layers \[2, 2\] name one of the 6 layers of VisionTransformer twice",
        ),
        ("test_vit", {"layers": (5, -1)}, r"layers \[5, -1\] name one of the 6 layers"),
        ("test_resnet", {"layers": (0,), "facet": "value"}, "one qkv projection, and ResNet has none"),
        (
            "test_efficientnet",
            {"layers": (0,), "facet": "key"},
            "one qkv projection, and EfficientNet has none",
        ),
        ("test_convnext", {"pooling": "cls"}, "pooling 'cls' needs a class token, and ConvNeXt has none"),
        ("test_vit_relpos", {"pooling": "cls"}, "pooling 'cls' needs a class token"),
    ],
)
def test_what_the_model_does_not_have_is_refused_at_once(name, options, message):
    with pytest.raises(InputError, match=message):
        backbone(name, **options)


def test_registers_are_no_class_token():
    registers = timm.models.VisionTransformer(
        img_size=32, embed_dim=16, depth=1, num_heads=1, class_token=False, reg_tokens=2, global_pool="avg"
    )
    with pytest.raises(InputError, match="needs a class token"):
        FrozenBackbone(registers, pooling="cls")


def test_a_projection_that_hides_from_hooks_is_refused():
    eva = timm.models.eva.Eva(img_size=32, embed_dim=16, depth=1, num_heads=1, qkv_bias=True)
    with pytest.raises(InputError, match="one qkv projection, and Eva has none"):
        FrozenBackbone(eva, layers=(0,), facet="value")
    plain = timm.models.eva.Eva(img_size=32, embed_dim=16, depth=1, num_heads=1, qkv_bias=False)
    made = FrozenBackbone(plain, layers=(0,), facet="value", image_size=32)
    assert made.embed(made.prepare(photo(), ONCE)[None], ONCE).shape == (1, 16)


def test_a_model_without_intermediate_layers_is_refused():
    with pytest.raises(InputError, match=r'Linear gives no intermediate layers; use layers = \["final"\]'):
        FrozenBackbone(nn.Linear(1, 1), layers=(0,))


def test_rings_that_hold_no_token_are_refused():
    with pytest.raises(InputError, match=r"rings \[0\.01\] hold no token of a 10 x 10 grid"):
        backbone(rings=(0.01,)).embed(batch(1), ONCE)
