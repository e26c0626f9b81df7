"""From the configuration to a frozen backbone, and to the recipe that names what its features are."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cvgl_ray import config
from cvgl_ray.errors import InputError
from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.pretransform import Pretransform, Variant
from cvgl_ray.features.store import fingerprint
from cvgl_ray.features.weights import build_model, check_source, weights_digest

# Fields that say where the weights come from or how they are held, not which they are.
_SOURCE_FIELDS = {"checkpoint", "pretrained", "seed"}


def check_backbone(section: config.Backbone) -> None:
    """Raise InputError, within seconds and without making the model, where `build_backbone` would find out.

    For an unknown name, a checkpoint that is no file, and pretrained weights whose hub does not answer.
    """
    check_source(section.name, section.checkpoint, section.pretrained)


def build_backbone(section: config.Backbone) -> FrozenBackbone:
    """The configured frozen model, on the CPU. Raises InputError as build_model and FrozenBackbone do."""
    model = build_model(
        section.name,
        checkpoint=section.checkpoint,
        pretrained=section.pretrained,
        seed=section.seed,
        image_size=section.image_size,
    )
    return FrozenBackbone(
        model,
        layers=section.layers,
        facet=section.facet,
        pooling=section.pooling,
        gem_power=section.gem_power,
        rings=section.rings,
        normalize_tokens=section.normalize_tokens,
        image_size=section.image_size,
        crop_fraction=section.crop_fraction,
        interpolation=section.interpolation,
        dtype=getattr(torch, section.precision),
    )


def pretransform_of(section: config.Pretransform) -> Pretransform:
    """The pre-transform of one view of settled ones, in which nothing is "auto"."""
    assert section.orientations != "auto"
    assert section.crops != "auto"
    return Pretransform(
        section.orientations,
        section.crops,
        section.flip,
        section.projection,
        section.heading,
        section.field_of_view,
    )


def recipe(backbone: FrozenBackbone, section: config.Backbone, view: config.Pretransform) -> dict[str, Any]:
    """All that a feature depends on besides the image: weights, layers, pooling, pre-transform.

    JSON values only. Two recipes that are equal give the same features; checkpoint paths do not enter.
    """
    data = backbone.preprocessing
    return {
        "backbone": section.model_dump(mode="json", exclude=_SOURCE_FIELDS),
        "weights": weights_digest(backbone.model),
        "preprocessing": {key: data[key] for key in sorted(data)},
        "decoding": "at twice the model's size or more",
        "pretransform": _described(view),
    }


def variant_recipe(made: dict[str, Any], variant: Variant) -> dict[str, Any]:
    """All that a variant's vector depends on besides the image; made: the features' recipe of its view."""
    return {**{key: made[key] for key in made if key != "pretransform"}, "variant": asdict(variant)}


def recipe_alone(made: dict[str, Any], variant: Variant) -> dict[str, Any] | None:
    """The recipe of features that are this variant's vectors; None where no pre-transform is it alone."""
    if variant.mirrored or (variant.degrees and variant.projection != "plane"):
        return None
    view = config.Pretransform(
        projection=variant.projection,  # type: ignore[arg-type]  # one of a pre-transform's
        orientations=1,
        heading=variant.degrees,
        crops=(variant.crop,),
        field_of_view=variant.field_of_view,
    )
    return {**made, "pretransform": _described(view)}


def _described(view: config.Pretransform) -> dict[str, Any]:
    unset = {
        name for name, usual in (("heading", 0.0), ("field_of_view", 360.0)) if getattr(view, name) == usual
    }
    return view.model_dump(mode="json", exclude=unset)


def check_recipes(trained: dict[str, Any], found: dict[str, Any], bundle: Path) -> None:
    """Refuse features that are not of the kind that a bundle was trained on; recipes by view."""
    for view, made in found.items():
        if view not in trained or fingerprint(trained[view]) != fingerprint(made):
            raise InputError(
                f"bundle {bundle} was trained on other features of view {view!r} than are made here; use the "
                "configuration, and the weights, that trained it"
            )
