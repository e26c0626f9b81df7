"""What a model does not have is refused at once."""

import pytest
import timm
import torch
from backbones import ONCE, backbone, photo
from torch import nn

from cvgl_ray.errors import InputError
from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.weights import build_model


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
    assert made.embed(made.preparing.prepare(photo(), ONCE)[None], ONCE).shape == (1, 16)


def test_a_model_without_intermediate_layers_is_refused():
    with pytest.raises(InputError, match=r'Linear gives no intermediate layers; use layers = \["final"\]'):
        FrozenBackbone(nn.Linear(1, 1), layers=(0,))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (
            "levit_128s",
            160,
            r"Levit\w* gives no features of .* 160 x 160 px \(.*\); set .*image_size = 224,",
        ),
        (
            "crossvit_9_240",
            0,
            r"CrossVit gives no features of .* 240 x 240 px \(.*\); use other layers or",
        ),
    ],
)
def test_what_a_model_cannot_do_is_told_when_it_is_tried_out(name, size, message):
    made = FrozenBackbone(build_model(name, pretrained=False, image_size=size), image_size=size)
    with pytest.raises(InputError, match=message):
        made.try_out()


def test_trying_out_leaves_half_precision_as_it_was():
    made = FrozenBackbone(build_model("test_vit", pretrained=False), dtype=torch.bfloat16)
    made.try_out()
    assert {parameter.dtype for parameter in made.model.parameters()} == {torch.bfloat16}
