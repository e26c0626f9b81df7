"""UAV-VisLoc's layout: photos of a flight, and windows of its map that stand for reference images."""

from itertools import product

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from trees import touch

from cvgl_ray.catalog import layouts
from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.protocols import directions
from cvgl_ray.features.pixels import BrokenImageError, read_picture
from cvgl_ray.storage.known_files import KnownFiles, hash_files
from cvgl_ray.storage.windows import PixelBox, split_window, window_uri

NORTH, WEST, SOUTH, EAST = 32.009, 119.0, 32.0, 119.0106  # about 1,000 m a side
SIDE = 500  # px: 2 m each


def write_map(path, transform=None, crs=None, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (3, SIDE, SIDE), np.uint8)
    options = {"crs": crs, "transform": transform} if transform else {}
    with rasterio.open(path, "w", "GTiff", SIDE, SIDE, 3, dtype="uint8", **options) as target:
        target.write(pixels)
    return pixels


def at(across, down):
    """Latitude and longitude of a point of the map, in shares of its side."""
    return NORTH + down * (SOUTH - NORTH), WEST + across * (EAST - WEST)


@pytest.fixture
def root(tmp_path):
    touch(tmp_path / "03" / "drone", "03_0001.JPG", "03_0002.JPG", "03_0003.JPG", "unlisted.JPG")
    lines = ["num,filename,date,lat,lon,height,Omega,Kappa,Phi1,Phi2"]
    for number, (across, down) in enumerate([(0.2, 0.2), (0.45, 0.2), (3.0, 0.5)], start=1):
        latitude, longitude = at(across, down)
        lines.append(f"{number},03_{number:04d}.JPG,2018-09-01,{latitude},{longitude},540,0,0,90,90")
    (tmp_path / "03" / "03.csv").write_text("\n".join(lines))
    write_map(tmp_path / "03" / "satellite03.tif")
    corners = f"satellite03.tif,{NORTH},{WEST},{SOUTH},{EAST},Taizhou\n"
    corners = "mapname,LT_lat_map,LT_lon_map,RB_lat_map,RB_lon_map,region\n" + corners
    (tmp_path / "satellite_ coordinates_range.csv").write_text(corners)  # as some copies have it
    return tmp_path


def test_windows_of_400_m_overlap_by_half_and_cover_the_map(root):
    catalog = layouts.scan("uav-visloc", str(root), "drone", "satellite")
    boxes = [split_window(uri)[1] for uri in catalog.select(view="satellite").uris]
    starts = (0, 100, 200, 300)
    assert {(box.column, box.row) for box in boxes} == set(product(starts, starts))
    assert all(abs(box.width - 200) <= 1 and abs(box.height - 200) <= 1 for box in boxes)
    first = catalog.select(view="satellite").rows.to_pylist()[0]
    assert (first["latitude"], first["longitude"]) == pytest.approx(at(0.2, 0.2), abs=1e-5)
    assert catalog.select(view="drone").image_ids == [f"03/drone/03_{n:04d}.JPG" for n in (1, 2, 3)]
    [there, _] = directions(catalog, "drone", "satellite")
    assert (len(there.queries), len(there.gallery)) == (3, 16)  # adapted to the area, localised in it


def test_the_window_about_a_photo_is_right_and_others_that_show_it_are_near(root):
    catalog = layouts.scan("uav-visloc-03", str(root), "drone", "satellite")
    relevance = layouts.load_labels("uav-visloc-03", str(root), catalog).relevance
    pairs = relevance.pairs.to_pylist()
    right = {row["query_id"]: row["reference_id"] for row in pairs if not row["near"]}
    assert right == {
        "03/drone/03_0001.JPG": "03/satellite03/0_0",
        "03/drone/03_0002.JPG": "03/satellite03/100_0",
    }
    near = {row["reference_id"] for row in pairs if row["near"] and row["query_id"].endswith("1.JPG")}
    assert near == {"03/satellite03/100_0", "03/satellite03/0_100", "03/satellite03/100_100"}
    assert len(relevance.positions) == 3


def test_a_map_in_files_of_their_own_georeference_needs_no_corners(root):
    (root / "09" / "drone").mkdir(parents=True)
    touch(root / "09" / "drone", "09_0001.JPG")
    latitude, longitude = at(0.9, 0.1)
    (root / "09" / "09.csv").write_text(f"filename,lat,lon\n09_0001.JPG,{latitude},{longitude}\n")
    middle = (WEST + EAST) / 2
    for name, west, east in (("01-01", WEST, middle), ("01-02", middle, EAST)):
        transform = Affine((east - west) / SIDE, 0, west, 0, (SOUTH - NORTH) / SIDE, NORTH)
        write_map(root / "09" / f"satellite09_{name}.tif", transform, "EPSG:4326")
    catalog = layouts.scan("uav-visloc-09", str(root), "drone", "satellite")
    pairs = layouts.load_labels("uav-visloc-09", str(root), catalog).relevance.pairs.to_pylist()
    [right] = [row["reference_id"] for row in pairs if not row["near"]]
    assert right.startswith("09/satellite09_01-02/")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "03" / "03.csv").write_text("name\nx\n"), "line 2 is not UAV-VisLoc's"),
        (lambda root: (root / "03" / "satellite03.tif").unlink(), "flight 03 has no map that can be laid"),
        (lambda root: (root / "satellite_ coordinates_range.csv").unlink(), "range.csv' cannot be read"),
        (lambda root: (root / "03").rename(root / "3"), "none of the folders 01, 02"),
    ],
)
def test_another_form_is_refused(root, spoil, message):
    spoil(root)
    with pytest.raises(InputError, match=message):
        layouts.scan("uav-visloc", str(root), "drone", "satellite")


def test_a_window_is_read_and_known_by_its_file_and_its_pixels(tmp_path):
    path = tmp_path / "map.tif"
    pixels = write_map(path)
    uris = [window_uri(str(path), PixelBox(column, 20, 30, 40)) for column in (10, 11)]
    picture = np.asarray(read_picture(uris[0]))
    np.testing.assert_array_equal(picture, pixels[:, 20:60, 10:40].transpose(1, 2, 0))
    known = KnownFiles(tmp_path)
    assert known.digests(uris) == [None, None]
    known._asked_ns += 10**13  # as if the file had lain there for long
    known.learn([str(path)], hash_files([str(path)]))
    one, other = KnownFiles(tmp_path).digests(uris)
    assert one
    assert other
    assert one != other
    for wrong, reason in ((PixelBox(490, 0, 20, 20), "leaves the raster of 500 x 500"), (None, "no map")):
        uri = window_uri(str(path), wrong) if wrong else f"{tmp_path}/none.tif#px=0,0,1,1"
        with pytest.raises((OSError, BrokenImageError), match=reason):
            read_picture(uri)
