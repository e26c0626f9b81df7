"""VIGOR's layout: same and cross area, positives and semi-positives, coordinates from names."""

import pytest
import torch
from trees import coordinates, splits, touch

from cvgl_ray.catalog import layouts, vigor
from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.protocols import directions, evaluate_direction

LATITUDE = {"Chicago": 41.8, "NewYork": 40.7, "SanFrancisco": 37.7, "Seattle": 47.6}


def tiles(city):
    return [f"satellite_{LATITUDE[city] + n / 1000:.3f}_-87.500.png" for n in range(5)]


def panorama(city, name):
    return f"{name},{LATITUDE[city]:.6f},-87.500100,.jpg"


def line(city, name, order):
    words = [f"{tiles(city)[n]} {10.5 * n} -3.25" for n in order]
    return " ".join([panorama(city, name), *words]) + "\n"


@pytest.fixture
def root(tmp_path):
    for city in vigor.CITIES:
        touch(tmp_path / city / "panorama", panorama(city, "x-_y"), panorama(city, "z"))
        touch(tmp_path / city / "satellite", *tiles(city))
        folder = tmp_path / "splits" / city
        folder.mkdir(parents=True)
        (folder / "satellite_list.txt").write_text("".join(f"{tile}\n" for tile in tiles(city)))
        (folder / vigor.TRAIN).write_text(line(city, "x-_y", (0, 1, 2, 3)))
        (folder / vigor.TEST).write_text(line(city, "z", (1, 0, 2, 4)))
        (folder / vigor.ALL).write_text(line(city, "x-_y", (0, 1, 2, 3)) + line(city, "z", (1, 0, 2, 4)))
    return tmp_path


def scan(root, layout):
    catalog = layouts.scan(layout, str(root), "street", "satellite")
    return catalog, layouts.load_labels(layout, str(root), catalog).relevance


def test_same_area_trains_on_the_map_that_it_searches(root):
    catalog, _ = scan(root, "vigor-same")
    found = splits(catalog)
    for city in vigor.CITIES:
        assert found[f"{city}/panorama/{panorama(city, 'x-_y')}"] == "train"
        assert found[f"{city}/panorama/{panorama(city, 'z')}"] == "query"
    references = catalog.select(view="satellite").image_ids
    assert len(references) == 20
    for split in ("train", "gallery"):
        assert catalog.select(view="satellite", split=split).image_ids == references
    assert len(catalog.select(view="satellite", split="query")) == 0


def test_cross_area_trains_in_two_cities_and_tests_in_the_others(root):
    catalog, relevance = scan(root, "vigor-cross")
    cities = {
        (view, split): {name.split("/")[0] for name in catalog.select(view=view, split=split).image_ids}
        for view in ("street", "satellite")
        for split in ("train", "query", "gallery")
    }
    assert cities["street", "train"] == cities["satellite", "train"] == {"NewYork", "Seattle"}
    assert cities["street", "query"] == cities["satellite", "gallery"] == {"Chicago", "SanFrancisco"}
    assert cities["street", "gallery"] == cities["satellite", "query"] == set()
    assert relevance.pairs.num_rows == 8 * 4


def test_the_first_tile_is_right_and_three_are_semi_positives(root):
    _, relevance = scan(root, "vigor-same")
    query = f"Chicago/panorama/{panorama('Chicago', 'z')}"
    rows = [row for row in relevance.pairs.to_pylist() if row["query_id"] == query]
    near = [(tiles("Chicago")[n], n != 1) for n in (1, 0, 2, 4)]
    assert [(row["reference_id"].rsplit("/", 1)[1], row["near"]) for row in rows] == near


def test_tiles_alone_have_coordinates_and_panoramas_have_theirs_among_the_labels(root):
    catalog, relevance = scan(root, "vigor-same")
    found = coordinates(catalog)
    assert set(found) == set(catalog.select(view="satellite").image_ids)
    assert found[f"Seattle/satellite/{tiles('Seattle')[2]}"] == (47.602, -87.5)
    positions = {row["image_id"]: row for row in relevance.positions.to_pylist()}
    row = positions[f"Seattle/panorama/{panorama('Seattle', 'z')}"]
    assert (row["latitude"], row["longitude"]) == (47.6, -87.5001)


def test_distractors_join_the_gallery_and_the_pairs_stay(root, tmp_path_factory):
    more = touch(tmp_path_factory.mktemp("more"), "far.png")
    catalog = layouts.scan("vigor-cross", str(root), "street", "satellite", [more])
    assert len(catalog.select(view="satellite", split="gallery")) == 11
    labels = layouts.load_labels("vigor-cross", str(root), catalog)
    assert labels.relevance.pairs.num_rows == 8 * 4
    assert labels.place_ids([".distractors/0/far.png"]).tolist() == [""]


def test_corrected_labels_are_read_where_the_others_are_missing(root):
    (root / "splits").rename(root / "splits__corrected")
    assert len(scan(root, "vigor-same")[0]) == 28
    (root / "splits__corrected" / "Chicago" / vigor.TEST).write_text("a b\n")
    with pytest.raises(InputError, match=r"line 1 has 2 words: give a panorama and four tiles"):
        scan(root, "vigor-same")


def test_the_figures_that_the_paper_reports(root):
    catalog, _ = scan(root, "vigor-same")
    labels = layouts.load_labels("vigor-same", str(root), catalog)
    (direction,) = directions(catalog, "street", "satellite")
    gallery = torch.eye(len(direction.gallery))
    tile = {name: row for row, name in enumerate(direction.gallery.image_ids)}
    cities = [name.split("/")[0] for name in direction.queries.image_ids]
    # Two queries find their tile, one its semi-positive and then its tile, one a tile of another city.
    wanted = [[(cities[0], 1)], [(cities[1], 1)], [(cities[2], 4), (cities[2], 1)], [(cities[0], 0)]]
    query = torch.zeros(4, len(gallery))
    for row, found in enumerate(wanted):
        for rank, (city, number) in enumerate(found):
            query[row, tile[f"{city}/satellite/{tiles(city)[number]}"]] = 1 - rank / 2
    metrics = evaluate_direction(direction, query, gallery, labels)
    assert (metrics["R@1"], metrics["hit_rate"], metrics["queries"], metrics["gallery"]) == (50, 75, 4, 20)
    assert metrics["R@5"] == 75
    assert metrics["median_error_m"] < 500
