"""CVACT's layout: sets by a MATLAB file, validation and test in folders of their own."""

import numpy as np
import pytest
from scipy.io import savemat
from trees import splits, touch

from cvgl_ray.catalog import layouts
from cvgl_ray.errors import InputError

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
            "utm": np.zeros((3, 2)),
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


def test_a_file_of_another_form_is_refused(root):
    for content in (b"no MATLAB file at all", b""):
        (root / "ACT_data.mat").write_bytes(content)
        with pytest.raises(InputError, match="is not CVACT's list"):
            layouts.scan("cvact", str(root), "street", "satellite")
    savemat(root / "ACT_data.mat", {"panoIds": np.array(IDS), "trainSet": {"trainInd": np.array([[4]])}})
    with pytest.raises(InputError, match="names rows that panoIds lacks"):
        layouts.scan("cvact", str(root), "street", "satellite")
