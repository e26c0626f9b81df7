"""Figures in metres against figures worked out one photo at a time; a truth and what is wrong with it."""

import math
from pathlib import Path

import numpy as np
import pytest
from pyproj import Geod
from rasterio.transform import Affine
from rasters import spot_picture, write

from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.metres import SDM_SCALE_PER_M, auroc, localization_metrics, retrieval_metres, sdm
from cvgl_ray.evaluation.truth import Truth, check_on_map, read_truth, share_on_map, truth_of_photos
from cvgl_ray.maps.geomap import open_map
from cvgl_ray.maps.metadata import PhotoInfo

NAMES = [f"{letter}.jpg" for letter in "abcdefgh"]


def test_figures_of_eight_photos() -> None:
    """Off by 3, 8, 20, 60 m; one not found; one without truth; two from elsewhere, one of them accepted."""
    off = [3, 8, 20, 60, 0, 0, 0, 0]
    true = np.full(8, 47.0), np.full(8, 8.0)
    longitude, latitude, _ = Geod(ellps="WGS84").fwd(true[1], true[0], np.full(8, 77.0), off)
    truth = Truth(
        (*NAMES[:5], *NAMES[6:]),
        np.array([47.0] * 5 + [math.nan] * 2),
        np.array([8.0] * 5 + [math.nan] * 2),
    )
    found = np.array([True, True, True, True, False, True, True, False])
    confidence = np.array([0.9, 0.8, 0.7, 0.5, 0.4, 0.99, 0.75, 0.1])
    metrics = localization_metrics(
        NAMES, latitude, longitude, found, truth, confidence, np.array([5, 5, 25, 70, 0, 0, 9, 9])
    )
    assert (metrics["queries"], metrics["found"], metrics["without_truth"]) == (5, 4, 1)
    assert metrics["median_m"] == pytest.approx(20)
    assert metrics["within"] == {"5": 20, "10": 40, "25": 60, "50": 60, "100": 80}
    assert metrics["elsewhere"] == {"photos": 2, "found": 1}
    # right: .9 .8 .7; not: .5 .4 .75 .1: eleven of twelve pairs in order
    assert metrics["confidence"] == {"AUROC": pytest.approx(11 / 12), "right_m": 25.0}
    assert metrics["error_m"] == {"median": 15, "covers": 75}
    distances = [3, 8, 20, 60, math.inf]
    assert metrics["SDM@1"] == pytest.approx(20 * sum(math.exp(-SDM_SCALE_PER_M * d) for d in distances))


def test_a_photo_not_found_is_infinitely_far() -> None:
    truth = Truth(("a.jpg", "b.jpg", "c.jpg"), np.full(3, 47.0), np.full(3, 8.0))
    found = np.array([True, False, False])
    metrics = localization_metrics(truth.image_ids, truth.latitude, truth.longitude, found, truth)
    assert metrics["median_m"] is None
    assert metrics["within"]["100"] == pytest.approx(100 / 3)
    with pytest.raises(InputError, match=r"none of the 1 photos has a true position.*'x.jpg'"):
        localization_metrics(["x.jpg"], np.zeros(1), np.zeros(1), np.ones(1, bool), truth)


def test_sdm_by_its_formula() -> None:
    distances = np.array([[0.0, 10.0, 50.0], [5.0, math.inf, 0.0]])
    expected = np.mean([
        sum((3 - k) * math.exp(-0.1 * row[k]) for k in range(3)) / 6 for row in distances.tolist()
    ])  # fmt: skip
    assert sdm(distances, 0.1) == pytest.approx(100 * expected)
    assert sdm(np.zeros((4, 5))) == pytest.approx(100)


def test_auroc_is_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    for count in [*range(1, 6), *range(1, 31)]:
        scores, positive = rng.integers(0, 6, count), rng.random(count) < rng.choice([0.0, 0.5, 1.0])
        pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
        assert auroc(scores, positive) == (pytest.approx(np.mean(pairs)) if pairs else None)


def test_a_truth_is_read_and_its_faults_are_said(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("\ufeffimage_id,yaw,latitude,longitude\na.jpg,3,47.5,8.25\nb.jpg,4,,\n")
    truth = read_truth(str(path))
    assert truth.image_ids == ("a.jpg", "b.jpg")
    assert (truth.latitude[0], truth.longitude[0]) == (47.5, 8.25)
    assert np.isnan([truth.latitude[1], truth.longitude[1]]).all()
    path.write_text("num,Filename,date,Lat,Lon\n1,a.jpg,2023,47.5,8.25\n")
    assert read_truth(str(path)).latitude.tolist() == [47.5]
    for text, sentence in {
        "image_id,x,y\na,1,2\n": "has image_id,x,y: give rows under the header image_id,latitude,longitude",
        "": "no row",
        "image_id,latitude,longitude\na,1,2\na,1,2\n": "two rows for the photo 'a'",
        "image_id,latitude,longitude\na,north,2\n": r"line 2: .* are no latitude and longitude",
        "image_id,latitude,longitude\na,1\n": r"line 2: .* are no latitude and longitude",
        "image_id,latitude,longitude\na,151.2,-33.8\n": "latitude and longitude look exchanged",
        "image_id,latitude,longitude\na,nan,8\n": "there is no latitude nan",
    }.items():
        path.write_text(text)
        with pytest.raises(InputError, match=sentence):
            read_truth(str(path))
    with pytest.raises(InputError, match="cannot be read"):
        read_truth(str(tmp_path / "none.csv"))


def test_a_truth_with_exchanged_coordinates_is_found_out_by_the_map(tmp_path: Path) -> None:
    path = write(
        tmp_path / "map.tif", spot_picture(), "EPSG:32633", Affine(0.5, 0, 396_000, 0, -0.5, 5_820_000)
    )
    geomap = open_map(str(path))
    west, south, east, north = geomap.bounds.grown(-10)
    latitude, longitude = geomap.frame.to_wgs84(np.array([west, east, 9e4]), np.array([south, north, 0]))
    truth = Truth(("a", "b", "c"), latitude, longitude)
    check_on_map(truth, geomap)
    assert share_on_map(truth, geomap) == pytest.approx(2 / 3)
    check_on_map(Truth(("a",), np.array([10.0]), np.array([20.0])), geomap)  # elsewhere, either way round
    with pytest.raises(InputError, match=r"67 % of the truth's points .* exchange the two columns"):
        check_on_map(Truth(("a", "b", "c"), longitude, latitude), geomap)


def test_the_photos_own_gps_is_a_truth_of_those_that_have_it() -> None:
    infos = [PhotoInfo(latitude=1.0, longitude=2.0), PhotoInfo()]
    truth = truth_of_photos(["a", "b"], infos)
    assert (truth.image_ids, truth.latitude.tolist(), truth.longitude.tolist()) == (("a",), [1.0], [2.0])
    with pytest.raises(InputError, match="none of the 1 photos has a GPS position"):
        truth_of_photos(["b"], infos[1:])


def test_a_retrieval_in_metres():
    distances = np.array([[4.0, 0.0, 0.0], [20.0, 1.0, 1.0], [999.0, 30.0, 5.0]])
    figures = retrieval_metres(distances)
    assert figures["median_error_m"] == 20
    assert figures["Dis@1_m"] == 341
    within = {name: round(value) for name, value in figures.items() if name.startswith("L@")}
    assert within == {"L@5m": 33, "L@10m": 33, "L@25m": 67, "L@50m": 67, "L@100m": 67}
    assert figures["SDM@3"] == pytest.approx(sdm(distances))
    assert "SDM@5" not in figures  # three references of each query are known
