"""The frozen backbone against timm called by hand, and what it refuses."""

import pickle

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from backbones import FAMILIES, ONCE, backbone, batch, model, photo
from torch import nn

from cvgl_ray.errors import InputError
from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.pooling import gem, ring_members
from cvgl_ray.features.pretransform import Pretransform
from cvgl_ray.features.weights import build_model


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
    found = made.embed(made.preparing.prepare(image, ONCE)[None], ONCE)
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
    np.testing.assert_array_equal(
        made.preparing.prepare(photo(50, 70), ONCE), backbone().preparing.prepare(photo(50, 70), ONCE)
    )


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


def test_rings_that_hold_no_token_are_refused():
    with pytest.raises(InputError, match=r"rings \[0\.01\] hold no token of a 10 x 10 grid"):
        backbone(rings=(0.01,)).embed(batch(1), ONCE)
