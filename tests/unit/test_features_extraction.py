"""Images to features without Ray: the Python API, batches, what is rejected, copies that are warned of."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from backbones import ONCE, backbone, model, photo

from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import load_config
from cvgl_ray.errors import InputError
from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.batches import VectorWork, decode_batch, missing_batches, run_here
from cvgl_ray.features.collecting import collect
from cvgl_ray.features.extraction import extract, load_tables, rejected_images, warn_of_copies
from cvgl_ray.features.pretransform import Pretransform
from cvgl_ray.features.store import FeatureStore
from cvgl_ray.features.weights import build_model

SMALL = load_config(
    None,
    ("backbone.name=test_vit", "backbone.pretrained=false", "backbone.layers=['final']", "backbone.rings=[]"),
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.png", "sub/c.png")):
        photo(seed=seed).save(folder / name)
    return folder


def catalog_of(folder: Path, names: list[str]) -> Catalog:
    return Catalog.from_rows(
        {"image_id": name, "uri": str(folder / name), "view": "drone", "split": "train"} for name in names
    )


def test_a_folder_and_a_list_of_files_give_the_same_features(images):
    ids, features = extract(images, config=SMALL, batch_size=2)
    assert ids == ["a.png", "b.png", "sub/c.png"]
    assert (features.shape, features.dtype) == ((3, 64), np.float32)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-3)
    names, again = extract([images / "sub/c.png", str(images / "a.png")], config=SMALL)
    assert names == [str(images / "sub/c.png"), str(images / "a.png")]
    np.testing.assert_allclose(again, features[[2, 0]], atol=2e-3)


def test_the_views_pretransform_is_applied_and_names_replace_the_configuration(images, tmp_path):
    config = load_config(None, ("pretransform.query.crops=[1.0]", "pretransform.reference.crops=[0.5]"))
    found = {
        view: extract(images, "test_resnet", pretrained=False, view=view, config=config)[1]
        for view in ("query", "reference")
    }
    assert np.abs(found["query"] - found["reference"]).max() > 1e-3
    torch.save(model("test_resnet").state_dict(), tmp_path / "w.pth")
    _, loaded = extract(images, "test_resnet", checkpoint=str(tmp_path / "w.pth"), config=config)
    np.testing.assert_allclose(loaded, found["query"], atol=1e-3)


def test_what_cannot_be_used_is_one_sentence_or_left_out(images, caplog):
    (images / "broken.jpg").write_bytes(b"hello")
    with caplog.at_level(logging.WARNING):
        ids, features = extract(images, config=SMALL)
    assert (len(ids), len(features)) == (3, 3)
    assert "1 of 4 images cannot be read (first: broken.jpg: the file is no image" in caplog.messages[0]
    for arguments, message in [
        (([str(images / "broken.jpg")],), "1 of 1 images cannot be read .*; give images that can"),
        ((images / "nowhere",), "there is no folder"),
        (([],), "0 images were given"),
        (([images / "a.png"] * 2,), "2 images were given, 1 of them different; give each"),
        ((images, "test_vitt"), "not a timm model"),
        ((images, "", "drone"), 'view is .drone.; give "query" or "reference"'),
    ]:
        where, *more = arguments
        options = {"backbone": more[0]} if more else {}
        options |= {"view": more[1]} if len(more) > 1 else {}
        with pytest.raises(InputError, match=message):
            extract(where, config=SMALL, pretrained=False, **options)


def test_batches_follow_the_digests_alone_and_leave_out_what_is_there(images, tmp_path):
    store = FeatureStore(tmp_path, "drone", {})
    store.open()
    catalog = catalog_of(images, ["b.png", "a.png", "sub/c.png"])
    batches = missing_batches(catalog, ["2", "1", "3"], {"drone": store}, 2)
    assert [batch["digests"] for batch in batches] == [["1", "2"], ["3"]]
    assert batches[0]["image_ids"] == ("a.png", "b.png")
    store.append(["1"], ["a.png"], np.zeros((1, 2)))
    assert [batch["digests"] for batch in missing_batches(catalog, ["2", "1", "3"], {"drone": store}, 2)] == [
        ["2"],
        ["3"],
    ]
    assert missing_batches(catalog, ["!gone", "1", "1"], {"drone": store}, 2) == []


def test_a_broken_image_is_named_and_the_others_are_kept(images, tmp_path):
    (images / "broken.png").write_bytes(b"\x89PNG")
    store, names = FeatureStore(tmp_path, "drone", {}), ["a.png", "broken.png", "sub/c.png"]
    store.open()
    catalog, made = catalog_of(images, [*names, "gone.png"]), backbone()
    digests = ["1", "2", "3", "!the file cannot be read"]
    batches = missing_batches(catalog, digests, {"drone": store}, 2)
    reasons = {"!the file cannot be read": ""}
    reasons |= collect(run_here(batches, VectorWork(made, {"drone": ONCE.variants})), {"drone": store}, 3)
    assert set(reasons) == {"2", "!the file cannot be read"}
    rejected = rejected_images(catalog, digests, reasons, tmp_path / "rejected.parquet", 0.5)
    assert [image["image_id"] for image in rejected] == ["broken.png", "gone.png"]
    assert rejected[1]["reason"] == "the file cannot be read"
    table = load_tables(catalog, digests, {"drone": store})["drone"]
    assert table.image_ids == ["a.png", "sub/c.png"]
    alone = made.embed(made.preparing.prepare(photo(seed=2), ONCE)[None], ONCE)
    np.testing.assert_allclose(table.rows(["sub/c.png"])[0], alone[0], atol=1e-3)
    with pytest.raises(InputError, match=r"2 of 4 images are broken .*max_rejected = 0\.1; mend or remove"):
        rejected_images(catalog, digests, reasons, tmp_path / "rejected.parquet", 0.1)


def test_threads_change_no_bit(images):
    """In this process several, in an actor one: features must not tell where they were made."""
    made = FrozenBackbone(build_model("test_efficientnet", pretrained=False), layers=(-2, "final"))
    view = Pretransform(orientations=4, crops=(1.0, 0.7))
    files = [str(images / name) for name in ("a.png", "b.png", "sub/c.png")]
    batch = {"view": "drone", "digests": files, "uris": files, "image_ids": files}
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found += [
                row["features"] for row in run_here([batch], VectorWork(made, {"drone": view.variants}))
            ]
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)


def test_a_decoder_needs_no_weights(images):
    import pickle

    preparing = pickle.loads(pickle.dumps(backbone().preparing))
    assert len(pickle.dumps(preparing)) < 20_000
    batch = {"view": "drone", "digests": ["1"], "uris": [str(images / "a.png")], "image_ids": ["a.png"]}
    decoded = decode_batch(batch, preparing, {"drone": ONCE.variants})
    assert decoded["pixels"].shape == (1, 1, 3, 160, 160)


def test_copies_within_a_view_and_split_are_warned_of(images, caplog):
    catalog = catalog_of(images, [f"{number}.png" for number in range(5)])
    with caplog.at_level(logging.WARNING):
        warn_of_copies(catalog, ["1", "2", "3", "4", "!x"])
        assert not caplog.messages
        warn_of_copies(catalog, ["1", "1", "1", "4", "!x"])
    assert (
        "view 'drone': 3 of the 4 images of split 'train' are the same file as another one"
        in caplog.messages[0]
    )
