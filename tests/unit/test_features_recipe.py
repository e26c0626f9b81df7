"""The recipe names all that a feature depends on, and nothing else."""

import json

import numpy as np
import pytest
import torch

from cvgl_ray import config
from cvgl_ray.features.pretransform import Pretransform
from cvgl_ray.features.recipe import build_backbone, pretransform_of, recipe
from cvgl_ray.features.store import fingerprint

TINY = config.Backbone(name="test_vit", pretrained=False, image_size=64)


def print_of(section: config.Backbone, **view: object) -> str:
    return fingerprint(recipe(build_backbone(section), section, config.Pretransform.model_validate(view)))


def changed(**fields: object) -> config.Backbone:
    return config.Backbone.model_validate(TINY.model_dump() | fields)


def test_a_backbone_is_built_as_configured():
    section = changed(
        layers=[1, 2],
        facet="key",
        pooling="mean",
        gem_power=2.0,
        rings=[0.5, 1.5],
        normalize_tokens=True,
        crop_fraction=1.0,
        interpolation="bilinear",
        precision="bfloat16",
    )
    made = build_backbone(section)
    assert (made.layers, made.facet, made.pooling, made.gem_power) == ((1, 2), "key", "mean", 2.0)
    assert (made.rings, made.normalize_tokens, made.dtype) == ((0.5, 1.5), True, torch.bfloat16)
    images = np.zeros((1, 1, 3, 64, 64), np.uint8)
    assert made.embed(images, Pretransform()).shape == (1, 2 * 2 * 64)


def test_a_pretransform_is_made_as_configured():
    section = config.Pretransform(orientations=4, crops=(1.0, 0.8), flip=True)
    assert pretransform_of(section) == Pretransform(4, (1.0, 0.8), True)
    views = config.Pretransforms(query=config.Pretransform(projection="polar")).settled()
    assert pretransform_of(views.query) == Pretransform(2, projection="polar")
    assert pretransform_of(config.Pretransforms().settled().query).crops == (0.85, 0.7, 0.55)


def test_the_same_recipe_has_the_same_name():
    assert print_of(TINY) == print_of(changed())


@pytest.mark.parametrize(
    "fields",
    [
        {"layers": [1]},
        {"layers": [1], "facet": "value"},
        {"pooling": "max"},
        {"gem_power": 4.0},
        {"rings": [0.5, 1.0]},
        {"normalize_tokens": True},
        {"image_size": 48},
        {"crop_fraction": 0.5},
        {"interpolation": "bilinear"},
        {"precision": "bfloat16"},
        {"seed": 1},  # other random weights
        {"name": "test_vit2"},
    ],
)
def test_another_backbone_has_another_name(fields):
    assert print_of(changed(**fields)) != print_of(TINY)


@pytest.mark.parametrize(
    "fields",
    [
        {"orientations": 4},
        {"crops": (0.9,)},
        {"crops": (1.0, 0.9)},
        {"flip": True},
        {"projection": "panorama"},
        {"projection": "polar"},
    ],
)
def test_another_pretransform_has_another_name(fields):
    assert print_of(TINY, **fields) != print_of(TINY)


def test_where_the_weights_lie_does_not_matter_but_what_they_are_does(tmp_path):
    names = []
    random = changed(image_size=0)
    for folder, shift in (("a", 0.0), ("b", 0.0), ("c", 1e-3)):
        state = build_backbone(random).model.state_dict()
        state["norm.bias"] += shift
        (tmp_path / folder).mkdir()
        torch.save(state, tmp_path / folder / "weights.pth")
        checkpoint = str(tmp_path / folder / "weights.pth")
        names.append(print_of(changed(image_size=0, checkpoint=checkpoint, pretrained=True)))
    assert names[0] == names[1] == print_of(random)
    assert names[2] != names[0]


def test_a_recipe_survives_json():
    made = recipe(build_backbone(TINY), TINY, config.Pretransform())
    assert fingerprint(json.loads(json.dumps(made))) == fingerprint(made)
    assert made["preprocessing"]["mean"] == (0.5, 0.5, 0.5)
