"""Which files of a folder are images; a listing never leaves its root and says what it leaves out."""

import logging
import os
import sys

import pytest
from pyarrow import fs

from cvgl_ray.catalog import folders, images
from cvgl_ray.catalog.images import list_images
from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import exists, join, read_bytes

AWKWARD = "a place/ünï #1 100%25?.JPG"


def write(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("heif", [False, True])
def test_what_pillow_reads_is_listed_and_the_rest_is_named(tmp_path, monkeypatch, caplog, heif):
    monkeypatch.setattr(images, "find_spec", lambda _: heif or None)
    images.formats.cache_clear()
    images._suffixes.cache_clear()
    for number, suffix in enumerate(
        ("jpg", "JPEG", "png", "tif", "TIFF", "webp", "bmp", "mpo", "jp2", "avif")
    ):
        write(tmp_path / f"{number}.{suffix}")
    for name in ("a.heic", "b.HEIC", "notes.txt", "noext", ".DS_Store", "._1.jpg", "coordinates.csv"):
        write(tmp_path / name)
    with caplog.at_level(logging.WARNING):
        found = folders.list_view(str(tmp_path), "drone", "train", "")
    images.formats.cache_clear()
    images._suffixes.cache_clear()
    assert len(found) == 10 + 2 * heif
    [line] = caplog.messages
    expected = "1 .txt, 1 without suffix" if heif else "2 .heic, 1 .txt, 1 without suffix"
    assert line.startswith(f"view 'drone': {len(found)} images in {tmp_path}; left out: ")
    assert set(line.partition("left out: ")[2].split(" (")[0].split(", ")) == set(expected.split(", "))
    assert ("pillow-heif" in line) is not heif


@pytest.mark.parametrize("as_uri", [False, True])
def test_list_and_read(tmp_path, as_uri):
    for name in ("b/2.jpeg", "b/10.PNG", AWKWARD, "z.jpg"):
        write(tmp_path / name, name.encode())
    for name in ("notes.txt", "jpg", ".hidden.jpg", "b/.thumbs/1.jpg", "c/coordinates.csv"):
        write(tmp_path / name)
    root = tmp_path.as_uri() if as_uri else str(tmp_path)
    found = list_images(root).images
    assert [name for name, _ in found] == [AWKWARD, "b/10.PNG", "b/2.jpeg", "z.jpg"]
    for name, uri in found:
        assert read_bytes(uri).decode() == name
        assert exists(uri)
        assert uri.startswith("file:///" if as_uri else "/")
    assert list_images(root + "/").images == found
    assert not exists(join(root, "nothing"))


def test_a_hidden_parent_hides_nothing(tmp_path):
    write(tmp_path / ".cache" / "a.jpg")
    assert [name for name, _ in list_images(str(tmp_path / ".cache")).images] == ["a.jpg"]


def test_links_within_the_root_are_followed_and_loops_refused(tmp_path):
    root = tmp_path / "root"
    write(root / "place" / "a.jpg")
    (root / "other").symlink_to("place")
    (root / "b.jpg").symlink_to(root / "place" / "a.jpg")
    (root / "broken.jpg").symlink_to("nothing.jpg")
    (tmp_path / "link").symlink_to(root)
    names = ["b.jpg", "other/a.jpg", "place/a.jpg"]
    assert [name for name, _ in list_images(str(tmp_path / "link")).images] == names
    (root / "place" / "loop").symlink_to(root)
    (root / "place" / "another").symlink_to(root)
    with pytest.raises(InputError, match="links to a folder that it lies in"):
        list_images(str(root))


@pytest.mark.parametrize("name", ["x.jpg", "place/x.jpg", "place/folder"])
@pytest.mark.parametrize("target", ["absolute", "relative"])
def test_a_link_out_of_the_root_is_refused(tmp_path, name, target):
    write(tmp_path / "root" / "place" / "a.jpg")
    write(tmp_path / "rooted" / "secret.jpg")  # its path begins as the root's does
    secret = tmp_path / "rooted" / ("" if name == "place/folder" else "secret.jpg")
    link = tmp_path / "root" / name
    link.symlink_to(os.path.relpath(secret, link.parent) if target == "relative" else secret)
    with pytest.raises(InputError, match=r"links to '.*rooted.*', out of the folder that is read"):
        list_images(str(tmp_path / "root"))


def test_a_key_with_two_dots_never_leaves_the_root(monkeypatch):
    class Store:
        def get_file_info(self, asked):
            if isinstance(asked, fs.FileSelector):
                keys = ("b/root/../secret.jpg", "b/root/in/../../x.jpg", "b/root/in/a.jpg")
                return [fs.FileInfo(key, fs.FileType.File) for key in keys]
            return fs.FileInfo(asked, fs.FileType.Directory)

    monkeypatch.setattr("cvgl_ray.storage.filesystem._filesystem", lambda *_: (Store(), "b"))
    assert list_images("s3://b/root").images == [("in/a.jpg", "s3://b/root/in/a.jpg")]


def test_missing_and_unreadable_roots(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        list_images(str(tmp_path / "missing"))
    write(tmp_path / "file.jpg")
    with pytest.raises(InputError, match="there is no folder"):
        list_images(str(tmp_path / "file.jpg"))
    with pytest.raises(OSError, match=r"nothing\.jpg"):
        read_bytes(str(tmp_path / "nothing.jpg"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not store such a name")
def test_a_name_that_is_not_utf8(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff.jpg", "wb"):
        pass
    with pytest.raises(InputError, match="file names UTF-8"):
        list_images(str(tmp_path))
