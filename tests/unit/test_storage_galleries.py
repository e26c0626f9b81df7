"""What is kept of a searched gallery: found under its key alone, the same bit for bit, never in the way."""

import os

import torch

from cvgl_ray.storage.galleries import KEPT, Gallery, gallery_key, keep_gallery, load_gallery, rounded

SIDE = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def test_a_kept_gallery_is_the_rounded_one_bit_for_bit(tmp_path):
    gallery = Gallery([0, 2, 3, 4, 6], rounded(SIDE))
    keep_gallery(tmp_path, "k", gallery)
    found = load_gallery(tmp_path, "k")
    assert found is not None
    assert found.rows == gallery.rows
    assert torch.equal(found.side, gallery.side)
    assert torch.equal(found.side[:, -1], SIDE[:, -1])  # the hubness is not rounded
    torch.testing.assert_close(found.side, SIDE, rtol=1e-3, atol=1e-3)
    assert load_gallery(tmp_path, "another") is None


def test_the_key_tells_model_names_and_contents_apart():
    key = gallery_key(["model"], ["a", "b"], ["1", "2"])
    assert key == gallery_key(["model"], ["a", "b"], ["1", "2"])
    others = [(["other"], ["a", "b"], ["1", "2"]), (["model"], ["a", "c"], ["1", "2"])]
    others += [(["model"], ["a", "b"], ["1", "3"]), (["model"], ["b", "a"], ["2", "1"])]
    assert len({key, *(gallery_key(*other) for other in others)}) == 5


def test_a_damaged_file_is_none_and_only_the_last_ones_are_kept(tmp_path):
    for number in range(KEPT + 2):
        keep_gallery(tmp_path, str(number), Gallery([0], SIDE[:1]))
        os.utime(tmp_path / f"{number}.safetensors", (number, number))
    assert len(list(tmp_path.iterdir())) == KEPT
    path = tmp_path / f"{KEPT + 1}.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    assert load_gallery(tmp_path, str(KEPT + 1)) is None


def test_a_folder_that_cannot_be_written_keeps_none(tmp_path):
    (tmp_path / "file").write_text("")
    keep_gallery(tmp_path / "file" / "below", "k", Gallery([0], SIDE[:1]))
    assert load_gallery(tmp_path / "file" / "below", "k") is None
