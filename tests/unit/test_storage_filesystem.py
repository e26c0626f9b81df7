"""Local paths and URIs name the same files, and a file appears whole or not at all."""

import json
import os
from pathlib import Path

import pytest
from pyarrow import fs

from cvgl_ray.errors import InputError
from cvgl_ray.storage.files import replacing, standing, write_atomically, write_json
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


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"old": True})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, fail)
    assert json.loads(path.read_text()) == {"old": True}
    assert os.listdir(tmp_path) == ["file.json"]


def test_a_write_makes_its_folder_and_replaces_the_file_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "file.json"
    for tree in ({"a": [1] * 100}, {"b": None}):
        write_json(path, tree)
        assert json.loads(path.read_text()) == tree
    assert os.listdir(path.parent) == ["file.json"]


def test_a_folder_is_exchanged_whole_and_what_stood_there_is_found_after_a_kill(tmp_path):
    folder = tmp_path / "f"

    def write(content):
        with replacing(folder) as new:
            (new / "a").write_text(content)
            if content == "half":
                raise OSError("no space left")

    write("one")
    write("two")
    with pytest.raises(OSError, match="no space left"):
        write("half")
    assert (standing(folder) / "a").read_text() == "two"
    folder.rename(tmp_path / ".f.old")  # as far as a writer that was killed between its two renames
    assert (standing(folder) / "a").read_text() == "two"
    write("three")
    assert (standing(folder) / "a").read_text() == "three"
    assert os.listdir(tmp_path) == ["f"]
