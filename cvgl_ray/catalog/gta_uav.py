"""GTA-UAV's layout (Ji et al., 2024): drone images of a game's world, and tiles of its map of four zooms.

    root/<area>-drone2sate-train.json, root/<area>-drone2sate-test.json     area: same-area, cross-area
    root/drone/images/*.png
    root/satellite/<zoom>_<x>_<y>.png

The data lies at https://huggingface.co/datasets/Yux1ang/GTA-UAV-LR. A list has an entry per drone image: its
folder and name, its tiles (`pair_pos_sate_img_list`, by the overlap of their grounds) and those with its
semi-positives (`pair_pos_semipos_sate_img_list`), which the hit rate passes over. All tiles are searched.
"gta-same" trains on all of them too, "gta-cross" on those that the training list names: nothing else says
which tiles lie in its area. Positions are metres of the game and no degrees: they are not read.

From https://github.com/Yux1angJi/GTA-UAV: folders and an entry (README), protocol (`eval_gta.py`,
`game4loc/dataset/gta.py`); queries without a tile of their own are left out, as there. Not verified on the
data itself, which was not at hand.
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

from cvgl_ray.catalog.folders import check_views, list_view
from cvgl_ray.catalog.listed import listed_images, read_content
from cvgl_ray.catalog.relevance import Relevance, pair_table
from cvgl_ray.catalog.table import Catalog, Labels, concat
from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import join

SATELLITE = "satellite"
SPLITS = {"train": "train", "test": "query"}  # list -> split of its drone images


class Entry(NamedTuple):
    """A drone image, its right tiles, and these with its semi-positives: image ids."""

    drone: str
    right: list[str]
    all: list[str]


def scan(root: str, query_view: str, reference_view: str, area: str) -> Catalog:
    """The drone's images as the query view, all tiles as the reference view.

    area: "same-area" or "cross-area". Raises InputError for a list that cannot be read or has another form,
    and where no listed image or no tile is there.
    """
    check_views(query_view, reference_view)
    entries = {name: list(_entries(root, area, name)) for name in SPLITS}
    drone = {entry.drone: SPLITS[name] for name, listed in entries.items() for entry in listed}
    tiles = list_view(join(root, SATELLITE), reference_view, "map", prefix=SATELLITE)
    if area == "cross-area":
        trained = {tile for entry in entries["train"] for tile in entry.all}
        rows = tiles.rows.to_pylist()
        tiles = Catalog.from_rows(
            row | {"split": "map" if row["image_id"] in trained else "gallery"} for row in rows
        )
    return concat([listed_images(root, query_view, drone), tiles])


def labels(root: str, catalog: Catalog, area: str) -> Labels:
    """Each drone image's right tiles and semi-positives."""
    known = set(catalog.image_ids)
    pairs = (
        (entry.drone, tile, tile not in entry.right)
        for name in SPLITS
        for entry in _entries(root, area, name)
        for tile in dict.fromkeys([*entry.right, *entry.all])
        if entry.drone in known and tile in known
    )
    return Labels.from_places({}, Relevance(pair_table(pairs)))


def _entries(root: str, area: str, name: str) -> Iterator[Entry]:
    uri = join(root, f"{area}-drone2sate-{name}.json")
    content = read_content(uri, "GTA-UAV's layout has its lists of pairs there")
    try:
        for entry in json.loads(content):
            right, every = (
                [f"{entry['sate_img_dir']}/{tile}" for tile in entry[f"pair_{kind}_sate_img_list"]]
                for kind in ("pos", "pos_semipos")
            )
            yield Entry(f"{entry['drone_img_dir']}/{entry['drone_img_name']}", right, every)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{uri!r} is not GTA-UAV's list ({error!r}): it is a JSON array whose entries have "
            "drone_img_dir, drone_img_name, sate_img_dir and the lists of tiles"
        ) from error
