"""The configuration of a run: frozen models, read from TOML, overridden by `section.key=value`.

Every field says its unit and range; an impossible combination is refused next to the fields it concerns.
"""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cvgl_ray.errors import InputError

Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Model = TypeVar("Model", bound=BaseModel)


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


ImageSize = Annotated[int | tuple[int, int], BeforeValidator(_image_size)]
Layer = Annotated[Literal["final"] | int, BeforeValidator(_layer)]


class Section(BaseModel):
    """A frozen part of the configuration that knows all its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Dataset(Section):
    """Which images: a folder layout and its root."""

    layout: Literal["university1652", "folders"] = "university1652"  # how the folders are read
    root: str = ""  # local path or a URI that pyarrow.fs opens
    query_view: str = "drone"  # names the folders of the images to be located
    reference_view: str = "satellite"  # names the folders of the images to search
    distractors: tuple[str, ...] = ()  # folders of further reference images that join the gallery

    @model_validator(mode="after")
    def _views_differ(self) -> "Dataset":
        if self.query_view == self.reference_view:
            raise ValueError(f"query_view and reference_view are both {self.query_view!r}; name two views")
        return self


class Backbone(Section):
    """The frozen timm model and which of its maps become the feature."""

    name: str = "vit_base_patch14_dinov2.lvd142m"  # any timm model
    # Local file, or "package:NAME" (features/packaged.py); empty: the hub's weights, or random ones where
    # pretrained is false.
    checkpoint: str = ""
    pretrained: bool = True  # take the weights from timm's hub
    seed: Seed = 0  # of the random weights where pretrained is false and no checkpoint is given
    layers: tuple[Layer, ...] = (-2, "final")  # "final", or a block's or stage's index, negative from the end
    facet: Literal["token", "query", "key", "value"] = "token"  # of a ViT block; "token" for a map
    pooling: Literal["gem", "gem_signed", "mean", "max", "cls"] = "mean"  # tokens to one vector
    gem_power: Positive = 3.0  # p of the generalised mean
    # Outer radii, in half-sides, of rings around the centre that are pooled apart; empty: the whole map.
    rings: tuple[Positive, ...] = (0.25, 0.5, 0.7, 0.9, 1.1, 1.5)
    normalize_tokens: bool = False  # L2-normalise each token before pooling, as the paper does
    image_size: ImageSize = 0  # px; 0: the model's own; [height, width] for strips
    crop_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0  # of the resized image; 0: the model's own
    interpolation: Literal["", "bilinear", "bicubic"] = ""  # "": the model's own
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # of the forward

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
    """What is done to an image of a view before the backbone; one forward per crop, orientation and flip."""

    # A picture; a street panorama; or a satellite tile unrolled like one. The last two are strips.
    projection: Literal["plane", "panorama", "polar"] = "plane"
    orientations: Literal[1, 2, 4, 8] = 1  # headings averaged: 0 and 90 degrees, quarters, eighths; or rolls
    crops: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (1.0,)  # central crops, share of the side
    flip: bool = False  # also the mirrored image

    @model_validator(mode="after")
    def _panorama_is_whole(self) -> "Pretransform":
        if self.projection == "panorama" and self.crops != (1.0,):
            raise ValueError(f"a panorama is taken whole, crops = [1.0], found {list(self.crops)}")
        return self


class Pretransforms(Section):
    """One pre-transform a view."""

    query: Pretransform = Pretransform()
    reference: Pretransform = Pretransform()


class Features(Section):
    """How features are extracted and where they come from."""

    table: str = ""  # Parquet file or folder (image_id, view, feature) that replaces extraction
    cache: str = ""  # folder of extracted features; empty: DIR/features
    batch_size: Count = 64  # images a forward batch
    actors: Annotated[int, Field(ge=0)] = 0  # of the backbone; 0: one a GPU or CPU, as many as there are
    max_rejected: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05  # share of broken images that is fatal above

    @model_validator(mode="after")
    def _cache_is_a_folder(self) -> "Features":
        if "://" in self.cache:
            raise ValueError(f"cache {self.cache!r} is a URI; give a folder that the job's machine sees")
        return self


class Adapter(Section):
    """The map from features to embeddings, shared by both views."""

    kind: Literal["attenuation", "linear"] = "attenuation"  # fitted in closed form, or learned by gradient
    norm: Literal["none", "view", "batch"] = "view"  # per-view centring, or the reference's shared BatchNorm
    siblings: NotNegative = 0.5  # attenuation: weight of pairs within a view that has several images a place
    rank: Count = 512  # attenuation: how many directions at most
    shrinkage: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5  # attenuation: 1 leaves the features as they are
    width: Annotated[int, Field(ge=0)] = 0  # linear: embedding dimension; 0: the feature's own
    init: Literal["identity", "random"] = "identity"  # linear: of the encoder's matrix
    residual: bool = False  # linear: add the feature to its code

    @model_validator(mode="after")
    def _kind_fits(self) -> "Adapter":
        if self.kind == "attenuation":
            fields = type(
                self
            ).model_fields  # values count, not who set them: a resolved configuration sets all
            wrong = [
                key for key in ("width", "init", "residual") if getattr(self, key) != fields[key].default
            ]
            wrong += ['norm "batch"'] if self.norm == "batch" else []
            if wrong:
                raise ValueError(f'{", ".join(wrong)} needs kind = "linear", found kind "attenuation"')
        if self.residual and self.width:
            raise ValueError(
                f"residual needs width = 0 (the feature's own dimension), found width {self.width}"
            )
        return self


class EStep(Section):
    """How pseudo-labels are made."""

    # Chosen on several feature sets at once (experiments/LOG.md); relative, so that no cosine scale matters.
    neighbourhood: NotNegative = 0.3  # weight of the neighbours' matches; 0: rows are matched one by one

    rows: Annotated[int, Field(ge=0)] = 0  # 0: all rows; n: a random batch of n rows of each view a round
    scores: Literal["cosine", "csls"] = "csls"  # csls corrects the cosine for hubs
    neighbours: Count = 5  # of CSLS's local scale
    match: Literal["argmax", "mutual"] = "mutual"  # whether both sides must agree
    threshold: Annotated[float, Field(ge=-1.0, le=1.0)] = -1.0  # a pair's cosine must exceed it
    first_share: Fraction = 0.7  # of the matched queries, the surest, count in round 1; evenly up to all
    index: str = "Flat"  # exact, or a faiss string as "IVF2048,SQfp16;nprobe=40"; for neighbourhood = 0
    shards: Count = 1  # actors that hold the index, on several nodes where there are; for neighbourhood = 0

    @model_validator(mode="after")
    def _neighbourhood_fits(self) -> "EStep":
        if self.neighbourhood and (self.rows or self.index != "Flat"):
            raise ValueError(
                'neighbourhood needs all rows and their exact scores: rows = 0 and index = "Flat"'
            )
        if self.neighbourhood and self.shards > 1:
            raise ValueError(
                f"shards is {self.shards}, but neighbourhood needs all scores in one place: shards = 1, or "
                "neighbourhood = 0"
            )
        return self


class MStep(Section):
    """How the adapter is updated."""

    rounds: Count = 3  # E-steps, each with its M-step
    steps_per_round: Count = 10  # linear, as are all below: optimiser updates a round
    batch_size: Annotated[int, Field(ge=2)] = 512  # pairs a step, over all workers
    optimizer: Literal["adamw", "adam"] = "adamw"  # weight decay 0.01 or none
    learning_rate: Positive = 2e-4  # at its peak; half a cosine follows the warm-up
    warmup_steps: Annotated[int, Field(ge=0)] = 1  # from 0 up to the learning rate
    clip_value: Positive = 100.0  # each gradient entry is clipped to +- this
    temperature: Positive = 1 / 14.28  # InfoNCE's at the start
    learn_temperature: bool = True  # or keep it as it starts
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1  # of InfoNCE's targets


class Loss(Section):
    """Weights of the loss terms; InfoNCE has weight 1."""

    reconstruction: Literal["l1", "l2"] = "l2"  # distance to the frozen feature
    reconstruction_weight: NotNegative = 1.0  # of the reconstruction
    orthogonality_weight: NotNegative = 0.0  # of the encoder's distance from an isometry


class Retrieval(Section):
    """How embeddings are compared at retrieval; the frozen features always by their cosine."""

    scores: Literal["cosine", "csls"] = "csls"  # csls corrects the cosine for hubs among the references
    neighbours: Count = 10  # of CSLS's scale
    transductive: bool = False  # CSLS by the queries asked, all at once, instead of by training images


class Run(Section):
    """Resources and reproducibility."""

    workers: Count = 1  # Ray Train workers
    min_workers: Annotated[int, Field(ge=0)] = 0  # go on with so few where workers are lost for good; 0: wait
    gpu: bool = False  # one GPU a worker, and for each backbone actor
    seed: Seed = 0  # of initial weights and batches
    agreement: bool = True  # also train two models of half the features, whose agreement judges each round
    max_failures: Annotated[int, Field(ge=0)] = 3  # worker failures survived before the run gives up

    @model_validator(mode="after")
    def _fewest_are_few(self) -> "Run":
        if self.min_workers > self.workers:
            raise ValueError(f"min_workers is {self.min_workers}, more than workers, which is {self.workers}")
        return self


class Config(Section):
    """The whole configuration of a run."""

    dataset: Dataset = Dataset()
    backbone: Backbone = Backbone()
    pretransform: Pretransforms = Pretransforms()
    features: Features = Features()
    adapter: Adapter = Adapter()
    estep: EStep = EStep()
    mstep: MStep = MStep()
    loss: Loss = Loss()
    retrieval: Retrieval = Retrieval()
    run: Run = Run()

    @model_validator(mode="after")
    def _strips_fit(self) -> "Config":
        projections = [self.pretransform.query.projection, self.pretransform.reference.projection]
        strip = isinstance(self.backbone.image_size, tuple)
        if any((projection != "plane") != strip for projection in projections):
            raise ValueError(
                'projection must be "plane" in both views, or in neither, and then backbone.image_size is '
                f"[height, width]; found {projections} and image_size {self.backbone.image_size}"
            )
        if strip and (self.backbone.rings or self.backbone.crop_fraction):
            raise ValueError(
                f'rings and crop_fraction need projection "plane" in both views, found {projections}; '
                "set backbone.rings = [] and backbone.crop_fraction = 0"
            )
        return self


def load_config(path: str | Path | None, overrides: tuple[str, ...] = ()) -> Config:
    """Read a TOML file (none: the defaults) and apply `section.key=value` overrides, values in TOML syntax.

    A value that is no TOML is taken as a string, so `dataset.root=/data` needs no quotes. The section [tune]
    of a sweep is left aside: what remains is the configuration that the sweep starts from.
    Raises InputError naming the key, the value and what is allowed.
    """
    tree = read_tree(path, overrides)
    tree.pop("tune", None)
    return validated(Config, tree)


def read_tree(path: str | Path | None, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tables of a TOML file with the overrides applied, not yet validated."""
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"configuration {path} cannot be read ({error}); give a TOML file") from error
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"configuration {path} is not valid TOML: {error}") from error
    for override in overrides:
        _apply(tree, override)
    return tree


