"""The layouts by name: `scan` finds a data set's images, `load_labels` its labels."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pyarrow.compute as pc

from cvgl_ray.catalog import (
    cvact,
    cvusa,
    denseuav,
    folders,
    gta_uav,
    sues200,
    uav_visloc,
    university1652,
    utm_names,
    vigor,
)  # fmt: skip
from cvgl_ray.catalog.table import Catalog, Labels, concat, repeated
from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import exists, join

# Hidden folders are never listed, so no image of a data set has an id that begins like this one.
DISTRACTORS = ".distractors"
AUTO = "auto"
UNIVERSITY = ("train", "test")  # the folders by which its layout is known


class Layout(NamedTuple):
    """How one layout is read."""

    scan: Callable[[str, str, str], Catalog]  # root, query view, reference view
    labels: Callable[[str, Catalog], Labels | None]  # root, catalog without distractors


LAYOUTS = {
    "university1652": Layout(university1652.scan, lambda root, catalog: university1652.labels(catalog)),
    "folders": Layout(folders.scan, folders.labels),
    "cvusa": Layout(cvusa.scan, cvusa.labels),
    "cvact": Layout(cvact.scan, lambda root, catalog: cvact.labels(catalog)),
    "cvact-test": Layout(partial(cvact.scan, tested="test"), cvact.labels_within),
    "vigor-same": Layout(partial(vigor.scan, same_area=True), partial(vigor.labels, same_area=True)),
    "vigor-cross": Layout(partial(vigor.scan, same_area=False), partial(vigor.labels, same_area=False)),
    "sues200": Layout(sues200.scan, lambda root, catalog: sues200.labels(catalog)),
    **{
        f"sues200-{height}": Layout(
            partial(sues200.scan, heights=(height,)), lambda root, catalog: sues200.labels(catalog)
        )
        for height in sues200.HEIGHTS
    },
    "denseuav": Layout(denseuav.scan, denseuav.labels),
    "gta-same": Layout(partial(gta_uav.scan, area="same-area"), partial(gta_uav.labels, area="same-area")),
    "gta-cross": Layout(partial(gta_uav.scan, area="cross-area"), partial(gta_uav.labels, area="cross-area")),
    "uav-visloc": Layout(uav_visloc.scan, uav_visloc.labels),
    **{
        f"uav-visloc-{flight}": Layout(partial(uav_visloc.scan, flights=(flight,)), uav_visloc.labels)
        for flight in uav_visloc.FLIGHTS
    },
    "utm": Layout(utm_names.scan, lambda root, catalog: utm_names.labels(catalog)),
    "utm-spots": Layout(utm_names.scan, lambda root, catalog: utm_names.labels_of_spots(catalog)),
}


def scan(
    layout: str,
    root: str,
    query_view: str,
    reference_view: str,
    distractors: Sequence[str] = (),
) -> Catalog:
    """The images of a data set and of its distractor folders (such as University-160k).

    Distractors are of the reference view and of split "gallery" in every layout: training never sees them.
    Their ids are ".distractors/<number of the folder>/<path within it>". Raises InputError for an unknown
    layout, for what the layout's own scan refuses, and for an image that is reached twice.
    """
    if layout == AUTO and not any(exists(join(root, part)) for part in (*UNIVERSITY, query_view)):
        raise InputError(
            f"{root!r} holds neither the folders {query_view} and {reference_view} nor train and test: "
            "give the data set's folder in dataset.root, its views in dataset.query_view and reference_view"
        )
    catalog = _layout(layout, root).scan(root, query_view, reference_view)
    extra = [
        folders.scan_images(folder, reference_view, "gallery", prefix=f"{DISTRACTORS}/{number}")
        for number, folder in enumerate(distractors)
    ]
    catalog = concat([catalog, *extra])
    twice = repeated(catalog.rows["uri"])
    if twice is not None:
        raise InputError(
            f"{twice!r} is reached twice: name each distractor folder once, and none inside the data set"
        )
    return catalog


def load_labels(layout: str, root: str, catalog: Catalog) -> Labels | None:
    """The place of each image of `scan`'s catalog, None if the data set has no labels; "" for a distractor.

    This is the single door of the label firewall: evaluation alone calls it, and nothing that extracts,
    trains, sweeps or selects. Raises InputError for an unknown layout and a faulty label file.
    """
    distractor = pc.starts_with(catalog.rows["image_id"], DISTRACTORS + "/")
    known = _layout(layout, root).labels(root, Catalog(catalog.rows.filter(pc.invert(distractor))))
    if known is None:
        return None
    places = dict(zip(known.rows["image_id"].to_pylist(), known.rows["place_id"].to_pylist(), strict=True))
    nowhere = catalog.rows.filter(distractor)["image_id"].to_pylist()
    return Labels.from_places(places | dict.fromkeys(nowhere, ""), known.relevance)


def _layout(name: str, root: str) -> Layout:
    """The layout of that name; of "auto", University-1652's where one of its folders is there."""
    if name == AUTO:
        name = "university1652" if any(exists(join(root, part)) for part in UNIVERSITY) else "folders"
    if name not in LAYOUTS:
        raise InputError(f"there is no layout {name!r}: give one of {', '.join([AUTO, *LAYOUTS])}")
    return LAYOUTS[name]
