"""VIGOR's layout (Zhu, Yang and Chen, CVPR 2021): panoramas anywhere on a dense grid of satellite tiles.

    root/<city>/panorama/<id>,<latitude>,<longitude>,.jpg
    root/<city>/satellite/satellite_<latitude>_<longitude>.png
    root/splits/<city>/satellite_list.txt               a tile's name per line
    root/splits/<city>/same_area_balanced_train.txt     <panorama> and four times <tile> <pixels> <pixels>
    root/splits/<city>/same_area_balanced_test.txt      likewise
    root/splits/<city>/pano_label_balanced.txt          likewise, all panoramas of the city

Cities: Chicago, NewYork, SanFrancisco, Seattle. Same area ("vigor-same"): all four train and test, and the
map of all four is trained on and searched. Cross area ("vigor-cross"): New York and Seattle train, the others
test. The first tile of a line is the right one; the three others are semi-positives, which the hit rate
passes over. `splits__corrected` (tudelft-iv/SliceMatch) is read where `splits` is missing.

The data is given on request, see https://github.com/Jeff-Zilence/VIGOR. From that repository: folders and
names (`data/DATASET.md`), lists and protocol (`dataloader.py`), hit rate (`train_SAFA.py`). Not verified on
the data itself, which was not at hand.
"""

from collections.abc import Iterator
from typing import NamedTuple

from cvgl_ray.catalog.folders import check_views
from cvgl_ray.catalog.listed import listed_images, read_lines
from cvgl_ray.catalog.relevance import Relevance, pair_table, position_table
from cvgl_ray.catalog.table import Catalog, Labels, concat
from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import exists, join

CITIES = ("Chicago", "NewYork", "SanFrancisco", "Seattle")
TRAINING_CITIES = ("NewYork", "Seattle")  # of the cross-area protocol
TRAIN, TEST, ALL = "same_area_balanced_train.txt", "same_area_balanced_test.txt", "pano_label_balanced.txt"


class Line(NamedTuple):
    """A panorama, its right tile and its three semi-positives, as image ids."""

    panorama: str
    tiles: list[str]


def scan(root: str, query_view: str, reference_view: str, same_area: bool) -> Catalog:
    """The panoramas as the query view and the tiles, with their coordinates, as the reference view.

    Raises InputError for a list that cannot be read or has another form, and where no listed image is there.
    """
    check_views(query_view, reference_view)
    panoramas = {
        line.panorama: split
        for _, split, name, city in _lists(same_area)
        for line in _lines(root, city, name)
    }
    tiles = {
        f"{city}/satellite/{tile}": split
        for split, _, _, city in _lists(same_area)
        for tile in read_lines(_list(root, city, "satellite_list.txt"), _EXPECTED)
    }
    references = listed_images(root, reference_view, tiles)
    where = {tile: _tile_coordinates(tile) for tile in references.image_ids}
    return concat([listed_images(root, query_view, panoramas), references.located(where)])


def labels(root: str, catalog: Catalog, same_area: bool) -> Labels:
    """Each panorama's right tile and semi-positives, and where it was taken."""
    known = set(catalog.image_ids)
    lines = [
        line
        for _, _, name, city in _lists(same_area)
        for line in _lines(root, city, name)
        if line.panorama in known
    ]
    pairs = (
        (line.panorama, tile, number > 0)
        for line in lines
        for number, tile in enumerate(line.tiles)
        if tile in known
    )
    positions = ((line.panorama, *_panorama_coordinates(line.panorama)) for line in lines)
    return Labels.from_places({}, Relevance(pair_table(pairs), position_table(positions)))


def _lists(same_area: bool) -> Iterator[tuple[str, str, str, str]]:
    """(split of a city's tiles, split of a list's panoramas, the list, city) of a protocol."""
    for city in CITIES:
        if same_area:
            yield "map", "train", TRAIN, city
            yield "map", "query", TEST, city
        elif city in TRAINING_CITIES:
            yield "train", "train", ALL, city
        else:
            yield "gallery", "query", ALL, city


_EXPECTED = "VIGOR's layout has splits/<city>/ with satellite_list.txt and the lists of panoramas"


def _list(root: str, city: str, name: str) -> str:
    folder = next((f for f in ("splits", "splits__corrected") if exists(join(root, f))), "splits")
    return join(root, f"{folder}/{city}/{name}")


def _lines(root: str, city: str, name: str) -> Iterator[Line]:
    uri = _list(root, city, name)
    for number, line in enumerate(read_lines(uri, _EXPECTED), start=1):
        words = line.split()
        if len(words) != 13:
            raise InputError(
                f"{uri!r}, line {number} has {len(words)} words: give a panorama and four tiles, each with "
                "two offsets in pixels"
            )
        yield Line(f"{city}/panorama/{words[0]}", [f"{city}/satellite/{tile}" for tile in words[1::3]])


def _tile_coordinates(tile: str) -> tuple[float, float]:
    """Of a name such as satellite_41.885_-87.671.png."""
    words = tile.rsplit("/", 1)[-1].rsplit(".", 1)[0].split("_")
    return _degrees(words[1:3], tile, "satellite_<latitude>_<longitude>.png")


def _panorama_coordinates(panorama: str) -> tuple[float, float]:
    """Of a name such as 2AJ82KxYyUg0pT6dGdO7PQ,41.885,-87.624,.jpg."""
    return _degrees(panorama.rsplit(",", 3)[1:3], panorama, "<id>,<latitude>,<longitude>,.jpg")


def _degrees(words: list[str], name: str, form: str) -> tuple[float, float]:
    try:
        latitude, longitude = (float(word) for word in words)
    except ValueError as error:
        raise InputError(f"{name!r} holds no coordinates: VIGOR names it {form}") from error
    return latitude, longitude