def validated(model: type[Model], tree: Any, prefix: tuple[str, ...] = ()) -> Model:
    """The model made of a tree; prefix: where the tree stands in the file, for the error's sentence."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise InputError(_explain(error, model, prefix)) from error


def _apply(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise InputError(f"--set {override!r} is not of the form section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise InputError(f"--set {override!r} goes into {key!r}, which is a value and not a section")
    tree[keys[-1]] = value


def _explain(error: ValidationError, model: type[BaseModel], prefix: tuple[str, ...]) -> str:
    """The first fault, in one sentence: key, value found, what is allowed."""
    fault = error.errors()[0]
    location = fault["loc"]
    key = ".".join(str(part) for part in (*prefix, *location))
    if fault["type"] == "extra_forbidden":
        valid = ", ".join(_keys_at(model, location[:-1]))
        return f"unknown key {key!r} in the configuration; valid keys here are: {valid}"
    found = json.dumps(fault["input"], default=str)
    where = f"configuration key {key!r}" if key else "configuration"
    if fault["type"] == "model_type":
        return f"{where} is {found}: it is a section; its keys are: {', '.join(_keys_at(model, location))}"
    if fault["type"] == "value_error":
        return f"{where}: {fault['ctx']['error']}"
    message = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{where} is {found}: {message.replace('tuple', 'list')}"  # TOML knows lists


def _keys_at(section: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        section = section.model_fields[str(part)].annotation  # type: ignore[assignment]
    return list(section.model_fields)
