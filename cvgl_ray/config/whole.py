"""The whole configuration of a run, and the defaults that strips have instead of pictures'."""

from typing import Any

from pydantic import model_validator

from cvgl_ray.config.alignment import Alignment
from cvgl_ray.config.backbone import Backbone, Pretransforms
from cvgl_ray.config.data import Dataset, Features
from cvgl_ray.config.learning import Adapter, EStep, Learning, Loss, MStep
from cvgl_ray.config.localization import Cells, Prior
from cvgl_ray.config.run import Retrieval, Run
from cvgl_ray.config.section import Section

# Defaults where a projection is "panorama" or "polar". 224 and 896 px are whole patches of 14 and of 16 px,
# in about the aspect of CVUSA's and CVACT's panoramas. A strip has no centre for rings, no unknown footprint
# for crops, and where north is known nothing has to be turned. 56 sectors are its cells of 16 px.
STRIP_DEFAULTS: dict[str, Any] = {
    "backbone": {"image_size": [224, 896], "rings": []},
    "pretransform": {
        "query": {"orientations": 1, "crops": [1.0]},
        "reference": {"orientations": 1, "crops": [1.0]},
    },
    "alignment": {"headings": 56, "widths": [1.0]},
}


NARROWEST_DEG = 10  # of a strip: the rest of its circle is filled by repeating it
FEWEST_SECTORS = 4  # that a query's strip is compared by; one that it holds in part is none


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
    alignment: Alignment = Alignment()
    retrieval: Retrieval = Retrieval()
    cells: Cells = Cells()
    prior: Prior = Prior()
    run: Run = Run()

    @property
    def learning(self) -> Learning:
        """The part that a training's rounds take."""
        run = self.run
        return Learning(
            self.adapter,
            self.estep,
            self.mstep,
            self.loss,
            seed=run.seed,
            gpu=run.gpu,
            agreement=run.agreement,
        )

    @property
    def strips(self) -> bool:
        """Whether both views' images are strips: panoramas, and tiles unrolled like them."""
        return isinstance(self.backbone.image_size, tuple)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_strips(cls, tree: Any) -> Any:
        return _with_defaults(tree, STRIP_DEFAULTS) if _names_a_strip(tree) else tree

    @model_validator(mode="after")
    def _strips_fit(self) -> "Config":
        projections = [self.pretransform.query.projection, self.pretransform.reference.projection]
        strip = self.strips
        if any((projection != "plane") != strip for projection in projections):
            raise ValueError(
                'projection must be "plane" in both views, or in neither, and then backbone.image_size is '
                f"[height, width]; found {projections} and image_size {self.backbone.image_size}"
            )
        if strip and (self.backbone.rings or self.backbone.crop_fraction not in (0.0, 1.0)):
            raise ValueError(
                f'rings and crop_fraction need projection "plane" in both views, found {projections}; '
                "set backbone.rings = [] and backbone.crop_fraction = 1"
            )
        if strip and len(self.alignment.widths) > 1:
            raise ValueError(
                f"strips have one width, alignment.widths = [1.0], found {self.alignment.widths}"
            )
        if strip:
            self._sectors_fit()
        return self

    def _sectors_fit(self) -> None:
        """Raise ValueError where a strip is too narrow, or so are its sectors, to be compared."""
        views = {"query": self.pretransform.query, "reference": self.pretransform.reference}
        seen = {f"pretransform.{name}.field_of_view": view.field_of_view for name, view in views.items()}
        for key, degrees in seen.items():
            if degrees < NARROWEST_DEG:
                raise ValueError(f"{key} is {degrees:g} degrees of a strip: give {NARROWEST_DEG} to 360")
        if self.alignment.use == "no":
            return
        headings = self.alignment.headings
        if headings < 3:
            raise ValueError(f"alignment.headings is {headings}, and strips need 3 sectors or more to align")
        (key, degrees), (other, whole) = seen.items()
        if degrees < FEWEST_SECTORS * 360 / headings:
            raise ValueError(
                f"{key} is {degrees:g} degrees, fewer than {FEWEST_SECTORS} of the alignment.headings = "
                f'{headings} sectors of the circle: give more headings, or set alignment.use = "no"'
            )
        if whole < 360:
            raise ValueError(
                f"{other} is {whole:g} degrees, and strips are aligned with references of the whole circle: "
                'leave it out, or set alignment.use = "no"'
            )


def _names_a_strip(tree: Any) -> bool:
    """Whether a tree that is not validated yet asks for a projection other than "plane"."""
    views = tree.get("pretransform") if isinstance(tree, dict) else None
    found = list(views.values()) if isinstance(views, dict) else []
    return any(isinstance(view, dict) and view.get("projection", "plane") != "plane" for view in found)


def _with_defaults(tree: Any, defaults: dict[str, Any]) -> Any:
    """The tree with the defaults wherever it says nothing."""
    if not isinstance(tree, dict):
        return tree
    filled = dict(tree)
    for key, value in defaults.items():
        inner = _with_defaults(tree.get(key, {}), value) if isinstance(value, dict) else value
        filled[key] = inner if isinstance(value, dict) else tree.get(key, value)
    return filled
