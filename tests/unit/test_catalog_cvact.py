"""CVACT's layout: sets by a MATLAB file, validation and test in folders of their own."""

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from trees import splits, touch

from cvgl_ray.catalog import layouts
from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.protocols import directions
from cvgl_ray.evaluation.relevance import judged

IDS = ["-aaaaaaaaaaaaaaaaaaaaa", "_bbbbbbbbbbbbbbbbbbbbb", "ccccccccccccccccccccc_"]


def street(pano_id, folder="ANU_data_small"):
    return f"{folder}/streetview/{pano_id}_grdView.jpg"


def tile(pano_id, folder="ANU_data_small"):
    return f"{folder}/satview_polish/{pano_id}_satView_polish.jpg"


@pytest.fixture
def root(tmp_path):
    touch(tmp_path, *(form(pano_id) for form in (street, tile) for pano_id in IDS[:2]))
    touch(tmp_path, *(form(pano_id, "ANU_data_test") for form in (street, tile) for pano_id in IDS[1:]))
    column = np.array([[1], [2], [3]])
    savemat(
        tmp_path / "ACT_data.mat",
        {
            "panoIds": np.array(IDS),
            "utm": np.array([[0.0, 0.0], [695000.0, 6090000.0], [695003.0, 6090003.9]]),
            "trainSet": {"trainNum": 1, "trainInd": column[:1]},
            "valSet": {"valNum": 1, "valInd": column[1:2]},
            "valSetAll": {"valNum": 2, "valInd": column[1:]},
        },
    )
    return tmp_path


def test_the_validation_set(root):
    catalog = layouts.scan("cvact", str(root), "street", "satellite")
    assert splits(catalog) == {
        street(IDS[0]): "train",
        street(IDS[1]): "test",
        tile(IDS[0]): "train",
        tile(IDS[1]): "test",
    }


def test_the_test_set(root):
    catalog = layouts.scan("cvact-test", str(root), "street", "satellite")
    queries = catalog.select(view="street", split="query").image_ids
    assert queries == [street(pano_id, "ANU_data_test") for pano_id in IDS[1:]]
    gallery = catalog.select(view="satellite", split="gallery").image_ids
    assert gallery == [tile(pano_id, "ANU_data_test") for pano_id in IDS[1:]]
    labels = layouts.load_labels("cvact-test", str(root), catalog)
    assert labels.place_ids(queries).tolist() == labels.place_ids(gallery).tolist() == IDS[1:]
    assert labels.place_ids([street(IDS[0]), tile(IDS[0])]).tolist() == [IDS[0]] * 2


def test_on_the_test_set_whatever_lies_within_five_metres_is_right(root):
    """The two test places are 4.9 m apart: each panorama has two right tiles, each tile two panoramas."""
    catalog = layouts.scan("cvact-test", str(root), "street", "satellite")
    labels = layouts.load_labels("cvact-test", str(root), catalog)
    for direction in directions(catalog, "street", "satellite"):
        right = judged(direction.queries, direction.gallery, labels).right
        assert right.number.tolist() == [2, 2]
    values = loadmat(root / "ACT_data.mat", simplify_cells=True)
    values["utm"][2, 1] += 0.2  # 5.02 m
    savemat(root / "ACT_data.mat", {name: value for name, value in values.items() if name[0] != "_"})
    labels = layouts.load_labels("cvact-test", str(root), catalog)
    for direction in directions(catalog, "street", "satellite"):
        right = judged(direction.queries, direction.gallery, labels).right
        assert right.number.tolist() == [1, 1]
        assert right.rows.tolist() == [0, 1]


def test_a_test_set_without_positions_is_one_sentence(root):
    catalog = layouts.scan("cvact-test", str(root), "street", "satellite")
    values = loadmat(root / "ACT_data.mat", simplify_cells=True)
    savemat(
        root / "ACT_data.mat", {name: values[name] for name in values if name[0] != "_" and name != "utm"}
    )
    with pytest.raises(InputError, match=r"has no positions .'utm'.: its utm has metres east and north"):
        layouts.load_labels("cvact-test", str(root), catalog)


def test_a_file_of_another_form_is_refused(root):
    for content in (b"no MATLAB file at all", b""):
        (root / "ACT_data.mat").write_bytes(content)
        with pytest.raises(InputError, match="is not CVACT's list"):
            layouts.scan("cvact", str(root), "street", "satellite")
    savemat(root / "ACT_data.mat", {"panoIds": np.array(IDS), "trainSet": {"trainInd": np.array([[4]])}})
    with pytest.raises(InputError, match="names rows that panoIds lacks"):
        layouts.scan("cvact", str(root), "street", "satellite")
