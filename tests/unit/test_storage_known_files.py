"""Files are read once: afterwards size and times tell that they are the same."""

import os
import time
from pathlib import Path

import pytest

from cvgl_ray.storage import known_files
from cvgl_ray.storage.files import file_digest
from cvgl_ray.storage.known_files import INDEX, KnownFiles, hash_files
from cvgl_ray.storage.tree import stat_all


@pytest.fixture(params=[False, True], ids=["paths", "uris"])
def files(request, tmp_path: Path, monkeypatch) -> list[str]:
    monkeypatch.setattr(known_files, "SETTLED_NS", 0)  # the test's files are new
    found = []
    for name in ("a b.jpg", "c.jpg"):
        path = tmp_path / "images" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
        found.append(path.as_uri() if request.param else str(path))
    return found


def on_disk(address: str, tmp_path: Path) -> Path:
    return tmp_path / "images" / Path(address.replace("%20", " ")).name


def learned(folder: Path, files: list[str]) -> KnownFiles:
    known = KnownFiles(folder)
    assert known.digests(files) == [None] * len(files)
    known.learn(files, hash_files(files))
    return KnownFiles(folder)


def test_a_file_that_was_read_is_known_until_it_changes(files, tmp_path):
    expected = [file_digest(b"a b.jpg"), file_digest(b"c.jpg")]
    known = learned(tmp_path, files)
    assert known.digests(files) == expected
    assert known.digests([files[1], "/nowhere.jpg"]) == [expected[1], None]
    assert set(os.listdir(tmp_path)) == {"images", INDEX}


def test_other_bytes_of_the_same_size_and_time_are_noticed(files, tmp_path):
    """As a copy that keeps the time, or an editor that puts it back: the status still changes."""
    known = learned(tmp_path, files)
    path = on_disk(files[1], tmp_path)
    status = path.stat()
    path.write_bytes(b"d.jpg")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert known.digests(files) == [file_digest(b"a b.jpg"), None]
    known.learn([files[1]], hash_files([files[1]]))
    assert KnownFiles(tmp_path).digests(files) == [file_digest(b"a b.jpg"), file_digest(b"d.jpg")]


def test_a_file_that_has_just_changed_is_not_trusted_yet(files, tmp_path, monkeypatch):
    monkeypatch.setattr(known_files, "SETTLED_NS", 60 * 10**9)
    known = learned(tmp_path, files)
    assert known.digests(files) == [None, None]


def test_a_file_that_cannot_be_read_says_why_and_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(known_files, "SETTLED_NS", 0)
    missing = str(tmp_path / "missing.jpg")
    [digest] = hash_files([missing])
    assert digest.startswith("!the file cannot be read")
    known = KnownFiles(tmp_path)
    known.digests([missing])
    known.learn([missing], [digest])
    assert KnownFiles(tmp_path).digests([missing]) == [None]


def test_a_damaged_index_costs_time_and_no_more(files, tmp_path, caplog):
    learned(tmp_path, files)
    content = bytearray((tmp_path / INDEX).read_bytes())
    for damaged in (b"", b"hello", content[:-9], content[:50] + bytes([content[50] ^ 8]) + content[51:]):
        (tmp_path / INDEX).write_bytes(damaged)
        found = KnownFiles(tmp_path).digests(files)
        assert found in ([None, None], [file_digest(b"a b.jpg"), file_digest(b"c.jpg")])


def test_a_thousand_known_files_take_a_fraction_of_a_second(tmp_path, monkeypatch):
    monkeypatch.setattr(known_files, "SETTLED_NS", 0)
    names = [str(tmp_path / f"{number}.jpg") for number in range(1_000)]
    for name in names:
        open(name, "w").close()
    known = KnownFiles(tmp_path)
    known.digests(names)
    known.learn(names, [f"{number}" for number in range(1_000)])
    began = time.process_time()
    assert KnownFiles(tmp_path).digests(names)[999] == "999"
    assert time.process_time() - began < 0.2


def test_many_files_of_a_store_are_asked_for_by_one_listing(monkeypatch):
    from pyarrow import fs

    asked: list[str] = []

    class Store:
        def get_file_info(self, what):
            assert isinstance(what, fs.FileSelector)
            asked.append(what.base_dir)
            return [fs.FileInfo(f"b/r/{n}.jpg", fs.FileType.File, size=n, mtime_ns=n) for n in range(98)]

    store = Store()
    monkeypatch.setattr("cvgl_ray.storage.filesystem._filesystem", lambda *_: (store, "b"))
    found = stat_all([f"s3://b/r/{number}.jpg" for number in range(100)])
    assert asked == ["b/r"]
    assert [file and file.size for file in found] == [*range(98), None, None]
