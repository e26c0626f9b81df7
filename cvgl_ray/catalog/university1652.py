"""University-1652's layout (Zheng et al., 2020), for any two of its views.

    root/train/<view>/<place>/*            split "train"
    root/test/query_<view>/<place>/*       split "query"
    root/test/gallery_<view>/<place>/*     split "gallery"

The pictures of `query_drone` are in `gallery_drone` too, among others, and so for each view: they are
separate rows with ids of their own, since a picture is a query in one direction and a candidate in the other.
"""

from collections.abc import Iterator

from cvgl_ray.catalog.folders import check_views, list_view, with_coordinates
from cvgl_ray.catalog.table import Catalog, Labels, concat
from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import exists, join


def scan(root: str, query_view: str = "drone", reference_view: str = "satellite") -> Catalog:
    """The images of both views, of root/train and root/test, whichever of the two exists.

    Of the four test folders some may be missing (a data set of one direction), of the two training folders
    none. Raises InputError if there is neither side, if a view is empty, if an image lies outside a place's
    folder, and for a faulty coordinates.csv.
    """
    check_views(query_view, reference_view)
    views = (query_view, reference_view)
    catalogs = [*_scan_train(root, views), *_scan_test(root, views)]
    if not catalogs:
        raise InputError(
            f"{root!r} has neither a train nor a test folder: give the root of University-1652's layout,"
            " train/<view>/<place>/ and test/{query,gallery}_<view>/<place>/"
        )
    catalog = concat(catalogs)
    for image_id in catalog.image_ids:
        place_of(image_id)
    return with_coordinates(catalog, root)


def labels(catalog: Catalog) -> Labels:
    """The place of each image, from its id: the folder that holds it, relative to its view's folder."""
    return Labels.from_places({image_id: place_of(image_id) for image_id in catalog.image_ids})


def place_of(image_id: str) -> str:
    """The place in an id such as train/drone/0001/image-01.jpeg; InputError if there is no place's folder."""
    folders = image_id.split("/")[:-1]
    if len(folders) < 3 or folders[0] not in ("train", "test"):
        raise InputError(
            f"the image {image_id!r} lies in no place's folder: University-1652's layout has it at"
            " train/<view>/<place>/ or test/{query,gallery}_<view>/<place>/"
        )
    return "/".join(folders[2:])


def _scan_train(root: str, views: tuple[str, str]) -> Iterator[Catalog]:
    if not exists(join(root, "train")):
        return
    for view in views:
        folder = join(root, f"train/{view}")
        if not exists(folder):
            raise InputError(f"empty view {view!r}: there is no {folder!r}, put its images there, by place")
        yield list_view(folder, view, "train", prefix=f"train/{view}")


def _scan_test(root: str, views: tuple[str, str]) -> Iterator[Catalog]:
    if not exists(join(root, "test")):
        return
    names = [(split, view, f"test/{split}_{view}") for split in ("query", "gallery") for view in views]
    present = [name for name in names if exists(join(root, name[2]))]
    if not present:
        expected = ", ".join(path for _, _, path in names)
        raise InputError(f"empty view: {join(root, 'test')!r} has none of {expected}, check the views' names")
    for split, view, path in present:
        yield list_view(join(root, path), view, split, prefix=path)
