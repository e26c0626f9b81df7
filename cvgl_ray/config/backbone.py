"""Sections that say what a feature is: the frozen model, and what is done to an image before it."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cvgl_ray.config.section import Positive, Section, Seed


def _layer(value: object) -> object:
    if value != "final" and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f'{value!r} is neither "final" nor the index of a block or stage')
    return value


def _image_size(value: object) -> object:
    if isinstance(value, list | tuple):
        fits = len(value) == 2 and all(type(side) is int and side > 0 for side in value)
    else:
        fits = type(value) is int and value >= 0
    if not fits:
        raise ValueError(f"{value!r} is neither a square's side nor a strip's [height, width], in px")
    return value


def _crops(value: object) -> object:
    if value == "auto":
        return value
    shares = value if isinstance(value, list | tuple) else []
    if not shares or not all(type(share) in (int, float) and 0 < share <= 1 for share in shares):
        found = list(value) if isinstance(value, tuple) else value
        raise ValueError(f'{found!r} is neither "auto" nor a list of shares of the side, above 0, at most 1')
    return tuple(float(share) for share in shares)


ImageSize = Annotated[int | tuple[int, int], BeforeValidator(_image_size)]
Crops = Annotated[Literal["auto"] | tuple[float, ...], BeforeValidator(_crops)]
Layer = Annotated[Literal["final"] | int, BeforeValidator(_layer)]


class Backbone(Section):
    """The frozen timm model and which of its maps become the feature."""

    name: str = "vit_base_patch14_dinov2.lvd142m"
    """any timm model"""
    checkpoint: str = ""
    """file of weights, or "package:NAME"; empty: the hub's, or random ones where pretrained is false"""
    pretrained: bool = True
    """take the weights from timm's hub"""
    seed: Seed = 0
    """of the random weights, where pretrained is false and no checkpoint is given"""
    layers: tuple[Layer, ...] = (-2, "final")
    """"final", or the index of a block or stage, negative from the end"""
    facet: Literal["token", "query", "key", "value"] = "token"
    """a layer's output ("token"), or a projection in the attention of a ViT's block"""
    pooling: Literal["gem", "gem_signed", "mean", "max", "cls"] = "mean"
    """how tokens become one vector"""
    gem_power: Positive = 3.0
    """p of the generalised mean"""
    rings: tuple[Positive, ...] = (0.25, 0.5, 0.7, 0.9, 1.1, 1.5)
    """outer radii, in half-sides, of rings around the centre that are pooled apart; empty: the whole map"""
    normalize_tokens: bool = False
    """L2-normalise each token before pooling, as the paper does"""
    image_size: ImageSize = 224
    """px of the square that the model sees; 0: the size it was trained with; [height, width] for strips"""
    crop_fraction: float = Field(default=1.0, ge=0.0, le=1.0)
    """of the resized image, its middle; 0: as the model's own data was cut"""
    interpolation: Literal["", "bilinear", "bicubic"] = ""
    """of resizing; empty: the model's own"""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """of the forward"""

    @model_validator(mode="after")
    def _layers_named(self) -> "Backbone":
        if not self.layers:
            raise ValueError('layers is empty; name at least one, such as ["final"]')
        if self.facet != "token" and "final" in self.layers:
            raise ValueError(f'facet {self.facet!r} needs a block index in layers, found "final"')
        if self.rings and (self.pooling == "cls" or list(self.rings) != sorted(set(self.rings))):
            raise ValueError(f"rings {list(self.rings)} must rise, and need a pooling of patches, not 'cls'")
        return self


class Pretransform(Section):
    """What is done to an image before the backbone: one forward per crop, orientation and flip."""

    projection: Literal["plane", "panorama", "polar"] = "plane"
    """a picture, a street panorama, or a satellite tile unrolled like one; the last two are strips"""
    orientations: Literal["auto", 1, 2, 4, 8] = "auto"
    """headings averaged: 0 and 90 degrees, quarters, eighths; of strips, rolls; auto: as alignment finds the
    views to lie, or 2 without alignment"""
    heading: float = Field(default=0.0, ge=0.0, lt=360.0)
    """degrees by which pictures are turned counter-clockwise before that"""
    crops: Crops = "auto"
    """central crops, as shares of the side, averaged; auto: as alignment finds the grounds' widths, or what
    is recommended without alignment: 0.85, 0.7 and 0.55 of queries, the whole of references"""
    field_of_view: float = Field(default=360.0, gt=0.0, le=360.0)
    """degrees of the circle that a panorama shows, about where its middle looks; 10 or more"""
    flip: bool = False
    """also the mirrored image"""

    @model_validator(mode="after")
    def _panorama_is_whole(self) -> "Pretransform":
        if self.projection == "panorama" and self.crops not in ("auto", (1.0,)):
            raise ValueError(f"a panorama is taken whole, crops = [1.0], found {list(self.crops)}")
        if self.projection != "panorama" and self.field_of_view != 360:
            raise ValueError(
                f"field_of_view is a panorama's, found {self.field_of_view} of a {self.projection}"
            )
        return self


# A drone's picture shows more ground than a satellite's tile; how much more is unknown.
RECOMMENDED_CROPS: dict[str, tuple[float, ...]] = {"query": (0.85, 0.7, 0.55), "reference": (1.0,)}


class Pretransforms(Section):
    """One pre-transform per view."""

    query: Pretransform = Pretransform()
    """of the images to be located"""
    reference: Pretransform = Pretransform()
    """of the images to search"""

    def filled(self, found: "Pretransforms") -> "Pretransforms":
        """These with what was `found` wherever they say "auto"; a heading of 0 goes with the orientations."""
        views = {}
        for name in ("query", "reference"):
            view, other = getattr(self, name), getattr(found, name)
            chosen: dict[str, Any] = {"crops": other.crops} if view.crops == "auto" else {}
            if view.orientations == "auto":
                chosen |= {"orientations": other.orientations, "heading": view.heading or other.heading}
            views[name] = view.model_copy(update=chosen)
        return Pretransforms(**views)

    def settled(self) -> "Pretransforms":
        """These with the recommended values in place of "auto", which nobody has looked into."""
        views = {}
        for name, crops in RECOMMENDED_CROPS.items():
            plane = getattr(self, name).projection == "plane"
            views[name] = Pretransform(orientations=2, crops=crops if plane else (1.0,))
        return self.filled(Pretransforms(**views))
