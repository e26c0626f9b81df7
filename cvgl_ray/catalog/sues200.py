"""SUES-200's layout (Zhu et al., 2023): 200 places, each seen by a drone from four heights.

    root/drone_view_512/<place>/<height>/*.jpg      height: 150, 200, 250, 300 (metres); place: 0001 to 0200
    root/satellite-view/<place>/*.png

The archive of https://github.com/Reza-Zhu/SUES-200-Benchmark. Layout "sues200" takes the heights together,
"sues200-150" and so on one of them, as the benchmark reports them. 120 places train and 80 test; in both
directions the gallery is of all 200 places, those of training as distractors.

From that repository: the split (`script/indexs.yaml`, as `script/split_datasets.py` of the same time reads
it; in its older versions, and in some papers' code, the first 120 places train instead). The folders of the
archive, from several loaders of others: the script itself expects <drone folder>/<height>/<place>. Not
verified on the data itself, which was not at hand. Its folders Training and Testing, which the script makes,
are not needed and not read.
"""

from cvgl_ray.catalog.folders import check_views, list_view, with_coordinates
from cvgl_ray.catalog.table import Catalog, Labels
from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import join

DRONE, SATELLITE = "drone_view_512", "satellite-view"
HEIGHTS = ("150", "200", "250", "300")
TRAINING_PLACES = frozenset((
    1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 13, 15, 16, 20, 21, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 36, 37,
    39, 43, 44, 45, 51, 55, 56, 57, 58, 60, 64, 66, 67, 69, 70, 73, 74, 76, 77, 80, 81, 82, 84, 85, 86, 87,
    88, 89, 90, 91, 94, 96, 97, 100, 101, 102, 103, 104, 105, 106, 113, 116, 118, 119, 120, 123, 125, 126,
    127, 129, 132, 134, 137, 139, 141, 142, 145, 146, 147, 148, 149, 151, 152, 155, 156, 157, 158, 159, 160,
    163, 166, 167, 168, 169, 171, 174, 179, 180, 182, 183, 184, 185, 186, 187, 191, 192, 193, 196, 197, 198,
    199, 200,
))  # fmt: skip


def scan(root: str, query_view: str, reference_view: str, heights: tuple[str, ...] = HEIGHTS) -> Catalog:
    """The drone's images of some heights as the query view, the satellite's as the reference view.

    Raises InputError for a missing or empty folder, a height without images and a path of another form.
    """
    check_views(query_view, reference_view)
    rows = []
    for folder, view in ((DRONE, query_view), (SATELLITE, reference_view)):
        found = list_view(join(root, folder), view, "test", prefix=folder).rows.to_pylist()
        kept = [row for row in found if folder == SATELLITE or _height(row["image_id"]) in heights]
        if not kept:
            raise InputError(
                f"{root!r} has no image of the heights {', '.join(heights)}: SUES-200's layout has them at "
                f"{DRONE}/<place>/<height>/"
            )
        rows += [row | {"split": "map" if _trains(place_of(row["image_id"])) else "test"} for row in kept]
    return with_coordinates(Catalog.from_rows(rows), root)


def labels(catalog: Catalog) -> Labels:
    """The place of each image: the first folder below its view's."""
    return Labels.from_places({name: place_of(name) for name in catalog.image_ids})


def place_of(image_id: str) -> str:
    """The place in an id such as drone_view_512/0001/150/0.jpg; InputError if there is none."""
    folders = image_id.split("/")[:-1]
    if len(folders) < 2:
        raise InputError(f"the image {image_id!r} lies in no place's folder: put it into one, such as 0001")
    return folders[1]


def _trains(place: str) -> bool:
    return place.isdecimal() and int(place) in TRAINING_PLACES


def _height(image_id: str) -> str:
    folders = image_id.split("/")[:-1]
    if len(folders) != 3 or folders[2] not in HEIGHTS:
        raise InputError(
            f"the image {image_id!r} lies in no height's folder: SUES-200's layout has it at "
            f"{DRONE}/<place>/<height>/, a height being one of {', '.join(HEIGHTS)}"
        )
    return folders[2]
