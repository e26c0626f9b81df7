"""Local paths and URIs name the same files, and a listing never leaves its root."""

import os
import sys

import pytest
from pyarrow import fs

from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import exists, join, list_images, read_bytes, resolve

AWKWARD = "a place/ünï #1 100%25?.JPG"


def write(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_resolve_local_paths_and_uris(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    for path, expected in [("a/../b", f"{tmp_path}/b"), ("~/c", "/home/someone/c"), ("/d e", "/d e")]:
        filesystem, inner = resolve(path)
        assert isinstance(filesystem, fs.LocalFileSystem)
        assert inner == expected
    assert resolve("file:///a%20b/c#d")[1] == "/a b/c#d"
    # Anonymous, so that opening the bucket asks no network.
    filesystem, inner = resolve("gs://anonymous@bucket/folder/a%20b.jpg")
    assert isinstance(filesystem, fs.GcsFileSystem)
    assert inner == "bucket/folder/a b.jpg"
    assert resolve("gs://anonymous@bucket/other")[0] is filesystem


def test_resolve_refuses_what_pyarrow_does_not_open():
    with pytest.raises(InputError, match="'ftp://host/a' cannot be opened"):
        resolve("ftp://host/a")
    with pytest.raises(InputError, match="is no URI"):
        resolve("s3://[bucket/a")


def test_join_encodes_uris_and_keeps_local_names():
    assert join("/root/", "a b/c#.jpg") == "/root/a b/c#.jpg"
    assert join("/", "a") == "/a"
    assert join("s3://bucket", "a b/c#.jpg") == "s3://bucket/a%20b/c%23.jpg"
    assert join("s3://bucket/x y/?region=eu-1", "é") == "s3://bucket/x%20y/%C3%A9?region=eu-1"
    assert join("hdfs:///data", "a") == "hdfs:///data/a"
    for outside in ("../a", "a/../../b", "/etc"):
        with pytest.raises(InputError, match="leads out of"):
            join("/root", outside)


@pytest.mark.parametrize("as_uri", [False, True])
def test_list_and_read(tmp_path, as_uri):
    for name in ("b/2.jpeg", "b/10.PNG", AWKWARD, "z.jpg"):
        write(tmp_path / name, name.encode())
    for name in ("notes.txt", "jpg", ".hidden.jpg", "b/.thumbs/1.jpg", "c/coordinates.csv"):
        write(tmp_path / name)
    root = tmp_path.as_uri() if as_uri else str(tmp_path)
    images = list_images(root)
    assert [name for name, _ in images] == [AWKWARD, "b/10.PNG", "b/2.jpeg", "z.jpg"]
    for name, uri in images:
        assert read_bytes(uri).decode() == name
        assert exists(uri)
        assert uri.startswith("file:///" if as_uri else "/")
    assert list_images(root + "/") == images
    assert not exists(join(root, "nothing"))


def test_a_hidden_parent_hides_nothing(tmp_path):
    write(tmp_path / ".cache" / "a.jpg")
    assert [name for name, _ in list_images(str(tmp_path / ".cache"))] == ["a.jpg"]


def test_links_within_the_root_are_followed_and_loops_refused(tmp_path):
    root = tmp_path / "root"
    write(root / "place" / "a.jpg")
    (root / "other").symlink_to("place")
    (root / "b.jpg").symlink_to(root / "place" / "a.jpg")
    (root / "broken.jpg").symlink_to("nothing.jpg")
    (tmp_path / "link").symlink_to(root)
    names = ["b.jpg", "other/a.jpg", "place/a.jpg"]
    assert [name for name, _ in list_images(str(tmp_path / "link"))] == names
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
    assert list_images("s3://b/root") == [("in/a.jpg", "s3://b/root/in/a.jpg")]


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


def test_an_unreachable_store_is_bad_input(monkeypatch):
    class Store:
        def get_file_info(self, _):
            raise OSError("access denied\nsecond line")

    monkeypatch.setattr("cvgl_ray.storage.filesystem._filesystem", lambda *_: (Store(), "b"))
    with pytest.raises(InputError, match=r"cannot be reached \(access denied\)"):
        exists("s3://b/a")
