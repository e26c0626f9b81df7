"""A run folder under a URI: what is brought there and fetched again, and that one run writes at a time."""

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cvgl_ray.errors import InputError
from cvgl_ray.storage import mirror, run_folder

HOLDER = """
import sys
from cvgl_ray.storage.mirror import mirrored
with mirrored(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(mirror, "SEND_EVERY_S", 0.05)
    monkeypatch.setattr(mirror, "LEASE_PATIENCE_S", 1.0)


@pytest.fixture
def uri(tmp_path):
    return f"file://{tmp_path}/store/a run"


def write(folder: Path, **files: str) -> None:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def during(uri: str, act: Callable[[mirror.Mirror], None]) -> None:
    with mirror.mirrored(uri) as held:
        act(held)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_lies_under_the_uri_and_is_there_for_the_next_run(uri, tmp_path):
    store = tmp_path / "store/a run"
    with run_folder.opened(uri) as folder:
        assert folder.address == uri
        write(folder.path, run="1", bundle__adapter="2", features__drone__part="3", bundle__hidden="4")
        (folder.path / "bundle/hidden").rename(folder.path / "bundle/.hidden")
        (folder.path / ".complete").touch()
        write(store, train__checkpoint="5")  # Ray Train's, at the store itself
    expected = {"run", "bundle/adapter", ".complete"}
    assert names(store) == expected | {"features/drone/part", "train/checkpoint"}
    assert not folder.path.exists()
    with run_folder.opened(uri) as folder:
        assert names(folder.path) - {".lock"} == expected  # what is large comes when it is asked for
        folder.fetch("features")
        assert (folder.path / "features/drone/part").read_text() == "3"
        folder.fetch("train")
        assert (folder.path / "train/checkpoint").read_text() == "5"
        (folder.path / "train/checkpoint").rename(folder.path / "train/kept")
        folder.prune("train")
    assert names(store) == expected | {"features/drone/part"}  # gone, and `kept` is not for us to bring


def test_only_what_changed_is_brought_there_and_while_the_run_goes_on(uri, tmp_path):
    store = tmp_path / "store/a run"
    with mirror.mirrored(uri) as held:
        write(held.folder, old="1", new="1")
        held.beat()
        before = (store / "old").stat().st_mtime_ns
        write(held.folder, new="22")
        while (
            store / "new"
        ).read_text() != "22":  # the thread's work; the test's time limit ends a vain wait
            pass
    assert (store / "old").stat().st_mtime_ns == before


def test_what_a_failed_run_left_is_brought_there_and_its_message_names_the_uri(uri, tmp_path):
    def fail(held: mirror.Mirror) -> None:
        write(held.folder, run="1")
        raise InputError(f"{held.folder / 'run'} is no good")

    with pytest.raises(InputError, match=f"^{uri}/run is no good$"):
        during(uri, fail)
    assert names(tmp_path / "store/a run") == {"run"}


def test_a_second_run_is_refused_until_the_first_has_ended(uri, tmp_path, caplog):
    caplog.set_level(logging.INFO, "cvgl_ray")
    with mirror.mirrored(uri):
        with pytest.raises(InputError, match=r"another run is writing to file://.*; wait for it"):
            mirror.mirrored(uri).__enter__()
        assert "waiting to see" in caplog.text
    caplog.clear()
    with mirror.mirrored(uri):
        assert caplog.text == ""  # the first said that it had ended


def test_a_run_that_was_killed_leaves_the_uri_to_the_next(uri):
    command = [sys.executable, "-c", HOLDER, uri]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
        finally:
            holder.kill()
    with mirror.mirrored(uri) as held:
        write(held.folder, run="1")


def test_a_run_that_loses_the_uri_to_another_stops_writing_there(uri, tmp_path):
    def lose(held: mirror.Mirror) -> None:
        (tmp_path / "store/a run/.lease").write_text("another 1")
        write(held.folder, run="1")
        time.sleep(60)

    with pytest.raises(InputError, match=r"another run has begun to write to .*; what this one") as error:
        during(uri, lose)
    assert names(tmp_path / "store/a run") == {".lease"}
    assert (Path(str(error.value).split()[-1]) / "run").read_text() == "1"


def test_a_uri_that_cannot_be_written_is_refused_or_says_where_the_files_are(uri, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match=r"output file://.*/file/run cannot be used \(.*\); check the address"
    ):
        mirror.mirrored(f"file://{tmp_path}/file/run").__enter__()

    def break_store(held: mirror.Mirror) -> None:
        (tmp_path / "store").rename(tmp_path / "gone")
        (tmp_path / "store").write_text("")
        write(held.folder, run="1")

    with pytest.raises(InputError, match=r"lacks the last files of this run \(.*\); copy them from") as error:
        during(uri, break_store)
    assert (Path(str(error.value).split()[-1]) / "run").read_text() == "1"
