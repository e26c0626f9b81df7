"""Local paths and URIs name the same files."""

import pytest
from pyarrow import fs

from cvgl_ray.errors import InputError
from cvgl_ray.storage.filesystem import exists, join, resolve


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


def test_an_unreachable_store_is_bad_input(monkeypatch):
    class Store:
        def get_file_info(self, _):
            raise OSError("access denied\nsecond line")

    monkeypatch.setattr("cvgl_ray.storage.filesystem._filesystem", lambda *_: (Store(), "b"))
    with pytest.raises(InputError, match=r"cannot be reached \(access denied\)"):
        exists("s3://b/a")
