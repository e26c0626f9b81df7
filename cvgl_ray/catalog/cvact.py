"""CVACT's layout (Liu and Li, CVPR 2019): panoramas and satellite tiles of Canberra.

    root/ACT_data.mat                                           which ids are of which set
    root/ANU_data_small/streetview/<id>_grdView.jpg             training and validation
    root/ANU_data_small/satview_polish/<id>_satView_polish.jpg
    root/ANU_data_test/streetview/...                           test, of the same form
    root/ANU_data_test/satview_polish/...

The data is given on request, see https://github.com/Liumouliu/OriCNN. The images of a set are named by
`trainSet.trainInd`, `valSet.valInd` and `valSetAll.valInd`: numbers from 1 of the rows of `panoIds`. Layout
"cvact" tests on the validation set (8,884 pairs), "cvact-test" on ANU_data_test (92,802).

From the code that reads it: Liumouliu/OriCNN (`input_data_ACT.py`, `input_data_ACT_test.py`) and
Skyy93/Sample4Geo (`sample4geo/dataset/cvact.py`); the counts from the notes of others who had the data
(CoR-Geo), by which one training pair of 35,532 is missing. Not verified on the data itself, which was not at
hand; no published list as CSV was found. On the validation set a panorama's tile is its one right reference.
On the test set every tile within 5 m is, as OriCNN counts: `utm` has metres east and north of each row of
`panoIds`. Its zone is not told, so nothing has latitude and longitude.
"""

import io
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from scipy.spatial import cKDTree

from cvgl_ray.catalog.folders import check_views
from cvgl_ray.catalog.listed import listed_images, read_content
from cvgl_ray.catalog.relevance import Relevance, pair_table
from cvgl_ray.catalog.table import Catalog, Labels, concat
from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import join

LIST = "ACT_data.mat"
SETS = {"train": ("trainSet", "trainInd"), "val": ("valSet", "valInd"), "test": ("valSetAll", "valInd")}
FOLDERS = {"train": "ANU_data_small", "val": "ANU_data_small", "test": "ANU_data_test"}
WITHIN_M = 5.0
PANORAMA, TILE = "streetview/{}_grdView.jpg", "satview_polish/{}_satView_polish.jpg"


def scan(root: str, query_view: str, reference_view: str, tested: str = "val") -> Catalog:
    """The panoramas as the query view and the tiles as the reference view, of training and one other set.

    tested: "val" or "test"; both sides of its pairs are asked and searched. Raises InputError for a list that
    cannot be read or lacks a set, and where none of its images is there.
    """
    check_views(query_view, reference_view)
    members = _members(root, ("train", tested))
    splits = [
        {
            f"{FOLDERS[name]}/{form.format(pano_id)}": "train" if name == "train" else "test"
            for name, pano_ids in members.items()
            for pano_id in pano_ids
        }
        for form in (PANORAMA, TILE)
    ]
    return concat(
        listed_images(root, view, wanted)
        for view, wanted in zip((query_view, reference_view), splits, strict=True)
    )


def labels(catalog: Catalog) -> Labels:
    """The place of each image: the panorama's id, from its name."""
    ends = [form.split("{}")[1] for form in (PANORAMA, TILE)]
    return Labels.from_places(
        {
            name: name.rsplit("/", 1)[-1].removesuffix(ends[0]).removesuffix(ends[1])
            for name in catalog.image_ids
        }
    )


def labels_within(root: str, catalog: Catalog) -> Labels:
    """As `labels`, and right for a test image is all of the other view within WITHIN_M, both ways.

    Raises InputError for a list without positions.
    """
    places = labels(catalog)
    names = {view: dict[str, str]() for view in ("streetview", "satview_polish")}
    tested = catalog.select(split="query").image_ids
    for name, pano_id in zip(tested, places.place_ids(tested).tolist(), strict=True):
        names[name.split("/")[-2]][pano_id] = name
    where = _positions(root)
    panoramas, tiles = ([*side.values()] for side in names.values())
    points = [np.array([where[pano_id] for pano_id in side]).reshape(-1, 2) for side in names.values()]
    near = cKDTree(points[1]).query_ball_point(points[0], WITHIN_M)
    pairs = [
        (panoramas[row], tiles[column], False)
        for row, columns in enumerate(near)
        for column in sorted(columns)
    ]
    return Labels(places.rows, Relevance(pair_table(pairs)))


def _positions(root: str) -> dict[str, tuple[float, float]]:
    """Metres east and north of each panorama id."""
    uri, values = _list(root)
    try:
        metres = np.asarray(values["utm"], np.float64).reshape(-1, 2)
        pano_ids = np.atleast_1d(values["panoIds"])
        if len(metres) != len(pano_ids) or not np.isfinite(metres).all():
            raise ValueError(f"utm has {len(metres)} positions of {len(pano_ids)} panoIds")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{uri!r} has no positions ({error}): its utm has metres east and north of each of panoIds"
        ) from error
    return {str(name).strip(): (east, north) for name, (east, north) in zip(pano_ids, metres, strict=True)}


def _list(root: str) -> tuple[str, dict[str, Any]]:
    """The list's address and its variables."""
    uri = join(root, LIST)
    content = read_content(uri, "CVACT's layout has the list of its sets there")
    try:
        return uri, loadmat(io.BytesIO(content), simplify_cells=True)
    except (MatReadError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        raise _other_form(uri, error) from error


def _other_form(uri: str, error: Exception) -> InputError:
    return InputError(
        f"{uri!r} is not CVACT's list ({error}): it has panoIds, trainSet.trainInd, valSet.valInd and "
        "valSetAll.valInd, in MATLAB's format 5"
    )


def _members(root: str, sets: tuple[str, ...]) -> dict[str, list[str]]:
    """The panorama ids of each set in the list."""
    uri, values = _list(root)
    try:
        pano_ids = np.atleast_1d(values["panoIds"])
        found = {}
        for name in sets:
            struct, field = SETS[name]
            rows = np.atleast_1d(values[struct][field]).astype(np.int64) - 1
            if len(rows) and not 0 <= rows.min() <= rows.max() < len(pano_ids):
                raise ValueError(f"{struct}.{field} names rows that panoIds lacks")
            found[name] = [str(pano_id).strip() for pano_id in pano_ids[rows]]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _other_form(uri, error) from error
    return found
