"""CVUSA's layout: the subset of Zhai et al. (CVPR 2017) of Workman et al.'s panoramas and tiles (ICCV 2015).

    root/splits/train-19zl.csv      lines: bingmap/19/0000001.jpg,streetview/panos/0000001.jpg,...
    root/splits/val-19zl.csv        likewise
    root/bingmap/19/*.jpg           satellite tiles of zoom 19
    root/streetview/panos/*.jpg     panoramas

The data is given on request at https://mvrl.cse.wustl.edu/datasets/cvusa. The lists have no header; their
columns are tile, panorama and (not read here) the panorama's segmentation. Their paths may be others than
above: they are taken as they stand. Both sides of val-19zl.csv are asked and searched.

From the code that reads it: Skyy93/Sample4Geo (`sample4geo/dataset/cvusa.py`) for the lists and their
columns; the folders' names and the counts (35,532 pairs train, 8,884 test) from the notes of others who had
the data (CoR-Geo). Not verified on the data itself, which was not at hand. Coordinates (`split_locations/`)
are not read.
"""

from posixpath import basename, splitext

from cvgl_ray.catalog.folders import check_views
from cvgl_ray.catalog.listed import listed_images, read_lines
from cvgl_ray.catalog.table import Catalog, Labels, concat
from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import join

LISTS = {"train": "splits/train-19zl.csv", "test": "splits/val-19zl.csv"}


def scan(root: str, query_view: str, reference_view: str) -> Catalog:
    """The panoramas as the query view and the tiles as the reference view, of both lists.

    Raises InputError for a list that cannot be read or has another form, and where none of its images is
    there.
    """
    check_views(query_view, reference_view)
    tiles: dict[str, str] = {}
    panoramas: dict[str, str] = {}
    for split in LISTS:
        for tile, panorama in _pairs(root, split):
            tiles[tile] = panoramas[panorama] = split
    return concat([listed_images(root, query_view, panoramas), listed_images(root, reference_view, tiles)])


def labels(root: str, catalog: Catalog) -> Labels:
    """The place of each image: the name of its line's tile, without its suffix."""
    places = {}
    for split in LISTS:
        for tile, panorama in _pairs(root, split):
            places[tile] = places[panorama] = splitext(basename(tile))[0]
    return Labels.from_places({name: places[name] for name in catalog.image_ids})


def _pairs(root: str, split: str) -> list[tuple[str, str]]:
    """(tile, panorama) of each line of a list."""
    uri = join(root, LISTS[split])
    lines = read_lines(uri, "CVUSA's layout has its lists of pairs in splits/ and their images beside it")
    pairs = []
    for number, line in enumerate(lines, start=1):
        names = [name.strip() for name in line.split(",")]
        if len(names) < 2 or not all(names[:2]):
            raise InputError(f"{uri!r}, line {number} is {line!r}: give a tile's path, a comma, a panorama's")
        pairs.append((names[0], names[1]))
    return pairs
