"""DenseUAV's layout (Dai et al., 2024): University-1652's folders, with coordinates of the places.

    root/train/{drone,satellite}/<place>/*                          H80.JPG; H80.tif, H80_old.tif; H90, H100
    root/test/{query,gallery}_{drone,satellite}/<place>/*
    root/Dense_GPS_ALL.txt, or _train and _test     lines: train/satellite/<place>/H80.tif E120.38 N30.32 94.6

The data lies at https://huggingface.co/datasets/Dmmm997/DenseUAV. The test folders' galleries hold the places
of training too, as distractors. A place has one position: that of its satellite images, and the true one of
its drone images, as the benchmark has it.

From https://github.com/Dmmm1997/DenseUAV: folders (README), test folders (`test.py`), coordinates
(`evaluateDistance.py`: the place is the last folder of a line's path, longitude comes before latitude; the
README has the two exchanged). The example of a line is another's who had the data. Not verified on the data
itself, which was not at hand.
"""

from cvgl_ray.catalog import university1652
from cvgl_ray.catalog.listed import read_lines
from cvgl_ray.catalog.relevance import Relevance, position_table
from cvgl_ray.catalog.table import Catalog, Labels
from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import exists, join

LISTS = (("Dense_GPS_ALL.txt",), ("Dense_GPS_train.txt", "Dense_GPS_test.txt"))
SIGNS = {"E": 1, "W": -1, "N": 1, "S": -1}


def scan(root: str, query_view: str = "drone", reference_view: str = "satellite") -> Catalog:
    """As University-1652's; the satellite images, whichever view they are, have their place's coordinates.

    Raises InputError as `university1652.scan`, and for a list of coordinates of another form.
    """
    catalog, positions = university1652.scan(root, query_view, reference_view), _positions(root)
    places = {name: university1652.place_of(name) for name in catalog.image_ids if _is_map(name)}
    return catalog.located({name: positions[place] for name, place in places.items() if place in positions})


def labels(root: str, catalog: Catalog) -> Labels:
    """The place of each image, and where the drone's images were taken."""
    positions, places = _positions(root), university1652.labels(catalog)
    rows = zip(*(places.rows[name].to_pylist() for name in places.rows.schema.names), strict=True)
    taken = position_table(
        (name, *positions[place]) for name, place in rows if place in positions and not _is_map(name)
    )
    return Labels(places.rows, Relevance(positions=taken))


def _is_map(image_id: str) -> bool:
    return image_id.split("/")[1].endswith("satellite")


def _positions(root: str) -> dict[str, tuple[float, float]]:
    """Latitude and longitude of each place; none without a list."""
    names = next((names for names in LISTS if exists(join(root, names[0]))), ())
    positions = {}
    for name in names:
        uri = join(root, name)
        for number, line in enumerate(read_lines(uri, "DenseUAV's layout has coordinates there"), start=1):
            words = line.replace("\\", "/").split()
            try:
                longitude, latitude = (SIGNS[word[0]] * float(word[1:]) for word in words[1:3])
                positions[words[0].split("/")[-2]] = latitude, longitude
            except (ValueError, KeyError, IndexError) as error:
                raise InputError(
                    f"{uri!r}, line {number} is {line!r}: give a path <place>/<image>, E and the "
                    "longitude, N and the latitude"
                ) from error
    return positions
